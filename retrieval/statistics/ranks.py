"""Ranks of right answers, with ties shared fairly, and metrics computed from them.

Of the candidates of a query, ``above`` score higher than the right answer and ``equal`` have the same score,
including the right answer. A fair draw among equals gives the right answer each of the ranks above + 1 ...
above + equal with probability 1/equal. The *rank distribution* of a set of queries is the mean of these
distributions; every metric is a function of it:

============ ==============================================================
recall_at_k  share of the ranks up to k
mrr          mean reciprocal rank, the mean of 1/rank
median_rank  the median; where half of the ranks are at most r and the next that occurs is s, (r + s)/2
============ ==============================================================

The first four are thus the expected values under fair draws, and the median is that of the mean distribution.
Chance is a draw among all N candidates: recall@k = min(k,N)/N, mrr = (1 + 1/2 + ... + 1/N)/N, median rank =
(N + 1)/2.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int32]

RECALL_AT = (1, 5, 10)
METRICS = (*(f"recall_at_{k}" for k in RECALL_AT), "mrr", "median_rank")
RATES = METRICS[:-1]  # metrics in 0..1; higher is better
TIE = 1e-6  # a few float32 units in the last place near 1; smaller differences are rounding errors
ROUNDING = 1e-9  # rounding error of sums of shares


class Places(NamedTuple):
    """Places of candidates in the ranking of each query, (N,M) int32 by query and candidate.

    ``above`` is the number of candidates that score higher; ``equal`` is the number with the same score,
    including the candidate itself, and 0 where the query does not have the candidate.
    """

    above: Counts
    equal: Counts


def places(scores: NDArray[np.floating], allowed: NDArray[np.bool_] | None = None) -> Places:
    """Places of all candidates, computed from the scores (N,M).

    Neighbours in the order of scores count as equal if they differ by at most ``TIE``. This makes equality
    transitive, and the shares of all candidates in the first k ranks sum to k.

    Args:
        scores: similarity of each query (row) to each candidate (column), higher is better.
        allowed: mask (N,M) of the candidates of each query; None = all candidates.
    """
    N, M = scores.shape
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=1)
    starts = np.ones((N, M + 1), dtype=bool)  # start of a run of equals; the last entry ends the row
    with np.errstate(invalid="ignore"):  # candidates that are not allowed are at the end: inf - inf
        starts[:, 1:M] = ordered[:, :-1] - ordered[:, 1:] > TIE
    position = np.arange(M + 1, dtype=np.int32)
    first = np.maximum.accumulate(np.where(starts, position, 0), axis=1)[:, :M]
    end = np.minimum.accumulate(np.where(starts, position, M)[:, ::-1], axis=1)[:, ::-1][:, 1:]
    above, equal = np.empty((N, M), dtype=np.int32), np.empty((N, M), dtype=np.int32)
    np.put_along_axis(above, order, first, axis=1)
    np.put_along_axis(equal, order, end - first, axis=1)
    return Places(above, equal if allowed is None else np.where(allowed, equal, 0))


def rank_distribution(above: NDArray[np.integer], equal: NDArray[np.integer], ranks: int) -> Floats:
    """Sum (..., R) of the rank distributions of queries (..., N): the total probability of each rank 1 ... R.

    Args:
        above: number of candidates that score higher than the right answer.
        equal: number of candidates with the same score, including the right answer; 0 without a query.
        ranks: number R of ranks, at least the largest ``above + equal``.
    """
    leading = above.shape[:-1]
    rows = int(np.prod(leading))
    row = np.arange(rows)[:, None] * (ranks + 1)
    start, length = above.reshape(rows, -1), equal.reshape(rows, -1)
    density = np.where(length > 0, 1 / np.maximum(length, 1), 0.0).ravel()
    size = rows * (ranks + 1)
    # A run of equals adds 1/length at its start and subtracts it after its end; the sum follows below.
    steps = np.bincount((row + start).ravel(), density, size)
    steps -= np.bincount((row + start + length).ravel(), density, size)
    distribution = steps.reshape(rows, ranks + 1)[:, :ranks].cumsum(axis=1)
    return distribution.reshape(*leading, ranks)


def distributions_of_queries(above: Counts, equal: Counts, ranks: int) -> Floats:
    """Rank distribution (Q,R) of each of Q queries; arguments as in :func:`rank_distribution`."""
    return rank_distribution(above[:, None], equal[:, None], ranks)


def metrics_of(distribution: Floats) -> Floats:
    """Metrics (..., 5) in the order of ``METRICS`` of rank distributions (..., R) with any positive sum.

    Rates are in 0..1. Without queries (a sum of 0) all are NaN.
    """
    cumulative = distribution.cumsum(axis=-1)  # (..., R)
    total = cumulative[..., -1:]
    asked = total > ROUNDING
    cumulative = cumulative / np.where(asked, total, 1)
    R = distribution.shape[-1]
    recalls = [cumulative[..., min(k, R) - 1] for k in RECALL_AT]
    reciprocal = (distribution @ (1 / np.arange(1, R + 1))) / np.where(asked, total, 1)[..., 0]
    # The first rank at which the cumulative share is at least half, and the first at which it is more.
    low = (cumulative >= 0.5 - ROUNDING).argmax(axis=-1)
    high = (cumulative > 0.5 + ROUNDING).argmax(axis=-1)
    metrics = np.stack([*recalls, reciprocal, 1 + (low + high) / 2], axis=-1)
    return np.where(asked, metrics, np.nan)
