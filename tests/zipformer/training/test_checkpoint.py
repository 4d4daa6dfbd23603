import json
import logging
import random
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from kill_points import kill_points
from safetensors.torch import save_file
from torch import Tensor, nn

from zipformer import files
from zipformer.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    list_checkpoints,
    newest_whole_checkpoint,
    open_whole,
    random_state,
    restore_random_state,
    save_checkpoint,
    thin_checkpoints,
)


class SmallModel(nn.Linear):
    def __init__(self) -> None:
        super().__init__(3, 2)

    def save_pretrained(self, directory: str | Path) -> None:
        save_file(self.state_dict(), Path(directory) / "model.safetensors")
        (Path(directory) / "config.json").write_text("{}")


def save(root: Path, step: int, model: SmallModel | None = None) -> Checkpoint:
    average = {"weight": torch.full((2, 3), float(step), dtype=torch.float64)}
    record = {"step": step, "average_samples": step // 10}
    return save_checkpoint(
        root, model=model or SmallModel(), average=average, training={"numbers": [step, 2.5]}, record=record
    )


def steps(root: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in list_checkpoints(root)]


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    model = SmallModel()
    save(tmp_path, 10)
    save(tmp_path, 20, model)
    newest = newest_whole_checkpoint(tmp_path)
    assert newest is not None
    assert newest.step == 20
    assert newest.directory == tmp_path / "step-00000020"
    assert torch.equal(newest.weights()["weight"], model.weight)
    assert newest.average()["weight"].dtype == torch.float64
    assert newest.training_state() == {"numbers": [20, 2.5]}
    assert set(newest.record["files"]) == {
        "average.safetensors",
        "config.json",
        "model.safetensors",
        "training.pt",
    }


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert newest_whole_checkpoint(tmp_path / "checkpoints") is None


@pytest.mark.parametrize("exchange", [True, False])
def test_a_kill_at_any_file_operation_leaves_whole_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda left, right: False)

    def save_and_thin(root: Path) -> None:
        save(root, 30)  # for the second time
        thin_checkpoints(root, keep_last=1, keep_averages=1)

    for point in kill_points():
        root = tmp_path / str(point.number)
        for step in (10, 20, 30):
            save(root, step)
        with point:
            save_and_thin(root)
        newest = newest_whole_checkpoint(root)
        assert newest is not None
        assert newest.step == 30 or (newest.step == 20 and not exchange)
        assert [checkpoint.directory for checkpoint in open_whole(root)] == list_checkpoints(root)
        for checkpoint in open_whole(root):
            checkpoint.verify()
        save_and_thin(root)  # the remains are not in the way
        assert steps(root) in ([10, 30], [20, 30])
        assert len(list(root.iterdir())) == 2
    assert point.number > 20


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("model.safetensors", truncate, "bytes where"),
        ("training.pt", flip, "not what was written"),
        ("average.safetensors", Path.unlink, "is missing"),
        ("checkpoint.json", truncate, "cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: object, message: str
) -> None:
    for step in (10, 20):
        save(tmp_path, step)
    if name == "checkpoint.json":
        (tmp_path / "step-00000020" / name).write_text('{"step": 20')
    else:
        damage(tmp_path / "step-00000020" / name)  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        newest = newest_whole_checkpoint(tmp_path)
    assert newest is not None
    assert newest.step == 10
    assert str(tmp_path / "step-00000020" / name) in caplog.text
    assert message in caplog.text


def test_only_damaged_checkpoints_are_an_error(tmp_path: Path) -> None:
    save(tmp_path, 10)
    flip(tmp_path / "step-00000010" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not what was written"):
        newest_whole_checkpoint(tmp_path)


def test_thinning_keeps_whole_ones_and_spread_averages(tmp_path: Path) -> None:
    for step in range(10, 410, 10):
        save(tmp_path, step)
        thin_checkpoints(tmp_path, keep_last=2, keep_averages=6)
        kept = [Checkpoint.open(path) for path in list_checkpoints(tmp_path)]
        whole = [checkpoint.step for checkpoint in kept if checkpoint.resumable]
        averages = [checkpoint.step for checkpoint in kept if not checkpoint.resumable]
        assert whole == [s for s in (step - 10, step) if s > 0]
        assert len(averages) <= 6
        gaps = np.diff([0, *averages, whole[0]])
        assert gaps.max() <= max(10, 3 * step / 6)
    for checkpoint in kept:
        if not checkpoint.resumable:
            assert sorted(path.name for path in checkpoint.directory.iterdir()) == [
                "average.safetensors",
                "checkpoint.json",
            ]
            checkpoint.verify()
            assert checkpoint.average()["weight"][0, 0] == checkpoint.step
    newest = newest_whole_checkpoint(tmp_path)
    assert newest is not None
    assert newest.step == 400


def test_keeping_no_averages(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step)
    thin_checkpoints(tmp_path, keep_last=1, keep_averages=0)
    assert steps(tmp_path) == [30]


def test_a_stripped_checkpoint_is_not_resumed_from(tmp_path: Path) -> None:
    save(tmp_path, 10)
    save(tmp_path, 20)
    thin_checkpoints(tmp_path, keep_last=1, keep_averages=5)
    shutil.rmtree(tmp_path / "step-00000020")
    assert newest_whole_checkpoint(tmp_path) is None


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, 10)
    model = SmallModel()
    checkpoint = save(tmp_path, 10, model)
    checkpoint.verify()
    assert torch.equal(checkpoint.weights()["weight"], model.weight)
    record = json.loads((checkpoint.directory / "checkpoint.json").read_text())
    assert record == checkpoint.record


def draws() -> tuple[float, float, Tensor]:
    return random.random(), float(np.random.rand()), torch.rand(3)  # noqa: NPY002


def test_random_state_survives_a_file(tmp_path: Path) -> None:
    np.random.randn()  # noqa: NPY002  (leaves a cached second number)
    torch.save(random_state(), tmp_path / "state.pt")
    normal = np.random.randn()  # noqa: NPY002
    expected = draws()
    draws()
    restore_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert np.random.randn() == normal  # noqa: NPY002
    again = draws()
    assert again[:2] == expected[:2]
    assert torch.equal(again[2], expected[2])


def test_a_disk_that_is_full_in_the_middle_of_the_state_is_named(tmp_path: Path) -> None:
    """PyTorch answers with a RuntimeError over the length of its archive."""
    save(tmp_path, 10)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(files.StorageError, match="File too large; free space there"):
            save_checkpoint(
                tmp_path,
                model=SmallModel(),
                average={"weight": torch.zeros(2)},
                training={"moments": torch.zeros(100_000)},
                record={"step": 20},
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert steps(tmp_path) == [10]
