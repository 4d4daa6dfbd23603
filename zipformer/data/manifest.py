"""A manifest of training cuts, of which each reader takes no more than it needs.

A cut of Lhotse is some ten objects, and to build them takes far longer than to read its line. Selection looks
at a few fields of every line, the sampler at its duration, and only the process that loads the features of a
batch builds the cuts of that batch. So a run starts, or goes on in the middle of an epoch, at the speed of
decompression, and nothing but a number is kept for each cut.
"""

import gzip
import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import msgspec
from lhotse import AudioSource
from lhotse.cut import Cut, MixedCut
from lhotse.cut.data import DataCut
from lhotse.serialization import decode_json_line, deserialize_item
from lhotse.utils import compute_num_frames, fastcopy

from zipformer.data.remote import source_of
from zipformer.data.tar import AUDIO_IN_TAR, TarAudioSource
from zipformer.errors import UserError
from zipformer.typed_json import read_json

PREPARATION_FILE = "prepare.json"  # in a data directory: what prepared it, and where

_BLOCK_BYTES = 1 << 20
_ONE_RECORDING = ("MonoCut", "MultiCut")  # the types of cut that have all they need in their own fields


class SupportsRead(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Supervision(msgspec.Struct):
    id: str = ""
    text: str | None = None
    language: str | None = None
    speaker: str | None = None
    custom_json: msgspec.Raw = msgspec.field(name="custom", default=msgspec.Raw(b"null"))

    @property
    def custom(self) -> dict[str, Any] | None:
        return msgspec.json.decode(self.custom_json)  # rarely needed, so not decoded with the line


class _Features(msgspec.Struct):
    frame_shift: float
    sampling_rate: int
    storage_path: str = ""


class CutSummary(msgspec.Struct):
    """The fields of a line by which an utterance is selected, named as in Lhotse's cut."""

    id: str
    type: str
    duration: float = math.nan
    supervisions: list[_Supervision] = []
    features: _Features | None = None

    @property
    def has_features(self) -> bool:
        return self.features is not None

    @property
    def num_frames(self) -> int | None:
        if self.features is None:
            return None
        return compute_num_frames(self.duration, self.features.frame_shift, self.features.sampling_rate)


class CutLine:
    """A cut that is still a line of JSON, with the one property that the sampler asks for.

    Attributes:
        line: JSON.
        duration: seconds.
        directory: absolute path of the manifest's data directory.
        number: place of the line in its manifest, counted from 0.
        stream: place of the manifest among those of a mixture.
        before: number of times that the epoch has used the cut already.
        dataloading_info: Lhotse's samplers leave their diagnostics here.
    """

    __slots__ = ("before", "dataloading_info", "directory", "duration", "line", "number", "stream")

    def __init__(
        self,
        line: bytes,
        duration: float,
        directory: Path,
        number: int,
        stream: int = 0,
        before: int = 0,
    ) -> None:
        self.line = line
        self.duration = duration
        self.directory = directory
        self.number = number
        self.stream = stream
        self.before = before
        self.dataloading_info: object = None

    def cut(self) -> Cut:
        """The cut, whose files are named where they are now."""
        return with_present_paths(deserialize_item(decode_json_line(self.line)), self.directory)


def read_summaries(manifest: Path) -> Iterator[CutSummary | Cut]:
    """What selection needs of every cut; a cut mixed of several is built as a whole.

    Raises:
        UserError: a line that is not a cut, with its number.
    """
    decoder = msgspec.json.Decoder(CutSummary)
    for number, line in enumerate(read_lines(manifest), start=1):
        try:
            summary = decoder.decode(line)
        except msgspec.DecodeError as error:
            raise UserError(
                f"{manifest}, line {number}, is not a cut ({error}): prepare the data again"
            ) from error
        yield summary if summary.type in _ONE_RECORDING else deserialize_item(decode_json_line(line))


@lru_cache
def _prepared_as(directory: Path) -> Path | None:
    """The path that a data directory had when it was prepared; None where nothing says so."""
    record = directory / PREPARATION_FILE
    place = (read_json(record, "prepare") or {}).get("directory")
    return None if place is None else Path(place)


def place_now(path: str, directory: Path) -> str:
    """Where a file that a manifest names is now, as an absolute path.

    Manifests hold absolute paths, so that Lhotse reads them without further ado. What lay below the data
    directory when it was prepared has moved with it; a relative path is relative to it; all else stays.
    """
    before = _prepared_as(directory)
    if before is not None and Path(path).is_relative_to(before):
        path = str(Path(path).relative_to(before))
    return str(directory.absolute() / path)


def with_present_paths(cut: Cut, directory: Path) -> Cut:
    """A cut of a manifest whose features and audio are named where they are now (:func:`place_now`)."""
    if isinstance(cut, MixedCut):
        tracks = [fastcopy(track, cut=with_present_paths(track.cut, directory)) for track in cut.tracks]
        return fastcopy(cut, tracks=tracks)
    if not isinstance(cut, DataCut):
        return cut
    features, recording = cut.features, cut.recording
    if features is not None:
        features = fastcopy(features, storage_path=place_now(features.storage_path, directory))
    if recording is not None:
        sources = [_present_source(source, cut.id, directory) for source in recording.sources]
        recording = fastcopy(recording, sources=sources)
    return fastcopy(cut, features=features, recording=recording)


def _present_source(source: AudioSource, utterance_id: str, directory: Path) -> AudioSource:
    if source.type == AUDIO_IN_TAR:
        tar = place_now(source.source, directory)
        return TarAudioSource("shar", source.channels, tar, utterance_id=utterance_id)
    if source.type == "file":
        return fastcopy(source, source=place_now(source.source, directory))
    return source


def check_feature_files(paths: Iterable[str], directory: Path) -> None:
    """See that the files of features that a manifest names are there.

    Args:
        paths: where they are now (:func:`place_now`).
        directory: the data directory, for the message.

    A file of a cache need not be there: it is fetched when it is read.

    Raises:
        UserError: some are not; says what may have happened and what to do.
    """
    files = sorted({Path(path) for path in paths})
    missing = [file for file in files if not file.exists() and source_of(file) is None]
    if missing:
        raise UserError(
            f"{directory} was moved or copied in part: {len(missing)} of the {len(files)} files of features "
            f"that its manifest names are not there, the first is {missing[0]}; put them there, or prepare "
            "the data again (fangyan prepare)"
        )


def read_lines(path: Path) -> Iterator[bytes]:
    """Lines of a file without their ends."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield from lines_of(file, _BLOCK_BYTES)


def lines_of(file: SupportsRead, block_bytes: int) -> Iterator[bytes]:
    """Lines of an open file without their ends, from where it is; reads so many bytes at once."""
    rest = b""
    while block := file.read(block_bytes):
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
    if rest:
        yield rest
