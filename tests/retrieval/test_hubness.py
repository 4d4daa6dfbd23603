import numpy as np
import pytest
import scipy.stats
from planted import directions, write_store
from reference.seqsim import seqsim_pair

from retrieval.protocol.recall import retrieve
from retrieval.protocol.sites import sites_of
from retrieval.statistics.hubness import hubness_rows, skewness


def test_skewness_agrees_with_scipy():
    counts = np.random.default_rng(0).poisson(1.0, 80).astype(float)
    assert skewness(counts) == pytest.approx(scipy.stats.skew(counts))
    assert skewness(np.ones(9)) == 0


def outcome(tmp_path, b):
    """Four sentences, each with a word of its own at a, and with the given words at b."""
    a = {f"s{n}": directions([n], 6) for n in range(4)}
    store = write_store(tmp_path / "store", {("cmn", "a"): a, ("yue", "b"): b})
    return retrieve(store, sites_of(store))


def rows_by(rows):
    return {(row.part, row.source, row.target, row.k): row for row in rows}


def test_a_planted_hub(tmp_path):
    # At b, s0 says all four words and the others a word that nobody says at a: all queries retrieve s0.
    b = {f"s{n}": directions([5], 6) for n in range(1, 4)} | {"s0": directions([0, 1, 2, 3], 6)}
    found = outcome(tmp_path, b)
    np.testing.assert_allclose(found.occurrences[0, 0, 1], [4, 0, 0, 0])
    rows = rows_by(hubness_rows(found))
    row = rows["pair", "cmn", "yue", 1]
    assert row.largest_hub == 100
    assert row.antihubs == 75
    assert row.skewness == pytest.approx(scipy.stats.skew([4, 0, 0, 0]))
    assert row.antihubs_chance == pytest.approx(100 * (3 / 4) ** 4)
    assert row.sentence == "s0"
    # Backwards s0 finds all four equal, and the others find nothing: all scores are 0.
    np.testing.assert_allclose(found.occurrences[0, 1, 0], 1)
    back = rows["pair", "yue", "cmn", 1]
    assert (back.skewness, back.antihubs, back.largest_hub) == (0, 0, 25)
    both = rows["all", "", "", 1]
    assert both.largest_hub == pytest.approx((100 + 25) / 2)
    assert rows["pair", "cmn", "yue", 5].largest_hub == 100  # a pool of four: all are among the first five
    assert rows["pair", "cmn", "yue", 5].antihubs_chance == 0


def test_equal_utterances_have_no_hub(tmp_path):
    found = outcome(tmp_path, {f"s{n}": directions([5], 6) for n in range(4)})
    np.testing.assert_allclose(found.occurrences[:, 0, 1], [[1] * 4, [4] * 4, [4] * 4])
    assert all(row.skewness == 0 and row.antihubs == 0 for row in hubness_rows(found))


def test_occurrences_by_a_double_loop(tmp_path):
    random = np.random.default_rng(0)
    sites = {
        place: {f"s{n:02}": random.random((3, 5)).astype(np.float32) for n in range(12)}  # no two scores tie
        for place in (("cmn", "a"), ("yue", "b"), ("yue", "c"))
    }
    del sites["yue", "b"]["s03"]
    store = write_store(tmp_path / "store", sites)
    found = retrieve(store, sites_of(store))
    names = [name for name in sites["cmn", "a"] if name != "s03"]
    counts = np.zeros((3, 12))
    for query in names:
        scores = []
        for candidate in names:
            *_, score = seqsim_pair(sites["cmn", "a"][query], sites["yue", "b"][candidate])
            scores.append(score)
        for place, n in enumerate(np.argsort(scores)[::-1]):
            for index, k in enumerate((1, 5, 10)):
                counts[index, found.sentences.index(names[n])] += place < k
    counts[:, 3] = np.nan
    np.testing.assert_allclose(found.occurrences[:, 0, 1], counts)
