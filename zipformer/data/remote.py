"""Fetches files of a folder on another machine when they are needed, into a cache of bounded size.

A folder of the cache corresponds to the remote folder and has its files under the same names. A note in it
gives the remote place, so that any process can fetch a missing file. Several processes and several runs may
share a cache.
"""

import hashlib
import http.client
import os
import shlex
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from zipformer.errors import UserError
from zipformer.files import OF_THE_PLACE, place_errors, replacing, write_json
from zipformer.typed_json import read_json

SOURCE_FILE = "source.json"
_URLS = ("http://", "https://")
_COMMAND = "pipe:"
_ATTEMPTS = 4
_TIMEOUT_SECONDS = 60.0
_BLOCK_BYTES = 1 << 20
_GIB = 1 << 30


@dataclass
class CacheConfig:
    """Settings of the cache of remote data.

    Attributes:
        directory: folder on a disk of this machine.
        gib: largest total size of tar files in the cache, in GiB; files that were not read for the longest
            time are removed first, and fetched again when needed.
    """

    directory: str = "~/.cache/fangyan"
    gib: float = 100.0

    def __post_init__(self) -> None:
        if self.gib <= 0:
            raise UserError(f"data.cache.gib={self.gib} must be greater than 0")

    def folder_of(self, place: str) -> Path:
        """Folder of the cache for a place: a URL, a command, or a folder."""
        digest = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return Path(self.directory).expanduser().absolute() / digest


@dataclass(frozen=True)
class Source:
    """Remote source of the files in a folder of the cache.

    Attributes:
        folder: folder of the cache.
        place: URL of the remote folder, or ``pipe:COMMAND`` with ``{}`` for the name of a file; the command
            writes the file to standard output.
        gib: see :class:`CacheConfig`.
    """

    folder: Path
    place: str
    gib: float

    def fetch(self, name: str) -> Path:
        """Fetch a file into the cache if it is not there; returns its path.

        Args:
            name: path relative to the folder.

        Raises:
            MissingFileError: the remote folder has no such file.
            DataFileError: the file cannot be fetched completely.
        """
        path = self.folder / name
        if path.is_file():
            return path
        remedy = "make room there, lower data.cache.gib, or set data.cache.directory=DIR"
        with place_errors(self.folder, remedy), replacing(path, shared=True) as temporary:
            try:
                if self.place.startswith(_COMMAND):
                    _run_command(self.place.removeprefix(_COMMAND), name, temporary)
                else:
                    _with_attempts(lambda: _download(self.url(name), temporary), self.url(name))
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        if path.suffix == ".tar":
            self._remove_oldest(keep=path)
        return path

    def fetch_again(self, name: str) -> Path:
        """Fetch a file again that may have changed since it was fetched.

        Raises:
            UserError: the file has changed, and so perhaps have the files that belong to it; or see
                :meth:`fetch`.
        """
        path = self.folder / name
        before = path.read_bytes() if path.is_file() else None
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            now = Source(Path(folder), self.place, self.gib).fetch(name).read_bytes()
        if before is not None and before != now:
            raise UserError(
                f"the data at {self.place} changed since they were fetched into {self.folder}: remove that "
                "folder, and they are fetched anew"
            )
        return self.fetch(name)

    def exists(self, name: str) -> bool:
        """Whether the remote folder has a file; not checked for a command."""
        if self.place.startswith(_COMMAND) or (self.folder / name).is_file():
            return True
        try:
            _with_attempts(lambda: _head(self.url(name)), self.url(name))
        except MissingFileError:
            return False
        return True

    def url(self, name: str) -> str:
        return f"{self.place.rstrip('/')}/{quote(name)}"

    def _remove_oldest(self, keep: Path) -> None:
        """Remove tar files of the whole cache until the rest fits; running reads are not affected."""
        found = []
        for path in self.folder.parent.glob("*/**/*.tar"):
            try:
                state = path.stat()
            except FileNotFoundError:  # another process was faster
                continue
            found.append((state.st_mtime_ns, state.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.gib * _GIB:
                break
            if path != keep and source_of(path) is not None:
                path.unlink(missing_ok=True)
                total -= size


class DataFileError(UserError):
    """A file of data that cannot be read; the message names the file and the remedy.

    Lhotse raises errors again with the arguments of its functions after the message; these are removed.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.partition("\n[extra info] When calling:")[0])


class MissingFileError(DataFileError):
    """A file that does not exist."""


def is_remote(place: str) -> bool:
    """Whether a place is a URL or a command instead of a folder of this machine."""
    return place.startswith((*_URLS, _COMMAND))


def open_source(place: str, cache: CacheConfig) -> Source:
    """Open the cache of a remote place, and write its note."""
    source = Source(cache.folder_of(place), place, cache.gib)
    note = {"place": source.place, "gib": source.gib}
    if read_json(source.folder / SOURCE_FILE, "train") != note:
        write_json(source.folder / SOURCE_FILE, note, shared=True)
    return source


def source_of(path: Path) -> Source | None:
    """Remote source of a file in the cache; None for a file outside any cache."""
    for folder in path.parents:
        if (folder / SOURCE_FILE).is_file():
            note = read_json(folder / SOURCE_FILE, "train") or {}
            return Source(folder, str(note["place"]), float(note["gib"]))
    return None


def local_file(path: Path) -> Path:
    """Path of a file, which is fetched first if it belongs to a cache and is missing.

    Raises:
        MissingFileError: the file does not exist, or not at its source.
        DataFileError: the file cannot be fetched.
    """
    if not path.is_file():
        source = source_of(path)
        if source is None:
            raise MissingFileError(f"{path} does not exist: put it back, or prepare the data again")
        return source.fetch(str(path.relative_to(source.folder)))
    return path


def touch(path: Path) -> None:
    """Mark a file of a cache as used, so that it is not removed first."""
    try:
        os.utime(path)
    except OSError:  # already removed, or read-only: this is only a hint
        return


def _with_attempts(action: Callable[[], None], url: str) -> None:
    """Try an action several times, because a connection may break or a server may be busy."""
    for attempt in range(_ATTEMPTS):
        try:
            action()
            return
        except urllib.error.HTTPError as error:
            if error.code in (403, 404, 410):
                raise MissingFileError(
                    f"{url} is not there (HTTP {error.code}): put the file there, or correct the URL"
                ) from error
            reason = f"HTTP {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            # URLError, a time-out, a reset, a truncated body; but not a full disk
            if isinstance(error, OSError) and error.errno in OF_THE_PLACE:
                raise
            reason = str(getattr(error, "reason", None) or error)
        if attempt + 1 < _ATTEMPTS:
            time.sleep(0.2 * 5**attempt)
    raise DataFileError(
        f"{url} cannot be fetched ({reason}, {_ATTEMPTS} attempts): see that its server runs and that this "
        "machine reaches it, then start the same command again"
    )


def _download(url: str, path: Path) -> None:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer, path.open("wb") as file:
        shutil.copyfileobj(answer, file, _BLOCK_BYTES)
        promised = answer.headers.get("Content-Length")
    if promised is not None and path.stat().st_size != int(promised):
        raise http.client.IncompleteRead(b"", int(promised) - path.stat().st_size)


def _head(url: str) -> None:
    request = urllib.request.Request(url, method="HEAD")
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):
        pass


def _run_command(command: str, name: str, path: Path) -> None:
    if "{}" not in command:
        raise UserError(f"pipe:{command} has no {{}} in the place where the name of a file goes")
    line = command.replace("{}", shlex.quote(name))
    with path.open("wb") as file:
        process = subprocess.run(
            f"set -o pipefail; {line}",
            shell=True,
            executable="/bin/bash",
            stdout=file,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    if process.returncode or not path.stat().st_size:
        said = process.stderr.decode("utf-8", "replace").strip().splitlines()
        raise MissingFileError(
            f"the command {line!r} gave no file (status {process.returncode}"
            + (f", {said[-1]}" if said else "")
            + "): correct it, or put the file there"
        )
