"""Checkpoints that hold everything training needs to go on, and that a kill at any moment leaves whole.

``exp_dir/checkpoints/step-00000500/``:

- ``config.json``, ``model.safetensors``, ``tokens.model``, ``tokens.txt``: a usable model directory;
- ``average.safetensors``: running average of the weights in float64;
- ``training.pt``: optimiser, scheduler, and the random state of every process;
- ``checkpoint.json``: counters, configuration, git revision, and size and digest of the other files.

The folder is filled under another name and renamed at the end, so a folder with the right name is complete,
and the digests tell whether it still is.
"""

import hashlib
import json
import logging
import os
import random
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

logger = logging.getLogger(__name__)

MODEL_FILE = "model.safetensors"
AVERAGE_FILE = "average.safetensors"
TRAINING_FILE = "training.pt"
RECORD_FILE = "checkpoint.json"


class CheckpointError(RuntimeError):
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
        """False where only the average was kept, see :func:`thin_checkpoints`."""
        return TRAINING_FILE in self.record["files"]

    @classmethod
    def open(cls, directory: Path) -> "Checkpoint":
        """Read the record.

        Raises:
            CheckpointError: no record, or one that is not readable.
        """
        path = directory / RECORD_FILE
        try:
            return cls(directory, json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read ({error})") from error

    def verify(self, names: Iterable[str] | None = None) -> None:
        """Compare files with their recorded sizes and digests; all files unless some are named.

        Raises:
            CheckpointError: a file is missing or differs from what was written.
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
            if _digest(path) != expected["sha256"]:
                raise CheckpointError(f"{path} is not what was written (its SHA-256 differs)")

    def weights(self) -> dict[str, Tensor]:
        return load_file(self.directory / MODEL_FILE)

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
    copies: Iterable[Path] = (),
) -> Checkpoint:
    """Write a checkpoint of ``record["step"]`` under ``root``; atomic.

    Args:
        average: weights, float64.
        training: tensors and plain containers, read back with ``weights_only``.
        record: plain values for ``checkpoint.json``, among them ``step``.
        copies: further files to keep with the weights (the tokens).
    """
    final = root / f"step-{record['step']:08d}"
    unfinished = final.with_name(f".{final.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    model.save_pretrained(unfinished)
    save_file(dict(average), unfinished / AVERAGE_FILE)
    torch.save(dict(training), unfinished / TRAINING_FILE)
    for path in copies:
        shutil.copyfile(path, unfinished / path.name)
    checkpoint = _seal(unfinished, record)
    if final.exists():
        shutil.rmtree(final)
    os.replace(unfinished, final)
    return Checkpoint(final, checkpoint.record)


def _seal(directory: Path, record: Mapping[str, Any]) -> Checkpoint:
    """Write the record with sizes and digests of what lies in a folder, and flush everything to the disk."""
    files = {}
    for path in sorted(directory.iterdir()):
        if path.name != RECORD_FILE:
            files[path.name] = {"bytes": path.stat().st_size, "sha256": _digest(path)}
    full = {**record, "files": files}
    text = json.dumps(full, indent=2, ensure_ascii=False) + "\n"
    (directory / RECORD_FILE).write_text(text, encoding="utf-8")
    for path in directory.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    return Checkpoint(directory, full)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def list_checkpoints(root: Path) -> list[Path]:
    """Checkpoint folders below ``root``, oldest first."""
    return sorted(path for path in root.glob("step-*") if path.is_dir())


def newest_whole_checkpoint(root: Path) -> Checkpoint | None:
    """The newest checkpoint that training can go on from, or None where there never was one.

    Damaged ones are named in the log and passed over.

    Raises:
        CheckpointError: there are checkpoints, but every one that held a training state is damaged. Starting
            anew without a word would throw the run away.
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
    """Keep the newest ``keep_last`` checkpoints, and of the older ones at most ``keep_averages`` averages.

    :mod:`zipformer.averaging` subtracts the running average at some earlier step, so those that are kept are
    spread over the run: of too many, the one that leaves the smallest gap goes.
    """
    for leftover in root.glob(".step-*"):
        shutil.rmtree(leftover)
    older = list_checkpoints(root)[:-keep_last]
    steps = [0, *(int(path.name.rpartition("-")[2]) for path in list_checkpoints(root))]
    while len(older) > keep_averages:
        gaps = [steps[index + 2] - steps[index] for index in range(len(older))]
        narrowest = gaps.index(min(gaps))
        _remove(older.pop(narrowest))
        del steps[narrowest + 1]
    for directory in older:
        _strip(directory)


def _remove(directory: Path) -> None:
    # Renamed first: a kill while files are being deleted must not leave what looks like a checkpoint.
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
        # The record first: from then on nobody resumes from this folder, whatever is still there.
        record = {**checkpoint.record, "files": {AVERAGE_FILE: checkpoint.record["files"][AVERAGE_FILE]}}
        replacement = directory / f".{RECORD_FILE}"
        replacement.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(replacement, directory / RECORD_FILE)
    for file in directory.iterdir():
        if file.name not in (RECORD_FILE, AVERAGE_FILE):
            file.unlink()


def random_state() -> dict[str, Any]:
    """State of this process's global generators: Python, NumPy, PyTorch on the CPU and its CUDA device."""
    _, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002  (libraries may draw from it)
    return {
        "python": random.getstate(),
        "numpy": [torch.from_numpy(np.array(keys, dtype=np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Put the generators back as :func:`random_state` found them."""
    random.setstate(state["python"])
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(  # noqa: NPY002
        ("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached)
    )
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
