"""The trainer with a task that it has never heard of."""

from pathlib import Path
from typing import Any

import pytest
import torch
from processes import in_processes
from tiny_corpus import write_tiny_corpus
from toy_task import Toy, ToyConfig
from training_runs import ALONE, newest, records

from zipformer.data.selection import DataConfig
from zipformer.distributed import World
from zipformer.training.averaging import AverageConfig, write_averaged_model
from zipformer.training.checkpoint import CheckpointError
from zipformer.training.trainer import Trainer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_corpus(tmp_path_factory.mktemp("corpus"))


def config_for(corpus: Path, exp_dir: Path, **settings: Any) -> ToyConfig:
    data = DataConfig(max_duration=8.0, max_utterance_seconds=5.0, num_workers=0)
    common = {"log_interval": 1, "average_period": 2, "save_interval": 1000, "ref_duration": 8.0}
    return ToyConfig(exp_dir=str(exp_dir), data_dir=str(corpus), data=data, **{**common, **settings})


def train(corpus: Path, exp_dir: Path, max_steps: int, world: World = ALONE) -> None:
    Trainer(config_for(corpus, exp_dir, max_steps=max_steps), world, Toy).run()


def test_a_task_trains_and_resumes_bit_by_bit(corpus: Path, tmp_path: Path) -> None:
    train(corpus, tmp_path / "straight", 40)
    for steps in (15, 40):
        torch.rand(7)  # a new process is in another random state
        train(corpus, tmp_path / "broken", steps)
    straight, broken = newest(tmp_path / "straight"), newest(tmp_path / "broken")
    assert set(straight.weights()) == {"output.weight", "output.bias"}
    for name, tensor in straight.weights().items():
        assert torch.equal(tensor, broken.weights()[name])
    own = straight.training_state()["task"]
    assert own.keys() == {"scale", "steps"}
    assert int(own["steps"]) == 40
    assert torch.equal(own["scale"], broken.training_state()["task"]["scale"])
    lines = records(tmp_path / "straight", "train")
    assert lines[-1]["level"] < 0.95 * lines[0]["level"]
    for line in lines:
        assert line["scale"] != 2.0  # the monitor
        assert line["size"] == pytest.approx(line["scale"] ** 2 / 2, rel=0.2)
    losses = [(line["loss"], line["level"], line["size"]) for line in lines]
    assert losses == [(x["loss"], x["level"], x["size"]) for x in records(tmp_path / "broken", "train")]


def _train(rank: int, corpus: Path, root: Path) -> None:
    world = World.join("cpu")
    for name, stops in {"straight": [5], "broken": [3, 5]}.items():
        for steps in stops:
            trainer = Trainer(config_for(corpus, root / name, max_steps=steps), world, Toy)
            trainer.run()
        torch.save(trainer.task.state_dict(), root / f"{name}-{rank}.pt")
    world.leave()


def test_two_processes_train_one_task_and_resume_bit_by_bit(corpus: Path, tmp_path: Path) -> None:
    in_processes(_train, corpus, tmp_path)
    first, *others = (
        torch.load(tmp_path / f"{name}-{n}.pt") for name in ("straight", "broken") for n in (0, 1)
    )
    assert int(first["steps"]) == 5
    assert not torch.equal(first["scale"], torch.ones(2, 1))  # it has trained
    for other in others:
        assert first.keys() == other.keys()
        for name, tensor in first.items():
            assert torch.equal(tensor, other[name])


def test_a_task_without_a_score_has_its_window_given(corpus: Path, tmp_path: Path) -> None:
    train(corpus, tmp_path, 6)
    config = AverageConfig(exp_dir=str(tmp_path))
    with pytest.raises(CheckpointError, match=r"task=toy, which has no score .* last_fraction"):
        write_averaged_model(config, Toy.window_scorer)
    config.last_fraction = 1.0
    assert (write_averaged_model(config, Toy.window_scorer) / "model.safetensors").is_file()
