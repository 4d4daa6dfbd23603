"""Lhotse manifests on disk: manifests of the corpus, and findings about their audio."""

import gzip
import json
import random
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from lhotse import MonoCut, Recording, RecordingSet, SupervisionSegment, SupervisionSet, load_manifest_lazy

from data_prep.audio.probe import AudioConfig, AudioProbe, probe_audio
from zipformer.errors import UserError
from zipformer.files import replacing

SPLITS = ("train", "valid", "test")
SHUFFLE_SEED: Final = 20240229
BUCKET_LINES: Final = 100_000  # lines shuffled at a time, about 200 MB of cuts
_BUCKET_COMPRESSION: Final = 1  # the fastest, because buckets exist only for seconds

CorpusManifests = Mapping[str, tuple[RecordingSet, SupervisionSet]]
Item = TypeVar("Item")
TimedCut = TypeVar("TimedCut", bound=MonoCut)


def recordings_file(directory: Path, split: str) -> Path:
    return directory / "manifests" / f"recordings_{split}.jsonl.gz"


def supervisions_file(directory: Path, split: str) -> Path:
    return directory / "manifests" / f"supervisions_{split}.jsonl.gz"


def checked_file(directory: Path, split: str) -> Path:
    """Cuts of the utterances without errors, normalised, without features."""
    return directory / "manifests" / f"checked_{split}.jsonl.gz"


def probes_file(directory: Path, split: str, shard: int) -> Path:
    """Findings about the audio of one shard of recordings, one JSON object in each line."""
    return directory / "manifests" / f"probes_{split}" / f"{shard:05d}.jsonl"


def final_cuts_file(directory: Path, split: str) -> Path:
    return directory / f"cuts_{split}.jsonl.gz"


def write_manifests(manifests: CorpusManifests, directory: Path) -> dict[str, int]:
    """Write the manifests of all splits.

    Returns:
        Number of recordings by split, in the order train, valid, test.

    Raises:
        UserError: the corpus has an unknown split, no recordings, or a supervision without recording.
    """
    if unknown := sorted(set(manifests) - set(SPLITS)):
        raise UserError(f"the corpus delivered the splits {unknown}; known splits: {', '.join(SPLITS)}")
    counts = {}
    for split in (split for split in SPLITS if split in manifests):
        recordings, supervisions = manifests[split]
        if not supervisions.is_lazy:
            supervisions = _in_recording_order(split, recordings, supervisions)
        counts[split] = write_jsonl(RecordingSet, recordings, recordings_file(directory, split))
        write_jsonl(SupervisionSet, supervisions, supervisions_file(directory, split))
    if not any(counts.values()):
        raise UserError("the corpus delivered no recordings; check its options")
    return counts


def write_jsonl(kind: type, items: Iterable[object], path: Path) -> int:
    """Stream manifest items to a file; returns their number."""
    count = 0
    with replacing(path) as temporary, kind.open_writer(temporary, overwrite=True) as writer:  # type: ignore[attr-defined]
        for item in items:
            writer.write(item)
            count += 1
    return count


def read_recordings(directory: Path, split: str) -> Iterator[Recording]:
    yield from _lines(recordings_file(directory, split))


def read_supervisions(directory: Path, split: str) -> Iterator[SupervisionSegment]:
    yield from _lines(supervisions_file(directory, split))


def read_checked_cuts(directory: Path, split: str) -> Iterator[MonoCut]:
    yield from _lines(checked_file(directory, split))


@dataclass(frozen=True)
class ProbeShard:
    """Recordings whose audio is probed by one job.

    Attributes:
        recordings: recordings, each with True if it is used as one channel (its transcripts name no channel).
        path: file of the findings.
        converted: folder for the samples of recordings that must be converted.
        config: settings of reading audio.
    """

    recordings: list[tuple[Recording, bool]]
    path: Path
    converted: Path
    config: AudioConfig


def probe_shard(shard: ProbeShard) -> int:
    """Probe the audio of some recordings and write the findings; returns the number of recordings."""
    # Converted files are named by number, because an id may not be a valid file name.
    probes = [
        probe_audio(recording, shard.config, shard.converted / f"{number:04d}.wav", mixed)
        for number, (recording, mixed) in enumerate(shard.recordings)
    ]
    lines = "".join(json.dumps(asdict(probe), ensure_ascii=False) + "\n" for probe in probes)
    with replacing(shard.path) as temporary:
        temporary.write_text(lines, encoding="utf-8")
    return len(probes)


def read_recordings_to_mix(directory: Path, split: str) -> Iterator[tuple[Recording, bool]]:
    """Recordings, each with True if its channels are to be used as one.

    Supervisions of such a recording have a list of channels. If each channel has its own transcripts, as in
    telephone calls, each supervision has one channel.
    """
    supervisions = read_supervisions(directory, split)
    supervision = next(supervisions, None)
    for recording in read_recordings(directory, split):
        mixed = True
        while supervision is not None and supervision.recording_id == recording.id:
            mixed = mixed and (recording.num_channels == 1 or not isinstance(supervision.channel, int))
            supervision = next(supervisions, None)
        yield recording, mixed


def read_probes(directory: Path, split: str) -> Iterator[AudioProbe]:
    """Findings of all shards of a split, in the order of the recordings."""
    for path in sorted(probes_file(directory, split, 0).parent.glob("[0-9]*.jsonl")):
        if path.stem.isdigit():
            # Not splitlines(), which also divides at characters that may be in an id or a path.
            for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
                yield AudioProbe(**json.loads(line))


def converted_folder(directory: Path, split: str, shard: int) -> Path:
    """Folder for the samples of the recordings of a shard that must be converted."""
    return directory / "converted" / split / f"{shard:05d}"


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of ``size`` items; the last one may be shorter."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def grouped(cuts: Iterable[TimedCut], size: int, seconds: float | None) -> Iterator[list[TimedCut]]:
    """Consecutive cuts in groups of at most ``size`` cuts and ``seconds`` of audio, but at least one cut.

    Args:
        cuts: cuts in order.
        size: largest number of cuts in a group.
        seconds: most seconds of audio in a group; None = no limit.
    """
    group: list[TimedCut] = []
    total = 0.0
    for cut in cuts:
        if group and (len(group) == size or (seconds is not None and total + cut.duration > seconds)):
            yield group
            group, total = [], 0.0
        group.append(cut)
        total += cut.duration
    if group:
        yield group


def _lines(path: Path) -> Iterator:
    # An empty file is a manifest without items, which Lhotse's reader does not accept.
    if path.stat().st_size > 0:
        yield from load_manifest_lazy(path)


def _in_recording_order(split: str, recordings: RecordingSet, supervisions: SupervisionSet) -> SupervisionSet:
    position = {recording.id: i for i, recording in enumerate(recordings)}
    for supervision in supervisions:
        if supervision.recording_id not in position:
            raise UserError(
                f"split {split}: supervision {supervision.id} belongs to recording "
                f"{supervision.recording_id}, which the corpus did not deliver"
            )
    return SupervisionSet.from_segments(
        sorted(supervisions, key=lambda segment: (position[segment.recording_id], segment.start))
    )


def shuffle_lines(sources: Iterable[Path], lines: int, target: Path) -> None:
    """Write the lines of gzip files into one gzip file, in an order drawn with a fixed seed.

    Training reads cuts through a shuffling buffer, which holds a small part of a large corpus. Corpora are
    sorted by dialect and site, and a buffer mixes only neighbours: without this shuffle, the dialects would
    not be spread evenly over an epoch.

    Every line first goes to a random one of several buckets beside ``target``; then each bucket is read,
    shuffled in memory and appended. The order is uniformly random, and only one bucket at a time is in
    memory.

    Args:
        sources: gzip files of text lines, read in this order.
        lines: approximate number of lines; determines the number of buckets.
        target: gzip file to write.
    """
    draw = random.Random(SHUFFLE_SEED)
    folder = target.with_name(f"{target.name}-buckets")
    shutil.rmtree(folder, ignore_errors=True)  # left by a killed run
    folder.mkdir()
    buckets = [folder / f"{index}.gz" for index in range(max(1, -(-lines // BUCKET_LINES)))]
    with gzip.open(target, "wb") as final:
        with ExitStack() as stack:
            streams = [stack.enter_context(gzip.open(path, "wb", _BUCKET_COMPRESSION)) for path in buckets]
            for source in sources:
                with gzip.open(source, "rb") as stream:
                    for line in stream:
                        draw.choice(streams).write(line)
        for path in buckets:
            with gzip.open(path, "rb") as stream:
                shuffled = stream.readlines()
            draw.shuffle(shuffled)
            final.writelines(shuffled)
    shutil.rmtree(folder)
