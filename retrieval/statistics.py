"""Confidence intervals for recall: what changes if other sentences were read, and other places recorded.

Hits of retrieval are not independent: a sentence that is hard in one site pair is hard in others, and a
site that is recorded badly spoils all its pairs. A binomial interval over all queries would be far too
narrow. Sentences and sites are two crossed random factors, so both are resampled ("pigeonhole bootstrap":
Owen, Annals of Applied Statistics 1(2), 2007). In each resample

1. sentences are drawn with replacement, once for all sites, since all sites read the same ones;
2. the sites of each group are drawn with replacement, once for all pairs that the group is in;
3. recall of a site pair is the mean of its hits over the drawn sentences, recall of a group pair the mean
   over the drawn site pairs.

Pools stay as they were: a query competes with the same sentences in every resample. A group of one site
cannot vary its sites, and its interval speaks of that site only. Where every query hits, or none, all
resamples are the same; the interval is then the exact binomial one with one trial a sentence.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
        raise ValueError("no resample has a value: there are no hits to resample")
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
    # Clopper and Pearson: the largest rate at which Q misses in a row are still likely enough
    reach = 1 - ((1 - confidence) / 2) ** (1 / sentences)
    if rate == 0:
        high = reach
    if rate == 1:
        low = 1 - reach
    return low, high


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

    def recall(
        self, hits: NDArray[np.floating], sources: NDArray[np.intp], targets: NDArray[np.intp]
    ) -> Replicates:
        """Recall (B,) of a pair of groups in each resample.

        Args:
            hits: (S,S,Q) hit or share of a hit of query q of the source site (axis 0) in the pool of the
                target site (axis 1); NaN where that pair has no such query.
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
