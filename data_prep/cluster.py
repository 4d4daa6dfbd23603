"""Runs jobs on the workers of a Dask cluster.

The cluster exists before the run and continues after it, even after Ctrl-C. All workers must see the data
directory under the same path, because jobs contain paths and write their results to files. A job may run
twice, even at the same time (its worker was killed, or lost its connection and continued): every file is
written under a unique name and renamed when complete.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch

from zipformer.errors import UserError
from zipformer.files import own_names

logger = logging.getLogger(__name__)

Job = TypeVar("Job")
Result = TypeVar("Result")

_CONNECT_SECONDS = 20.0
_WORKERS_SECONDS = 60.0
_MARK = ".cluster-"  # names of the files by which workers show that they see the data directory


@dataclass(frozen=True)
class Mark:
    """A file in the data directory that every worker must see.

    Attributes:
        path: the file.
        content: content of the file.
    """

    path: Path
    content: str

    @classmethod
    def write(cls, directory: Path) -> "Mark":
        for old in directory.glob(f"{_MARK}*"):  # of runs that were killed
            old.unlink(missing_ok=True)
        content = uuid.uuid4().hex
        mark = cls(directory / f"{_MARK}{content[:8]}", content)
        mark.path.parent.mkdir(parents=True, exist_ok=True)
        mark.path.write_text(content, encoding="ascii")
        return mark

    def seen(self) -> bool:
        try:
            return self.path.read_text(encoding="ascii") == self.content
        except OSError:
            return False


class DaskWorkers:
    """The workers of a cluster, with the interface of :class:`data_prep.executors.Workers`.

    Args:
        scheduler: address of the scheduler (``tcp://host:8786``), or the file that ``dask scheduler
            --scheduler-file`` wrote.
        directory: data directory, on a disk that all workers share.

    Raises:
        UserError: dask.distributed is not installed; the scheduler cannot be reached or has no workers; a
            worker does not see the data directory or cannot import this package.
    """

    def __init__(self, scheduler: str, directory: Path) -> None:
        self._distributed = _distributed()
        self._client = _connect(self._distributed, scheduler)
        self._scheduler = scheduler
        self._mark = Mark.write(directory)
        try:
            self._check_workers()
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> "DaskWorkers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def map(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Yield results in the order in which they are ready.

        Jobs are taken from the iterable as workers become free, two for each thread of the cluster. An
        exception of a job is raised here, and waiting jobs are cancelled. If a worker dies, another worker
        repeats its job.

        Raises:
            UserError: jobs kill their workers, or the scheduler has stopped.
        """
        queue = self._distributed.as_completed(loop=self._client.loop)
        remaining = iter(jobs)
        waiting: set[Any] = set()
        try:
            while True:
                while len(waiting) < self._room():
                    job = next(remaining, None)
                    if job is None:
                        break
                    future = self._client.submit(_run, self._mark, function, job, pure=False)
                    waiting.add(future)
                    queue.add(future)
                if not waiting:
                    return
                future = next(queue)
                waiting.discard(future)
                yield self._result(future)
        finally:
            if waiting and self._client.status == "running":
                self._client.cancel(list(waiting), force=True)

    def _result(self, future: Any) -> Any:
        distributed = self._distributed
        try:
            return future.result()
        except distributed.scheduler.KilledWorker as error:
            raise UserError(
                f"a job ended {error.allowed_failures + 1} workers of {self._scheduler} one after the other "
                f"(the last is {error.last_worker.address}): their logs say why, most often for want of "
                "memory. Give them more, or lower fbank.shard_size, and start again; finished shards are kept"
            ) from error
        except (CancelledError, distributed.comm.CommClosedError) as error:
            raise UserError(
                f"the scheduler {self._scheduler} is gone, or gave the jobs up: start the cluster and then "
                "the same command again; finished shards are kept"
            ) from error

    def _room(self) -> int:
        """Number of jobs that may be submitted at a time, for the current workers."""
        return 2 * max(1, sum(self._client.nthreads().values()))

    def _check_workers(self) -> None:
        try:
            self._client.wait_for_workers(1, timeout=_WORKERS_SECONDS)
        except (TimeoutError, asyncio.TimeoutError) as error:  # one and the same from Python 3.11 on
            raise UserError(
                f"the scheduler {self._scheduler} has no workers after {_WORKERS_SECONDS:.0f} s: start some "
                f"(dask worker {self._client.scheduler.address}) and then the same command again"
            ) from error
        try:
            seen = self._client.run(_sees, self._mark, on_error="return")
        except ModuleNotFoundError as error:
            raise _cannot_import(error) from error
        for address, answer in seen.items():
            if isinstance(answer, ModuleNotFoundError):
                raise _cannot_import(answer, address)
            if answer is False:
                raise _not_shared(self._mark, address)
        logger.info("%d workers with %d threads at %s", len(seen), self._room() // 2, self._scheduler)

    def _close(self) -> None:
        self._mark.path.unlink(missing_ok=True)
        self._client.close()


def _run(mark: Mark, function: Callable[[Job], Result], job: Job) -> Result:
    """Run a job on a worker. Workers may join during the run, so each job checks the mark."""
    torch.set_num_threads(1)
    if not mark.seen():
        raise _not_shared(mark, _own_address())
    with own_names():
        return function(job)


def _sees(mark: Mark) -> bool:
    return mark.seen()


def _own_address() -> str:
    from distributed import get_worker

    return str(get_worker().address)


def _not_shared(mark: Mark, address: str) -> UserError:
    return UserError(
        f"the worker {address} does not see {mark.path.parent} as it is here: give a data_dir on a disk that "
        "all machines of the cluster share, under the same path, and audio as well"
    )


def _cannot_import(error: ModuleNotFoundError, address: str = "") -> UserError:
    return UserError(
        f"the workers {address or 'of the cluster'} lack the module {error.name}: start them in an "
        "environment in which fangyan is installed, of the same version as here"
    )


def _distributed() -> Any:
    try:
        return import_module("distributed")
    except ModuleNotFoundError as error:
        raise UserError("executor=dask needs dask.distributed: pip install 'fangyan[cluster]'") from error


def _connect(distributed: Any, scheduler: str) -> Any:
    file = Path(scheduler)
    try:
        if "://" in scheduler:
            return distributed.Client(scheduler, timeout=_CONNECT_SECONDS, set_as_default=False)
        if not file.is_file():
            raise UserError(
                f"scheduler={scheduler} is neither an address (tcp://host:8786) nor the file of a scheduler"
            )
        return distributed.Client(scheduler_file=scheduler, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"the scheduler {scheduler} cannot be reached ({reason}): start it (dask scheduler) and workers "
            "(dask worker), and see that this machine reaches its port"
        ) from error
