"""Permutation tests: of a model against chance, and of one model against another.

**Against chance.** If a model knew nothing of the content of speech, it would not matter which utterance of a
target site counts as the right answer of a query. Therefore the correspondence of sentences is permuted, and
everything else is unchanged: embeddings, scores, pools. In each of B permutations every group gets one random
relabelling of the Q sentences, the same at all of its sites. The right answer of query q of a site of group A
at a site of group B becomes the utterance whose label in B is the label of q in A. So all site pairs of a
pair of groups get the same permutation, and A to B gets the inverse of B to A, which preserves dependence (a
sentence that is short everywhere, a recording that is close to all others). For pairs of sites within a group
every site has its own relabelling. If a site pair lacks sentences, the permutation is restricted to those it
has: each sentence is mapped to its image or, if that is missing, to the image of the image, and so on; the
result is again uniform over all permutations.

If a challenge set gives each query its own candidates, the right answer is instead drawn among the candidates
of the query, by one random number for each sentence, the same at all site pairs of two groups.

**Between two models.** If two models were equally good, it would not matter which of them gave the answers
for a sentence. In each of B draws, the answers of the two models are swapped for each sentence with
probability 1/2, in all site pairs at once, and the difference is computed again. The units of this test are
sentences, with the sites fixed; the interval of the difference (:mod:`retrieval.statistics.bootstrap`)
resamples both.

In both tests p = (1 + b)/(1 + B), where b is the number of draws that are at least as extreme as the data
(Phipson & Smyth, Statistical Applications in Genetics and Molecular Biology 9(1), 2010), so p is never 0.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from retrieval.statistics.ranks import METRICS, RATES, Floats, Places, metrics_of, rank_distribution

Permutations = NDArray[np.int32]
CACHE_BYTES = 1 << 28  # bytes of relabellings that are cached for further site pairs
EQUAL = 1e-12  # statistics that differ by less are equal up to rounding


class ChanceTest:
    """Collects the metrics of every pair of groups under permuted correspondences.

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
        """Add an ordered site pair.

        Args:
            source, target: numbers of the sites.
            columns: numbers of the N sentences of the pair, increasing.
            found: places (N,N) of all candidates for all queries.
            allowed: mask (N,N) of the candidates of each query; None = all candidates.
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
        """Metrics (B,M) of every pair of groups, mean over site pairs."""
        return {pair: total / self._site_pairs[pair] for pair, total in self._sums.items()}

    def _labels(self, unit: int, is_site: bool) -> Permutations:
        """Labels (B,Q) of the sentences."""
        ordered = np.tile(np.arange(self.sentences, dtype=np.int32), (self.permutations, 1))
        return np.random.default_rng((self.seed, int(is_site), unit)).permuted(ordered, axis=1)

    def _draw_correspondence(self, source: int, target: int, is_site: bool) -> Permutations:
        """For each sentence at the source, the sentence (B,Q) with the same label at the target."""
        sentence_of_label = np.argsort(self._labels(target, is_site), axis=1).astype(np.int32)
        return np.take_along_axis(sentence_of_label, self._labels(source, is_site), axis=1)

    def _draw_numbers(self, source: int, target: int, is_site: bool) -> Floats:
        """Uniform numbers (B,Q) in [0, 1); the opposite direction uses 1 minus these."""
        at_source, at_target = (
            np.random.default_rng((self.seed, 2 + int(is_site), unit)).random(
                (self.permutations, self.sentences)
            )
            for unit in (source, target)
        )
        return (at_source - at_target) % 1.0


def induced(permutations: Permutations, kept: NDArray[np.integer]) -> NDArray[np.integer]:
    """The permutations (B,N) that permutations (B,Q) induce on N of the Q elements.

    Every kept element is mapped to the next kept element of its cycle. If the given permutations are uniform,
    so are the induced ones.

    Args:
        permutations: image of each of 0 ... Q - 1.
        kept: the N elements, increasing; the result gives images as positions in this list.
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
    """Draw a candidate (B,N) of each query, at the position ``numbers`` in its list of candidates.

    Args:
        allowed: mask (N,M) of the candidates of each query; each query has at least one.
        numbers: relative positions (B,N) in [0, 1); uniform numbers give all candidates the same probability.
    """
    counts = allowed.sum(axis=1)  # (N,)
    listed = np.argsort(~allowed, axis=1, kind="stable")  # (N,M), the candidates of a query first
    chosen = np.minimum((numbers * counts).astype(np.int64), counts - 1)
    return listed[np.arange(len(allowed)), chosen]


def chance_p_values(observed: Floats, permuted: Floats) -> Floats:
    """One-sided p-values (M,) of metrics (M,) against permuted values (B,M)."""
    sign = np.array([1.0 if name in RATES else -1.0 for name in METRICS])
    extreme = sign * permuted >= sign * observed - EQUAL
    return (1 + extreme.sum(axis=0)) / (1 + len(permuted))


def paired_p_values(observed: Floats, swapped: Floats) -> Floats:
    """Two-sided p-values (M,) of differences (M,) between two models, against swapped answers (B,M)."""
    extreme = np.abs(swapped) >= np.abs(observed) - EQUAL
    return (1 + extreme.sum(axis=0)) / (1 + len(swapped))


def draw_swaps(sentences: int, *, permutations: int, seed: int) -> Floats:
    """For each of B draws, 1 for each sentence whose answers are swapped, else 0, (B,Q)."""
    return np.random.default_rng(seed).integers(0, 2, (permutations, sentences)).astype(np.float64)


def swapped_differences(first: Floats, second: Floats, swaps: Floats) -> Floats:
    """Differences (B,M) of the metrics of a site pair, first model minus second, with swapped answers.

    Args:
        first: rank distributions (Q,R) of the answers of the first model; 0 without a query.
        second: rank distributions of the second model.
        swaps: draws, from :func:`draw_swaps`.
    """
    moved = swaps @ (second - first)  # (B,R)
    return metrics_of(first.sum(axis=0) + moved) - metrics_of(second.sum(axis=0) - moved)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for multiple tests by the method of Holm.

    Holm, Scandinavian Journal of Statistics 6(2), 1979: the smallest of m p-values is multiplied by m, the
    next by m - 1, and so on; none becomes smaller than the one before it, or larger than 1.
    """
    adjusted = [0.0] * len(p_values)
    reached = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        reached = max(reached, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = reached
    return adjusted
