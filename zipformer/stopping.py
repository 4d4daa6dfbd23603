"""How a process ends on SIGTERM and SIGINT (Ctrl-C): training with a checkpoint, its loaders after it.

Both signals often reach every process of a job, not only the one that can do something about them: Ctrl-C in
a terminal, ``docker stop``, Slurm and torchrun all send to a group. So the main process alone obeys. It
finishes its step, writes the checkpoint, and then ends its worker processes, which ignore the signals.
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
# Slurm and torchrun may send the same signal twice within moments; a person who insists takes longer.
_SECONDS_UNTIL_INSISTING = 1.0


class StopSignals:
    """Notes the signals that come within :meth:`noted`.

    Args:
        speak: say at once on standard error that the signal was seen; the step at hand may take minutes.

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
            # Not by logging or print, which may be busy with a line that this one interrupts.
            os.write(2, f"{name}: finishing the step at hand, then writing a checkpoint{again}\n".encode())


@contextmanager
def ending_at_once() -> Iterator[None]:
    """SIGTERM and SIGINT raise SystemExit with the status that shells give them, 143 or 130.

    For as long as there is nothing to save. The default actions would do, but for the traceback of Ctrl-C and
    for a process that is the first of its container, to which SIGTERM without a handler does nothing.
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
    """Let SIGTERM and SIGINT wait until the block ends.

    Processes and threads that are started within never receive them: they inherit the mask. Without it, a
    worker would die of a signal that comes while it starts.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def obey_only_the_parent() -> None:
    """Let this worker process end with its parent or at its SIGTERM; ignore SIGTERM and SIGINT of all others.

    The parent's SIGTERM is how :mod:`multiprocessing` ends its workers when the main process ends. A parent
    that is killed sends none, and a worker that is writing a batch for it would wait for ever.
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
