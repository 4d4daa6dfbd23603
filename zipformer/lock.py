"""One run at a time in a directory.

The lock is a lock of the operating system (``fcntl.lockf``, which also works over NFS) on the file ``.lock``.
It ends with the process that holds it, even after a crash, and worker processes do not inherit it. The file
names the holder.

Some shared file systems (BeeGFS by default, Lustre with ``localflock``) grant the lock on two machines at
once, and some have no locks. Therefore the content of the file counts as well: a run empties the file at its
end, and an entry of another machine is valid until somebody removes the file.
"""

import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from zipformer.errors import UserError

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock.

    Attributes:
        host: name of the machine, or of the container.
        machine: id of the running system; containers of one machine share it.
        pid: process id.
        started: clock ticks from the start of the machine to the start of the process. A process with the
            same id and another start is another process.
        since: local time at which it took the lock.
    """

    host: str
    machine: str
    pid: int
    started: int
    since: str

    @classmethod
    def this_process(cls) -> "Holder":
        return cls(
            socket.gethostname(),
            Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
            os.getpid(),
            _started(os.getpid()) or 0,
            time.strftime("%Y-%m-%d %H:%M:%S"),
        )

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextmanager
def sole_use(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory, which is created if missing.

    Raises:
        UserError: another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / LOCK_FILE
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _take(descriptor, path)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


@contextmanager
def one_writer(place: Path, *, wait: bool) -> Iterator[None]:
    """Let one process at a time write a file or folder, which may be replaced meanwhile.

    The lock is on the file ``.NAME.lock`` beside the place, which is removed at the end. Only the lock of the
    operating system counts here: what a killed process leaves stops nobody, on any machine.

    Args:
        place: the file or folder; the folder around it is made if it is not there.
        wait: wait until another writer has finished; else raise.

    Raises:
        UserError: another process writes it, and ``wait`` is false.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    path = place.with_name(f".{place.name.lstrip('.')}.lock")
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock_writer(descriptor, place, wait=wait)
            if _is_open_at(descriptor, path):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return
        finally:
            os.close(descriptor)


def _lock_writer(descriptor: int, place: Path, *, wait: bool) -> None:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        if not wait:
            raise UserError(
                f"another process is writing {place}: wait for it or stop it, then start this again"
            ) from None
        logger.info("Another process is writing %s; waiting for it", place)
        fcntl.lockf(descriptor, fcntl.LOCK_EX)


def _is_open_at(descriptor: int, path: Path) -> bool:
    """Whether a path still names an open file: the writer before may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _take(descriptor: int, path: Path) -> None:
    me, locked = Holder.this_process(), True
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise UserError(
                f"{path.parent} is in use by {_read(descriptor) or 'another process'}: wait for it, stop it, "
                "or choose another directory"
            ) from None
        if error.errno not in _NO_LOCKS:
            raise
        locked = False
    holder = _read(descriptor)
    if holder is not None and _may_live(holder, me, locked=locked):
        raise UserError(
            f"{path.parent} was taken into use by {holder}, and not given back: wait for it or stop it. "
            f"If it runs no more (its machine crashed, or it was killed), remove {path}"
        )
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(asdict(me)).encode(), 0)


def _may_live(holder: Holder, me: Holder, *, locked: bool) -> bool:
    """Whether the process in a lock file may still run.

    Args:
        holder: process in the lock file.
        me: calling process.
        locked: True if the operating system has given the lock to ``me``.
    """
    if holder.machine == me.machine:
        return not locked and _started(holder.pid) == holder.started
    return holder.host != me.host  # the same host with another machine id was restarted


def _read(descriptor: int) -> Holder | None:
    """Holder in the file; None if there is none, or the entry is incomplete after a crash."""
    try:
        return Holder(**json.loads(os.pread(descriptor, 4096, 0)))
    except (ValueError, TypeError):
        return None


def _started(pid: int) -> int | None:
    """Clock ticks from the start of the machine to that of a process; None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(text.rpartition(")")[2].split()[19])  # the name before ")" may have any characters
