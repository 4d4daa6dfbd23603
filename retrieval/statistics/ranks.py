"""Ranks of right answers, with ties shared fairly, and the metrics that follow from them.

Of the candidates of a query, ``above`` score higher than the right answer and ``equal`` score the same, the
right answer among them. A fair draw among equals gives it each of the ranks above + 1 ... above + equal with
probability 1/equal. The *rank distribution* of some queries is the mean of these; every metric is a function
of it:

============ ==============================================================
recall_at_k  share of the ranks up to k
mrr          mean reciprocal rank, the mean of 1/rank
median_rank  the median; where half of the ranks are at most r and the next that occurs is s, (r + s)/2
============ ==============================================================

The first four are thus the expected values under fair draws, and the median is that of the ranks which all
the draws give together. A draw among all N candidates is chance: recall@k = min(k,N)/N, mrr = (1 + 1/2 + ...
+ 1/N)/N, median rank = (N + 1)/2.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int32]

RECALL_AT = (1, 5, 10)
METRICS = (*(f"recall_at_{k}" for k in RECALL_AT), "mrr", "median_rank")
RATES = METRICS[:-1]  # those that lie in 0..1, of which higher is better
TIE = 1e-6  # a few units in the last place of float32 near 1: less is rounding of the matrix product
ROUNDING = 1e-9  # of sums of shares


class Places(NamedTuple):
    """Where candidates stand for their queries, both (N,M) int32: query in rows, candidate in columns.

    ``above`` is the number of candidates that score higher, ``equal`` that of those that score the same,
    itself included; it is 0 for what is no candidate.
    """

    above: Counts
    equal: Counts


def places(scores: NDArray[np.floating], allowed: NDArray[np.bool_] | None = None) -> Places:
    """Places of all candidates by their scores (N,M).

    Neighbours in the order of scores are equal if they differ by at most ``TIE``, so equality is transitive
    and the shares of the candidates in the first k ranks add up to k.

    Args:
        scores: similarity of each query (row) to each candidate (column), higher is better.
        allowed: (N,M) whether a query has a candidate; None = all candidates.
    """
    N, M = scores.shape
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=1)
    starts = np.ones((N, M + 1), dtype=bool)  # of a run of equals; the last one ends the row
    with np.errstate(invalid="ignore"):  # what is not allowed stays together at the end: inf - inf
        starts[:, 1:M] = ordered[:, :-1] - ordered[:, 1:] > TIE
    position = np.arange(M + 1, dtype=np.int32)
    first = np.maximum.accumulate(np.where(starts, position, 0), axis=1)[:, :M]
    end = np.minimum.accumulate(np.where(starts, position, M)[:, ::-1], axis=1)[:, ::-1][:, 1:]
    above, equal = np.empty((N, M), dtype=np.int32), np.empty((N, M), dtype=np.int32)
    np.put_along_axis(above, order, first, axis=1)
    np.put_along_axis(equal, order, end - first, axis=1)
    return Places(above, equal if allowed is None else np.where(allowed, equal, 0))


def rank_distribution(above: NDArray[np.integer], equal: NDArray[np.integer], ranks: int) -> Floats:
    """Sum (..., R) of the rank distributions of queries (..., N): how much stands at rank 1, 2, ... R.

    Args:
        above: candidates that score higher than the right answer.
        equal: candidates that score the same, the right answer included; 0 for a query that was not asked.
        ranks: number R of ranks, at least the largest ``above + equal``.
    """
    leading = above.shape[:-1]
    rows = int(np.prod(leading))
    row = np.arange(rows)[:, None] * (ranks + 1)
    start, length = above.reshape(rows, -1), equal.reshape(rows, -1)
    density = np.where(length > 0, 1 / np.maximum(length, 1), 0.0).ravel()
    size = rows * (ranks + 1)
    # A run of equals adds 1/length from its start on and takes it away again after its end.
    steps = np.bincount((row + start).ravel(), density, size)
    steps -= np.bincount((row + start + length).ravel(), density, size)
    distribution = steps.reshape(rows, ranks + 1)[:, :ranks].cumsum(axis=1)
    return distribution.reshape(*leading, ranks)


def distributions_of_queries(above: Counts, equal: Counts, ranks: int) -> Floats:
    """Rank distribution (Q,R) of each of Q queries by itself; arguments as in :func:`rank_distribution`."""
    return rank_distribution(above[:, None], equal[:, None], ranks)


def metrics_of(distribution: Floats) -> Floats:
    """The metrics (..., 5) in the order of ``METRICS`` of rank distributions (..., R) of any positive sum.

    Rates are in 0..1. Without queries (a sum of 0) all are NaN.
    """
    cumulative = distribution.cumsum(axis=-1)  # (..., R)
    total = cumulative[..., -1:]
    asked = total > ROUNDING
    cumulative = cumulative / np.where(asked, total, 1)
    R = distribution.shape[-1]
    recalls = [cumulative[..., min(k, R) - 1] for k in RECALL_AT]
    reciprocal = (distribution @ (1 / np.arange(1, R + 1))) / np.where(asked, total, 1)[..., 0]
    # The first rank up to which at least half of the ranks lie, and the first with more than half.
    low = (cumulative >= 0.5 - ROUNDING).argmax(axis=-1)
    high = (cumulative > 0.5 + ROUNDING).argmax(axis=-1)
    metrics = np.stack([*recalls, reciprocal, 1 + (low + high) / 2], axis=-1)
    return np.where(asked, metrics, np.nan)
