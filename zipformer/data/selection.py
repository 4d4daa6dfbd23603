"""Which utterances of a manifest are trained on, and why the others are left out."""

import hashlib
import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from operator import eq
from pathlib import Path
from typing import Protocol

import numpy as np
from lhotse import MonoCut
from lhotse.cut import Cut
from numpy.typing import NDArray

from zipformer.data.augment import SpecAugmentConfig
from zipformer.data.cuts import encoder_frames, find_manifest, sentence_of
from zipformer.data.distortion import DistortionConfig
from zipformer.data.manifest import CutSummary, read_summaries
from zipformer.data.mixing import MixingConfig, Stream, uses_per_epoch
from zipformer.data.remote import CacheConfig


class TextEncoder(Protocol):
    """What the data needs of a tokenizer."""

    def encode(self, text: str) -> list[int]: ...


@dataclass
class DataConfig:
    """Which utterances are used for training and how they form batches."""

    max_duration: float = 600.0  # seconds of audio in a batch of one process; memory grows with it
    max_cuts: int | None = None  # utterances in a batch
    quadratic_duration: float | None = None  # seconds; smaller = fewer long utterances in a batch (15 to 40)
    num_buckets: int = 30  # more = less padding, less mixing of lengths; lowered by itself for small sets
    buffer_size: int = 20000  # utterances held for shuffling; larger = better mixed, more memory
    drop_last: bool = False  # drop what does not fill a batch at the end of an epoch
    min_utterance_seconds: float = 0.5  # shorter utterances are dropped and listed in dropped.tsv
    max_utterance_seconds: float = 20.0  # longer ones as well
    keep_out: list[str] = field(default_factory=list)  # corpora whose test sentences are not trained on
    keep_out_speakers: bool = False  # the speakers of the test sets of keep_out are not trained on either
    left_out_dialects: list[str] = field(default_factory=list)  # dialect groups that are not trained on
    mixing: MixingConfig = field(default_factory=MixingConfig)  # further corpora, and shares of dialects
    num_workers: int = 1  # processes that load features; 0 = load within the training process
    prefetch_batches: int = 4  # batches that each worker keeps ready
    cache: CacheConfig = field(default_factory=CacheConfig)  # where files of data on another machine are kept
    distortion: DistortionConfig = field(default_factory=DistortionConfig)  # noise, rooms, volume
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)


@dataclass
class Selection:
    """Result of one pass over a manifest: the usable data, and the utterances left out with the reasons.

    Attributes:
        utterances: number of utterances that are used.
        seconds: duration of those utterances.
        seconds_by_dialect: duration of those utterances by dialect.
        dialects: dialect groups of all utterances, used or not.
        durations: seconds of each cut in the order of the manifest; NaN for a cut that is left out.
        numbers: index into ``places`` for the dialect of each cut.
        places: dialects in the order in which they appeared.
        dropped: ids of the utterances that are left out, by reason.
        feature_files: files with the features of the usable utterances.
        digest: digest of id, duration, dialect and texts of all utterances, used or not.
        line_index: folder that says where the lines of the manifest are; None where there is no such index.
    """

    utterances: int = 0
    seconds: float = 0.0
    seconds_by_dialect: Counter[str] = field(default_factory=Counter)
    dialects: set[str] = field(default_factory=set)
    durations: "array[float] | NDArray[np.float64]" = field(default_factory=lambda: array("d"))
    places: list[str] = field(default_factory=list)
    numbers: "array[int] | NDArray[np.uint16]" = field(default_factory=lambda: array("H"))
    dropped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    feature_files: set[str] = field(default_factory=set)
    digest: str = ""
    line_index: Path | None = None


def sentences_of_tests(directories: Iterable[str]) -> frozenset[str]:
    """The different texts of the test splits of prepared corpora.

    Raises:
        UserError: a corpus has no test split.
    """
    texts: set[str] = set()
    for directory in directories:
        for cut in read_summaries(find_manifest(Path(directory), "test")):
            texts.update(supervision.text for supervision in cut.supervisions if supervision.text)
    return frozenset(texts)


def speakers_of_tests(directories: Iterable[str]) -> frozenset[str]:
    """The speakers of the test splits of prepared corpora.

    Readers name a speaker with the corpus, so equal names are the same person in the same corpus.

    Raises:
        UserError: a corpus has no test split.
    """
    return frozenset(
        supervision.speaker
        for directory in directories
        for cut in read_summaries(find_manifest(Path(directory), "test"))
        for supervision in cut.supervisions
        if supervision.speaker
    )


def together(selections: Sequence[Selection]) -> Selection:
    """What several corpora hold in all, for the log and for checkpoints; it names no single cut."""
    if len(selections) == 1:
        return selections[0]
    found = Selection(digest=" ".join(selection.digest for selection in selections))
    for selection in selections:
        found.utterances += selection.utterances
        found.seconds += selection.seconds
        found.seconds_by_dialect += selection.seconds_by_dialect
        found.dialects |= selection.dialects
        for reason, ids in selection.dropped.items():
            found.dropped[reason] += ids
    return found


def streams_of(
    manifests: Sequence[Path], selections: Sequence[Selection], config: MixingConfig
) -> list[Stream]:
    """The manifests with what is used of them, and how often."""
    uses: list[NDArray[np.float32] | None] = [None] * len(manifests)
    if not config.natural:
        by_dialect = uses_per_epoch([selection.seconds_by_dialect for selection in selections], config)
        for number, (selection, dialects) in enumerate(zip(selections, by_dialect, strict=True)):
            of_place = np.array([dialects.get(name, 0.0) for name in selection.places], dtype=np.float32)
            uses[number] = of_place[np.asarray(selection.numbers)]
    return [
        Stream(manifest, np.asarray(selection.durations), times, selection.line_index)
        for manifest, selection, times in zip(manifests, selections, uses, strict=True)
    ]


def select_utterances(
    cuts: Iterable[Cut],
    config: DataConfig,
    tokenizer: TextEncoder | None,
    *,
    repeats_need_blank: bool,
    fields: Sequence[str] = (),
    kept_out: Container[str] = frozenset(),
    kept_out_speakers: Container[str] = frozenset(),
) -> Selection:
    """Find the utterances that can be trained on, among cuts or their summaries.

    Without a tokenizer, transcripts are not needed, and an utterance must only have one encoder frame.

    A transducer needs as many encoder frames as tokens. CTC (``repeats_need_blank``) needs one more wherever
    two equal tokens are neighbours: a blank must come between them. Utterances with fewer frames have no
    alignment, and their loss would be infinite.

    Args:
        kept_out: texts that are not trained on.
        kept_out_speakers: speakers that are not trained on.

    Raises:
        UserError: a usable utterance lacks one of the ``fields``, see ``sentence_of``.
    """
    selection = Selection()
    durations, numbers = array("d"), array("H")
    digest = hashlib.sha256()
    places: dict[str, int] = {}
    for cut in cuts:
        dialect = (cut.supervisions[0].language if cut.supervisions else None) or "unknown"
        numbers.append(places.setdefault(dialect, len(places)))
        selection.dialects.update(supervision.language or "unknown" for supervision in cut.supervisions)
        texts = [(supervision.language, supervision.text) for supervision in cut.supervisions]
        digest.update(f"{cut.id!r} {cut.duration} {texts}\n".encode())
        reason = _reason_to_drop(cut, config, tokenizer, repeats_need_blank, kept_out, kept_out_speakers)
        if reason is not None:
            selection.dropped[reason].append(cut.id)
            durations.append(math.nan)
            continue
        for name in fields:
            digest.update(f"{sentence_of(cut.supervisions[0], name)!r}\n".encode())
        if isinstance(cut, CutSummary | MonoCut) and cut.features is not None:
            selection.feature_files.add(cut.features.storage_path)
        selection.utterances += 1
        durations.append(cut.duration)
        selection.seconds += cut.duration
        selection.seconds_by_dialect[dialect] += cut.duration
    selection.digest = digest.hexdigest()[:16]
    selection.durations, selection.numbers = durations, numbers
    selection.places = list(places)
    return selection


def _reason_to_drop(
    cut: Cut,
    config: DataConfig,
    tokenizer: TextEncoder | None,
    repeats_need_blank: bool,
    kept_out: Container[str],
    kept_out_speakers: Container[str],
) -> str | None:
    if cut.supervisions and cut.supervisions[0].language in config.left_out_dialects:
        return "of a dialect that is left out (data.left_out_dialects)"
    if cut.duration < config.min_utterance_seconds:
        return f"shorter than {config.min_utterance_seconds:g} s (data.min_utterance_seconds)"
    if cut.duration > config.max_utterance_seconds:
        return f"longer than {config.max_utterance_seconds:g} s (data.max_utterance_seconds)"
    if len(cut.supervisions) != 1 or (tokenizer and not cut.supervisions[0].text):
        return "not exactly one transcript"
    if kept_out and cut.supervisions[0].text in kept_out:
        return "with a sentence of a test set (data.keep_out)"
    if kept_out_speakers and cut.supervisions[0].speaker in kept_out_speakers:
        return "of a speaker of a test set (data.keep_out_speakers)"
    if not cut.has_features:
        return "no features"
    tokens = tokenizer.encode(cut.supervisions[0].text) if tokenizer else []
    needed = len(tokens)
    if repeats_need_blank:
        needed += sum(map(eq, tokens, tokens[1:]))
    if encoder_frames(cut.num_frames) < max(1, needed):
        return "fewer encoder frames than tokens"
    return None
