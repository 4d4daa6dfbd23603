"""Checkpoints with everything that training needs to resume, which a kill never leaves incomplete.

``exp_dir/checkpoints/step-00000500/``:

- ``config.json``, ``model.safetensors``, ``tokens.model``, ``tokens.txt``: a usable model directory;
- ``average.safetensors``: running average of the weights in float64;
- ``training.pt``: optimiser, scheduler, and the random state of every process;
- ``checkpoint.json``: counters, configuration, git revision, and size and digest of the other files.

The folder is filled under another name and renamed at the end, so a folder with the right name is complete,
and the digests tell whether it still is.
"""

import json
import logging
import os
import random
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from zipformer.errors import UserError
from zipformer.files import file_sha256, place_errors, replacing_folder, write_json, write_tensors
from zipformer.model_dir import RECORD_FILE, WEIGHTS_FILE

logger = logging.getLogger(__name__)

AVERAGE_FILE = "average.safetensors"
TRAINING_FILE = "training.pt"
_NAME = re.compile(r"step-(\d+)")


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the message names the file and what to do."""


class SavesItself(Protocol):
    def save_pretrained(self, directory: str | Path) -> None: ...


@dataclass(frozen=True)
class Checkpoint:
    """One folder below ``exp_dir/checkpoints`` and its record."""

    directory: Path
    record: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.record["step"])

    @property
    def resumable(self) -> bool:
        """False if only the average was kept, see :func:`thin_checkpoints`."""
        return TRAINING_FILE in self.record["files"]

    @classmethod
    def open(cls, directory: Path) -> "Checkpoint":
        """Read the record.

        Raises:
            CheckpointError: the record is missing or not readable.
        """
        path = directory / RECORD_FILE
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read ({error})") from error
        if not isinstance(record, dict) or not {"step", "files"} <= record.keys():
            raise CheckpointError(f"{path} cannot be read (it is not the record of a checkpoint)")
        return cls(directory, record)

    def verify(self, names: Iterable[str] | None = None) -> None:
        """Compare files with their recorded sizes and digests; all files if ``names`` is None.

        Raises:
            CheckpointError: a file is missing or has changed.
        """
        for name in self.record["files"] if names is None else names:
            expected = self.record["files"].get(name)
            path = self.directory / name
            if expected is None or not path.is_file():
                raise CheckpointError(f"{path} is missing")
            if path.stat().st_size != expected["bytes"]:
                raise CheckpointError(
                    f"{path} has {path.stat().st_size} bytes where {expected['bytes']} were written"
                )
            try:
                digest = file_sha256(path)
            except OSError as error:
                raise CheckpointError(f"{path} cannot be read ({error.strerror})") from error
            if digest != expected["sha256"]:
                raise CheckpointError(f"{path} is not what was written (its SHA-256 differs)")

    def weights(self) -> dict[str, Tensor]:
        return load_file(self.directory / WEIGHTS_FILE)

    def average(self) -> dict[str, Tensor]:
        return load_file(self.directory / AVERAGE_FILE)

    def training_state(self) -> dict[str, Any]:
        state: dict[str, Any] = torch.load(
            self.directory / TRAINING_FILE, map_location="cpu", weights_only=True
        )
        return state


def save_checkpoint(
    root: Path,
    *,
    model: SavesItself,
    average: Mapping[str, Tensor],
    training: Mapping[str, Any],
    record: Mapping[str, Any],
) -> Checkpoint:
    """Write a checkpoint of ``record["step"]`` under ``root``, complete or not at all.

    A checkpoint of the same step is replaced, and removed only afterwards.

    Args:
        average: averaged weights in float64.
        training: tensors and plain containers, which can be read with ``weights_only``.
        record: plain values for ``checkpoint.json``, including ``step``.

    Raises:
        StorageError: the disk is full or read-only.
    """
    final = root / f"step-{record['step']:08d}"
    remedy = "free space there, or choose another exp_dir; the checkpoints before this one are whole"
    with place_errors(root, remedy), replacing_folder(final) as folder:
        model.save_pretrained(folder)
        write_tensors(average, folder / AVERAGE_FILE)
        _write_training(training, folder / TRAINING_FILE)
        record = _seal(folder, record)
    return Checkpoint(final, record)


def _write_training(training: Mapping[str, Any], path: Path) -> None:
    """Write the state of a training.

    Raises:
        OSError: the file system refuses. PyTorch, which writes the end of its archive all the same, raises a
            RuntimeError over its length while it handles that error; to a path it would hide it altogether.
    """
    with path.open("wb") as file:
        try:
            torch.save(dict(training), file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def _seal(directory: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Write the record with sizes and digests of all files in a folder; returns the record."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(directory.iterdir())
        if path.name != RECORD_FILE
    }
    full = {**record, "files": files}
    write_json(directory / RECORD_FILE, full)
    return full


def list_checkpoints(root: Path) -> list[Path]:
    """Checkpoint folders below ``root``, oldest first."""
    found = [path for path in root.glob("step-*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=_step_of)


def _step_of(directory: Path) -> int:
    match = _NAME.fullmatch(directory.name)
    assert match is not None
    return int(match[1])


def open_whole(root: Path) -> list[Checkpoint]:
    """Checkpoints below ``root`` with a readable record, oldest first; others are named in the log.

    Their files are not compared with the record, see :meth:`Checkpoint.verify`.
    """
    found = []
    for directory in list_checkpoints(root):
        try:
            found.append(Checkpoint.open(directory))
        except CheckpointError as error:
            logger.warning("Damaged checkpoint, left out: %s", error)
    return found


def newest_whole_checkpoint(root: Path) -> Checkpoint | None:
    """The newest checkpoint that training can resume from; None if there are no checkpoints.

    Damaged checkpoints are named in the log and skipped.

    Raises:
        CheckpointError: there are checkpoints, but all with a training state are damaged. Silently starting
            again would discard the run.
    """
    damaged = []
    for directory in reversed(list_checkpoints(root)):
        try:
            checkpoint = Checkpoint.open(directory)
            if not checkpoint.resumable:
                continue
            checkpoint.verify()
        except CheckpointError as error:
            logger.warning("Damaged checkpoint: %s. Using the one before it.", error)
            damaged.append(str(error))
            continue
        return checkpoint
    if damaged:
        raise CheckpointError(
            f"every checkpoint in {root} is damaged:\n  " + "\n  ".join(damaged) + "\n"
            "To start over, remove that folder or choose another exp_dir."
        )
    return None


def thin_checkpoints(root: Path, *, keep_last: int, keep_averages: int) -> None:
    """Keep the newest ``keep_last`` checkpoints, and the averages of at most ``keep_averages`` older ones.

    :mod:`zipformer.training.averaging` needs the running average at an earlier step, so the kept averages are
    spread over the run: if there are too many, the one that leaves the smallest gap is removed.
    """
    for leftover in root.glob(".step-*"):
        shutil.rmtree(leftover)
    older = list_checkpoints(root)[:-keep_last]
    steps = [0, *map(_step_of, list_checkpoints(root))]
    while len(older) > keep_averages:
        gaps = [steps[index + 2] - steps[index] for index in range(len(older))]
        narrowest = gaps.index(min(gaps))
        _remove(older.pop(narrowest))
        del steps[narrowest + 1]
    for directory in older:
        _strip(directory)


def _remove(directory: Path) -> None:
    # Rename first: a kill during the removal of files must not leave a folder that looks like a checkpoint.
    doomed = directory.with_name(f".{directory.name}.removed")
    os.replace(directory, doomed)
    shutil.rmtree(doomed)


def _strip(directory: Path) -> None:
    """Reduce a checkpoint to its running average."""
    try:
        checkpoint = Checkpoint.open(directory)
    except CheckpointError as error:
        logger.warning("Damaged checkpoint: %s. It is left as it is.", error)
        return
    if checkpoint.resumable:
        # The record first: after that no run resumes from this folder, even if its files remain.
        record = {**checkpoint.record, "files": {AVERAGE_FILE: checkpoint.record["files"][AVERAGE_FILE]}}
        write_json(directory / RECORD_FILE, record)
    for file in directory.iterdir():
        if file.name not in (RECORD_FILE, AVERAGE_FILE):
            file.unlink()


def random_state() -> dict[str, Any]:
    """State of the global generators of this process: Python, NumPy, PyTorch on the CPU and CUDA device."""
    _, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002  (libraries may draw from it)
    return {
        "python": random.getstate(),
        "numpy": [torch.from_numpy(np.array(keys, dtype=np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Restore the generators from :func:`random_state`."""
    random.setstate(state["python"])
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(  # noqa: NPY002
        ("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached)
    )
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
