"""What a training run tells: numbers in files, a progress line on a terminal, plain lines elsewhere."""

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Interval:
    """Sums over the steps since the last report."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.started = time.perf_counter()
        self.waited = 0.0  # seconds for data
        self.audio_seconds = 0.0
        self.frames = 0.0  # encoder frames
        self.losses: dict[str, float] = {}

    def waiting(self, batches: Iterator[T]) -> Iterator[T]:
        """Pass batches on, counting the time it takes to get them."""
        while True:
            asked = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited += time.perf_counter() - asked
            yield batch

    def add(self, losses: Mapping[str, float], frames: float, audio_seconds: float) -> None:
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, 0.0) + value
        self.frames += frames
        self.audio_seconds += audio_seconds

    def summary(self) -> dict[str, float]:
        """Losses per encoder frame, seconds of audio trained per second, and the share of time spent waiting."""
        elapsed = time.perf_counter() - self.started
        losses = {
            name: value / self.frames if self.frames else math.nan for name, value in self.losses.items()
        }
        return losses | {
            "audio_seconds_per_second": self.audio_seconds / elapsed,
            "data_wait_share": self.waited / elapsed,
        }


class MetricsLog:
    """``metrics.jsonl`` and TensorBoard scalars of one run."""

    def __init__(self, exp_dir: Path, *, from_step: int = 0) -> None:
        """Continue the files of ``exp_dir``; what they say of steps after ``from_step`` never counted and goes."""
        exp_dir.mkdir(parents=True, exist_ok=True)
        self.path = exp_dir / "metrics.jsonl"
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
                continue  # a line that a kill cut short
            if record["step"] <= step:
                kept.append(line + "\n")
        self.path.write_text("".join(kept), encoding="utf-8")

    def write(self, kind: str, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        """Append a record; its numbers, also those one level down, become TensorBoard scalars."""
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
    """A live line on a terminal; where there is none, a log line for every report."""

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
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def report(
        self, step: int, epoch: int, values: Mapping[str, float], *, done: float, elapsed: float
    ) -> None:
        """Show the state of the run.

        Args:
            values: losses and the other numbers of a training record.
            done: share of the run that is behind it, 0 to 1.
            elapsed: seconds it has trained.
        """
        if not self.enabled:
            return
        line = progress_text(step, epoch, values, done=done, elapsed=elapsed)
        if self._live:
            self._progress.update(self._task, completed=done, description=line)
        else:
            logger.info("%s", line)


def progress_text(step: int, epoch: int, values: Mapping[str, float], *, done: float, elapsed: float) -> str:
    """One line: step, loss and its parts per encoder frame, learning rate, speed, waiting, time left."""
    parts = " ".join(
        f"{name} {values[name]:.3f}" for name in ("simple", "pruned", "ctc", "attention") if name in values
    )
    left = _duration(elapsed / done * (1 - done)) if done > 0 else "?"
    return (
        f"step {step} epoch {epoch} loss {values['loss']:.3f} ({parts}) lr {values['lr']:.2e} "
        f"{values['audio_seconds_per_second']:.0f} audio-s/s, waiting for data {values['data_wait_share']:.0%}, "
        f"{_duration(elapsed)} gone, {left} left"
    )


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
