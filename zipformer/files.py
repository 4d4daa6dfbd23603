"""Files and folders that are either complete or not there, and what to say where a place cannot be written.

What is written goes to a temporary name beside its place, is flushed to the disk, and is renamed. A process
that is killed at any moment leaves the old content or the new one under the right name, never parts of both;
at most a temporary one stays, which the next run removes or writes over.
"""

import csv
import ctypes
import errno
import hashlib
import json
import os
import shutil
import socket
import stat
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from zipformer.errors import UserError
from zipformer.lock import one_writer

# Errors of a place, not of the program: its user can mend them.
OF_THE_PLACE = (
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR),
    errno.EFBIG,  # 4 GiB on many USB disks, or a limit of the shell (ulimit -f)
)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # from Linux's fcntl.h and fs.h
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)  # an old kernel, or a file system without it
_OWN_NAMES: ContextVar[bool] = ContextVar("own_names", default=False)  # see own_names()


class StorageError(UserError):
    """A place that cannot be written or read; the message names it and says what to do."""


@contextmanager
def replacing(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to, and rename it to ``path`` when the block ends well.

    The temporary name keeps the suffixes of ``path``, because writers choose compression by them.

    Args:
        path: the file.
        shared: several processes may write the file at the same time, so each uses a temporary name of its
            own, which stays after a kill.
    """
    temporary = temporary_beside(path, shared=shared)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    yield temporary
    flush(temporary)
    os.replace(temporary, path)
    flush(path.parent)


def temporary_beside(path: Path, *, shared: bool = False) -> Path:
    """A temporary name beside ``path`` with the same suffixes; ``shared`` as in :func:`replacing`."""
    stem, dot, suffixes = path.name.partition(".")
    part = f"part{os.getpid()}" if shared else "part"
    if _OWN_NAMES.get():
        host = socket.gethostname().replace(".", "_")
        part = f"part-{host}-{os.getpid()}-{threading.get_ident()}"
    return path.with_name(f"{stem}-{part}{dot}{suffixes}")


def remove_leftovers(directory: Path) -> None:
    """Remove what killed processes left in a folder under temporary names; nobody may write there."""
    for path in directory.glob("*-part*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def own_names() -> Iterator[None]:
    """Within the block, what this thread writes has temporary names of its own, on whichever machine it runs.

    For files that several machines may write at the same time. A kill leaves the temporary ones.
    """
    token = _OWN_NAMES.set(True)
    try:
        yield
    finally:
        _OWN_NAMES.reset(token)


def write_text(path: Path, text: str, *, shared: bool = False) -> None:
    """Write a text file, complete or not at all; ``shared`` as in :func:`replacing`."""
    with replacing(path, shared=shared) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any], *, shared: bool = False) -> None:
    """Write a JSON file, complete or not at all; ``shared`` as in :func:`replacing`."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n", shared=shared)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table with a line of column names, complete or not at all; None is an empty field."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def column_names(row_type: type[Any]) -> list[str]:
    """Names of the fields of a dataclass whose instances are the rows of a table."""
    return [field.name for field in fields(row_type)]


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file that others may read as the umask says.

    safetensors creates its files so that only their owner may read them, which keeps a model that lies on a
    shared disk from everybody else.

    Raises:
        OSError: the file system refuses.
    """
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:  # says in words only what the file system said in a number
        free = shutil.disk_usage(path.parent).free
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        code = errno.ENOSPC if free < size else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from error
    os.chmod(path, mode)


@contextmanager
def replacing_folder(directory: Path, *, keep_others: bool = True) -> Iterator[Path]:
    """Give an empty folder to fill, which takes the place of ``directory`` when the block ends well.

    After an error, ``directory`` is as it was. Processes that replace the same folder wait for each other;
    the content is that of the last one.

    Args:
        directory: the folder.
        keep_others: files of ``directory`` that the block does not write (the results in a model directory)
            stay there: they are linked into the new folder. Otherwise they are removed.

    Raises:
        StorageError: ``directory`` is a mount point, which cannot be renamed.
    """
    final = Path(os.path.realpath(directory))
    partial = final.with_name(f".{final.name.lstrip('.')}.partial")
    with one_writer(final, wait=True):
        _recover(final)
        remove_folder(partial)
        partial.mkdir(parents=True)
        try:
            yield partial
            if keep_others and final.is_dir():
                _keep_others(final, partial)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        replace_folder(partial, final)


def replace_folder(complete: Path, directory: Path) -> None:
    """Put a complete folder into the place of ``directory``, then remove what was there before.

    Linux exchanges the two in one step. Elsewhere, and on file systems that cannot, the old folder is renamed
    first; :func:`replacing_folder` puts it back if a kill between the two renames left nothing.

    Args:
        complete: beside ``directory``, on the same file system.

    Raises:
        StorageError: ``directory`` is a mount point, which cannot be renamed.
    """
    directory = Path(os.path.realpath(directory))
    if os.path.ismount(directory):
        raise StorageError(f"{directory} is a mount point, which cannot be replaced: give a folder in it")
    flush_tree(complete)
    if not directory.exists():
        os.rename(complete, directory)
        flush(directory.parent)
        return
    old = complete
    if not _exchange(complete, directory):
        old = _replaced(directory)
        remove_folder(old)
        os.rename(directory, old)
        os.rename(complete, directory)
    flush(directory.parent)
    remove_folder(old)


def remove_folder(directory: Path) -> None:
    """Remove a folder with all that is in it, if it is there."""
    if directory.exists():
        shutil.rmtree(directory)


def flush(path: Path) -> None:
    """Wait until a file, or the list of names of a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # some network file systems refuse folders
            raise
    finally:
        os.close(handle)


def flush_tree(directory: Path) -> None:
    """:func:`flush` for a folder and all that is in it."""
    for path in directory.rglob("*"):
        if not path.is_symlink():
            flush(path)
    flush(directory)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits, as ``sha256sum`` prints it; read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def place_errors(place: Path | str, remedy: str) -> Iterator[None]:
    """Turn errors of the file system that the user can mend (read-only, no right, full) into one line.

    Args:
        place: named where the error names no file.
        remedy: what to do, such as "choose another exp_dir".

    Raises:
        StorageError: instead of such an error; other errors stay as they are.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in OF_THE_PLACE:
            raise
        raise StorageError(f"{error.filename or place}: {error.strerror}; {remedy}") from error


def check_writable(directory: Path, remedy: str) -> None:
    """See that files can be created in a folder, or the folder itself where it is not there; writes nothing.

    Raises:
        StorageError: it cannot be written.
    """
    nearest = Path(os.path.realpath(directory))
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise StorageError(f"{directory} cannot be written: {nearest} is a file; {remedy}")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise StorageError(
            f"{directory} cannot be written ({nearest} is read-only or belongs to another user); {remedy}"
        )


def _recover(final: Path) -> None:
    """Put the old folder back, or remove it, after a kill within :func:`replace_folder`."""
    old = _replaced(final)
    if old.exists() and not final.exists():
        os.rename(old, final)
    remove_folder(old)


def _replaced(directory: Path) -> Path:
    return directory.with_name(f".{directory.name.lstrip('.')}.old.partial")


def _exchange(left: Path, right: Path) -> bool:
    """Exchange two folders in one step; False where the system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    sys.audit("os.rename", str(left), str(right), -1, -1)  # as Python's own renames do
    if renameat2(_AT_FDCWD, os.fsencode(left), _AT_FDCWD, os.fsencode(right), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(left), None, str(right))


def _keep_others(old: Path, new: Path) -> None:
    """Link what is in one folder and not in another into the latter; the folder keeps its mode."""
    for entry in old.iterdir():
        target = new / entry.name
        if target.exists():
            continue
        if entry.is_symlink():
            os.symlink(os.readlink(entry), target)
        elif entry.is_dir():
            shutil.copytree(entry, target, symlinks=True, copy_function=_link)
        else:
            _link(entry, target)
    os.chmod(new, stat.S_IMODE(old.stat().st_mode))


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links, or a file of another user: copy
        shutil.copy2(source, target)


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, by name; folders that are links are searched too, each real folder once."""
    found: list[Path] = []
    seen: set[Path] = set()  # folders seen: ends a cycle of links after its first round
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = Path(parent).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        found += [path for path in (Path(parent, name) for name in names) if path.is_file()]
    return sorted(found)
