"""Confidence intervals of retrieval metrics: what changes if other sentences and places had been recorded.

Answers of retrieval are not independent: a sentence that is hard in one site pair is hard in others, and a
site that is recorded badly spoils all its pairs. A binomial interval over all queries would be far too
narrow. Sentences and sites are two crossed random factors, so both are resampled ("pigeonhole bootstrap":
Owen, Annals of Applied Statistics 1(2), 2007). In each resample

1. sentences are drawn with replacement, once for all sites, since all sites read the same ones;
2. the sites of each group are drawn with replacement, once for all pairs that the group is in;
3. the metrics of a site pair are those of the ranks of the drawn sentences; the metrics of a group pair are
   the mean over the drawn site pairs, or, pooled, those of all ranks at the drawn site pairs together.

Pools stay as they were: a query competes with the same sentences in every resample. A group of one site
cannot vary its sites, and its interval speaks of that site only; results say which groups these are. Where
every query hits, or none, all resamples are the same; the interval is then the exact binomial one with one
trial a sentence. Where all sentences tell two models apart alike, or none does, all resamples of their
difference are the same, and its interval says what other sentences may still show
(:func:`difference_interval`).
"""

from collections.abc import Sequence
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

Replicates = NDArray[np.float64]


def percentile_interval(replicates: Replicates, confidence: float = 0.95) -> tuple[float, float]:
    """Ends of the central interval; resamples without a value (NaN) are left out.

    Raises:
        ValueError: no resample has a value, or a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, found {confidence}")
    valid = replicates[~np.isnan(replicates)]
    if valid.size == 0:
        raise ValueError(
            "no resample has a value: there is nothing to resample, or more resamples are needed"
        )
    low, high = np.quantile(valid, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def recall_interval(
    rate: float, replicates: Replicates, *, sentences: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of a recall in 0..1 from its resamples, with a width also where the rate is 0 or 1.

    Args:
        rate: the recall itself.
        replicates: resampled recalls (B,).
        sentences: Q, the number of different sentences behind it.
        confidence: coverage asked for.
    """
    low, high = percentile_interval(replicates, confidence)
    reach = possible_rate(sentences, confidence)
    if rate == 0:
        high = reach
    if rate == 1:
        low = 1 - reach
    return low, high


def possible_rate(trials: int, confidence: float) -> float:
    """The largest rate at which so many misses in a row are still likely enough (Clopper and Pearson)."""
    return 1 - ((1 - confidence) / 2) ** (1 / trials)


def metric_intervals(
    values: Floats, replicates: Floats, *, sentences: int, pool: int, confidence: float = 0.95
) -> list[tuple[float, float]]:
    """Intervals of all metrics from their resamples, with a width also where no query varies.

    Args:
        values: the metrics themselves (M,), rates in 0..1.
        replicates: resampled (B,M).
        sentences: Q, the number of different sentences behind them.
        pool: N, the largest number of candidates; recall@k of a pool of k is 1 and cannot vary.
        confidence: coverage asked for.
    """
    intervals = [percentile_interval(column, confidence) for column in replicates.T]
    reach = possible_rate(sentences, confidence)
    for index, k in enumerate(RECALL_AT):
        low, high = intervals[index]
        if values[index] <= ROUNDING:
            intervals[index] = low, reach
        elif values[index] >= 1 - ROUNDING and pool > k:
            intervals[index] = 1 - reach, high
    if values[0] >= 1 - ROUNDING:
        # Every right answer is the first. Of a share ``reach`` that may not be, each can have rank N.
        intervals[len(RATES) - 1] = 1 - reach * (1 - 1 / pool), 1.0
        intervals[METRICS.index("median_rank")] = 1.0, 1.0 if reach < 0.5 else float(pool)
    return intervals


def difference_interval(
    difference: float,
    replicates: Replicates,
    *,
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
        sentences: Q, the number of different sentences behind it.
        confidence: coverage asked for.
        span: largest difference that a sentence can have; 0 where the rate cannot vary.
    """
    low, high = percentile_interval(replicates, confidence)
    if np.nanmax(replicates) - np.nanmin(replicates) > ROUNDING * max(1.0, span):
        return low, high
    reach = possible_rate(sentences, confidence)
    return difference - reach * (difference + span), difference + reach * (span - difference)


def metric_difference_intervals(
    differences: Floats, replicates: Floats, *, sentences: int, pool: int, confidence: float = 0.95
) -> list[tuple[float, float]]:
    """Intervals of the differences of all metrics, each as :func:`difference_interval`.

    The median rank is no mean over sentences, and the rule says nothing of it but that it is open in both
    directions where half of all sentences may be missing. Else its interval is that of its resamples.

    Args:
        differences: of the metrics (M,), rates in 0..1.
        replicates: resampled (B,M).
        sentences: Q, the number of different sentences behind them.
        pool: N, the largest number of candidates; recall@k of a pool of k is 1 and does not differ, and
            reciprocal ranks are at least 1/N.
        confidence: coverage asked for.
    """
    spans = [float(pool > k) for k in RECALL_AT] + [1 - 1 / pool]
    intervals = [
        difference_interval(float(difference), column, sentences=sentences, confidence=confidence, span=span)
        for difference, column, span in zip(differences, replicates.T, spans, strict=False)
    ]
    median = replicates[:, len(RATES)]
    low, high = percentile_interval(median, confidence)
    if possible_rate(sentences, confidence) >= 0.5 and np.nanmax(median) - np.nanmin(median) <= ROUNDING:
        low, high = 1.0 - pool, pool - 1.0
    return [*intervals, (low, high)]


def groups_of_one_site(group_of_site: Sequence[str]) -> list[str]:
    """Groups that have a single site, from the group of each site: no resample varies it."""
    return [group for group in dict.fromkeys(group_of_site) if group_of_site.count(group) == 1]


def resampled(groups: Sequence[str], single: Sequence[str] | None) -> str:
    """What intervals are over, for captions.

    Args:
        groups: all of them.
        single: those of :func:`groups_of_one_site`; None in results that do not say.
    """
    if single is None:
        return "sentences, and over sites where a group has several"
    if not single:
        return "sentences and sites"
    if set(single) >= set(groups):
        return "sentences; sites cannot vary, since every group has one only"
    return f"sentences and sites; sites cannot vary for {', '.join(single)} (one each)"


class GroupReplicates(NamedTuple):
    """Resampled metrics of a pair of groups.

    ``mean`` (B,M) are means over site pairs; ``pooled`` (B,R) are the summed rank distributions of all
    queries, whose metrics are those of the pool of queries.
    """

    mean: Floats
    pooled: Floats


@dataclass(frozen=True)
class Resamples:
    """How often each sentence and each site was drawn in each of B resamples.

    Attributes:
        sentences: counts (B,Q); each row sums to Q.
        sites: counts (B,S); in each row those of one group sum to its number of sites.
    """

    sentences: NDArray[np.float64]
    sites: NDArray[np.float64]

    @classmethod
    def draw(
        cls, group_of_site: NDArray[np.intp], sentences: int, *, resamples: int, seed: int
    ) -> "Resamples":
        """Draw them; the same seed gives the same draws.

        Args:
            group_of_site: number of the group of each site (S,).
            sentences: Q.
            resamples: B; the ends of the interval get steadier with it (1000 are good for 95 %).
            seed: of numpy's default generator.
        """
        if resamples < 1 or sentences < 1:
            raise ValueError(
                f"need at least one resample and one sentence, found {resamples} and {sentences}"
            )
        random = np.random.default_rng(seed)
        sentence_counts = random.multinomial(sentences, np.full(sentences, 1 / sentences), size=resamples)
        site_counts = np.zeros((resamples, len(group_of_site)))
        for group in np.unique(group_of_site):
            members = np.flatnonzero(group_of_site == group)
            site_counts[:, members] = random.multinomial(
                len(members), np.full(len(members), 1 / len(members)), size=resamples
            )
        return cls(sentence_counts.astype(np.float64), site_counts)

    @property
    def count(self) -> int:
        return len(self.sentences)

    def metrics(
        self, above: Counts, equal: Counts, sources: NDArray[np.intp], targets: NDArray[np.intp]
    ) -> GroupReplicates:
        """Metrics of a pair of groups in each resample; NaN in a resample without queries.

        Args:
            above: (S,S,Q) candidates that score higher than the right answer of query q of the source site
                (axis 0) in the pool of the target site (axis 1).
            equal: those that score the same, itself included; 0 where that pair has no such query.
            sources: indices of the sites of the source group.
            targets: of the target group; a site paired with itself does not count.
        """
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

    def recall(
        self, hits: NDArray[np.floating], sources: NDArray[np.intp], targets: NDArray[np.intp]
    ) -> Replicates:
        """Recall@1 (B,) of a pair of groups in each resample, or the mean of another value of queries.

        Args:
            hits: (S,S,Q) hit or share of a hit of query q of the source site (axis 0) in the pool of the
                target site (axis 1), or a difference of two; NaN where that pair has no such query.
            sources: indices of the sites of the source group.
            targets: of the target group; a site paired with itself does not count.
        """
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
