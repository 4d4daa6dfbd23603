"""SIGTERM and SIGINT to a whole process group, as Slurm, Docker, torchrun and a terminal send them.

``FANGYAN_STOP_REPEATS=20 pytest tests/scripts/test_stopping.py`` repeats each, with other moments.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_train import ROOT, TINY
from tiny_corpus import write_tiny_corpus

from zipformer.training.checkpoint import Checkpoint, list_checkpoints, newest_whole_checkpoint

ATTEMPTS = range(int(os.environ.get("FANGYAN_STOP_REPEATS", "1")))
STEP_SECONDS = 2.0
SLOW_STEPS = f"""
import runpy, sys, time
sys.path.insert(0, {str(ROOT)!r})
from zipformer.training.trainer import Trainer
fast = Trainer._train_on
def slow(self, batch):
    fast(self, batch)
    print("slow step", flush=True)
    time.sleep({STEP_SECONDS})
Trainer._train_on = slow
sys.argv[0] = {str(ROOT / "scripts" / "train.py")!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_corpus(tmp_path_factory.mktemp("corpus"))


class Run:
    """A training in a session of its own, whose processes are all gone when the block ends."""

    def __init__(self, command: list[str], exp_dir: Path) -> None:
        self.exp_dir = exp_dir
        self.log = exp_dir.with_suffix(".log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:  # a test that failed; torchrun ends what it started, in other groups
            self.process.terminate()
            self.process.wait()

    def wait_for(self, text: str) -> None:
        while text not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)

    def signal_group(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def end(self) -> int:
        """Exit status, once no process of the group is left."""
        status = self.process.wait(timeout=120)
        deadline = time.monotonic() + 20
        while group_exists(self.process.pid):
            assert time.monotonic() < deadline, "processes are left"
            time.sleep(0.05)
        return status

    def checkpoint(self) -> Checkpoint:
        checkpoint = newest_whole_checkpoint(self.exp_dir / "checkpoints")
        assert checkpoint is not None
        assert checkpoint.directory == list_checkpoints(self.exp_dir / "checkpoints")[-1]  # none is damaged
        return checkpoint


def group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def settings(corpus: Path, exp_dir: Path, *more: str) -> list[str]:
    return [*TINY, f"data_dir={corpus}", f"exp_dir={exp_dir}", "max_steps=100000", "keep_last=2", *more]


@pytest.fixture(params=[(0, "SIGTERM"), (1, "SIGINT"), (4, "SIGTERM")], ids=str)
def run(request: pytest.FixtureRequest, corpus: Path, tmp_path: Path) -> Iterator[Run]:
    workers, _ = request.param
    arguments = settings(corpus, tmp_path / "exp", f"data.num_workers={workers}", "log_interval=5")
    with Run([sys.executable, str(ROOT / "scripts" / "train.py"), *arguments], tmp_path / "exp") as started:
        yield started


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_the_whole_group_is_signalled(run: Run, attempt: int, request: pytest.FixtureRequest) -> None:
    """It ends with a checkpoint of the last step (save_interval=3 steps, so often while one is written)."""
    number = signal.Signals[request.node.callspec.params["run"][1]]
    run.wait_for("step 5 ")
    time.sleep(random.Random(attempt).uniform(0, 0.5))
    run.signal_group(number)
    assert run.end() == 128 + number, run.log.read_text()
    text = run.log.read_text()
    assert f"Stopped by {number.name}" in text
    assert f"resumes at step {run.checkpoint().step}\n" in text
    assert "Traceback" not in text


def test_workers_end_with_a_main_process_that_is_killed(corpus: Path, tmp_path: Path) -> None:
    arguments = settings(corpus, tmp_path / "exp", "data.num_workers=2", "data.max_duration=12")
    with Run([sys.executable, str(ROOT / "scripts" / "train.py"), *arguments], tmp_path / "exp") as run:
        run.wait_for("step 2 ")
        run.process.kill()
        assert run.end() == -signal.SIGKILL


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_torchrun_with_slow_steps(corpus: Path, tmp_path: Path, attempt: int) -> None:
    """Both processes write a checkpoint before torchrun kills them (after 30 s)."""
    (tmp_path / "slow_train.py").write_text(SLOW_STEPS)
    arguments = settings(corpus, tmp_path / "exp", "save_interval=1000", "log_interval=1000")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, str(tmp_path / "slow_train.py"), *arguments]
    with Run(command, tmp_path / "exp") as run:
        run.wait_for("slow step")  # the first compiles
        time.sleep(random.Random(attempt).uniform(0, 2 * STEP_SECONDS))
        run.process.terminate()
        assert run.end() == 1  # torchrun's own status, after its SignalException
        assert run.log.read_text().count("Stopped by SIGTERM") == 2, run.log.read_text()
        assert run.checkpoint().step >= 1
