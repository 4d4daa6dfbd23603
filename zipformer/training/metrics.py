"""Output of a training: numbers in files, and progress on the terminal or in the log."""

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from zipformer.distributed import World
from zipformer.files import replacing
from zipformer.model_dir import METRICS_FILE
from zipformer.training.task import Loss

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Interval:
    """Sums over the steps since the last report, without the time for validation and checkpoints."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.started = time.perf_counter()
        self.waited = 0.0  # seconds of waiting for data
        self.paused = 0.0
        self.sums: dict[str, Tensor] = {}  # by loss: sum over finite steps, and number of terms (2,)
        self.losses: list[str] = []  # names of the losses, those of the last step first
        self.audio_seconds = 0.0

    def waiting(self, batches: Iterator[T]) -> Iterator[T]:
        """Yield the batches, and measure the time of waiting for them."""
        while True:
            asked = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited += time.perf_counter() - asked
            yield batch

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Context whose time does not count."""
        began = time.perf_counter()
        yield
        self.paused += time.perf_counter() - began

    def add(self, losses: Mapping[str, Loss], total: Tensor, frames: int, audio_seconds: float) -> None:
        """Count a step. Losses stay on their device; if one is not finite, none of them counts.

        Args:
            losses: losses of the step by name.
            total: weighted sum of the losses, reported as ``loss`` per encoder frame.
            frames: number of encoder frames of the batch.
            audio_seconds: seconds of audio in the batch.
        """
        values = {name: (loss.total, loss.terms) for name, loss in losses.items()} | {"loss": (total, frames)}
        finite = torch.stack([value.detach() for value, _ in values.values()]).isfinite().all()
        for name, (value, terms) in values.items():
            loss = torch.where(finite, value.detach().double(), 0.0)
            counted = torch.stack([loss, torch.where(finite, float(terms), 0.0)])
            self.sums[name] = self.sums[name] + counted if name in self.sums else counted
        self.losses = [*losses, *(name for name in self.losses if name not in losses)]
        self.audio_seconds += audio_seconds

    def summary(self, world: World) -> dict[str, float]:
        """Means over the steps of all processes; every process must call this.

        Returns:
            Losses divided by their terms (NaN if no step was finite), seconds of training audio of all
            processes per second, and the share of time that this process waited for data.
        """
        elapsed = time.perf_counter() - self.started - self.paused
        sums = torch.cat(list(self.sums.values()))
        *pairs, audio_seconds = world.sum(torch.cat([sums, sums.new_tensor([self.audio_seconds])])).tolist()
        means = {
            name: loss / frames if frames else math.nan
            for name, loss, frames in zip(self.sums, pairs[::2], pairs[1::2], strict=True)
        }
        return means | {
            "audio_seconds_per_second": audio_seconds / elapsed,
            "data_wait_share": self.waited / elapsed,
        }


class MetricsLog:
    """``metrics.jsonl`` and TensorBoard scalars of one run."""

    def __init__(self, exp_dir: Path, *, from_step: int = 0) -> None:
        """Continue the files of ``exp_dir``; records of steps after ``from_step`` are removed."""
        exp_dir.mkdir(parents=True, exist_ok=True)
        self.path = exp_dir / METRICS_FILE
        if self.path.exists():
            self._rewind(from_step)
        self._file = self.path.open("a", encoding="utf-8", buffering=1)
        self._tensorboard = SummaryWriter(str(exp_dir / "tensorboard"), purge_step=from_step + 1)

    def _rewind(self, step: int) -> None:
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue  # a line that a kill has truncated
            if record["step"] <= step:
                kept.append(line + "\n")
        with replacing(self.path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")

    def write(self, kind: str, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        """Append a record; its numbers, also nested ones, become TensorBoard scalars."""
        record = {"kind": kind, "step": step, "epoch": epoch, **values}
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        for name, value in values.items():
            scalars = (
                {f"{name}/{key}": item for key, item in value.items()}
                if isinstance(value, dict)
                else {name: value}
            )
            for tag, scalar in scalars.items():
                if isinstance(scalar, int | float):
                    self._tensorboard.add_scalar(f"{kind}/{tag}", scalar, step)

    def close(self) -> None:
        self._file.close()
        self._tensorboard.close()


class ProgressLine:
    """A live line on a terminal, with log messages above it; otherwise a log line for every report."""

    def __init__(self, *, enabled: bool = True) -> None:
        console = Console(stderr=True)
        self.enabled = enabled
        self._live = enabled and console.is_terminal
        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=20),
            TextColumn("{task.description}"),
            console=console,
            disable=not self._live,
        )
        self._task = self._progress.add_task("starting", total=1.0)

    def __enter__(self) -> "ProgressLine":
        if self._live:
            # Handlers that write directly to the terminal would break the line.
            root = logging.getLogger()
            self._handlers, root.handlers = root.handlers, [RichHandler(console=self._progress.console)]
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self._live:
            logging.getLogger().handlers = self._handlers

    def report(
        self,
        step: int,
        epoch: int,
        values: Mapping[str, float],
        *,
        losses: Sequence[str],
        done: float,
        elapsed: float,
    ) -> None:
        """Show the state of the run.

        Args:
            values: losses and the other numbers of a training record.
            losses: names of the parts of ``loss``.
            done: finished share of the run, 0 to 1.
            elapsed: seconds of training so far.
        """
        if not self.enabled:
            return
        line = progress_text(step, epoch, values, losses=losses, done=done, elapsed=elapsed)
        if self._live:
            self._progress.update(self._task, completed=done, description=line)
        else:
            logger.info("%s", line)


def progress_text(
    step: int, epoch: int, values: Mapping[str, float], *, losses: Sequence[str], done: float, elapsed: float
) -> str:
    """One line: step, loss and its parts, learning rate, speed, waiting, time left."""
    parts = " ".join(f"{name} {values[name]:.3f}" for name in losses)
    left = _duration(elapsed / done * (1 - done)) if done > 0 else "?"
    return (
        f"step {step} epoch {epoch} loss {values['loss']:.3f} ({parts}) lr {values['lr']:.2e} "
        f"{values['audio_seconds_per_second']:.0f} audio-s/s, waiting for data "
        f"{values['data_wait_share']:.0%}, {_duration(elapsed)} gone, {left} left"
    )


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
