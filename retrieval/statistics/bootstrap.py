"""Confidence intervals of retrieval metrics: the variation if other sentences and sites had been recorded.

Answers of retrieval are not independent: a sentence that is hard in one site pair is hard in others, and a
site with bad recordings lowers the recall of all its pairs. A binomial interval over all queries would be far
too narrow. Sentences and sites are two crossed random factors, so both are resampled ("pigeonhole bootstrap":
Owen, Annals of Applied Statistics 1(2), 2007). In each resample

1. sentences are drawn with replacement, once for all sites, since all sites read the same ones;
2. the sites of each group are drawn with replacement, once for all pairs with the group; 3. the metrics of a
site pair are computed from the ranks of the drawn sentences; the metrics of a group pair are
   the mean over the drawn site pairs, or, pooled, computed from the ranks of all drawn site pairs together.

The ends of an interval are not percentiles of the resamples. The coverage of percentiles is too low if a
group has few sites (with 3 sites, 83 % instead of 95 %), for two reasons: the variance between resamples of n
sites is (n - 1)/n of that between samples of n new sites, and a variance estimated from n values is itself
uncertain. Instead, the variance of the resamples is divided among the sites of each group and the sentences
(:func:`components`), each component is corrected for its number of units, and the interval is Student's t
(:mod:`zipformer.scoring.intervals`): on the logit scale for rates, on the log scale for median ranks, and
unscaled for differences. ``python -m benchmarks.coverage`` measures the coverage of the intervals.

Pools are not resampled: a query has the same rivals in every resample. The sites of a group with one site
cannot be resampled, and its interval is for that site only; results list these groups. Two sites make one
pair within their group, which does not vary either. If every query hits, or none, all resamples are equal;
the interval is then the exact binomial one with one trial for each sentence. If two models differ by the same
amount on all sentences, all resamples of their difference are equal, and the interval is a bound for
sentences outside the sample (:func:`difference_interval`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.statistics.ranks import (
    METRICS,
    RATES,
    RECALL_AT,
    ROUNDING,
    Counts,
    Floats,
    distributions_of_queries,
    metrics_of,
)
from zipformer.errors import UserError
from zipformer.scoring.intervals import Component, half_width, possible_rate, rate_interval, resampled

__all__ = [
    "Factor",
    "GroupReplicates",
    "Resamples",
    "components",
    "difference_interval",
    "groups_of_one_site",
    "mean_over_pairs",
    "metric_difference_intervals",
    "metric_intervals",
    "possible_rate",
    "recall_interval",
    "resampled",
]

Replicates = NDArray[np.float64]


class Factor:
    """Units of one kind that were drawn with replacement: the sites of a group, or the runs of a variant.

    Args:
        counts: number of draws (B,n) of each of n >= 2 units in each resample.
    """

    def __init__(self, counts: NDArray[np.floating]) -> None:
        self.units = counts.shape[1]
        self._counts = counts
        self._basis = _basis(counts)

    def explained(self, replicates: Replicates, valid: NDArray[np.bool_]) -> float:
        """Variance of the valid resamples that the numbers of draws of the units explain.

        It is the variance explained by the linear regression on the counts, minus its expectation for random
        values.
        """
        basis = self._basis if valid.all() else _basis(self._counts[valid])
        kept = replicates[valid]
        centred = kept - kept.mean()
        squares = float(((basis.T @ centred) ** 2).sum())
        by_chance = basis.shape[1] * float((centred**2).sum()) / (len(kept) - 1)
        return max(0.0, squares - by_chance) / (len(kept) - 1)


def _basis(counts: NDArray[np.floating]) -> Floats:
    """Orthonormal columns (B,r) that span the centred counts (B,n)."""
    vectors, sizes, _ = np.linalg.svd(counts - counts.mean(axis=0), full_matrices=False)
    return vectors[:, sizes > ROUNDING * math.sqrt(len(counts))]


def components(replicates: Replicates, factors: Sequence[Factor], sentences: int) -> list[Component]:
    """Components of the variance of an estimate: one for each factor and one for the sentences.

    Args:
        replicates: resampled values (B,); NaN marks a resample without a value and is ignored.
        factors: units that were resampled beside the sentences, independently of each other.
        sentences: number Q of different sentences in the estimate. Their component is the variance that the
            factors do not explain, including interactions.

    Raises:
        UserError: fewer than two resamples have a value.
    """
    valid = ~np.isnan(replicates)
    if valid.sum() < 2:
        raise UserError("no resample has a value: there is nothing to resample, or more resamples are needed")
    rest = float(replicates[valid].var(ddof=1))
    found = []
    for factor in factors:
        variance = factor.explained(replicates, valid)
        rest -= variance
        # The variance between resamples of n units is (n - 1)/n of that between samples of n new units.
        found.append(Component(variance * factor.units / (factor.units - 1), factor.units - 1))
    freedom = max(1, sentences - 1)
    return [*found, Component(max(0.0, rest) * (freedom + 1) / freedom, freedom)]


def recall_interval(
    rate: float,
    replicates: Replicates,
    *,
    factors: Sequence[Factor],
    sentences: int,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Interval of a recall in 0..1 from its resamples, with a positive width even if the rate is 0 or 1.

    Args:
        rate: recall in 0..1.
        replicates: resampled recalls (B,).
        factors: units that were drawn beside the sentences.
        sentences: number Q of different sentences in the estimate.
        confidence: confidence level.
    """
    width = half_width(components(replicates, factors, sentences), confidence)
    low, high = rate_interval(rate, width)
    reach = possible_rate(sentences, confidence)
    if rate <= ROUNDING:
        low, high = 0.0, reach
    if rate >= 1 - ROUNDING:
        low, high = 1 - reach, 1.0
    return low, high


def metric_intervals(
    values: Floats,
    replicates: Floats,
    *,
    factors: Sequence[Factor],
    sentences: int,
    pool: int,
    confidence: float = 0.95,
) -> list[tuple[float, float]]:
    """Intervals of all metrics from their resamples, with a width also where no query varies.

    Args:
        values: metrics (M,), rates in 0..1.
        replicates: resampled values (B,M).
        factors: units that were drawn beside the sentences.
        sentences: number Q of different sentences in the estimates.
        pool: largest number N of candidates; recall@k of a pool of k is 1 and cannot vary.
        confidence: confidence level.
    """
    widths = [half_width(components(column, factors, sentences), confidence) for column in replicates.T]
    rates = values[: len(RATES)].tolist()
    intervals: list[tuple[float, float]] = [
        rate_interval(rate, width) for rate, width in zip(rates, widths, strict=False)
    ]
    median = float(values[-1])
    ratio = math.exp(min(700.0, widths[-1] / median))
    intervals.append((max(1.0, median / ratio), max(median, min(float(pool), median * ratio))))
    reach = possible_rate(sentences, confidence)
    for index, k in enumerate(RECALL_AT):
        if values[index] <= ROUNDING:
            intervals[index] = 0.0, reach
        elif values[index] >= 1 - ROUNDING:
            intervals[index] = 1 - reach if pool > k else 1.0, 1.0
    if values[0] >= 1 - ROUNDING:
        # Every right answer has rank 1. A share ``reach`` of other sentences may have ranks up to N.
        intervals[len(RATES) - 1] = 1 - reach * (1 - 1 / pool), 1.0
        intervals[METRICS.index("median_rank")] = 1.0, 1.0 if reach < 0.5 else float(pool)
    return intervals


def difference_interval(
    difference: float,
    replicates: Replicates,
    *,
    factors: Sequence[Factor],
    sentences: int,
    confidence: float = 0.95,
    span: float = 1.0,
) -> tuple[float, float]:
    """Interval of the difference of two rates, with a positive width even if no sentence varies.

    If all Q sentences have the same difference d, so have all resamples. But a share r of all possible
    sentences may have another difference: with (1 - r)**Q = (1 - confidence)/2, none of them is among the Q
    with that probability (Clopper & Pearson, Biometrika 26(4), 1934; Hanley & Lippman-Hand, "If nothing goes
    wrong, is everything all right?", JAMA 249(13), 1983). The difference of a sentence is between -span and
    span. With this share at either extreme the mean lies between d - r (d + span) and d + r (span - d), and
    each end errs with probability (1 - confidence)/2 at most. Thus two models that hit everything differ by
    -r to r, and a model that hits everything differs from one that hits nothing by 1 - 2 r to 1: the
    distances between the ends of their own intervals (:func:`recall_interval`).

    Args:
        difference: difference d, in the units of ``span``.
        replicates: resampled differences (B,), NaN in resamples without a value.
        factors: units that were drawn beside the sentences.
        sentences: number Q of different sentences in the estimate.
        confidence: confidence level.
        span: largest difference that a sentence can have; 0 if the rate cannot vary.
    """
    width = half_width(components(replicates, factors, sentences), confidence)
    if np.nanmax(replicates) - np.nanmin(replicates) > ROUNDING * max(1.0, span):
        return max(-span, difference - width), min(span, difference + width)
    reach = possible_rate(sentences, confidence)
    return difference - reach * (difference + span), difference + reach * (span - difference)


def metric_difference_intervals(
    differences: Floats,
    replicates: Floats,
    *,
    factors: Sequence[Factor],
    sentences: int,
    pool: int,
    confidence: float = 0.95,
) -> list[tuple[float, float]]:
    """Intervals of the differences of all metrics, each by :func:`difference_interval`.

    The median rank is not a mean over sentences, so this rule does not apply to it. Its interval comes from
    its resamples; if they are all equal and the share r can be half or more, it has the largest possible
    width.

    Args:
        differences: differences of the metrics (M,), rates in 0..1.
        replicates: resampled values (B,M).
        factors: units that were drawn beside the sentences.
        sentences: number Q of different sentences in the estimates.
        pool: largest number N of candidates; recall@k of a pool of k is 1 and does not differ, and
            reciprocal ranks are at least 1/N.
        confidence: confidence level.
    """
    spans = [float(pool > k) for k in RECALL_AT] + [1 - 1 / pool]
    intervals = [
        difference_interval(
            float(difference), column, factors=factors, sentences=sentences, confidence=confidence, span=span
        )
        for difference, column, span in zip(differences, replicates.T, spans, strict=False)
    ]
    median, difference = replicates[:, len(RATES)], float(differences[len(RATES)])
    width = half_width(components(median, factors, sentences), confidence)
    if possible_rate(sentences, confidence) >= 0.5 and np.nanmax(median) - np.nanmin(median) <= ROUNDING:
        width = math.inf
    return [*intervals, (max(1.0 - pool, difference - width), min(pool - 1.0, difference + width))]


def groups_of_one_site(group_of_site: Sequence[str]) -> list[str]:
    """Groups with a single site, which resamples cannot vary, from the group of each site."""
    return [group for group in dict.fromkeys(group_of_site) if group_of_site.count(group) == 1]


def mean_over_pairs(replicates: Sequence[Floats]) -> Floats:
    """Mean (B,...) over several pairs of groups of their resamples (B,...).

    All pairs use the same draws, so the mean preserves their covariance. If only one site of a group was
    drawn, the resample has no pair within the group (NaN); the mean is over the other pairs.
    """
    mean = np.ma.masked_invalid(np.stack(replicates)).mean(axis=0)
    return np.ma.filled(mean.astype(np.float64), np.nan)


class GroupReplicates(NamedTuple):
    """Resampled metrics of a pair of groups.

    ``mean`` (B,M) is the mean of the metrics over site pairs; ``pooled`` (B,R) is the sum of the rank
    distributions of all queries.
    """

    mean: Floats
    pooled: Floats


@dataclass(frozen=True)
class Resamples:
    """Number of draws of each sentence and each site in each of B resamples.

    Attributes:
        sentences: counts (B,Q); each row sums to Q.
        sites: counts (B,S); in each row the counts of one group sum to its number of sites.
        members: indices of the sites of each group, groups in the order of their first sites.
        factors: sites of every group with several sites.
    """

    sentences: NDArray[np.float64]
    sites: NDArray[np.float64]
    members: Mapping[str, NDArray[np.intp]]
    factors: tuple[Factor, ...]

    @classmethod
    def draw(cls, group_of_site: Sequence[str], sentences: int, *, resamples: int, seed: int) -> "Resamples":
        """Draw resamples; the same seed gives the same draws.

        Args:
            group_of_site: group of each of S sites.
            sentences: number Q of sentences.
            resamples: number B of resamples; with more, the ends of the interval vary less (1000 is good).
            seed: seed of numpy's default generator.

        Raises:
            UserError: ``resamples`` or ``sentences`` is 0.
        """
        if resamples < 1 or sentences < 1:
            raise UserError(f"need at least one resample and one sentence, found {resamples} and {sentences}")
        random = np.random.default_rng(seed)
        sentence_counts = random.multinomial(sentences, np.full(sentences, 1 / sentences), size=resamples)
        site_counts = np.zeros((resamples, len(group_of_site)))
        members = {
            group: np.array([site for site, its_group in enumerate(group_of_site) if its_group == group])
            for group in dict.fromkeys(group_of_site)
        }
        factors = []
        for sites in members.values():
            site_counts[:, sites] = random.multinomial(
                len(sites), np.full(len(sites), 1 / len(sites)), size=resamples
            )
            if len(sites) > 1:
                factors.append(Factor(site_counts[:, sites]))
        return cls(sentence_counts.astype(np.float64), site_counts, members, tuple(factors))

    @property
    def count(self) -> int:
        return len(self.sentences)

    def metrics(self, above: Counts, equal: Counts, source: str, target: str) -> GroupReplicates:
        """Metrics of a pair of groups in each resample; NaN in a resample without queries.

        Args:
            above: number of candidates (S,S,Q) that score higher than the right answer, by source site,
                target site and sentence.
            equal: number of candidates (S,S,Q) with the same score, including the right answer; 0 without a
                query.
            source: source group.
            target: target group; a site paired with itself does not count.
        """
        sources, targets = self.members[source], self.members[target]
        block = np.ix_(sources, targets)
        pooled = np.zeros((self.count, max(1, int((above[block] + equal[block]).max(initial=1)))))
        total = np.zeros((self.count, len(METRICS)))
        weights = np.zeros((self.count, 1))
        for a in sources:
            for b in targets:
                if a == b or not equal[a, b].any():
                    continue
                ranks = int((above[a, b] + equal[a, b]).max())
                queries = distributions_of_queries(above[a, b], equal[a, b], ranks)  # (Q,R)
                drawn = self.sentences @ queries  # (B,R)
                values = metrics_of(drawn)
                weight = (self.sites[:, a] * self.sites[:, b])[:, None]  # one for each copy of the site pair
                pooled[:, :ranks] += weight * drawn
                present = ~np.isnan(values[:, :1])
                total += np.where(present, weight * values, 0)
                weights += weight * present
        with np.errstate(invalid="ignore"):
            return GroupReplicates(np.where(weights > 0, total / weights, np.nan), pooled)

    def recall(self, hits: NDArray[np.floating], source: str, target: str) -> Replicates:
        """Recall@1 (B,) of a pair of groups in each resample, or the mean of another value of queries.

        Args:
            hits: hit, share of a hit, or a difference of two (S,S,Q), by source site, target site and
                sentence; NaN without a query.
            source: source group.
            target: target group; a site paired with itself does not count.
        """
        sources, targets = self.members[source], self.members[target]
        block = hits[np.ix_(sources, targets)]  # (a,b,Q)
        known = ~np.isnan(block)
        a, b, Q = block.shape
        weights = self.sentences.T  # (Q,B)
        hit_sum = np.where(known, block, 0).reshape(a * b, Q) @ weights  # (ab,B)
        query_sum = known.reshape(a * b, Q).astype(np.float64) @ weights
        present = query_sum > 0
        recall = hit_sum / np.where(present, query_sum, 1)
        # einsum order: one weight for each drawn copy of the site pair
        pair_weight = (
            (self.sites[:, sources, None] * self.sites[:, None, targets]).reshape(-1, a * b).T
        )  # (ab,B)
        pair_weight = pair_weight * present * (sources[:, None] != targets).reshape(a * b, 1)
        total = pair_weight.sum(axis=0)
        with np.errstate(invalid="ignore"):
            return np.where(total > 0, (recall * pair_weight).sum(axis=0) / total, np.nan)
