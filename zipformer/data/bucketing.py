"""Batches of utterances of about the same length, from a stream, with a state that can be kept.

The batches are those of Lhotse's ``DynamicBucketingSampler`` with ``shuffle=True``, cut by cut: its steps and
its draws of random numbers are repeated here. What differs is that the state between two batches can be
taken and restored, so that a run that resumes need not sample the epoch again from its start.

``buffer_size`` cuts of the stream wait in buckets by duration. For each batch a bucket is chosen, as near as
possible to one drawn at random, and cuts are drawn from it until one more of the longest would exceed
``max_duration``; then as many cuts follow from the stream. Every process forms the batches of all processes,
and takes its own; the buckets of these batches are neighbours, so that no process waits long for the others.
"""

import logging
import random
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from lhotse.utils import split_sequence

from zipformer.data.manifest import CutLine
from zipformer.data.mixing import Mixture

_CUTS_FOR_BINS = 10_000  # of the first epoch, from whose durations the buckets follow
_BUCKET_SEED = 1234  # the same in all processes, epochs and runs

State = Mapping[str, Any]  # plain values and tensors

logger = logging.getLogger(__name__)


class BucketingSampler:
    """Batches of a mixture, epoch by epoch.

    Args:
        max_duration: seconds of a batch, padding included.
        max_cuts: cuts of a batch.
        quadratic_duration: a cut of d seconds counts as d + d^2 / quadratic_duration.
        num_buckets: about as many buckets, each with the same share of the seconds; 1 = no sorting by length.
        buffer_size: cuts that wait in buckets.
        drop_last: drop what fills no batch at the end of an epoch.

    Attributes:
        bins: seconds at which a bucket ends and the next one starts.
    """

    def __init__(
        self,
        mixture: Mixture,
        *,
        max_duration: float,
        max_cuts: int | None = None,
        quadratic_duration: float | None = None,
        num_buckets: int = 30,
        buffer_size: int = 20_000,
        drop_last: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.mixture = mixture
        self.max_duration = max_duration
        self.max_cuts = max_cuts
        self.quadratic_duration = quadratic_duration
        self.buffer_size = buffer_size
        self.drop_last = drop_last
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        first = islice(mixture, _CUTS_FOR_BINS) if num_buckets > 1 else ()
        self.bins = _equal_shares([cut.duration for cut in first], num_buckets)
        held = buffer_size * float(np.mean(self.bins)) / (len(self.bins) + 1) if self.bins else max_duration
        if held < max_duration:
            logger.warning(
                "data.buffer_size=%d holds about %.0f s for each bucket, less than data.max_duration=%g: "
                "many batches will be smaller than asked for",
                *(buffer_size, held, max_duration),
            )

    def batches(self, epoch: int, state: State | None = None) -> "EpochBatches":
        """The batches of an epoch, from its start or from a state of :meth:`EpochBatches.state`."""
        self.mixture.epoch = epoch
        return EpochBatches(self, epoch, state)

    def can_restore(self, state: State) -> bool:
        """Whether a state was taken from the batches that this sampler forms now."""
        sizes = [len(stream.durations) for stream in self.mixture.streams]
        return bool(state["bins"] == self.bins and state["cuts_by_stream"] == sizes)

    def filled(self, durations: Iterable[float]) -> int:
        """How many of these durations a batch takes; 0 where all of them do not fill one."""
        longest = 0.0
        for number, seconds in enumerate(durations, start=1):
            if self.quadratic_duration is not None:
                seconds += seconds**2 / self.quadratic_duration
            longest = max(longest, seconds)
            full = self.max_cuts is not None and number >= self.max_cuts
            if full or (number + 1) * longest > self.max_duration:
                return number
        return 0


class EpochBatches(Iterator[list[CutLine]]):
    """The batches of one process in one epoch."""

    def __init__(self, sampler: BucketingSampler, epoch: int, state: State | None = None) -> None:
        self.sampler = sampler
        self.buckets: list[list[CutLine]] = [[] for _ in range(len(sampler.bins) + 1)]
        self.random = random.Random(sampler.seed + epoch)
        self.bucket_random = random.Random(_BUCKET_SEED)
        if state is None:
            self.reader = sampler.mixture.read()
            self.cuts = iter(self.reader)
            self._fetch(sampler.buffer_size)
        else:
            self.reader = sampler.mixture.read(state["reader"])
            self.cuts = iter(self.reader)
            self.random.setstate(state["random"])
            self.bucket_random.setstate(state["bucket_random"])
            held = self._held(state["cuts"].tolist())
            for bucket, size in zip(self.buckets, state["bucket_sizes"], strict=True):
                bucket.extend(islice(held, size))

    def state(self) -> dict[str, Any]:
        """What the next batches depend on, besides the settings and the manifests."""
        held = [(cut.stream, cut.number) for bucket in self.buckets for cut in bucket]
        return {
            "bins": self.sampler.bins,
            "cuts_by_stream": [len(stream.durations) for stream in self.sampler.mixture.streams],
            "reader": self.reader.state(),
            "random": self.random.getstate(),
            "bucket_random": self.bucket_random.getstate(),
            "bucket_sizes": [len(bucket) for bucket in self.buckets],
            "cuts": torch.tensor(held, dtype=torch.int64).reshape(-1, 2),
        }

    def __next__(self) -> list[CutLine]:
        sampler = self.sampler
        drawn = self.bucket_random.randrange(len(self.buckets))
        parts: list[list[CutLine]] = []
        while len(parts) < sampler.world_size and (bucket := self._choose(drawn)) is not None:
            parts.append(self._draw(bucket))
        if len(parts) < sampler.world_size:
            if sampler.drop_last or not parts:
                raise StopIteration
            # The rest is shared out, so that every process has a batch; too few cuts are repeated.
            cuts = [cut for part in parts for cut in part]
            while missing := max(0, sampler.world_size - len(cuts)):
                cuts += cuts[:missing]
            parts = split_sequence(cuts, sampler.world_size)
        return parts[sampler.rank]

    def _choose(self, drawn: int) -> list[CutLine] | None:
        """The bucket nearest to the drawn one that fills a batch, else one that is not empty."""
        order = sorted(range(len(self.buckets)), key=lambda place: (abs(place - drawn), place))
        conditions: list[Callable[[list[CutLine]], object]] = [self._fills]
        if not self.sampler.drop_last:
            conditions.append(len)
        for condition in conditions:
            for place in order:
                if condition(self.buckets[place]):
                    return self.buckets[place]
        return None

    def _fills(self, bucket: list[CutLine]) -> int:
        return self.sampler.filled(cut.duration for cut in bucket)

    def _draw(self, bucket: list[CutLine]) -> list[CutLine]:
        """Take a batch out of a bucket, and as many cuts from the stream into the buckets."""
        places = list(range(len(bucket)))
        self.random.shuffle(places)
        count = self.sampler.filled(bucket[place].duration for place in places)
        used = places[:count] if count else places
        batch = [bucket[place] for place in used]
        for place in sorted(used, reverse=True):
            del bucket[place]
        self._fetch(len(batch))
        return batch

    def _fetch(self, count: int) -> None:
        for cut in islice(self.cuts, count):
            self.buckets[bisect_left(self.sampler.bins, cut.duration)].append(cut)

    def _held(self, places: Sequence[tuple[int, int]]) -> Iterator[CutLine]:
        """The cuts at places (stream, number), which are read in the order of the manifests."""
        by_stream: dict[int, set[int]] = defaultdict(set)
        for stream, number in places:
            by_stream[stream].add(number)
        found = {
            (stream, cut.number): cut
            for stream, numbers in by_stream.items()
            for cut in self.sampler.mixture.streams[stream].cuts_at(sorted(numbers), stream)
        }
        return (found[stream, number] for stream, number in places)


def _equal_shares(durations: Sequence[float], count: int) -> list[float]:
    """Durations that divide the seconds of all utterances into about equal parts, at most ``count``."""
    ordered = np.sort(np.array(durations, dtype=np.float64))
    share = ordered.sum() / count
    bins: list[float] = []
    total = 0.0
    for seconds in ordered.tolist():
        if total > share:
            bins.append(seconds)
            total = 0.0
        total += seconds
    return bins
