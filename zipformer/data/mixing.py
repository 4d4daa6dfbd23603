"""Mixtures of corpora: how often the utterances of each corpus and dialect are used in an epoch.

A dialect group g with n_g seconds of speech gets the share p_g of an epoch, proportional to n_g^alpha; within
the group, corpus c gets a share proportional to w_c n_cg^corpus_alpha. An epoch has as many seconds as there
are in all, so an utterance of c and g is used

    r_cg = p_g p_(c|g) sum(n) / n_cg

times in it. No r is greater than ``max_repeats``; what that takes from a small group is shared out among the
others. Shares are of seconds, not of utterances: a corpus of long utterances gets no more than its part.

Which utterances those are is not drawn but counted: utterance i has been used floor(e r + u_i) times after e
epochs, with one number u_i in [0, 1) for each. So of a large corpus, every epoch uses another part, and all
its utterances have been used equally often, to within one.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import MISSING

from zipformer.data.line_index import LineIndex
from zipformer.data.manifest import CutLine
from zipformer.errors import UserError

Shares = Mapping[str, float]  # by dialect group
ABSENT = ("error", "skip")


@dataclass
class CorpusShare:
    """A prepared corpus of the mixture."""

    data_dir: str = MISSING  # where fangyan prepare wrote it, or Lhotse Shar: a folder or a URL
    weight: float = 1.0  # its share within each dialect group, relative to the other corpora
    group: str | None = None  # the one dialect group that the corpus must have; null = any


@dataclass
class MixingConfig:
    """What is trained on besides ``data_dir``, and in which proportions."""

    corpora: list[CorpusShare] = field(default_factory=list)  # further prepared corpora
    file: str | None = None  # YAML file that lists the corpora; data_dir then only has tokens and validation
    absent: str = "error"  # a corpus of the file that is not prepared: error, or skip
    weight: float = 1.0  # weight of the corpus in data_dir, as that of the others
    alpha: float = 1.0  # share of a dialect group ~ hours^alpha; 1 = as much as there is, 0 = all alike
    corpus_alpha: float = 1.0  # share of a corpus within a group ~ weight * hours^corpus_alpha
    max_repeats: float = 10.0  # most uses of an utterance in an epoch

    def __post_init__(self) -> None:
        for name, value in (("alpha", self.alpha), ("corpus_alpha", self.corpus_alpha)):
            if not 0 <= value <= 1:
                raise UserError(f"data.mixing.{name}={value} is not in [0, 1]")
        if self.max_repeats < 1:
            raise UserError(f"data.mixing.max_repeats={self.max_repeats} is less than 1")
        if self.absent not in ABSENT:
            raise UserError(
                f"data.mixing.absent={self.absent} is not known: choose one of {', '.join(ABSENT)}"
            )
        if min([self.weight, *(corpus.weight for corpus in self.corpora)]) < 0:
            raise UserError("a weight of data.mixing is negative; 0 leaves a corpus out")

    @property
    def natural(self) -> bool:
        """Whether every utterance is used once in an epoch."""
        return self.alpha == self.corpus_alpha == 1 and set(self.weights) == {1.0}

    @property
    def weights(self) -> list[float]:
        """Weight of every corpus, that in data_dir first, unless a file lists all of them."""
        own = [] if self.file else [self.weight]
        return [*own, *(corpus.weight for corpus in self.corpora)]


def uses_per_epoch(seconds: Sequence[Shares], config: MixingConfig) -> list[dict[str, float]]:
    """How often an utterance of each corpus and dialect group is used in an epoch.

    Args:
        seconds: seconds of every dialect group, for each corpus.

    Returns:
        r_cg of the module's description, in the order of ``seconds``; 0 where the weight is 0.
    """
    cells = {
        (corpus, group): amount
        for corpus, groups in enumerate(seconds)
        for group, amount in groups.items()
        if amount > 0 and config.weights[corpus] > 0
    }
    of_group: dict[str, float] = defaultdict(float)
    parts: dict[str, float] = defaultdict(float)
    for (corpus, group), amount in cells.items():
        of_group[group] += amount
        parts[group] += config.weights[corpus] * amount**config.corpus_alpha
    share = {
        (corpus, group): of_group[group] ** config.alpha
        * config.weights[corpus]
        * amount**config.corpus_alpha
        / parts[group]
        for (corpus, group), amount in cells.items()
    }
    budget = sum(cells.values())
    uses: dict[tuple[int, str], float] = {}
    while open_cells := share.keys() - uses.keys():
        scale = budget / sum(share[cell] for cell in open_cells)
        capped = [cell for cell in open_cells if share[cell] * scale >= config.max_repeats * cells[cell]]
        for cell in capped or open_cells:
            uses[cell] = config.max_repeats if capped else share[cell] * scale / cells[cell]
            budget -= uses[cell] * cells[cell]
    return [
        {group: uses.get((corpus, group), 0.0) for group in groups} for corpus, groups in enumerate(seconds)
    ]


@dataclass(frozen=True)
class Stream:
    """The training manifest of one corpus.

    Attributes:
        manifest: JSON lines, compressed by gzip if the name ends in ``.gz``.
        durations: (n,) seconds of each cut, NaN for one that is left out.
        uses: (n,) how often each cut is used in an epoch; None = once.
        index: folder that says where the lines are (:mod:`zipformer.data.line_index`); None = there is none.
    """

    manifest: Path
    durations: NDArray[np.float64]
    uses: NDArray[np.float32] | None = None
    index: Path | None = None

    def counts(self, epoch: int, seed: Sequence[int]) -> NDArray[np.int32]:
        """(n,) how often each cut is used in an epoch, counted from 1."""
        selected = ~np.isnan(self.durations)
        if self.uses is None:
            return selected.astype(np.int32)
        phase = np.random.default_rng([*seed]).random(len(self.uses))
        uses = self.uses.astype(np.float64)
        counts = np.floor(epoch * uses + phase) - np.floor((epoch - 1) * uses + phase)
        return np.where(selected, counts, 0).astype(np.int32)

    def cuts(
        self, counts: NDArray[np.int32], stream: int = 0, start: tuple[int, int] = (0, 0)
    ) -> Iterator[CutLine]:
        """The cuts, in the order of the manifest: all that are used, then those that are used again.

        Args:
            stream: place of this stream in the mixture.
            start: number of times that the manifest has been read to the end, and the line to continue from.
        """
        directory = self.manifest.parent.absolute()
        lines = LineIndex(self.manifest, self.index)
        passes, first = start
        for before in range(passes, int(counts.max(initial=0))):
            # Numbers of a memoryview are Python's own, and much faster to loop over than NumPy's.
            values = range(first, len(counts)), self.durations.data[first:], counts.data[first:]
            for line, number, duration, count in zip(lines.lines_from(first), *values, strict=True):
                if count > before:
                    yield CutLine(line, duration, directory, number, stream, before)
            first = 0

    def cuts_at(self, numbers: Sequence[int], stream: int = 0) -> Iterator[CutLine]:
        """The cuts at some lines of the manifest, which ascend."""
        directory = self.manifest.parent.absolute()
        lines = LineIndex(self.manifest, self.index).lines_at(numbers)
        for line, number in zip(lines, numbers, strict=True):
            yield CutLine(line, float(self.durations[number]), directory, number, stream)


class Mixture:
    """The selected cuts of one or several corpora; may be iterated any number of times.

    Every corpus advances at the pace at which it ends with the epoch, so that the mixture is the same
    throughout: after any number of utterances, each corpus has had its share of the seconds, to within one
    utterance.

    Attributes:
        epoch: number of the epoch that is iterated, from 1.
    """

    def __init__(self, streams: Sequence[Stream], seed: int = 0) -> None:
        self.streams = streams
        self.seed = seed
        self.epoch = 1

    def __iter__(self) -> Iterator[CutLine]:
        return iter(self.read())

    def read(self, state: Mapping[str, Any] | None = None) -> "MixtureReader":
        """Go through the present epoch, from its start or from a state of :meth:`MixtureReader.state`."""
        return MixtureReader(self, state)

    def description(self) -> list[str]:
        """A line for each of several corpora: how much the present epoch takes of it."""
        seconds = self.seconds_by_corpus()
        lines = []
        for stream, used in zip(self.streams, seconds, strict=True):
            there = float(np.nansum(stream.durations))
            lines.append(
                f"{stream.manifest.parent}: {used / 3600:.2f} h of {there / 3600:.2f} h in an epoch, "
                f"{100 * used / sum(seconds):.1f} % of the mixture"
            )
        return lines if len(lines) > 1 else []

    def seconds_by_corpus(self) -> list[float]:
        """Seconds of each corpus in the present epoch."""
        return [
            float(np.nansum(stream.durations * stream.counts(self.epoch, (self.seed, number))))
            for number, stream in enumerate(self.streams)
        ]


class MixtureReader:
    """One pass through an epoch of a mixture; iterate it once."""

    def __init__(self, mixture: Mixture, state: Mapping[str, Any] | None = None) -> None:
        streams = mixture.streams
        if state is None:
            self._next = [(0, 0)] * len(streams)
            self._waiting = [(0.0, number) for number in range(len(streams))]
        else:
            self._next = [(passes, line) for passes, line in state["next"]]
            self._waiting = [(done, number) for done, number in state["waiting"]]
        counts = [stream.counts(mixture.epoch, (mixture.seed, n)) for n, stream in enumerate(streams)]
        self._totals = [
            float(np.nansum(stream.durations * count)) if len(streams) > 1 else math.nan
            for stream, count in zip(streams, counts, strict=True)
        ]
        self._sources = [
            stream.cuts(count, number, start)
            for number, (stream, count, start) in enumerate(zip(streams, counts, self._next, strict=True))
        ]

    def state(self) -> dict[str, Any]:
        """Where the reader is, between two cuts, as plain values.

        ``next`` has for each stream how often its manifest has been read to the end, and the line to go on
        from. ``waiting`` is the heap of the streams that have cuts left, each with the share of its seconds
        that is used.
        """
        return {"next": [*self._next], "waiting": [*self._waiting]}

    def __iter__(self) -> Iterator[CutLine]:
        places = self._next
        if len(self._sources) == 1:
            for cut in self._sources[0]:
                places[0] = (cut.before, cut.number + 1)
                yield cut
            return
        waiting = self._waiting
        while waiting:
            done, number = heapq.heappop(waiting)
            next_cut = next(self._sources[number], None)
            if next_cut is not None:
                heapq.heappush(waiting, (done + next_cut.duration / self._totals[number], number))
                places[number] = (next_cut.before, next_cut.number + 1)
                yield next_cut
