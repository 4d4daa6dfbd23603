"""Handling of SIGTERM and SIGINT (Ctrl-C): training writes a checkpoint, then its worker processes end.

Both signals often reach every process of a job: Ctrl-C in a terminal, ``docker stop``, Slurm and torchrun all
send them to a group of processes. Only the main process acts on them. It finishes its step, writes the
checkpoint, and then ends its worker processes, which ignore the signals.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Slurm and torchrun may send the same signal twice within a short time; a person who presses Ctrl-C again is
# slower.
_SECONDS_UNTIL_INSISTING = 1.0


class StopSignals:
    """Records the signals that arrive within :meth:`noted`.

    Args:
        speak: report the signal at once on standard error, because the current step may take minutes.

    Attributes:
        received: number of the first signal, 0 until one comes.
    """

    def __init__(self, *, speak: bool = True) -> None:
        self.received = 0
        self.speak = speak
        self._when = 0.0

    @contextmanager
    def noted(self) -> Iterator[None]:
        """SIGTERM and SIGINT only set ``received``; a later second SIGINT ends the process at once."""
        with _handling(self._note):
            yield

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            if number == signal.SIGINT and time.monotonic() - self._when > _SECONDS_UNTIL_INSISTING:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self.received, self._when = number, time.monotonic()
        if self.speak:
            name = signal.Signals(number).name
            again = "; Ctrl-C once more ends at once, without a checkpoint" if number == signal.SIGINT else ""
            # Not by logging or print, which this signal may have interrupted in the middle of a line.
            os.write(2, f"{name}: finishing the step at hand, then writing a checkpoint{again}\n".encode())


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Context in which SIGTERM and SIGINT raise SystemExit with the usual status of shells, 143 or 130.

    Use it while there is nothing to save. The default actions would print a traceback for Ctrl-C, and SIGTERM
    without a handler has no effect on the first process of a container.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with _handling(end):
        yield


@contextmanager
def _handling(handler: "signal._HANDLER") -> Iterator[None]:
    previous = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


@contextmanager
def held_back() -> Iterator[None]:
    """Hold SIGTERM and SIGINT back until the block ends.

    Processes and threads that are started in the block never receive them, because they inherit the mask.
    Without it, a signal during the start of a worker would kill it.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def obey_only_the_parent() -> None:
    """Let this worker process end with its parent or on its SIGTERM; ignore the signals of all others.

    :mod:`multiprocessing` ends workers by SIGTERM from the parent when the main process ends. A parent that
    is killed sends no signal, and a worker that is writing a batch for it would wait for ever.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert parent.pid is not None
    threading.Thread(target=_end_with, args=[parent.pid], daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        received = signal.sigtimedwait([signal.SIGTERM], 1.0)
        if received is not None and received.si_pid == parent:
            break
    os._exit(0)
