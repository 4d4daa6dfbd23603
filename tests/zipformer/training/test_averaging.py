import json
import logging
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kill_points import kill_points
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from training_runs import WithTokens

from zipformer.run_averaging import main as write_averaged_model
from zipformer.training.averaging import AverageConfig, RunningAverage, mean_between, plain_mean
from zipformer.training.checkpoint import CheckpointError, save_checkpoint

PERIOD = 10


class Walker(nn.Module):
    """A model whose weights walk at random."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 3))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.generator = torch.Generator().manual_seed(0)

    @torch.no_grad()
    def step(self) -> None:
        self.weight += 1 + torch.randn(4, 3, generator=self.generator)
        self.calls += 1  # type: ignore[operator]

    def save_pretrained(self, directory: str | Path) -> None:
        save_file(self.state_dict(), Path(directory) / "model.safetensors")
        (Path(directory) / "config.json").write_text('{"sizes": 3}')


def walk(num_samples: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Weights at every sample, and the running averages up to it."""
    model, average = Walker(), RunningAverage()
    weights, averages = [], []
    for _ in range(num_samples):
        model.step()
        average.update(model.state_dict())
        weights.append(model.weight.detach().double().clone())
        averages.append({name: tensor.clone() for name, tensor in average.tensors.items()})
    return weights, averages


def test_running_average_is_the_mean_in_float64() -> None:
    weights, averages = walk(50)
    assert averages[-1].keys() == {"weight"}
    assert averages[-1]["weight"].dtype == torch.float64
    for n in (1, 2, 7, 50):
        torch.testing.assert_close(
            averages[n - 1]["weight"], torch.stack(weights[:n]).mean(0), rtol=1e-12, atol=1e-12
        )


def test_running_average_does_not_follow_the_model() -> None:
    model, average = Walker(), RunningAverage()
    average.update(model.state_dict())
    model.step()
    assert torch.all(average.tensors["weight"] == 0)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 39), st.integers(1, 20))
def test_mean_between_is_the_brute_force_mean(start: int, length: int) -> None:
    end = start + length
    weights, averages = walk(end)
    mean = mean_between(averages[end - 1], end, averages[start - 1] if start else None, start)
    torch.testing.assert_close(
        mean["weight"], torch.stack(weights[start:end]).mean(0), rtol=1e-10, atol=1e-10
    )


def test_mean_between_needs_samples_and_equal_names() -> None:
    one = {"a": torch.zeros(2)}
    with pytest.raises(ValueError, match="no sample"):
        mean_between(one, 3, one, 3)
    with pytest.raises(ValueError, match="different tensors: a, b"):
        mean_between(one, 3, {"b": torch.zeros(2)}, 1)


def test_plain_mean() -> None:
    models = [
        {"a": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)},
        {"a": torch.tensor([3.0, 5.0]), "n": torch.tensor(4)},
    ]
    mean = plain_mean(models)
    assert mean.keys() == {"a"}
    assert mean["a"].tolist() == [2.0, 3.5]


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, list[Tensor]]:
    """A run of 100 steps with checkpoints every 20 and an average sample every 10; weights by sample."""
    exp_dir = tmp_path / "exp"
    exp_dir.mkdir()
    for name in ("tokens.model", "tokens.txt"):
        (exp_dir / name).write_text(name)
    model, average = Walker(), RunningAverage()
    samples = []
    for step in range(PERIOD, 110, PERIOD):
        model.step()
        average.update(model.state_dict())
        samples.append(model.weight.detach().double().clone())
        if step % 20 == 0:
            save_checkpoint(
                exp_dir / "checkpoints",
                model=WithTokens(model, exp_dir),
                average=average.tensors,
                training={},
                record={
                    "step": step,
                    "average_samples": average.samples,
                    "environment": {"git_revision": "abc"},
                    "trained_hours": {"nan": 2.0, "yue": 0.5},
                    "known_dialects": [],
                    "config": {"seed": 42},
                },
            )
    return exp_dir, samples


def averaged(exp_dir: Path, **settings: object) -> Tensor:
    directory = write_averaged_model(AverageConfig(exp_dir=str(exp_dir), **settings))  # type: ignore[arg-type]
    return load_file(directory / "model.safetensors")["weight"]


@pytest.mark.parametrize(
    ("settings", "first", "last"),
    [
        (
            {"last_fraction": 0.5},
            4,
            10,
        ),  # half of 100 steps: checkpoints at 40 and 60 are equally near, the earlier one wins
        ({"last_fraction": 0.35}, 6, 10),
        ({"last_fraction": 1.0}, 0, 10),
        ({"last_fraction": 0.01}, 8, 10),
        ({"last_fraction": 0.95}, 0, 10),  # the beginning is nearer to step 5 than the checkpoint at 20
        ({"start_step": 20, "end_step": 60}, 2, 6),
        ({"start_step": 0, "end_step": 40}, 0, 4),
    ],
)
def test_running_averages(
    run: tuple[Path, list[Tensor]], settings: dict[str, object], first: int, last: int
) -> None:
    exp_dir, samples = run
    expected = torch.stack(samples[first:last]).mean(0).float()
    torch.testing.assert_close(averaged(exp_dir, **settings), expected)


def test_average_of_checkpoints(run: tuple[Path, list[Tensor]]) -> None:
    exp_dir, samples = run
    expected = torch.stack([samples[i] for i in (5, 7, 9)]).mean(0).float()  # steps 60, 80, 100
    torch.testing.assert_close(averaged(exp_dir, method="checkpoints", num_checkpoints=3), expected)


def test_the_model_directory_is_complete(run: tuple[Path, list[Tensor]]) -> None:
    exp_dir, _ = run
    directory = write_averaged_model(AverageConfig(exp_dir=str(exp_dir), start_step=20))
    assert directory == exp_dir / "averaged"
    assert {
        path.name: path.read_text() for path in directory.iterdir() if path.suffix != ".safetensors"
    }.keys() == {
        "config.json",
        "tokens.model",
        "tokens.txt",
        "provenance.json",
    }
    assert (directory / "tokens.model").read_text() == "tokens.model"
    provenance = json.loads((directory / "provenance.json").read_text())
    assert provenance["method"] == "running"
    assert provenance["trained_dialects"] == ["nan", "yue"]
    assert provenance["steps"] == [20, 100]
    assert provenance["training"]["environment"]["git_revision"] == "abc"
    assert provenance["training"]["config"] == {"seed": 42}
    weights = load_file(directory / "model.safetensors")
    assert weights["weight"].dtype == torch.float32
    assert weights["calls"] == 10


@pytest.mark.parametrize("name", ["average.safetensors", "config.json", "tokens.model", "model.safetensors"])
def test_a_damaged_end_is_named_and_the_one_before_taken(
    run: tuple[Path, list[Tensor]], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    exp_dir, samples = run
    path = exp_dir / "checkpoints" / "step-00000100" / name
    path.unlink()
    with pytest.raises(CheckpointError, match=f"{path} is missing"):
        averaged(exp_dir, end_step=100, start_step=0)
    assert not (exp_dir / "averaged").exists()
    torch.testing.assert_close(averaged(exp_dir, start_step=0), torch.stack(samples[:8]).mean(0).float())
    assert f"{path} is missing" in caplog.text


@pytest.mark.parametrize("name", ["average.safetensors", "checkpoint.json"])
def test_a_damaged_start_is_named_and_another_taken(
    run: tuple[Path, list[Tensor]], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    exp_dir, samples = run
    path = exp_dir / "checkpoints" / "step-00000060" / name
    path.write_bytes(path.read_bytes()[:-20])
    with caplog.at_level(logging.WARNING):
        mean = averaged(exp_dir, last_fraction=0.4)
    torch.testing.assert_close(mean, torch.stack(samples[4:]).mean(0).float())  # 40 is as near as 80
    assert str(path) in caplog.text
    with pytest.raises(CheckpointError, match=str(path) if name != "checkpoint.json" else "choose 0 or one"):
        averaged(exp_dir, start_step=60)


def test_a_folder_without_a_record_does_not_stop_averaging(run: tuple[Path, list[Tensor]]) -> None:
    exp_dir, samples = run
    (exp_dir / "checkpoints" / "step-00000050").mkdir()  # a kill while it was being removed
    (exp_dir / "checkpoints" / "step-00000040.bak").mkdir()
    torch.testing.assert_close(averaged(exp_dir, start_step=0), torch.stack(samples).mean(0).float())


def test_a_damaged_checkpoint_is_not_one_of_the_last(run: tuple[Path, list[Tensor]]) -> None:
    exp_dir, samples = run
    (exp_dir / "checkpoints" / "step-00000080" / "model.safetensors").write_bytes(b"")
    expected = torch.stack([samples[i] for i in (5, 9)]).mean(0).float()  # steps 60 and 100
    torch.testing.assert_close(averaged(exp_dir, method="checkpoints", num_checkpoints=2), expected)


def test_a_kill_at_any_file_operation_mixes_no_two_models(run: tuple[Path, list[Tensor]]) -> None:
    exp_dir, _ = run
    names = {"config.json", "model.safetensors", "tokens.model", "tokens.txt", "provenance.json", "results"}
    for point in kill_points():
        directory = exp_dir / "models" / str(point.number) / "averaged"
        config = AverageConfig(exp_dir=str(exp_dir), model_dir=str(directory))
        config.start_step, config.end_step = 0, 40
        write_averaged_model(config)
        (directory / "results").mkdir()
        (directory / "results" / "cer.json").write_text("{}")
        old = (directory / "model.safetensors").read_bytes()
        config.start_step, config.end_step = 60, 100
        with point:
            write_averaged_model(config)
        steps = json.loads((directory / "provenance.json").read_text())["steps"]
        assert steps in ([0, 40], [60, 100])
        assert ((directory / "model.safetensors").read_bytes() == old) == (steps == [0, 40])
        assert {path.name for path in directory.iterdir()} == names
        assert (directory / "results" / "cer.json").read_text() == "{}"
        write_averaged_model(config)
        assert [path.name for path in directory.parent.iterdir()] == ["averaged"]
    assert point.number > 10


def test_impossible_requests_say_what_there_is(run: tuple[Path, list[Tensor]], tmp_path: Path) -> None:
    exp_dir, _ = run
    with pytest.raises(CheckpointError, match="whole ones at 20, 40, 60, 80, 100"):
        averaged(exp_dir, end_step=50)
    with pytest.raises(CheckpointError, match="choose 0 or one of 20, 40, 60, 80"):
        averaged(exp_dir, start_step=50)
    with pytest.raises(CheckpointError, match="train first"):
        averaged(tmp_path / "nothing")
    with pytest.raises(ValueError, match="method=best"):
        AverageConfig(exp_dir="exp", method="best")
    with pytest.raises(ValueError, match="last_fraction=0"):
        AverageConfig(exp_dir="exp", last_fraction=0.0)
