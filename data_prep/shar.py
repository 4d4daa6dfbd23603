"""Writes a prepared split as Lhotse Shar: features, and optionally audio, in tar files.

Shar has few large files without paths in them, which suits object stores, slow shared disks and other
toolkits. ``shar/SPLIT`` has only the files of Shar, so that ``CutSet.from_shar(in_dir=...)`` can read it. The
cuts have the order of the manifest of the split, which is random for training.

A shard is finished when its file of cuts is there, which is renamed last.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from lhotse import MonoCut
from lhotse.audio import AudioLoadingError, DurationMismatchError
from lhotse.shar import SharWriter
from rich.console import Console

from data_prep.executors import Pool
from data_prep.manifests import final_cuts_file, grouped
from data_prep.progress import progress
from zipformer.data.audio import choose_filter
from zipformer.data.cuts import read_cuts
from zipformer.data.shar import Shards, write_manifest
from zipformer.errors import UserError
from zipformer.files import flush, remove_leftovers, temporary_beside, write_json
from zipformer.typed_json import read_json

SHAR_FOLDER = "shar"  # in the data directory
SETTINGS_FILE = "settings.json"  # in that folder: settings of Shar
_NUMBER = 6  # digits, as Lhotse writes them


class Storage(Enum):
    """Storage of features: files of many utterances, or tar files of Shar."""

    files = "files"
    shar = "shar"


class FeatureFormat(Enum):
    """Coding of features.

    ``lilcom`` needs about one byte for each number and rounds once more, by at most 1/64; ``numpy`` needs
    four bytes and is exact.
    """

    lilcom = "lilcom"
    numpy = "numpy"


class AudioFormat(Enum):
    """Coding of audio. ``flac`` is lossless for 16 bits; ``opus`` is lossy and needs a tenth of the space."""

    wav = "wav"
    flac = "flac"
    opus = "opus"
    mp3 = "mp3"


@dataclass
class SharConfig:
    """Settings of Shar.

    Attributes:
        shard_size: largest number of utterances in a shard.
        shard_seconds: most seconds of audio in a shard. An hour is 30 MB of features (lilcom) or 115 MB of
            audio (wav).
        features: coding of the features.
        audio: coding of the audio, at the sampling rate of the features; null leaves audio out. It is needed
            to distort the audio in training (data.distortion), and by encoders that read audio.
    """

    shard_size: int = 1000
    shard_seconds: float = 7200.0
    features: FeatureFormat = FeatureFormat.lilcom
    audio: AudioFormat | None = None

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise UserError(f"shar.shard_size is {self.shard_size}; it must be at least 1")
        if self.shard_seconds <= 0:
            raise UserError(f"shar.shard_seconds is {self.shard_seconds}; it must be greater than 0")

    @property
    def fields(self) -> dict[str, str]:
        """Coding by field, as Lhotse names them."""
        sound = {"recording": self.audio.value} if self.audio else {}
        return {"features": self.features.value, **sound}


@dataclass(frozen=True)
class SharShard:
    """A shard to write.

    Attributes:
        directory: folder of the split.
        index: number of the shard.
        cuts: utterances of the shard, with features.
        fields: see :attr:`SharConfig.fields`.
    """

    directory: Path
    index: int
    cuts: Sequence[MonoCut]
    fields: dict[str, str]


def shard_cuts_file(directory: Path, index: int) -> Path:
    return directory / f"cuts.{index:0{_NUMBER}d}.jsonl.gz"


def shard_tar(field: str, index: int) -> str:
    """Name of the tar of a field."""
    return f"{field}.{index:0{_NUMBER}d}.tar"


def write_shard(shard: SharShard) -> int:
    """Write the files of one shard; returns the number of its utterances.

    Raises:
        UserError: features or sound cannot be read any more.
    """
    names = [*(shard_tar(field, shard.index) for field in shard.fields)]
    cuts_file = shard_cuts_file(shard.directory, shard.index)
    folder = temporary_beside(cuts_file)
    shutil.rmtree(folder, ignore_errors=True)  # left by a killed run
    folder.mkdir(parents=True)
    choose_filter()
    suffix = f".{shard.index:0{_NUMBER}d}"
    try:
        with SharWriter(
            folder, shard.fields, shard_size=None, warn_unused_fields=False, shard_suffix=suffix
        ) as writer:
            for cut in shard.cuts:
                try:
                    writer.write(cut if "recording" in shard.fields else cut.drop_recording())
                except (AudioLoadingError, DurationMismatchError, OSError) as error:
                    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
                    raise UserError(
                        f"utterance {cut.id}: what was prepared of it cannot be read any more ({reason}). "
                        "Put the files back and start again; finished shards are kept"
                    ) from error
        for name in [*names, cuts_file.name]:
            flush(folder / name)
            (folder / name).replace(shard.directory / name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    flush(shard.directory)
    return len(shard.cuts)


def check_settings(directory: Path, settings: Mapping[str, Any], *, finished: bool) -> None:
    """Remove shards that were written with other settings.

    Args:
        directory: data directory.
        settings: settings of this run.
        finished: True if all shards are written, so that there is no other copy of the features.

    Raises:
        UserError: all shards are written, with other settings.
    """
    record = directory / SHAR_FOLDER / SETTINGS_FILE
    before = read_json(record, "prepare")
    if before == settings:
        return
    if finished:
        raise UserError(
            f"{directory} is stored as Shar with other settings ({before}): set shar back to them, or choose "
            "another data_dir"
        )
    shutil.rmtree(directory / SHAR_FOLDER, ignore_errors=True)
    write_json(record, settings)


def write_splits(
    directory: Path, totals: Mapping[str, int], config: SharConfig, workers: Pool, console: Console
) -> dict[str, int]:
    """Write the splits as Shar, then the manifests that refer to it.

    Args:
        directory: data directory.
        totals: number of utterances by split.
        config: settings of Shar.
        workers: pool that writes the missing shards.
        console: console for the progress.

    Returns:
        Number of shards by split.

    Raises:
        UserError: features or sound cannot be read any more.
    """
    shards = {}
    for split, total in totals.items():
        folder = directory / SHAR_FOLDER / split
        with progress(f"shar {split}", total, "utterances", console=console) as advance:
            jobs = _Shards(folder, final_cuts_file(directory, split), config, advance)
            for count in workers.map(write_shard, jobs):
                advance(count)
        remove_leftovers(folder)
        shards[split] = jobs.count
    # Only after all shards are written: until then, features are read from their old files.
    for split, count in shards.items():
        _write_manifest(directory, split, count, config)
    return shards


class _Shards:
    """The missing shards of a split; can be iterated once.

    Attributes:
        count: number of shards so far, whether written or not.
    """

    def __init__(
        self, folder: Path, manifest: Path, config: SharConfig, advance: Callable[[int], None]
    ) -> None:
        self.count = 0
        self._folder, self._manifest, self._config, self._advance = folder, manifest, config, advance

    def __iter__(self) -> Iterator[SharShard]:
        config = self._config
        cuts = read_cuts(self._manifest)
        for index, group in enumerate(grouped(cuts, config.shard_size, config.shard_seconds)):
            self.count += 1
            if shard_cuts_file(self._folder, index).is_file():
                self._advance(len(group))
            else:
                yield SharShard(self._folder, index, group, config.fields)


def _write_manifest(directory: Path, split: str, shards: int, config: SharConfig) -> None:
    """Write the manifest of a split; the tar files in it are relative to the data directory."""
    folder = directory / SHAR_FOLDER / split
    tars = {
        field: [f"{SHAR_FOLDER}/{split}/{shard_tar(field, index)}" for index in range(shards)]
        for field in config.fields
    }
    cuts = [shard_cuts_file(folder, index) for index in range(shards)]
    write_manifest(Shards(cuts, tars), final_cuts_file(directory, split))
