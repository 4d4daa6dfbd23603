"""Percentile bootstrap over utterances for a ratio of sums, such as an error rate."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

# Indices are drawn in blocks of at most this many, so that memory stays flat for any number of utterances.
_BLOCK_DRAWS = 4_000_000


class Interval(NamedTuple):
    low: float
    high: float


def bootstrap_ratio(
    numerators: ArrayLike,
    denominators: ArrayLike,
    *,
    confidence: float = 0.95,
    replications: int = 2000,
    seed: int = 0,
) -> Interval | None:
    """Confidence interval of ``sum(numerators) / sum(denominators)`` (Bisani and Ney, ICASSP 2004).

    Utterances are drawn with replacement, because the errors of one utterance depend on each other and those
    of two utterances much less. The interval is the plain percentile one.

    Args:
        numerators: (N,) errors of each utterance.
        denominators: (N,) reference characters of each utterance, >= 0.
        confidence: coverage asked for; a larger one widens the interval.
        replications: resampled data sets; more of them make the ends of the interval steadier.
        seed: the same seed gives the same interval.

    Returns:
        The two ends, or None where all denominators are zero, so that there is no ratio at all. Single
        resamples whose denominators sum to zero are left out.

    Raises:
        ValueError: the two arrays are not of the same one-dimensional shape, or are empty.
    """
    numerator = np.asarray(numerators, dtype=np.float64)
    denominator = np.asarray(denominators, dtype=np.float64)
    if numerator.shape != denominator.shape or numerator.ndim != 1 or numerator.size == 0:
        raise ValueError(
            "bootstrap_ratio needs two non-empty vectors of one length, "
            f"got shapes {numerator.shape} and {denominator.shape}"
        )
    random = np.random.default_rng(seed)
    utterances = numerator.size
    block = max(1, _BLOCK_DRAWS // utterances)
    ratios = []
    for start in range(0, replications, block):
        rows = min(block, replications - start)
        drawn = random.integers(utterances, size=(rows, utterances))  # (rows, N)
        total = denominator[drawn].sum(axis=1)
        valid = total > 0
        ratios.append(numerator[drawn].sum(axis=1)[valid] / total[valid])
    ratio = np.concatenate(ratios)
    if ratio.size == 0:
        return None
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(ratio, [tail, 100.0 - tail])
    return Interval(float(low), float(high))
