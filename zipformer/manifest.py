"""A manifest of training cuts, of which each reader takes no more than it needs.

A cut of Lhotse is some ten objects, and to build them takes far longer than to read its line. Selection looks
at a few fields of every line, the sampler at its duration, and only the process that loads the features of a
batch builds the cuts of that batch. So a run starts, or goes on in the middle of an epoch, at the speed of
decompression, and nothing but a number is kept for each cut.
"""

import gzip
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from lhotse import MonoCut
from lhotse.cut import Cut
from lhotse.serialization import decode_json_line, deserialize_item
from lhotse.utils import compute_num_frames, fastcopy

_BLOCK_BYTES = 1 << 20
_ONE_RECORDING = ("MonoCut", "MultiCut")  # the types of cut that have all they need in their own fields


class _Supervision(msgspec.Struct):
    id: str = ""
    text: str | None = None
    language: str | None = None
    custom_json: msgspec.Raw = msgspec.field(name="custom", default=msgspec.Raw(b"null"))

    @property
    def custom(self) -> dict[str, Any] | None:
        return msgspec.json.decode(self.custom_json)  # seldom asked for, so not decoded with the line


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
        duration: seconds.
        line: JSON.
        dataloading_info: Lhotse's sampler leaves its diagnostics here.
    """

    __slots__ = ("dataloading_info", "duration", "line")

    def __init__(self, line: bytes, duration: float) -> None:
        self.line = line
        self.duration = duration
        self.dataloading_info: object = None

    def cut(self) -> Cut:
        return deserialize_item(decode_json_line(self.line))


def read_summaries(manifest: Path) -> Iterator[CutSummary | Cut]:
    """What selection needs of every cut; a cut mixed of several is built as a whole.

    Raises:
        ValueError: a line that is not a cut, with its number.
    """
    decoder = msgspec.json.Decoder(CutSummary)
    for number, line in enumerate(_lines(manifest), start=1):
        try:
            summary = decoder.decode(line)
        except msgspec.DecodeError as error:
            raise ValueError(
                f"{manifest}, line {number}, is not a cut ({error}): prepare the data again"
            ) from error
        yield summary if summary.type in _ONE_RECORDING else deserialize_item(decode_json_line(line))


def with_relative_paths(cut: MonoCut, directory: Path) -> MonoCut:
    """A cut whose features and audio, where they are below a folder, are named relative to it.

    So the folder can be renamed or copied to another machine. Audio elsewhere keeps its absolute path.
    """

    def relative(path: str) -> str:
        return str(Path(path).relative_to(directory)) if Path(path).is_relative_to(directory) else path

    features, recording = cut.features, cut.recording
    if features is not None:
        features = fastcopy(features, storage_path=relative(features.storage_path))
    if recording is not None:
        sources = [
            fastcopy(source, source=relative(source.source)) if source.type == "file" else source
            for source in recording.sources
        ]
        recording = fastcopy(recording, sources=sources)
    return fastcopy(cut, features=features, recording=recording)


def with_absolute_paths(cut: Cut, directory: Path) -> Cut:
    """The inverse of :func:`with_relative_paths`; what is absolute already stays as it is."""
    if cut.has_features:
        cut = cut.with_features_path_prefix(directory)
    return cut.with_recording_path_prefix(directory) if cut.has_recording else cut


def check_feature_files(paths: Iterable[str], directory: Path) -> None:
    """See that the files of features that a manifest names are there.

    Args:
        paths: of the files; relative ones are relative to the data directory.
        directory: the data directory.

    Raises:
        FileNotFoundError: some are not; says what may have happened and what to do.
    """
    files = sorted({directory / path for path in paths})
    missing = [file for file in files if not file.exists()]
    if missing:
        raise FileNotFoundError(
            f"{directory} was moved or copied in part: {len(missing)} of the {len(files)} files of features "
            f"that its manifest names are not there, the first is {missing[0]}; put them there, or prepare "
            "the data again (scripts/prepare.py)"
        )


class SelectedLines:
    """The selected cuts of a manifest, in its order; may be iterated any number of times.

    Args:
        manifest: JSON lines, compressed by gzip if the name ends in ``.gz``.
        durations: seconds of each cut, NaN for one that is left out.
    """

    def __init__(self, manifest: Path, durations: Sequence[float]) -> None:
        self.manifest = manifest
        self.durations = durations

    def __iter__(self) -> Iterator[CutLine]:
        for line, duration in zip(_lines(self.manifest), self.durations, strict=True):
            if not math.isnan(duration):
                yield CutLine(line, duration)


def _lines(path: Path) -> Iterator[bytes]:
    """Lines of a file without their ends."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        rest = b""
        while block := file.read(_BLOCK_BYTES):
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
        if rest:
            yield rest
