"""Preparation on a real Dask cluster of this machine: the same bytes, also when a worker is killed."""

import gzip
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from rich.console import Console
from sound_folder import MakeConfig, WriteTable, good_rows

from data_prep import cluster
from data_prep.cluster import DaskWorkers, Mark
from data_prep.executors import Executor
from data_prep.pipeline import PrepareConfig, prepare
from data_prep.shar import SharConfig, Storage
from zipformer.errors import UserError

distributed = pytest.importorskip("distributed", reason="pip install 'fangyan[cluster]'")

# Workers without nannies: one that is killed stays away.
_WORKER = """
import asyncio, sys
from distributed import Worker
async def main():
    async with Worker(sys.argv[1], nthreads=1, local_directory=sys.argv[2], dashboard=False) as worker:
        await worker.finished()
asyncio.run(main())
"""


@dataclass
class Cluster:
    """A scheduler in this process and workers in others."""

    address: str
    folder: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add_worker(self) -> None:
        command = [sys.executable, "-c", _WORKER, self.address, str(self.folder)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        with (self.folder / f"worker{len(self.workers)}.log").open("wb") as log:
            self.workers.append(subprocess.Popen(command, env=environment, stderr=log, stdout=log))


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    scheduler = distributed.LocalCluster(
        n_workers=0, dashboard_address=None, host="127.0.0.1", silence_logs=False
    )
    found = Cluster(scheduler.scheduler_address, tmp_path_factory.mktemp("dask"))
    for _ in range(2):
        found.add_worker()
    yield found
    for process in found.workers:
        process.kill()
        process.wait()
    scheduler.close()


def contents(directory: Path) -> dict[str, bytes]:
    """Bytes of all files of a data directory; gzip files hold the time at which they were written."""
    return {
        str(path.relative_to(directory)): (
            gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        )
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in (".lock", "prepare.json")
    }


def sleepy(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def failing(number: int) -> None:
    raise UserError(f"job {number} cannot be done")


def test_a_killed_worker_changes_nothing(
    workers: Cluster, tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig
) -> None:
    config = prepare_config(write_table(good_rows(tmp_path, count=16)))
    config.fbank.speed_factors = [0.9, 1.0]
    config.fbank.shard_size = 1
    config = replace(config, storage=Storage.shar, shar=SharConfig(shard_size=3))
    prepare(config, Console(quiet=True))
    expected = contents(Path(config.data_dir))
    Path(config.data_dir).rename(tmp_path / "by-processes")

    # The first shard of features is there: that many jobs are done, and others are out.
    killed = workers.workers[0]
    folder = Path(config.data_dir) / "fbank" / "train"

    def kill() -> None:
        while not list(folder.glob("cuts-*.jsonl.gz")):
            time.sleep(0.005)
        killed.send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    prepare(replace(config, executor=Executor.dask, scheduler=workers.address), Console(quiet=True))
    killer.join(5)
    assert killed.wait(5) == -signal.SIGKILL
    found = contents(Path(config.data_dir))
    assert list(found) == list(expected)
    assert [name for name in found if found[name] != expected[name]] == []


def test_jobs_are_drawn_as_workers_become_free(workers: Cluster, tmp_path: Path) -> None:
    drawn: list[int] = []

    def jobs() -> Iterator[float]:
        for number in range(30):
            drawn.append(number)
            yield 0.01

    with DaskWorkers(workers.address, tmp_path) as pool:
        threads = sum(pool._client.nthreads().values())
        results = pool.map(sleepy, jobs())
        next(results)
        assert len(drawn) <= 2 * threads + 1
        assert len(list(results)) == 29
    assert not list(tmp_path.glob(".cluster-*"))


def test_an_error_of_a_job_is_raised_and_the_rest_is_cancelled(workers: Cluster, tmp_path: Path) -> None:
    with DaskWorkers(workers.address, tmp_path) as pool:
        with pytest.raises(UserError, match="job 0 cannot be done"):
            list(pool.map(failing, range(3)))
        results = pool.map(sleepy, [0.0, 3.0, 3.0])
        next(results)
        begin = time.monotonic()
        results.close()  # type: ignore[attr-defined]
        assert time.monotonic() - begin < 2.5
    with distributed.Client(workers.address, set_as_default=False) as client:
        assert client.scheduler_info()["workers"]  # the cluster lives on


def test_workers_without_the_disk_are_named(
    workers: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark is written where the workers look for it, but with other content, as on another disk."""
    write = Mark.write.__func__  # type: ignore[attr-defined]

    def elsewhere(cls: type[Mark], directory: Path) -> Mark:
        return replace(write(cls, directory), content="another")

    monkeypatch.setattr(Mark, "write", classmethod(elsewhere))
    with pytest.raises(UserError, match=r"worker tcp://\S+ does not see .* disk that all machines"):
        DaskWorkers(workers.address, tmp_path)
    monkeypatch.setattr(DaskWorkers, "_check_workers", lambda self: None)  # a worker that comes later
    with (
        pytest.raises(UserError, match=r"worker tcp://\S+ does not see"),
        DaskWorkers(workers.address, tmp_path) as pool,
    ):
        list(pool.map(sleepy, [0.0]))


def test_a_scheduler_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_CONNECT_SECONDS", 0.5)
    with pytest.raises(UserError, match=r"scheduler tcp://127\.0\.0\.1:9 cannot be reached .*dask scheduler"):
        DaskWorkers("tcp://127.0.0.1:9", tmp_path)
    with pytest.raises(UserError, match=r"scheduler=10\.0\.0\.1 is neither an address"):
        DaskWorkers("10.0.0.1", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_scheduler_without_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_WORKERS_SECONDS", 0.3)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=None, host="127.0.0.1") as scheduler,
        pytest.raises(UserError, match=r"has no workers after .*dask worker tcp://"),
    ):
        DaskWorkers(scheduler.scheduler_address, tmp_path)


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(UserError, match="needs the address of a scheduler"):
        PrepareConfig(corpus=None, data_dir="x", executor=Executor.dask)
    with pytest.raises(UserError, match="used with executor=dask only"):
        PrepareConfig(corpus=None, data_dir="x", scheduler="tcp://a:1")
