"""Lhotse manifests on disk: those of the corpus, and what was found about their audio."""

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
_BUCKET_COMPRESSION: Final = 1  # the fastest: buckets live for seconds

CorpusManifests = Mapping[str, tuple[RecordingSet, SupervisionSet]]
Item = TypeVar("Item")
TimedCut = TypeVar("TimedCut", bound=MonoCut)


def recordings_file(directory: Path, split: str) -> Path:
    return directory / "manifests" / f"recordings_{split}.jsonl.gz"


def supervisions_file(directory: Path, split: str) -> Path:
    return directory / "manifests" / f"supervisions_{split}.jsonl.gz"


def checked_file(directory: Path, split: str) -> Path:
    """Cuts of the sound utterances, normalised, without features."""
    return directory / "manifests" / f"checked_{split}.jsonl.gz"


def probes_file(directory: Path, split: str, shard: int) -> Path:
    """Findings about the audio of one shard of recordings, one JSON object a line."""
    return directory / "manifests" / f"probes_{split}" / f"{shard:05d}.jsonl"


def final_cuts_file(directory: Path, split: str) -> Path:
    return directory / f"cuts_{split}.jsonl.gz"


def write_manifests(manifests: CorpusManifests, directory: Path) -> dict[str, int]:
    """Write the manifests of all splits.

    Returns:
        Number of recordings by split, in the order train, valid, test.

    Raises:
        UserError: the corpus delivered an unknown split, nothing at all, or a supervision without
            recording.
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
    """Recordings whose audio is to be probed together.

    Attributes:
        recordings: each with whether it is used as one channel (its transcripts name none of its own).
        path: file of the findings.
        converted: folder for the samples of those that have to be converted.
        config: how recordings are read.
    """

    recordings: list[tuple[Recording, bool]]
    path: Path
    converted: Path
    config: AudioConfig


def probe_shard(shard: ProbeShard) -> int:
    """Probe the audio of some recordings and write the findings; returns the number of recordings."""
    # Converted files are named by number: an id may be no name of a file.
    probes = [
        probe_audio(recording, shard.config, shard.converted / f"{number:04d}.wav", mixed)
        for number, (recording, mixed) in enumerate(shard.recordings)
    ]
    lines = "".join(json.dumps(asdict(probe), ensure_ascii=False) + "\n" for probe in probes)
    with replacing(shard.path) as temporary:
        temporary.write_text(lines, encoding="utf-8")
    return len(probes)


def read_recordings_to_mix(directory: Path, split: str) -> Iterator[tuple[Recording, bool]]:
    """Recordings, each with whether its channels are to be used as one.

    Supervisions of such a recording name a list of channels. Where the channels have transcripts of their
    own, as in telephone calls, each supervision names one.
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
            # Not splitlines(), which also divides at characters that an id or a path may hold.
            for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
                yield AudioProbe(**json.loads(line))


def converted_folder(directory: Path, split: str, shard: int) -> Path:
    """Samples of the recordings of a shard that had to be converted."""
    return directory / "converted" / split / f"{shard:05d}"


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of ``size`` items, the last one maybe shorter."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def grouped(cuts: Iterable[TimedCut], size: int, seconds: float | None) -> Iterator[list[TimedCut]]:
    """Neighbouring cuts in groups of at most ``size``, and at most so many seconds unless one cut has more.

    Args:
        cuts: in order.
        size: most cuts in a group.
        seconds: most seconds of audio in a group; None = any.
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
    # An empty file is a manifest without items, which the reader of lhotse does not accept.
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

    Training reads cuts with a shuffling buffer that holds a small part of a large corpus. Corpora come sorted
    by dialect and site, and a buffer mixes only neighbours: without this, dialects would come and go during
    an epoch.

    Every line is first dealt to one of a few buckets beside ``target``, then each bucket is read, shuffled in
    memory and appended: a uniformly random order, for which one bucket at a time is held.

    Args:
        sources: gzip files of text lines, read in this order.
        lines: how many lines there are, about; sets the number of buckets.
        target: gzip file to write.
    """
    draw = random.Random(SHUFFLE_SEED)
    folder = target.with_name(f"{target.name}-buckets")
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
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
