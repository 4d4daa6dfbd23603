"""Progress of a long job: a bar on a terminal, otherwise a log line every few seconds."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 15.0


@contextmanager
def progress(
    what: str,
    total: int,
    unit: str,
    *,
    done: int = 0,
    console: Console | None = None,
    interval: float = INTERVAL_SECONDS,
) -> Iterator[Callable[[int], None]]:
    """Show the progress of a job; yields a function that adds finished units, callable from any thread.

    Args:
        what: name of the job, in a few words.
        total: number of units.
        unit: name of the units, in the plural.
        done: units that were finished before, for example by an earlier run.
        console: console for the bar; standard output by default. If it is not a terminal, lines go to the
            log.
        interval: seconds between two lines of the log. A shorter job logs none.
    """
    console = console or Console()
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(what, total=total, completed=done)
            yield lambda count: bar.advance(task, count)
        return
    lines = _Lines(what, total, unit, done, interval)
    lines.start()
    try:
        yield lines.advance
    finally:
        lines.stop()


class _Lines(threading.Thread):
    """Logs the progress at fixed intervals, even if no unit has been finished since the last line."""

    def __init__(self, what: str, total: int, unit: str, done: int, interval: float) -> None:
        super().__init__(name=f"progress of {what}", daemon=True)
        self._what, self._total, self._unit, self._interval = what, total, unit, interval
        self._before = self._done = done
        self._begin = time.monotonic()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def advance(self, count: int) -> None:
        with self._lock:
            self._done += count

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def run(self) -> None:
        while not self._stopped.wait(self._interval):
            logger.info("%s", self._line())

    def _line(self) -> str:
        elapsed = time.monotonic() - self._begin
        line = f"{self._what}: {self._done} of {self._total} {self._unit}, {_clock(elapsed)} gone"
        finished = self._done - self._before
        if finished:
            line += f", about {_clock(elapsed / finished * (self._total - self._done))} left"
        return line


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
