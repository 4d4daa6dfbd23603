import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from zipformer import lock as module
from zipformer.errors import UserError
from zipformer.lock import LOCK_FILE, Holder, one_writer, sole_use

HOLD = """
import sys, time
from pathlib import Path
from zipformer.lock import sole_use
with sole_use(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def other_process(directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, directory], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def leave_behind(directory: Path, holder: Holder) -> None:
    """As a process does that was killed."""
    (directory / LOCK_FILE).write_text(json.dumps(asdict(holder)))


def test_a_second_process_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    with other_process(tmp_path / "exp") as process:
        where = f"{tmp_path}/exp is in use by process {process.pid} on {socket.gethostname()}, since 20"
        with pytest.raises(UserError, match=where), sole_use(tmp_path / "exp"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with sole_use(tmp_path / "exp"):  # the crash leaves nothing that keeps the next run out
            assert json.loads((tmp_path / "exp" / LOCK_FILE).read_text())["pid"] == os.getpid()


def test_it_is_given_back_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="of the run"), sole_use(tmp_path):
        raise RuntimeError("of the run")
    assert (tmp_path / LOCK_FILE).read_bytes() == b""


def test_a_forked_worker_does_not_hold_it(tmp_path: Path) -> None:
    """As when the main process is killed and the processes that load its features take a moment to notice."""
    script = HOLD.replace(
        "    print", "    import os\n    if os.fork() == 0:\n        time.sleep(5)\n    print", 1
    )
    process = subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait()
    with sole_use(tmp_path):
        pass
    process.stdout.close()


def test_another_machine_is_believed_until_the_file_is_removed(tmp_path: Path) -> None:
    elsewhere = Holder("node7", "another boot", 4711, 12345, "2026-01-02 03:04:05")
    leave_behind(tmp_path, elsewhere)
    message = rf"process 4711 on node7, since 2026-01-02 03:04:05.*remove {tmp_path}/.lock"
    for _ in range(2):  # the refusal leaves the entry as it is
        with pytest.raises(UserError, match=message), sole_use(tmp_path):
            pass
    (tmp_path / LOCK_FILE).unlink()
    with sole_use(tmp_path):
        pass


def test_this_machine_before_it_was_restarted_is_not(tmp_path: Path) -> None:
    leave_behind(tmp_path, Holder(socket.gethostname(), "another boot", os.getpid(), 1, "long ago"))
    with sole_use(tmp_path):
        pass


def test_where_the_file_system_has_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(module.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(module.fcntl, "lockf", no_locks)
    me = Holder.this_process()
    leave_behind(tmp_path, me)
    with pytest.raises(UserError, match=f"process {os.getpid()} on"), sole_use(tmp_path):
        pass
    leave_behind(tmp_path, replace(me, started=me.started - 1))  # the number now belongs to another process
    with sole_use(tmp_path):
        pass
    with other_process(tmp_path / "dead") as process:
        process.kill()
    assert (tmp_path / "dead" / LOCK_FILE).read_bytes()
    with sole_use(tmp_path / "dead"):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"host": "a"}', b"\xff"])
def test_a_file_that_a_crash_left_incomplete_keeps_nobody_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LOCK_FILE).write_bytes(content)
    with sole_use(tmp_path):
        pass


WRITE = """
import sys
from pathlib import Path
from zipformer.files import replacing_folder
with replacing_folder(Path(sys.argv[1])) as folder:
    print("inside", flush=True)
    sys.stdin.readline()
    (folder / "a").write_text("first")
    (folder / "b").write_text("first")
"""


def test_two_processes_that_replace_a_folder_wait_for_each_other(tmp_path: Path) -> None:
    target = tmp_path / "results"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for script in (WRITE, WRITE.replace("first", "second"))
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.wait(30) for process in processes] == [0, 0]
    assert {path.name for path in tmp_path.iterdir()} == {"results"}
    assert (target / "a").read_text() == (target / "b").read_text()
    for process in processes:
        process.communicate()


def test_a_second_writer_is_refused_where_work_is_kept_between_runs(tmp_path: Path) -> None:
    script = HOLD.replace("sole_use(Path(sys.argv[1]))", "one_writer(Path(sys.argv[1]), wait=False)").replace(
        "import sole_use", "import one_writer"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "store"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    where = f"another process is writing {tmp_path}/store: wait for it"
    with pytest.raises(UserError, match=where), one_writer(tmp_path / "store", wait=False):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    with one_writer(tmp_path / "store", wait=False):
        assert {path.name for path in tmp_path.iterdir()} == {".store.lock"}
    assert not list(tmp_path.iterdir())
