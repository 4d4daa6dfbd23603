"""From cuts on disk to batches: selection of utterances, bucketing, features, SpecAugment, workers.

Training batches depend only on (seed, epoch, rank, index of the batch): the sampler shuffles from seed +
epoch, and SpecAugment draws from a generator seeded with all four. So training that stops can go on with the
same batches, whatever the number of workers, from the epoch and the number of its batches that were used.
"""

from zipformer.errors import UserError
import hashlib
import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import eq
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lhotse import CutSet, MonoCut, SupervisionSegment
from lhotse.cut import Cut
from lhotse.dataset.sampling import DynamicBucketingSampler, SimpleCutSampler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from zipformer.data.augment import SpecAugment, SpecAugmentConfig
from zipformer.data.loader_workers import begin_worker, start_loading
from zipformer.data.manifest import (
    CutLine,
    CutSummary,
    SelectedLines,
    check_feature_files,
    read_summaries,
    with_present_paths,
)
from zipformer.heads.sentence_encoders import sentence_of

PADDING_VALUE = -23.025851  # log(1e-10): below anything that a log-mel filter bank gives, silence too


class TextEncoder(Protocol):
    """What the data needs of a tokenizer."""

    def encode(self, text: str) -> list[int]: ...


@dataclass
class DataConfig:
    """Which utterances are used for training and how they form batches."""

    max_duration: float = 200.0  # seconds of audio in a batch of one process; memory grows with it
    max_cuts: int | None = None  # utterances in a batch
    quadratic_duration: float | None = None  # seconds; smaller = fewer long utterances in a batch (15 to 40)
    num_buckets: int = 30  # more = less padding, less mixing of lengths; lowered by itself for small sets
    buffer_size: int = 20000  # utterances held for shuffling; larger = better mixed, more memory
    drop_last: bool = False  # drop what does not fill a batch at the end of an epoch
    min_utterance_seconds: float = 0.5  # shorter utterances are dropped and listed in dropped.tsv
    max_utterance_seconds: float = 20.0  # longer ones as well
    left_out_dialects: list[str] = field(default_factory=list)  # dialect groups that are not trained on
    num_workers: int = 1  # processes that load features; 0 = load within the training process
    prefetch_batches: int = 4  # batches that each worker keeps ready
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)


@dataclass
class Batch:
    """Utterances of one training or evaluation step, padded at the end to the longest."""

    features: Tensor  # (N, T, F) float32
    lengths: Tensor  # (N,) int64, frames
    tokens: list[list[int]]  # empty lists where no tokenizer was given
    ids: list[str]
    supervisions: list[SupervisionSegment]
    translations: list[list[int]] | None = None  # tokens, where they were asked for

    @property
    def texts(self) -> list[str]:
        return [supervision.text or "" for supervision in self.supervisions]

    @property
    def dialects(self) -> list[str]:
        return [supervision.language or "unknown" for supervision in self.supervisions]

    @property
    def seconds(self) -> float:
        """Seconds of audio, without padding."""
        return float(self.lengths.sum()) / 100.0

    def pin_memory(self) -> "Batch":
        self.features = self.features.pin_memory()
        self.lengths = self.lengths.pin_memory()
        return self

    # Batches come from the worker processes through a pipe. PyTorch would put tensors into /dev/shm, of which
    # a container has 64 MB where four workers need 300, and a batch that finds no room there is never sent.
    # The pipe takes about 20 ms for 600 s of audio, with CUDA in a thread beside the training.

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "features": self.features.numpy(), "lengths": self.lengths.numpy()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.features, self.lengths = torch.from_numpy(self.features), torch.from_numpy(self.lengths)


def encoder_frames(num_frames: int) -> int:
    """Encoder frames (25/s) that ``num_frames`` feature frames (100/s) become."""
    return ((num_frames - 7) // 2 + 1) // 2


@dataclass
class Selection:
    """What one pass over a manifest found: the amount of usable data, and what is left out and why.

    Attributes:
        utterances: that are used.
        seconds: of them.
        seconds_by_dialect: the same by dialect.
        dialects: of all utterances, used or not.
        durations: seconds of each cut of the manifest, in its order; NaN for what is left out.
        dropped: ids of what is left out, by reason.
        feature_files: where the features of the usable utterances are.
        digest: of id, duration, dialect and texts of all utterances, used or not.
    """

    utterances: int = 0
    seconds: float = 0.0
    seconds_by_dialect: Counter[str] = field(default_factory=Counter)
    dialects: set[str] = field(default_factory=set)
    durations: "array[float]" = field(default_factory=lambda: array("d"))
    dropped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    feature_files: set[str] = field(default_factory=set)
    digest: str = ""

    @property
    def dropped_ids(self) -> frozenset[str]:
        return frozenset(cut_id for ids in self.dropped.values() for cut_id in ids)


def select_utterances(
    cuts: Iterable[Cut],
    config: DataConfig,
    tokenizer: TextEncoder | None,
    *,
    repeats_need_blank: bool,
    fields: Sequence[str] = (),
) -> Selection:
    """Find the utterances that can be trained on, among cuts or their summaries.

    Without a tokenizer, transcripts are not needed, and an utterance must only have one encoder frame.

    A transducer needs as many encoder frames as tokens. CTC (``repeats_need_blank``) needs one more wherever
    two equal tokens are neighbours: a blank must come between them. Utterances with fewer frames have no
    alignment, and their loss would be infinite.

    Raises:
        ValueError: a usable utterance lacks one of the ``fields``, see ``sentence_of``.
    """
    selection = Selection()
    digest = hashlib.sha256()
    for cut in cuts:
        selection.dialects.update(supervision.language or "unknown" for supervision in cut.supervisions)
        texts = [(supervision.language, supervision.text) for supervision in cut.supervisions]
        digest.update(f"{cut.id!r} {cut.duration} {texts}\n".encode())
        reason = _reason_to_drop(cut, config, tokenizer, repeats_need_blank)
        if reason is not None:
            selection.dropped[reason].append(cut.id)
            selection.durations.append(math.nan)
            continue
        for name in fields:
            digest.update(f"{sentence_of(cut.supervisions[0], name)!r}\n".encode())
        if isinstance(cut, CutSummary | MonoCut) and cut.features is not None:
            selection.feature_files.add(cut.features.storage_path)
        selection.utterances += 1
        selection.durations.append(cut.duration)
        selection.seconds += cut.duration
        selection.seconds_by_dialect[cut.supervisions[0].language or "unknown"] += cut.duration
    selection.digest = digest.hexdigest()[:16]
    return selection


def _reason_to_drop(
    cut: Cut, config: DataConfig, tokenizer: TextEncoder | None, repeats_need_blank: bool
) -> str | None:
    if cut.supervisions and cut.supervisions[0].language in config.left_out_dialects:
        return "of a dialect that is left out (data.left_out_dialects)"
    if cut.duration < config.min_utterance_seconds:
        return f"shorter than {config.min_utterance_seconds:g} s (data.min_utterance_seconds)"
    if cut.duration > config.max_utterance_seconds:
        return f"longer than {config.max_utterance_seconds:g} s (data.max_utterance_seconds)"
    if len(cut.supervisions) != 1 or (tokenizer and not cut.supervisions[0].text):
        return "not exactly one transcript"
    if not cut.has_features:
        return "no features"
    tokens = tokenizer.encode(cut.supervisions[0].text) if tokenizer else []
    needed = len(tokens)
    if repeats_need_blank:
        needed += sum(map(eq, tokens, tokens[1:]))
    if encoder_frames(cut.num_frames) < max(1, needed):
        return "fewer encoder frames than tokens"
    return None


BatchKey = tuple[int, int]  # epoch, index of the batch within the epoch


class FeatureDataset(Dataset[Batch]):
    """Load, distort and pad the utterances of a batch. Items are addressed by (key, cuts).

    With ``translation``, a field of the supervisions, ``Batch.translations`` has its tokens. The longest
    utterance is followed by ``margin`` frames of padding, the others by more.
    """

    def __init__(
        self,
        directory: Path,
        tokenizer: TextEncoder | None = None,
        augment: SpecAugment | None = None,
        seed: Sequence[int] = (),
        translation: str | None = None,
        margin: int = 0,
    ) -> None:
        self.directory = directory
        self.tokenizer = tokenizer
        self.translation = translation
        self.margin = margin
        self.augment = augment
        self.seed = list(seed)

    def __getitem__(self, item: tuple[BatchKey, CutSet]) -> Batch:
        key, cuts = item
        utterances = [cut.cut() if isinstance(cut, CutLine) else cut for cut in cuts]
        matrices = [self._load(cut) for cut in utterances]
        if self.augment is not None:
            rng = np.random.default_rng([*self.seed, *key])
            matrices = [self.augment(matrix, rng) for matrix in matrices]
        lengths = torch.tensor([len(matrix) for matrix in matrices])
        shape = (len(matrices), int(lengths.max()) + self.margin, matrices[0].shape[1])
        features = torch.full(shape, PADDING_VALUE)
        for row, matrix in zip(features, matrices, strict=True):
            row[: len(matrix)] = torch.from_numpy(matrix)
        supervisions = [cut.supervisions[0] for cut in utterances]
        if self.tokenizer is None:
            tokens: list[list[int]] = [[] for _ in supervisions]
        else:
            tokens = [self.tokenizer.encode(supervision.text) for supervision in supervisions]
        translations = None
        if self.tokenizer is not None and self.translation is not None:
            translations = [self.tokenizer.encode(sentence_of(s, self.translation)) for s in supervisions]
        return Batch(features, lengths, tokens, [cut.id for cut in utterances], supervisions, translations)

    def _load(self, cut: Cut) -> np.ndarray:
        return with_present_paths(cut, self.directory).load_features()


class _EpochSampler(Sampler[tuple[BatchKey, CutSet]]):
    """Batches of cuts with their keys, from ``first_batch`` on. Skipped batches cost no feature loading."""

    def __init__(self, sampler: DynamicBucketingSampler) -> None:
        self.sampler = sampler
        self.epoch = 1
        self.first_batch = 0

    def __iter__(self) -> Iterator[tuple[BatchKey, CutSet]]:
        self.sampler.set_epoch(self.epoch)
        for index, cuts in enumerate(self.sampler):
            if index >= self.first_batch:
                yield (self.epoch, index), cuts


class TrainingData:
    """Shuffled batches of one process, epoch by epoch.

    Args:
        manifest: ``cuts_train.jsonl.gz``; read lazily, so the corpus need not fit in memory
            (:mod:`zipformer.data.manifest`).
        tokenizer: encodes the transcripts; None = utterances need none.
        repeats_need_blank: drop what CTC cannot align, see :func:`select_utterances`.
        translation: field of the supervisions whose tokens the batches have as well.
        fields: further fields of the supervisions that every utterance must have.

    Raises:
        FileNotFoundError: no manifest.
        ValueError: no utterance is left to train on, one lacks a field, or a dialect to leave out is unknown.
    """

    def __init__(
        self,
        manifest: Path,
        tokenizer: TextEncoder | None,
        config: DataConfig,
        *,
        repeats_need_blank: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
        translation: str | None = None,
        fields: Sequence[str] = (),
    ) -> None:
        _check_is_there(manifest)
        self.selection = select_utterances(
            read_summaries(manifest),
            config,
            tokenizer,
            repeats_need_blank=repeats_need_blank,
            fields=[*fields, *([translation] if translation else [])],
        )
        # A misspelt name would leave nothing out: a model that heard the dialect would be said not to have.
        if unknown := sorted(set(config.left_out_dialects) - self.selection.dialects):
            raise UserError(
                f"data.left_out_dialects names {', '.join(unknown)}, of which {manifest} has no utterance: "
                f"give dialect groups among {', '.join(sorted(self.selection.dialects))}"
            )
        if self.selection.utterances == 0:
            reasons = ", ".join(f"{len(ids)} {reason}" for reason, ids in self.selection.dropped.items())
            raise UserError(f"no utterance of {manifest} can be trained on: {reasons or 'it is empty'}")
        check_feature_files(self.selection.feature_files, manifest.parent)
        num_buckets = self._num_buckets(config, world_size)
        sampler = DynamicBucketingSampler(
            SelectedLines(manifest, self.selection.durations),
            max_duration=config.max_duration,
            max_cuts=config.max_cuts,
            quadratic_duration=config.quadratic_duration,
            num_buckets=num_buckets,
            # lhotse cannot estimate the border of a single bucket; this one puts everything below it.
            duration_bins=[config.max_utterance_seconds] if num_buckets == 1 else None,
            buffer_size=config.buffer_size,
            shuffle=True,
            drop_last=config.drop_last,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        self._sampler = _EpochSampler(sampler)
        self._loader = DataLoader(
            FeatureDataset(
                manifest.parent,
                tokenizer,
                SpecAugment(config.spec_augment),
                seed=(seed, rank),
                translation=translation,
            ),
            sampler=self._sampler,
            batch_size=None,  # the sampler already gives whole batches
            num_workers=config.num_workers,
            prefetch_factor=config.prefetch_batches if config.num_workers else None,
            persistent_workers=config.num_workers > 0,
            pin_memory=pin_memory,
            worker_init_fn=begin_worker,
            # The loader draws a number when an epoch starts. From the global generator, that draw would be
            # made once more by a run that resumes in the middle of an epoch, and its dropout would differ.
            generator=torch.Generator(),
        )

    def _num_buckets(self, config: DataConfig, world_size: int) -> int:
        """At most one bucket for every two batches of an epoch, or most batches would be partial ones."""
        batches = self.selection.seconds / (config.max_duration * world_size)
        return max(1, min(config.num_buckets, int(batches / 2)))

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Batches of one epoch, leaving out the first ``first_batch`` of them.

        Raises:
            UserError: the processes that load features cannot start.
        """
        self._sampler.epoch = epoch
        self._sampler.first_batch = first_batch
        return start_loading(self._loader)


def read_cuts(manifest: Path) -> CutSet:
    """Open a manifest of cuts lazily.

    Raises:
        FileNotFoundError: there is no such file.
    """
    _check_is_there(manifest)
    return CutSet.from_jsonl_lazy(manifest)


def _check_is_there(manifest: Path) -> None:
    if not manifest.is_file():
        raise UserError(
            f"no manifest of cuts at {manifest}: prepare the data first (scripts/prepare.py)"
        )


class _KeyedSampler(Sampler[tuple[BatchKey, CutSet]]):
    def __init__(self, sampler: SimpleCutSampler) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[tuple[BatchKey, CutSet]]:
        for index, cuts in enumerate(self.sampler):
            yield (0, index), cuts


def evaluation_batches(
    cuts: CutSet,
    directory: Path,
    *,
    margin: int,
    max_duration: float = 300.0,
    tokenizer: TextEncoder | None = None,
) -> Iterator[Batch]:
    """Every utterance once, longest first, neighbours of about the same length together, nothing distorted.

    Longest first means that a batch that does not fit in memory fails at the start. Every utterance is
    followed by ``margin`` frames of silence or more, so that what the encoder makes of it does not depend on
    the other ones.

    Args:
        cuts: utterances with features and one supervision each.
        directory: data directory, below which the features are.
        margin: of the model, :attr:`zipformer.model.AsrModel.margin`.
        max_duration: seconds of audio in a batch.
        tokenizer: gives ``Batch.tokens``; without it they are empty.
    """
    ordered = cuts.sort_by_duration(ascending=False)
    sampler = SimpleCutSampler(ordered, max_duration=max_duration, shuffle=False, rank=0, world_size=1)
    loader = DataLoader(
        FeatureDataset(directory, tokenizer, margin=margin),
        sampler=_KeyedSampler(sampler),
        batch_size=None,
        generator=torch.Generator(),  # leaves the global generator, and so the training, as it was
    )
    return iter(loader)
