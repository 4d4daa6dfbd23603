"""From cuts on disk to batches: bucketing, features, SpecAugment and workers.

Training batches depend only on (seed, epoch, rank, index of the batch): the sampler shuffles from seed +
epoch, and SpecAugment draws from a generator seeded with all four. So training resumes with the same
batches, for any number of workers, from the epoch and the number of its batches that were used.

The sampler forms the batches one after the other. So that a run that resumes need not form all those before
it, a checkpoint has a state of the sampler, from at most ``STATE_INTERVAL`` batches before.
"""

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse import CutSet, SupervisionSegment
from lhotse.cut import Cut
from lhotse.dataset.sampling import SimpleCutSampler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from zipformer.data.augment import SpecAugment
from zipformer.data.bucketing import BucketingSampler
from zipformer.data.cuts import check_manifest, sentence_of
from zipformer.data.distortion import Distortion
from zipformer.data.loader_workers import begin_worker, start_loading
from zipformer.data.manifest import (
    CutLine,
    check_feature_files,
    place_now,
)
from zipformer.data.mixing import Mixture
from zipformer.data.selection import (
    DataConfig,
    TextEncoder,
    sentences_of_tests,
    speakers_of_tests,
    streams_of,
    together,
)
from zipformer.data.selection_index import indexed_selection
from zipformer.data.shar import open_data
from zipformer.errors import UserError

EVALUATION_SECONDS = 200.0  # of padded audio in a batch, where nothing is trained
STATE_INTERVAL = 100  # batches from one state that is kept to the next
SOUND = 1  # distinguishes the generator of distortions from that of SpecAugment
PADDING_VALUE = -23.025851  # log(1e-10): below anything that a log-mel filter bank gives, silence too

logger = logging.getLogger(__name__)


@dataclass
class Batch:
    """Utterances of one training or evaluation step, padded at the end to the longest."""

    features: Tensor  # (N, T, F) float32
    lengths: Tensor  # (N,) int64, frames
    tokens: list[list[int]]  # empty lists where no tokenizer was given
    ids: list[str]
    supervisions: list[SupervisionSegment]
    translations: list[list[int]] | None = None  # tokens, if requested

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

    def alone(self, index: int) -> "Batch":
        """The batch of one of its utterances, without the padding."""
        length = int(self.lengths[index])
        return Batch(
            self.features[index : index + 1, :length],
            self.lengths[index : index + 1],
            self.tokens[index : index + 1],
            self.ids[index : index + 1],
            self.supervisions[index : index + 1],
            None if self.translations is None else self.translations[index : index + 1],
        )

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


BatchKey = tuple[int, int]  # epoch, index of the batch within the epoch
SamplerState = Mapping[str, Any]  # epoch, batch (number of those before), and the state of the sampler


class FeatureDataset(Dataset[Batch]):
    """Load, distort and pad the utterances of a batch. Items are addressed by (key, cuts).

    With ``translation``, a field of the supervisions, ``Batch.translations`` has its tokens. The longest
    utterance is followed by ``margin`` frames of padding, the others by more. With ``distortion``, features
    are computed from the recordings.
    """

    def __init__(
        self,
        tokenizer: TextEncoder | None = None,
        augment: SpecAugment | None = None,
        seed: Sequence[int] = (),
        translation: str | None = None,
        margin: int = 0,
        distortion: Distortion | None = None,
    ) -> None:
        self.distortion = distortion
        self.tokenizer = tokenizer
        self.translation = translation
        self.margin = margin
        self.augment = augment
        self.seed = list(seed)

    def __getitem__(self, item: tuple[BatchKey, CutSet | list[CutLine]]) -> Batch:
        key, cuts = item
        utterances = [cut.cut() if isinstance(cut, CutLine) else cut for cut in cuts]
        if self.distortion is None:
            matrices = [self._load(cut) for cut in utterances]
        else:
            # A generator of its own: SpecAugment draws the same with and without distortion.
            sound = np.random.default_rng([*self.seed, *key, SOUND])
            matrices = [self.distortion(cut, sound) for cut in utterances]
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
        features: np.ndarray = cut.load_features()
        return features


class _EpochSampler(Sampler[tuple[BatchKey, list[CutLine]]]):
    """Batches of cuts with their keys, from ``first_batch`` on. Skipped batches cost no feature loading.

    Every ``STATE_INTERVAL`` batches it keeps the state that they are formed from, until the training has
    surely got past the next one.
    """

    def __init__(self, sampler: BucketingSampler, ahead: int) -> None:
        self.sampler = sampler
        self.epoch = 1
        self.first_batch = 0
        # Up to ``ahead`` batches are formed before they are trained on.
        self.states: deque[SamplerState] = deque(maxlen=2 + ahead // STATE_INTERVAL)

    def __iter__(self) -> Iterator[tuple[BatchKey, list[CutLine]]]:
        start = self.state_before(self.epoch, self.first_batch)
        self.states.clear()
        if start is not None:
            self.states.append(start)
        elif self.first_batch:
            logger.info("Epoch %d is sampled again up to batch %d", self.epoch, self.first_batch)
        batches = self.sampler.batches(self.epoch, start and start["sampler"])
        for index, cuts in enumerate(batches, start["batch"] if start else 0):
            following = index + 1
            if following % STATE_INTERVAL == 0:
                self.states.append({"epoch": self.epoch, "batch": following, "sampler": batches.state()})
            if index >= self.first_batch:
                yield (self.epoch, index), cuts

    def state_before(self, epoch: int, batch: int) -> SamplerState | None:
        """The last state of an epoch that is kept, taken before this batch or an earlier one."""
        kept = [state for state in self.states if state["epoch"] == epoch and state["batch"] <= batch]
        return kept[-1] if kept else None


class TrainingData:
    """Shuffled batches of one process, epoch by epoch.

    Args:
        manifest: ``cuts_train.jsonl.gz``; read lazily, so the corpus need not fit in memory
            (:mod:`zipformer.data.manifest`). With ``config.mixing.corpora``, the files of that name there as
            well (:mod:`zipformer.data.mixing`).
        tokenizer: encodes the transcripts; None = utterances need none.
        repeats_need_blank: drop what CTC cannot align
            (:func:`zipformer.data.selection.select_utterances`).
        translation: field of the supervisions whose tokens the batches have as well.
        fields: further fields of the supervisions that every utterance must have.

    Raises:
        UserError: there is no manifest, no utterance is left to train on, one lacks a field, or a dialect to
            leave out is unknown.
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
        corpora = [open_data(corpus.data_dir, config.cache) for corpus in config.mixing.corpora]
        own = [] if config.mixing.file else [manifest]
        manifests = [*own, *(corpus / manifest.name for corpus in corpora)]
        groups = [None] * len(own) + [corpus.group for corpus in config.mixing.corpora]
        kept_out = sentences_of_tests(config.keep_out)
        speakers = speakers_of_tests(config.keep_out) if config.keep_out_speakers else frozenset()
        selections = []
        for path, group in zip(manifests, groups, strict=True):
            check_manifest(path)
            selection = indexed_selection(
                path,
                config,
                tokenizer,
                repeats_need_blank=repeats_need_blank,
                fields=[*fields, *([translation] if translation else [])],
                kept_out=kept_out,
                kept_out_speakers=speakers,
            )
            if group is not None and (others := sorted(selection.dialects - {group})):
                raise UserError(
                    f"{path}: the mixture says group {group}, but there are utterances of "
                    f"{', '.join(others)}: correct the group, or leave it out"
                )
            if not config.distortion.computes:
                files = (place_now(file, path.parent) for file in selection.feature_files)
                check_feature_files(files, path.parent)
            selections.append(selection)
        self.selection = together(selections)
        self.left_out_by_corpus = [
            f"{path.parent}: left out {len(ids)} utterances, {reason}"
            for path, selection in zip(manifests, selections, strict=True)
            for reason, ids in selection.dropped.items()
            if len(manifests) > 1
        ]
        named = ", ".join(map(str, manifests))
        # A misspelt name would leave nothing out: a model that heard the dialect would be said not to have.
        if unknown := sorted(set(config.left_out_dialects) - self.selection.dialects):
            raise UserError(
                f"data.left_out_dialects names {', '.join(unknown)}, of which {named} has no utterance: "
                f"give dialect groups among {', '.join(sorted(self.selection.dialects))}"
            )
        if self.selection.utterances == 0:
            reasons = ", ".join(f"{len(ids)} {reason}" for reason, ids in self.selection.dropped.items())
            raise UserError(f"no utterance of {named} can be trained on: {reasons or 'it is empty'}")
        self.mixture = Mixture(streams_of(manifests, selections, config.mixing), seed)
        self.seconds_per_epoch = sum(self.mixture.seconds_by_corpus())
        self.sampler = BucketingSampler(
            self.mixture,
            max_duration=config.max_duration,
            max_cuts=config.max_cuts,
            quadratic_duration=config.quadratic_duration,
            num_buckets=self._num_buckets(config, world_size),
            buffer_size=config.buffer_size,
            drop_last=config.drop_last,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        self._epochs = _EpochSampler(self.sampler, ahead=config.num_workers * config.prefetch_batches)
        self._loader = DataLoader(
            FeatureDataset(
                tokenizer,
                SpecAugment(config.spec_augment),
                seed=(seed, rank),
                translation=translation,
                distortion=Distortion(config.distortion) if config.distortion.computes else None,
            ),
            sampler=self._epochs,
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
        batches = self.seconds_per_epoch / (config.max_duration * world_size)
        return max(1, min(config.num_buckets, int(batches / 2)))

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Batches of one epoch, leaving out the first ``first_batch`` of them.

        The sampler starts from the last state that it has of a batch before, else from the start of the
        epoch.

        Raises:
            UserError: the processes that load features cannot start.
        """
        self._epochs.epoch = epoch
        self._epochs.first_batch = first_batch
        return start_loading(self._loader)

    def state(self, epoch: int, batches: int) -> SamplerState | None:
        """From what :meth:`restore` continues an epoch of which so many batches are used.

        Returns:
            plain values and tensors, the same in every process; None near the start of an epoch.
        """
        return self._epochs.state_before(epoch, batches)

    def restore(self, state: SamplerState) -> None:
        """Let :meth:`epoch` start from a state of an earlier run with the same data and settings."""
        if self.sampler.can_restore(state["sampler"]):
            self._epochs.states.append(state)


class _KeyedSampler(Sampler[tuple[BatchKey, CutSet]]):
    def __init__(self, sampler: SimpleCutSampler) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[tuple[BatchKey, CutSet]]:
        for index, cuts in enumerate(self.sampler):
            yield (0, index), cuts


def evaluation_batches(
    cuts: CutSet,
    *,
    margin: int,
    max_duration: float = EVALUATION_SECONDS,
    tokenizer: TextEncoder | None = None,
) -> Iterator[Batch]:
    """Every utterance once, longest first, neighbours of about the same length together, nothing distorted.

    Longest first means that a batch that does not fit in memory fails at the start. Every utterance is
    followed by ``margin`` frames of silence or more, so that what the encoder makes of it does not depend on
    the other ones.

    Args:
        cuts: utterances with features and one supervision each, from :func:`zipformer.data.cuts.read_cuts`.
        margin: frames of silence that the model needs, :attr:`zipformer.model.AsrModel.margin`.
        max_duration: seconds of audio in a batch.
        tokenizer: gives ``Batch.tokens``; without it they are empty.
    """
    ordered = cuts.sort_by_duration(ascending=False)
    sampler = SimpleCutSampler(ordered, max_duration=max_duration, shuffle=False, rank=0, world_size=1)
    loader = DataLoader(
        FeatureDataset(tokenizer, margin=margin),
        sampler=_KeyedSampler(sampler),
        batch_size=None,
        generator=torch.Generator(),  # leaves the global generator, and so the training, as it was
    )
    return iter(loader)
