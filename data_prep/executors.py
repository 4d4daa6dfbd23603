"""Runs jobs in several processes, with bounded queues and workers that end with the run.

The workers of a cluster are in :mod:`data_prep.cluster`.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from enum import Enum
from types import TracebackType
from typing import Protocol, TypeVar

import torch

Job = TypeVar("Job")
Result = TypeVar("Result")


class Pool(Protocol):
    """Interface of pools that run jobs in parallel."""

    def __enter__(self) -> "Pool": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def map(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]: ...


class Executor(Enum):
    """Executor of the long jobs: processes of this machine, or the workers of a Dask cluster."""

    processes = "processes"
    dask = "dask"


class Workers:
    """A pool of processes, created when first needed and used for all stages.

    Args:
        count: number of processes; with 1 or less, jobs run in the calling process.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            if error is not None and not isinstance(error, Exception):
                # Ctrl-C or SIGTERM. Files are written atomically, so the running jobs may be killed here.
                for process in multiprocessing.active_children():
                    process.terminate()
            # Before Python 3.12.1, waiting for a pool whose processes have died may never return.
            self._pool.shutdown(wait=error is None or isinstance(error, Exception), cancel_futures=True)

    def map(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Yield results in the order in which they are ready.

        Only a few jobs are taken from the iterable in advance, so that it may be long and lazy. An exception
        of a job is raised here; running jobs are finished.
        """
        if self.count <= 1:
            yield from map(function, jobs)
            return
        pending: set[Future[Result]] = set()
        for job in jobs:
            pending.add(self._submit(function, job))
            if len(pending) >= 2 * self.count:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)

    def _submit(self, function: Callable[[Job], Result], job: Job) -> Future[Result]:
        pool = self._processes()
        # The pool starts its processes when it gets jobs. Ctrl-C in a terminal is sent to all of them; they
        # inherit this mask, so that only the main process receives it and ends them.
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            return pool.submit(function, job)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)

    def _processes(self) -> ProcessPoolExecutor:
        if not self._pool:
            # Fresh processes: a forked copy of a process with threads (progress bar, OpenMP) may deadlock.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.count, mp_context=context, initializer=_begin_worker)
        return self._pool


def _begin_worker() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed run must not leave workers that still write when it is started again."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
