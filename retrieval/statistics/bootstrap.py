"""Confidence intervals of retrieval metrics: what changes if other sentences and places had been recorded.

Answers of retrieval are not independent: a sentence that is hard in one site pair is hard in others, and a
site that is recorded badly spoils all its pairs. A binomial interval over all queries would be far too
narrow. Sentences and sites are two crossed random factors, so both are resampled ("pigeonhole bootstrap":
Owen, Annals of Applied Statistics 1(2), 2007). In each resample

1. sentences are drawn with replacement, once for all sites, since all sites read the same ones;
2. the sites of each group are drawn with replacement, once for all pairs that the group is in;
3. the metrics of a site pair are those of the ranks of the drawn sentences; the metrics of a group pair are
   the mean over the drawn site pairs, or, pooled, those of all ranks at the drawn site pairs together.

The ends of an interval are not percentiles of the resamples: these cover too little where a group has few
sites (of 3 sites, 83 % instead of 95), since a resample of n sites varies by (n - 1)/n of what n new sites
would, and a variance of n values is itself uncertain. The variance of the resamples is divided among the
sites of each group and the sentences instead (:func:`components`), each part is corrected for its number of
units, and the interval is Student's (:mod:`zipformer.scoring.intervals`): for rates on the logit scale, for
median ranks on that of logarithms, for differences as they are. ``python -m benchmarks.coverage`` measures
how often intervals hold the true value.

Pools stay as they were: a query competes with the same sentences in every resample. A group of one site
cannot vary its sites, and its interval speaks of that site only; results say which groups these are. Two
sites make one pair within their group, which cannot vary either. Where every query hits, or none, all
resamples are the same; the interval is then the exact binomial one with one trial a sentence. Where all
sentences tell two models apart alike, or none does, all resamples of their difference are the same, and its
interval says what other sentences may still show (:func:`difference_interval`).
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
        counts: (B,n), how often each of n >= 2 units was drawn in each resample.
    """

    def __init__(self, counts: NDArray[np.floating]) -> None:
        self.units = counts.shape[1]
        self._counts = counts
        self._basis = _basis(counts)

    def explained(self, replicates: Replicates, valid: NDArray[np.bool_]) -> float:
        """Variance of the valid resamples that goes along with how often each unit was drawn.

        It is that of the linear regression on the counts, less what chance alone would explain.
        """
        basis = self._basis if valid.all() else _basis(self._counts[valid])
        kept = replicates[valid]
        centred = kept - kept.mean()
        squares = float(((basis.T @ centred) ** 2).sum())
        by_chance = basis.shape[1] * float((centred**2).sum()) / (len(kept) - 1)
        return max(0.0, squares - by_chance) / (len(kept) - 1)


def _basis(counts: NDArray[np.floating]) -> Floats:
    """Orthonormal columns (B,r) that span the counts (B,n) less their means."""
    vectors, sizes, _ = np.linalg.svd(counts - counts.mean(axis=0), full_matrices=False)
    return vectors[:, sizes > ROUNDING * math.sqrt(len(counts))]


def components(replicates: Replicates, factors: Sequence[Factor], sentences: int) -> list[Component]:
    """What every factor and the sentences contribute to the variance of an estimate.

    Args:
        replicates: resampled values (B,); NaN, in a resample without a value, is left out.
        factors: units that were drawn beside the sentences, independently of each other.
        sentences: number Q of different sentences behind the estimate. They get the variance that the factors
            leave, interactions included.

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
        # Resamples of n units vary by (n - 1)/n of what n new ones would.
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
    """Interval of a recall in 0..1 from its resamples, with a width also where the rate is 0 or 1.

    Args:
        rate: recall.
        replicates: resampled recalls (B,).
        factors: units that were drawn beside the sentences.
        sentences: number Q of different sentences behind it.
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
        sentences: number Q of different sentences behind them.
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
        # Every right answer is the first. Of a share ``reach`` that may not be, each can have rank N.
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
    """Interval of the difference of two rates, with a width also where no sentence varies.

    If all Q sentences have the same difference d, so have all resamples. But a share r of all sentences, with
    (1 - r)**Q = (1 - confidence)/2, may have another one and still be missing among Q with that probability
    (Clopper & Pearson, Biometrika 26(4), 1934; Hanley & Lippman-Hand, "If nothing goes wrong, is everything
    all right?", JAMA 249(13), 1983). A sentence differs by -span to span. With this share at either end the
    mean lies between d - r (d + span) and d + r (span - d), and each end errs with probability
    (1 - confidence)/2 at most. Two models that hit everything thus differ by -r to r, and one that hits
    everything from one that hits nothing by 1 - 2 r to 1: the distances between the ends of their own
    intervals (:func:`recall_interval`).

    Args:
        difference: d, in the units of ``span``.
        replicates: resampled differences (B,), NaN in resamples without a value.
        factors: units that were drawn beside the sentences.
        sentences: number Q of different sentences behind it.
        confidence: confidence level.
        span: largest difference that a sentence can have; 0 where the rate cannot vary.
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
    """Intervals of the differences of all metrics, each as :func:`difference_interval`.

    The median rank is no mean over sentences, so the rule does not apply to it. Its interval is that of its
    resamples; if they are all equal and half of all sentences may be missing, it is open in both directions.

    Args:
        differences: differences of the metrics (M,), rates in 0..1.
        replicates: resampled values (B,M).
        factors: units that were drawn beside the sentences.
        sentences: number Q of different sentences behind them.
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
    """Groups that have a single site, from the group of each site: no resample varies it."""
    return [group for group in dict.fromkeys(group_of_site) if group_of_site.count(group) == 1]


def mean_over_pairs(replicates: Sequence[Floats]) -> Floats:
    """Mean (B,...) of the resamples (B,...) of several pairs of groups.

    The same draws lie behind all pairs, so the mean keeps how they vary together. A resample in which one
    group drew a single site has no pair within it (NaN); the others still have a mean.
    """
    mean = np.ma.masked_invalid(np.stack(replicates)).mean(axis=0)
    return np.ma.filled(mean.astype(np.float64), np.nan)


class GroupReplicates(NamedTuple):
    """Resampled metrics of a pair of groups.

    ``mean`` (B,M) are means over site pairs; ``pooled`` (B,R) are the summed rank distributions of all
    queries, whose metrics are those of the pool of queries.
    """

    mean: Floats
    pooled: Floats


@dataclass(frozen=True)
class Resamples:
    """Number of times that each sentence and each site was drawn in each of B resamples.

    Attributes:
        sentences: counts (B,Q); each row sums to Q.
        sites: counts (B,S); in each row those of one group sum to its number of sites.
        members: indices of the sites of each group, groups in the order of their first sites.
        factors: sites of every group that has several.
    """

    sentences: NDArray[np.float64]
    sites: NDArray[np.float64]
    members: Mapping[str, NDArray[np.intp]]
    factors: tuple[Factor, ...]

    @classmethod
    def draw(cls, group_of_site: Sequence[str], sentences: int, *, resamples: int, seed: int) -> "Resamples":
        """Draw them; the same seed gives the same draws.

        Args:
            group_of_site: group of each of S sites.
            sentences: number Q of sentences.
            resamples: number B of resamples; the ends of the interval get steadier with it (1000 are good).
            seed: seed of numpy's default generator.

        Raises:
            UserError: no resample or no sentence.
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
            above: (S,S,Q) candidates that score higher than the right answer of query q of the source site
                (axis 0) in the pool of the target site (axis 1).
            equal: (S,S,Q) candidates that score the same, the right answer included; 0 where that pair has
                no such query.
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
            hits: (S,S,Q) hit or share of a hit of query q of the source site (axis 0) in the pool of the
                target site (axis 1), or a difference of two; NaN where that pair has no such query.
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
