"""Permutation tests: against chance, and of one model against another.

**Against chance.** If a model knew nothing of what is said, it would not matter which utterance of a target
site is called the right answer of a query. So the correspondence of sentences is permuted, and everything
else stays: embeddings, scores, pools. In each of B permutations every group gets one random relabelling
of the Q sentences, the same at all of its sites, and the right answer of query q of a site of group A at a
site of group B becomes the utterance whose label in B is the label of q in A. All site pairs of a pair of
groups are thus permuted alike, and A to B with the inverse of B to A, so that what they have in common (a
sentence that is short everywhere, a recording that is near to all) varies together as it does in the data.
For pairs of sites within a group every site has its own relabelling. A site pair that lacks sentences takes
what the permutation induces on those it has: their image, and if that is missing, the image of the image, and
so on; this is again uniform over all permutations.

Where a challenge set gives queries candidates of their own, the right answer is drawn among the candidates of
the query instead, by one random number for each sentence that is the same at all site pairs of two groups.

**Of two models.** If two models were equally good, it would not matter which of them gave the answers for a
sentence. In each of B draws, every sentence swaps the answers of the two models with probability 1/2, in all
site pairs at once, and the difference is computed again. The units of this test are sentences, with the sites
fixed; the interval of the difference (:mod:`retrieval.statistics.bootstrap`) varies both.

In both tests p = (1 + b)/(1 + B), where b is the number of draws that are at least as extreme as the data
(Phipson & Smyth, Statistical Applications in Genetics and Molecular Biology 9(1), 2010), so p is never 0.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from retrieval.statistics.ranks import METRICS, RATES, Floats, Places, metrics_of, rank_distribution

Permutations = NDArray[np.int32]
CACHE_BYTES = 1 << 28  # of relabellings that are kept for further site pairs
EQUAL = 1e-12  # statistics that differ by less are the same but for rounding


class ChanceTest:
    """Collects what every metric of every pair of groups would be under permuted correspondences.

    Args:
        groups: group of each site.
        sentences: number Q of sentences.
        permutations: number B of permutations.
        seed: random seed of the relabellings.
    """

    def __init__(self, groups: Sequence[str], sentences: int, *, permutations: int, seed: int) -> None:
        self.groups = list(groups)
        self.sentences = sentences
        self.permutations = permutations
        self.seed = seed
        self._sums: dict[tuple[str, str], Floats] = {}
        self._site_pairs: dict[tuple[str, str], int] = {}
        self._units = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        kept = max(4, CACHE_BYTES // (8 * permutations * sentences))
        self._correspondence = lru_cache(maxsize=kept)(self._draw_correspondence)
        self._numbers = lru_cache(maxsize=kept)(self._draw_numbers)

    def add(
        self,
        source: int,
        target: int,
        columns: Sequence[int],
        found: Places,
        allowed: NDArray[np.bool_] | None = None,
    ) -> None:
        """Take in an ordered site pair.

        Args:
            source, target: numbers of the sites.
            columns: numbers of the N sentences of the pair, increasing.
            found: places (N,N) of all candidates for all queries.
            allowed: (N,N) whether a query has a candidate; None = all candidates.
        """
        pair = self.groups[source], self.groups[target]
        within = pair[0] == pair[1]
        units = (source, target) if within else (self._units[pair[0]], self._units[pair[1]])
        kept = np.asarray(columns)
        if allowed is None:
            answers = induced(self._correspondence(*units, within), kept)
        else:
            answers = drawn_among(allowed, self._numbers(*units, within)[:, kept])
        queries = np.arange(len(kept))
        distribution = rank_distribution(
            found.above[queries, answers], found.equal[queries, answers], len(kept)
        )
        self._sums[pair] = self._sums.get(pair, 0) + metrics_of(distribution)
        self._site_pairs[pair] = self._site_pairs.get(pair, 0) + 1

    def values(self) -> dict[tuple[str, str], Floats]:
        """Metrics (B,M) of every pair of groups, means over its site pairs."""
        return {pair: total / self._site_pairs[pair] for pair, total in self._sums.items()}

    def _labels(self, unit: int, is_site: bool) -> Permutations:
        """Label (B,Q) of every sentence."""
        ordered = np.tile(np.arange(self.sentences, dtype=np.int32), (self.permutations, 1))
        return np.random.default_rng((self.seed, int(is_site), unit)).permuted(ordered, axis=1)

    def _draw_correspondence(self, source: int, target: int, is_site: bool) -> Permutations:
        """The sentence (B,Q) whose label at the target is that of each sentence at the source."""
        sentence_of_label = np.argsort(self._labels(target, is_site), axis=1).astype(np.int32)
        return np.take_along_axis(sentence_of_label, self._labels(source, is_site), axis=1)

    def _draw_numbers(self, source: int, target: int, is_site: bool) -> Floats:
        """Numbers (B,Q) in [0, 1), uniform; those of the opposite direction are 1 minus these."""
        at_source, at_target = (
            np.random.default_rng((self.seed, 2 + int(is_site), unit)).random(
                (self.permutations, self.sentences)
            )
            for unit in (source, target)
        )
        return (at_source - at_target) % 1.0


def induced(permutations: Permutations, kept: NDArray[np.integer]) -> NDArray[np.integer]:
    """The permutations (B,N) that permutations (B,Q) induce on N of the Q elements.

    Every element is mapped to the next kept element of its cycle. If the given permutations are uniform, so
    are the induced ones.

    Args:
        permutations: image of each of 0 ... Q - 1.
        kept: N elements, increasing; the result gives images as places in this list.
    """
    Q = permutations.shape[1]
    if len(kept) == Q:
        return permutations
    place = np.full(Q, -1)
    place[kept] = np.arange(len(kept))
    image = permutations[:, kept]
    while (outside := place[image] < 0).any():
        image = np.where(outside, np.take_along_axis(permutations, image, axis=1), image)
    return place[image]


def drawn_among(allowed: NDArray[np.bool_], numbers: Floats) -> NDArray[np.integer]:
    """A candidate (B,N) of each query: that at a share ``numbers`` (B,N) in [0, 1) of those it has.

    Args:
        allowed: (N,M) whether a query has a candidate; each has at least one.
        numbers: numbers (B,N) in [0, 1); uniform ones give every candidate the same probability.
    """
    counts = allowed.sum(axis=1)  # (N,)
    listed = np.argsort(~allowed, axis=1, kind="stable")  # (N,M), the candidates of a query first
    chosen = np.minimum((numbers * counts).astype(np.int64), counts - 1)
    return listed[np.arange(len(allowed)), chosen]


def chance_p_values(observed: Floats, permuted: Floats) -> Floats:
    """One-sided p (M,) of metrics (M,) being better than their permuted values (B,M)."""
    sign = np.array([1.0 if name in RATES else -1.0 for name in METRICS])
    extreme = sign * permuted >= sign * observed - EQUAL
    return (1 + extreme.sum(axis=0)) / (1 + len(permuted))


def paired_p_values(observed: Floats, swapped: Floats) -> Floats:
    """Two-sided p (M,) of differences (M,) between two models, from those with swapped answers (B,M)."""
    extreme = np.abs(swapped) >= np.abs(observed) - EQUAL
    return (1 + extreme.sum(axis=0)) / (1 + len(swapped))


def draw_swaps(sentences: int, *, permutations: int, seed: int) -> Floats:
    """For each of B draws, which sentences change their models: 1 or 0, (B,Q)."""
    return np.random.default_rng(seed).integers(0, 2, (permutations, sentences)).astype(np.float64)


def swapped_differences(first: Floats, second: Floats, swaps: Floats) -> Floats:
    """Differences (B,M) of the metrics of a site pair, first model less second, with swapped answers.

    Args:
        first: rank distributions (Q,R) of the answers of the first model, 0 for a query that was not asked.
        second: rank distributions of the second model.
        swaps: draws, from :func:`draw_swaps`.
    """
    moved = swaps @ (second - first)  # (B,R)
    return metrics_of(first.sum(axis=0) + moved) - metrics_of(second.sum(axis=0) - moved)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted so that all of them together err with the probability that each one says.

    Holm, Scandinavian Journal of Statistics 6(2), 1979: the smallest of m is multiplied by m, the next by
    m - 1, and so on; none becomes smaller than the one before it, or larger than 1.
    """
    adjusted = [0.0] * len(p_values)
    reached = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        reached = max(reached, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = reached
    return adjusted
