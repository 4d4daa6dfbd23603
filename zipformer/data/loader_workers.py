"""Starts the processes that load features for the training, and explains the death of one."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch.utils.data import DataLoader

from zipformer.errors import UserError
from zipformer.stopping import held_back, obey_only_the_parent

T = TypeVar("T", covariant=True)
_NO_ROOM = (errno.ENOSPC, errno.ENOMEM, errno.EAGAIN)  # for semaphores (in /dev/shm), pages, processes


def start_loading(loader: DataLoader[T]) -> Iterator[T]:
    """Iterate over a loader whose workers leave SIGTERM and SIGINT to this process.

    The loader's ``worker_init_fn`` must be :func:`begin_worker`.

    Raises:
        UserError: the processes cannot start.
    """
    try:
        with held_back():
            return iter(loader)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise UserError(
            f"the processes that load features cannot start ({error}): they need a few bytes of /dev/shm and "
            "free process ids. Make room there, or set data.num_workers=0"
        ) from error


def begin_worker(number: int) -> None:
    """Runs first in each worker process."""
    obey_only_the_parent()


@contextmanager
def explaining_dead_workers() -> Iterator[None]:
    """Context that explains the death of a worker process, which PyTorch raises anywhere in the main process.

    The message of a UserError in a worker arrives here with a traceback around it, which is removed.

    Raises:
        UserError: raised instead of PyTorch's error.
    """
    try:
        yield
    except UserError as error:
        kind = type(error)
        before, _, message = str(error).rpartition(f"{kind.__module__}.{kind.__qualname__}: ")
        if not before.startswith("Caught "):
            raise
        raise UserError(message.strip()) from error
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise UserError(
            f"a process that loads features died ({error}). If memory was short, lower data.num_workers or "
            "data.prefetch_batches. The same command resumes from the last checkpoint"
        ) from error
