"""Ranks and metrics against enumeration of all fair draws, and by hand."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import scipy.stats

from retrieval.statistics.ranks import (
    METRICS,
    RECALL_AT,
    Places,
    distributions_of_queries,
    metrics_of,
    places,
    rank_distribution,
)


def by_enumeration(above, equal):
    """Metrics over all equally likely draws of the rank of each query."""
    drawn = list(product(*(range(a + 1, a + e + 1) for a, e in zip(above, equal, strict=True))))
    ranks = [rank for draw in drawn for rank in draw]
    recalls = [np.mean([np.mean([rank <= k for rank in draw]) for draw in drawn]) for k in RECALL_AT]
    reciprocal = np.mean([np.mean([1 / rank for rank in draw]) for draw in drawn])
    return [*recalls, reciprocal, np.median(ranks)]


@pytest.mark.parametrize("seed", range(20))
def test_metrics_are_those_of_all_fair_draws(seed):
    random = np.random.default_rng(seed)
    queries = int(random.integers(1, 6))
    equal = random.choice([1, 1, 2, 3, 4], size=queries)
    above = random.integers(0, 12, size=queries)
    distribution = rank_distribution(above, equal, 16)
    np.testing.assert_allclose(metrics_of(distribution), by_enumeration(above, equal))
    by_query = distributions_of_queries(above, equal, 16)
    np.testing.assert_allclose(by_query.sum(axis=0), distribution, atol=1e-12)


def test_known_ranks():
    # ranks 1, 2, 2, 6 and 11
    above = np.array([0, 1, 1, 5, 10])
    found = dict(zip(METRICS, metrics_of(rank_distribution(above, np.ones(5, int), 11)), strict=True))
    assert found == pytest.approx(
        {
            "recall_at_1": 1 / 5,
            "recall_at_5": 3 / 5,
            "recall_at_10": 4 / 5,
            "mrr": (1 + 1 / 2 + 1 / 2 + 1 / 6 + 1 / 11) / 5,
            "median_rank": 2,
        }
    )
    # of ranks 1, 2, 6 and 11 the median lies between 2 and 6
    assert metrics_of(rank_distribution(np.array([0, 1, 5, 10]), np.ones(4, int), 11))[-1] == 4


@pytest.mark.parametrize("pool", [1, 2, 5, 7, 10, 45, 50])
def test_all_equal_is_chance(pool):
    scores = np.full((pool, pool), 0.3, dtype=np.float32)
    found = places(scores)
    assert (found.above == 0).all()
    assert (found.equal == pool).all()
    metrics = metrics_of(rank_distribution(np.diagonal(found.above), np.diagonal(found.equal), pool))
    harmonic = float(sum(Fraction(1, n) for n in range(1, pool + 1)))
    expected = [*(min(k, pool) / pool for k in RECALL_AT), harmonic / pool, (pool + 1) / 2]
    np.testing.assert_allclose(metrics, expected, rtol=1e-12)


def test_queries_that_were_not_asked_do_not_count():
    above, equal = np.array([0, 7, 1]), np.array([1, 0, 1])
    np.testing.assert_allclose(
        metrics_of(rank_distribution(above, equal, 9)),
        metrics_of(rank_distribution(above[::2], equal[::2], 9)),
    )
    assert np.isnan(metrics_of(rank_distribution(above, np.zeros(3, int), 9))).all()


def test_many_rows_at_once():
    random = np.random.default_rng(0)
    above, equal = random.integers(0, 9, (4, 3, 6)), random.integers(0, 4, (4, 3, 6))
    together = rank_distribution(above, equal, 12)
    assert together.shape == (4, 3, 12)
    for row in np.ndindex(4, 3):
        np.testing.assert_allclose(together[row], rank_distribution(above[row], equal[row], 12), atol=1e-12)


def test_places_against_scipy():
    random = np.random.default_rng(0)
    scores = random.integers(0, 6, (20, 15)) / 7 + 1e-8 * random.random((20, 15))  # many ties
    found = places(scores)
    rounded = scores.round(4)
    np.testing.assert_array_equal(
        found.above + 1, np.stack([scipy.stats.rankdata(-row, method="min") for row in rounded])
    )
    np.testing.assert_array_equal(
        found.above + found.equal, np.stack([scipy.stats.rankdata(-row, method="max") for row in rounded])
    )


def test_places_among_allowed_candidates():
    scores = np.array([[0.5, 0.9, 0.5], [0.1, 0.2, 0.3], [0.4, 0.4, 0.4]])
    allowed = np.array([[1, 0, 1], [1, 1, 1], [0, 1, 1]], dtype=bool)
    found = places(scores, allowed)
    np.testing.assert_array_equal(np.diagonal(found.above), [0, 1, 0])
    np.testing.assert_array_equal(np.diagonal(found.equal), [2, 1, 2])
    assert (found.equal[~allowed] == 0).all()


def test_nearly_equal_scores_are_equal():
    found = places(np.array([[0.8, 0.8 - 9e-7, 0.8 - 1.8e-6, 0.7]]))
    np.testing.assert_array_equal(found.equal, [[3, 3, 3, 1]])
    assert isinstance(found, Places)
