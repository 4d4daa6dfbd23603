"""Reads features and audio of an utterance, by id, from a tar file of Lhotse Shar.

In such a tar, an utterance has two members: data (``ID.llc``, ``ID.npy``, ``ID.flac``, ...) and manifest
(``ID.json``). The headers are read once for each open tar, by seeking from one to the next; then an utterance
needs one read at a known position.
"""

import os
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import lilcom
import numpy as np
from lhotse import AudioSource
from lhotse.features.io import FeaturesReader, register_reader
from numpy.typing import NDArray

from zipformer.data.remote import DataFileError, local_file, source_of, touch

FEATURES_IN_TAR = "shar_tar"  # storage type of features in a tar
AUDIO_IN_TAR = "shar_tar"  # type of a source of audio in a tar
_END_BYTES = 2 * tarfile.BLOCKSIZE  # zeros at the end of every complete tar
_OPEN_TARS = 64
_MANIFEST, _NO_DATA = ".json", (".nodata", ".nometa")


class TarFile:
    """An open tar, with access by utterance.

    Raises:
        DataFileError: the file is missing, truncated, or not a tar.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = _open(path)
        try:
            check_end(path)
            self._members = self._read_members()
        except BaseException:
            os.close(self._descriptor)
            del self._descriptor
            raise

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read(self, utterance_id: str) -> tuple[bytes, str]:
        """Data of an utterance, and the suffix of its member.

        Raises:
            DataFileError: the tar has no data of the utterance.
        """
        if utterance_id not in self._members:
            raise DataFileError(
                f"{self.path} holds nothing of the utterance {utterance_id}, which the manifest of the cuts "
                f"names: {remedy_for(self.path)}"
            )
        offset, size, suffix = self._members[utterance_id]
        data = os.pread(self._descriptor, size, offset)
        if len(data) < size:
            raise DataFileError(f"{self.path} has become shorter while it was read: {remedy_for(self.path)}")
        return data, suffix

    def _read_members(self) -> dict[str, tuple[int, int, str]]:
        members = {}
        try:
            with (
                os.fdopen(os.dup(self._descriptor), "rb") as file,
                tarfile.open(fileobj=file, mode="r:") as tar,
            ):
                for member in tar:
                    stem, suffix = os.path.splitext(member.name)
                    if suffix != _MANIFEST and suffix not in _NO_DATA:
                        members[stem] = (member.offset_data, member.size, suffix)
        except tarfile.TarError as error:
            raise DataFileError(f"{self.path} is damaged ({error}): {remedy_for(self.path)}") from error
        return members


def _open(path: Path) -> int:
    """File descriptor of a tar, which is fetched first if it belongs to a cache."""
    for last in (False, False, True):
        if source_of(path) is not None:
            local_file(path)
            touch(path)
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            # Another process may just have removed it from the cache.
            if last or source_of(path) is None:
                raise DataFileError(f"{path} does not exist: {remedy_for(path)}") from error
    raise AssertionError("not reached")


def check_end(path: Path) -> None:
    """Check the end of a tar, which takes one short read.

    Raises:
        DataFileError: the tar is truncated.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END_BYTES))
        if size % tarfile.BLOCKSIZE or file.read() != bytes(_END_BYTES):
            raise DataFileError(
                f"{path} is cut off: it has {size} bytes and not the end of a whole tar; {remedy_for(path)}"
            )


def remedy_for(path: Path) -> str:
    """Advice to the user about a damaged tar."""
    if (source := source_of(path)) is not None:
        name = str(path.relative_to(source.folder))
        there = source.place if source.place.startswith("pipe:") else source.url(name)
        return f"remove {path} to have it fetched again; if that does not help, replace it at {there}"
    return "copy it there again, or write it again (fangyan prepare storage=shar)"


@lru_cache(maxsize=_OPEN_TARS)
def _open_tar(path: Path) -> TarFile:
    return TarFile(path)


@register_reader
class TarFeaturesReader(FeaturesReader):
    """Lhotse reader of features in a tar: ``storage_path`` is the tar, ``storage_key`` an utterance id."""

    name = FEATURES_IN_TAR

    def __init__(self, storage_path: str, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.path = Path(storage_path)

    def read(
        self, key: str, left_offset_frames: int = 0, right_offset_frames: int | None = None
    ) -> NDArray[np.float32]:
        """Frames (T, F) of an utterance."""
        data, suffix = _open_tar(self.path).read(key)
        try:
            features = (
                lilcom.decompress(data) if suffix == ".llc" else np.load(BytesIO(data), allow_pickle=False)
            )
        except ValueError as error:
            raise DataFileError(
                f"the features of {key} in {self.path} are damaged ({error}): {remedy_for(self.path)}"
            ) from error
        part: NDArray[np.float32] = features[left_offset_frames:right_offset_frames]
        return part


@dataclass
class TarAudioSource(AudioSource):
    """Audio of an utterance in the tar ``source``; read when samples are needed."""

    utterance_id: str = ""

    def _prepare_for_reading(self, *args: Any, **kwargs: Any) -> BytesIO:
        return BytesIO(_open_tar(Path(self.source)).read(self.utterance_id)[0])
