"""Tests whether matched words are more similar as texts than random pairs, with sentences as units.

For a matched pair (i, j) of two texts (utterances, or all utterances of two sites), a random pair replaces
one of the two words by a random word of the same text. The expected similarity of a random pair is computed
exactly, as the mean over all words that could be drawn, half from the source and half from the target::

    random(i, j) = 1/2 mean_k s(i, k) + 1/2 mean_k s(k, j)

Words of one utterance depend on each other, and so do the utterances of one sentence at different sites. The
unit of the tests is therefore the sentence: both similarities are averaged over all matched pairs of all
utterance pairs of a sentence, which gives one difference for each sentence. The p-values of pairs of groups
are adjusted for the number of pairs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from retrieval.interpretation.matching import Match
from retrieval.statistics.significance import holm
from zipformer.errors import UserError

Key = TypeVar("Key")

DIGITS = 12  # significant digits of a difference of similarities


@dataclass(frozen=True)
class PairedTest:
    """Similarity of matched words compared with that of random pairs.

    A number is None if it is undefined: a statistic of fewer than two sentences, or of differences that are
    all equal (t) or all zero (Wilcoxon).

    Attributes:
        sentences: number n of sentences, the units of the tests.
        word_pairs: number of matched pairs of words in these sentences.
        matched, random: mean similarity over sentences.
        difference: matched minus random, with the ends ``low`` and ``high`` of its t interval.
        t, t_p: paired t-test, two-sided.
        wilcoxon, wilcoxon_p: Wilcoxon's signed-rank test, two-sided; the smaller rank sum.
        cohen_d: d_z, mean difference over the standard deviation of the differences.
        rank_biserial: rank sum of positive differences minus that of negative ones, divided by their sum.
        t_p_holm, wilcoxon_p_holm: p of the tests, adjusted for all pairs of groups; None for a single test.
    """

    sentences: int
    word_pairs: int
    matched: float
    random: float
    difference: float
    low: float | None
    high: float | None
    t: float | None
    t_p: float | None
    wilcoxon: float | None
    wilcoxon_p: float | None
    cohen_d: float | None
    rank_biserial: float | None
    t_p_holm: float | None = None
    wilcoxon_p_holm: float | None = None


def paired_test(
    matched: NDArray[np.float64], random: NDArray[np.float64], *, word_pairs: int, confidence: float = 0.95
) -> PairedTest:
    """Paired t-test and Wilcoxon's signed-rank test with their effect sizes.

    Args:
        matched, random: similarities (n,), one for each sentence, n at least 1.
        word_pairs: number of word pairs behind the means.
        confidence: confidence level of the interval.

    Raises:
        UserError: there is no sentence, the lengths differ, or a value is not finite.
    """
    if matched.shape != random.shape or matched.ndim != 1 or not len(matched):
        raise UserError(f"values are {matched.shape} and {random.shape}; expected (n,) and (n,), n >= 1")
    # Means of equal numbers may differ in the last digit, by the order of summation. Round that away.
    differences = np.round(matched - random, DIGITS)
    if not np.isfinite(differences).all():
        raise UserError("a text similarity is not finite")
    n, mean = len(differences), float(differences.mean())
    low = high = t = t_p = cohen_d = None
    spread = float(differences.std(ddof=1)) if n > 1 else 0.0
    if np.ptp(differences) > 0:
        result = stats.ttest_rel(matched, random)
        t, t_p, cohen_d = float(result.statistic), float(result.pvalue), mean / spread
        reach = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * spread / math.sqrt(n)
        low, high = mean - reach, mean + reach
    wilcoxon = wilcoxon_p = rank_biserial = None
    differing = differences[differences != 0]
    if len(differing):
        ranks = stats.rankdata(np.abs(differing))
        if n > 1:
            outcome = stats.wilcoxon(differing)
            wilcoxon, wilcoxon_p = float(outcome.statistic), float(outcome.pvalue)
        rank_biserial = float((np.sign(differing) * ranks).sum() / ranks.sum())
    return PairedTest(
        n,
        word_pairs,
        float(matched.mean()),
        float(random.mean()),
        mean,
        low,
        high,
        t,
        t_p,
        wilcoxon,
        wilcoxon_p,
        cohen_d,
        rank_biserial,
    )


def adjusted(tests: Mapping[Key, PairedTest]) -> dict[Key, PairedTest]:
    """The tests with p-values adjusted for their number, separately for t-tests and Wilcoxon's tests.

    Tests without a p-value do not count (:func:`retrieval.statistics.significance.holm`).
    """
    t = {key: test.t_p for key, test in tests.items() if test.t_p is not None}
    wilcoxon = {key: test.wilcoxon_p for key, test in tests.items() if test.wilcoxon_p is not None}
    t_holm = dict(zip(t, holm(list(t.values())), strict=True))
    wilcoxon_holm = dict(zip(wilcoxon, holm(list(wilcoxon.values())), strict=True))
    return {
        key: replace(test, t_p_holm=t_holm.get(key), wilcoxon_p_holm=wilcoxon_holm.get(key))
        for key, test in tests.items()
    }


def matched_and_random(
    similarities: NDArray[np.floating], matches: Sequence[Match]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Similarity of the words of each match, and expected similarity of its random pair.

    Args:
        similarities: similarities (W,V) of all words of two utterances.
        matches: the M matches.

    Returns:
        Two vectors (M,).
    """
    source = np.array([match.source for match in matches], np.int64)
    target = np.array([match.target for match in matches], np.int64)
    random = (similarities.mean(axis=1)[source] + similarities.mean(axis=0)[target]) / 2
    return similarities[source, target].astype(np.float64), random.astype(np.float64)


@dataclass
class Sums:
    """Sums of both similarities over the matched words of each sentence."""

    matched: dict[str, float] = field(default_factory=dict)
    random: dict[str, float] = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=dict)

    def add(
        self, sentences: Sequence[str], matched: NDArray[np.float64], random: NDArray[np.float64]
    ) -> None:
        """Add M matches: the sentence of each, and both similarities (M,)."""
        for sentence, similar, expected in zip(sentences, matched.tolist(), random.tolist(), strict=True):
            self.matched[sentence] = self.matched.get(sentence, 0.0) + similar
            self.random[sentence] = self.random.get(sentence, 0.0) + expected
            self.count[sentence] = self.count.get(sentence, 0) + 1

    def test(self, confidence: float) -> PairedTest:
        """The tests over the sentences, in a fixed order.

        Raises:
            UserError: nothing was added.
        """
        sentences = sorted(self.count)
        counts = np.array([self.count[name] for name in sentences], np.float64)
        matched = np.array([self.matched[name] for name in sentences]) / counts
        random = np.array([self.random[name] for name in sentences]) / counts
        return paired_test(matched, random, word_pairs=int(counts.sum()), confidence=confidence)
