"""Computes metrics of pairs of groups with chance, interval and p from the outcome of all queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.protocol.outcome import Outcome
from retrieval.statistics.bootstrap import (
    GroupReplicates,
    Resamples,
    groups_of_one_site,
    mean_over_pairs,
    metric_intervals,
)
from retrieval.statistics.ranks import METRICS, RATES, Floats, metrics_of, rank_distribution
from retrieval.statistics.significance import chance_p_values, holm

Pair = tuple[str, str]  # source group, target group
PAIR, CEILING = "pair", "ceiling"


@dataclass(frozen=True)
class MetricRow:
    """One metric of a pair of groups, or its mean over several pairs; rates in per cent, ranks unscaled.

    Attributes:
        part: ``pair``; ``ceiling`` for the site pairs within a group; or, for an unweighted mean over pairs,
            its name as in :class:`retrieval.protocol.tables.SummaryRow`.
        source, target: the groups; empty for a mean over pairs.
        metric: one of ``METRICS``.
        value: unweighted mean over site pairs, as in the paper.
        low, high: ends of the interval of ``value``.
        chance: expected value if answers are drawn at random from the candidates.
        p: p-value of the one-sided permutation test of ``value`` against chance; None without a test.
        p_holm: p adjusted for all pairs of groups of this part; None for a mean over pairs.
        pooled: metric over all queries together, so that a site pair is weighted by its number of queries.
        pooled_low, pooled_high, pooled_chance: interval and chance level of ``pooled``.
    """

    part: str
    source: str
    target: str
    metric: str
    value: float
    low: float
    high: float
    chance: float
    p: float | None
    p_holm: float | None
    pooled: float
    pooled_low: float
    pooled_high: float
    pooled_chance: float


@dataclass(frozen=True)
class Estimate:
    """All metrics (M,) of a pair of groups, or their mean over several pairs; rates in 0..1.

    Attributes:
        site_pairs: number of ordered pairs of sites in the estimate.
        queries: number of queries of these pairs.
        sentences: True for each sentence in the estimate (Q,); the number of sentences determines the
            interval of a metric that does not vary.
        pool: largest number of candidates.
        value: metrics, mean over site pairs (M,).
        chance: chance level of ``value`` (M,).
        intervals: ends of the interval of each metric in ``value``.
        replicates: resampled ``value`` (B,M).
        pooled: rank distribution (R,) of all queries.
        pooled_chance: rank distribution (R,) if every answer is drawn at random.
        pooled_intervals: ends of the interval of each metric of ``pooled``.
        permuted: ``value`` under permuted correspondences (B',M); None without a test.
    """

    site_pairs: int
    queries: int
    sentences: NDArray[np.bool_]
    pool: int
    value: Floats
    chance: Floats
    intervals: list[tuple[float, float]]
    replicates: Floats
    pooled: Floats
    pooled_chance: Floats
    pooled_intervals: list[tuple[float, float]]
    permuted: Floats | None

    def p_values(self) -> list[float] | None:
        """P-value of every metric against chance; None without a test."""
        return None if self.permuted is None else chance_p_values(self.value, self.permuted).tolist()


class Estimator:
    """Makes the estimates of all pairs of groups of an outcome, with the same resamples for all.

    Args:
        outcome: ranks of all queries.
        resamples: number of bootstrap resamples.
        seed: random seed of the bootstrap.
        confidence: confidence level of the intervals.
    """

    def __init__(self, outcome: Outcome, *, resamples: int, confidence: float, seed: int) -> None:
        self.outcome = outcome
        self.confidence = confidence
        group_of_site = [site.group for site in outcome.sites]
        self.single_site_groups = groups_of_one_site(group_of_site)
        self.draws = Resamples.draw(group_of_site, len(outcome.sentences), resamples=resamples, seed=seed)

    @property
    def groups(self) -> list[str]:
        """Groups of the sites, in the order of the sites."""
        return list(self.draws.members)

    def site_pairs(self, pair: Pair) -> list[tuple[int, int]]:
        """Ordered site pairs of a pair of groups with queries."""
        return [
            (int(a), int(b))
            for a in self.draws.members[pair[0]]
            for b in self.draws.members[pair[1]]
            if a != b and self.outcome.queries(a, b)
        ]

    def pairs(self) -> list[Pair]:
        """Ordered pairs of groups with queries, including pairs within a group."""
        every = [(source, target) for source in self.groups for target in self.groups]
        return [pair for pair in every if self.site_pairs(pair)]

    def estimate(self, pair: Pair) -> tuple[Estimate, Floats]:
        """Estimate of a pair of groups, and the resampled rank distributions (B,R) of its pooled queries."""
        outcome, asked = self.outcome, self.site_pairs(pair)
        a, b = (np.array(index) for index in zip(*asked, strict=True))
        pools = outcome.pool[a, b]
        replicates = self.draws.metrics(outcome.above, outcome.equal, *pair)
        ranks = int(pools.max())
        estimate = self._complete(
            site_pairs=len(asked),
            queries=int(np.count_nonzero(pools)),
            sentences=pools.any(axis=0),
            pool=ranks,
            value=np.mean([outcome.metrics(*sites) for sites in asked], axis=0),
            chance=np.mean([outcome.chance_metrics(*sites) for sites in asked], axis=0),
            pooled=rank_distribution(outcome.above[a, b].ravel(), outcome.equal[a, b].ravel(), ranks),
            pooled_chance=rank_distribution(np.zeros_like(pools).ravel(), pools.ravel(), ranks),
            replicates=replicates,
            permuted=None if outcome.permuted is None else outcome.permuted[pair],
        )
        return estimate, replicates.pooled

    def mean(self, estimates: Sequence[Estimate], pooled_replicates: Floats) -> Estimate:
        """Unweighted mean over pairs of groups; ``pooled`` is over all their queries."""
        mean = mean_over_pairs([estimate.replicates for estimate in estimates])  # (B,M)
        permuted = [estimate.permuted for estimate in estimates if estimate.permuted is not None]
        return self._complete(
            site_pairs=sum(estimate.site_pairs for estimate in estimates),
            queries=sum(estimate.queries for estimate in estimates),
            sentences=np.any([estimate.sentences for estimate in estimates], axis=0),
            pool=max(estimate.pool for estimate in estimates),
            value=np.mean([estimate.value for estimate in estimates], axis=0),
            chance=np.mean([estimate.chance for estimate in estimates], axis=0),
            pooled=sum_padded([estimate.pooled for estimate in estimates]),
            pooled_chance=sum_padded([estimate.pooled_chance for estimate in estimates]),
            replicates=GroupReplicates(mean, pooled_replicates),
            permuted=np.mean(permuted, axis=0) if permuted else None,
        )

    def _complete(
        self,
        *,
        site_pairs: int,
        queries: int,
        sentences: NDArray[np.bool_],
        pool: int,
        value: Floats,
        chance: Floats,
        pooled: Floats,
        pooled_chance: Floats,
        replicates: GroupReplicates,
        permuted: Floats | None,
    ) -> Estimate:
        intervals, pooled_intervals = (
            metric_intervals(
                centre,
                resampled,
                factors=self.draws.factors,
                sentences=int(sentences.sum()),
                pool=pool,
                confidence=self.confidence,
            )
            for centre, resampled in (
                (value, replicates.mean),
                (metrics_of(pooled), metrics_of(replicates.pooled)),
            )
        )
        return Estimate(
            site_pairs,
            queries,
            sentences,
            pool,
            value,
            chance,
            intervals,
            replicates.mean,
            pooled,
            pooled_chance,
            pooled_intervals,
            permuted,
        )


def sum_padded(distributions: Sequence[Floats]) -> Floats:
    """Sum (..., R) of rank distributions of different lengths R."""
    total = np.zeros((*distributions[0].shape[:-1], max(d.shape[-1] for d in distributions)))
    for distribution in distributions:
        total[..., : distribution.shape[-1]] += distribution
    return total


def metric_rows(part: str, estimates: Mapping[Pair, Estimate], *, adjust: bool) -> list[MetricRow]:
    """Rows of all metrics of some pairs of groups.

    Args:
        part: value of ``part`` for the rows, see :class:`MetricRow`.
        estimates: estimates by pair of groups; ("", "") for a mean over pairs.
        adjust: add p-values that are adjusted for the number of pairs.
    """
    p_values = [estimate.p_values() for estimate in estimates.values()]
    adjusted: list[list[float]] | None = None
    if adjust and all(p is not None for p in p_values):
        columns = [holm([p[m] for p in p_values if p is not None]) for m in range(len(METRICS))]
        adjusted = [list(row) for row in zip(*columns, strict=True)]
    rows = []
    for n, ((source, target), estimate) in enumerate(estimates.items()):
        pooled, pooled_chance = metrics_of(estimate.pooled), metrics_of(estimate.pooled_chance)
        p = p_values[n]
        for m, metric in enumerate(METRICS):
            unit = unit_of(metric)
            (low, high), (pooled_low, pooled_high) = estimate.intervals[m], estimate.pooled_intervals[m]
            rows.append(
                MetricRow(
                    part,
                    source,
                    target,
                    metric,
                    value=unit * float(estimate.value[m]),
                    low=unit * low,
                    high=unit * high,
                    chance=unit * float(estimate.chance[m]),
                    p=None if p is None else p[m],
                    p_holm=None if adjusted is None else adjusted[n][m],
                    pooled=unit * float(pooled[m]),
                    pooled_low=unit * pooled_low,
                    pooled_high=unit * pooled_high,
                    pooled_chance=unit * float(pooled_chance[m]),
                )
            )
    return rows


def unit_of(metric: str) -> float:
    """Factor from a metric to its displayed value: rates are shown in per cent."""
    return 100.0 if metric in RATES else 1.0
