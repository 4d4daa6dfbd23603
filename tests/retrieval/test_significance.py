"""Permutation tests against enumeration, and p-values that are uniform where nothing is to be found."""

from itertools import permutations, product

import numpy as np
import pytest
import scipy.stats

from retrieval.statistics.ranks import (
    METRICS,
    distributions_of_queries,
    metrics_of,
    places,
    rank_distribution,
)
from retrieval.statistics.significance import (
    ChanceTest,
    chance_p_values,
    draw_swaps,
    drawn_among,
    holm,
    induced,
    paired_p_values,
    swapped_differences,
)


def metrics_of_answers(found, answers):
    rows = np.arange(len(answers))
    return metrics_of(rank_distribution(found.above[rows, answers], found.equal[rows, answers], len(answers)))


def test_induced_permutations_follow_cycles():
    # 0 -> 2 -> 3 -> 0 and 1 -> 4 -> 1; without 2 and 4: 0 -> 3 -> 0 and 1 -> 1
    image = induced(np.array([[2, 4, 3, 0, 1]]), np.array([0, 1, 3]))
    np.testing.assert_array_equal(image, [[2, 1, 0]])
    whole = np.array([[1, 0, 2]])
    assert induced(whole, np.arange(3)) is whole


def test_induced_permutations_are_uniform():
    every = np.array(list(permutations(range(5))))
    image = induced(every, np.array([0, 2, 4]))
    found, counts = np.unique(image, axis=0, return_counts=True)
    assert len(found) == 6
    assert (counts == 120 / 6).all()


def test_answers_drawn_among_allowed_candidates():
    allowed = np.array([[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 1, 0], [0, 1, 0, 1]], dtype=bool)
    numbers = np.repeat(np.linspace(0, 1, 1200, endpoint=False)[:, None], 4, axis=1)
    answers = drawn_among(allowed, numbers)
    for query, row in enumerate(allowed):
        candidates, counts = np.unique(answers[:, query], return_counts=True)
        np.testing.assert_array_equal(candidates, np.flatnonzero(row))
        assert (counts == 1200 / row.sum()).all()


def chance_test(found, groups=("a", "b"), permutations=4000, **options):
    test = ChanceTest(groups, len(found.above), permutations=permutations, seed=0)
    test.add(0, 1, range(len(found.above)), found, **options)
    return test.values()[groups[0], groups[1]]


def test_p_value_agrees_with_all_permutations():
    scores = np.random.default_rng(4).random((5, 5)) + 0.35 * np.eye(5)
    found = places(scores)
    observed = metrics_of_answers(found, np.arange(5))
    every = np.array([metrics_of_answers(found, np.array(answers)) for answers in permutations(range(5))])
    sign = np.array([1, 1, 1, 1, -1])
    exact = (sign * every >= sign * observed - 1e-12).mean(axis=0)
    p = chance_p_values(observed, chance_test(found))
    assert 0.02 < exact[0] < 0.6
    np.testing.assert_allclose(p, exact, atol=4 * np.sqrt(0.25 / 4000))


def test_p_value_of_several_site_pairs_agrees_with_all_relabellings():
    random = np.random.default_rng(2)
    groups, whole, fewer = ["a", "a", "b", "b"], [0, 1, 2, 3, 4], [0, 1, 2, 4]
    asked = {(0, 2): whole, (0, 3): whole, (1, 2): fewer, (1, 3): fewer}
    found = {
        pair: places(random.random((len(kept), len(kept))) + 0.2 * np.eye(len(kept)))
        for pair, kept in asked.items()
    }
    test = ChanceTest(groups, 5, permutations=4000, seed=0)
    for pair, kept in asked.items():
        test.add(*pair, kept, found[pair])

    def mean_metrics(image):
        values = []
        for pair, kept in asked.items():
            answers = []
            for sentence in kept:
                answer = image[sentence]
                while answer not in kept:
                    answer = image[answer]
                answers.append(kept.index(answer))
            values.append(metrics_of_answers(found[pair], np.array(answers)))
        return np.mean(values, axis=0)

    observed = mean_metrics(whole)
    every = np.array([mean_metrics(image) for image in permutations(range(5))])
    sign = np.array([1, 1, 1, 1, -1])
    exact = (sign * every >= sign * observed - 1e-12).mean(axis=0)
    assert 0.02 < exact[0] < 0.6
    p = chance_p_values(observed, test.values()["a", "b"])
    np.testing.assert_allclose(p, exact, atol=4 * np.sqrt(0.25 / 4000))


def test_permuted_recall_is_chance_on_average():
    found = places(np.random.default_rng(0).random((12, 12)))
    permuted = chance_test(found)
    expected = metrics_of(rank_distribution(np.zeros(12, int), np.full(12, 12), 12))
    np.testing.assert_allclose(permuted.mean(axis=0)[:4], expected[:4], atol=0.01)


def test_site_pairs_that_lack_sentences_keep_their_chance_level():
    random = np.random.default_rng(0)
    test = ChanceTest(["a", "b", "b"], 12, permutations=4000, seed=0)
    test.add(0, 1, [0, 1, 2, 4, 5, 8, 9, 10, 11], places(random.random((9, 9))))
    test.add(0, 2, [3, 4, 6, 7], places(random.random((4, 4))))
    permuted = test.values()["a", "b"]
    assert permuted[:, 0].mean() == pytest.approx((1 / 9 + 1 / 4) / 2, abs=0.01)
    assert permuted[:, 4].mean() == pytest.approx((5 + 2.5) / 2, abs=0.1)


def test_best_possible_p_value():
    found = places(np.eye(20) + 0.01 * np.random.default_rng(0).random((20, 20)))
    permuted = chance_test(found, permutations=99)
    np.testing.assert_allclose(chance_p_values(metrics_of_answers(found, np.arange(20)), permuted), 1 / 100)


def test_equal_utterances_are_not_better_than_chance():
    found = places(np.ones((8, 8)))
    p = chance_p_values(metrics_of_answers(found, np.arange(8)), chance_test(found, permutations=50))
    np.testing.assert_array_equal(p, 1)


def test_site_pairs_of_two_groups_are_permuted_alike_and_backwards_inversely():
    random = np.random.default_rng(0)
    found = places(random.random((7, 7)))
    groups = ["a", "a", "b", "b"]
    one = ChanceTest(groups, 7, permutations=30, seed=3)
    one.add(0, 2, range(7), found)
    all_pairs = ChanceTest(groups, 7, permutations=30, seed=3)
    for source, target in product((0, 1), (2, 3)):
        all_pairs.add(source, target, range(7), found)
    np.testing.assert_allclose(one.values()["a", "b"], all_pairs.values()["a", "b"])
    forth, back = one._correspondence(0, 1, False), one._correspondence(1, 0, False)
    np.testing.assert_array_equal(np.take_along_axis(back, forth, axis=1), np.tile(np.arange(7), (30, 1)))
    within = ChanceTest(groups, 7, permutations=30, seed=3)
    within.add(0, 1, range(7), found)
    assert within.values()["a", "a"].std(axis=0)[0] > 0  # sites of one group have labels of their own


def test_p_values_are_uniform_without_knowledge():
    random = np.random.default_rng(0)
    p_values = []
    for seed in range(300):
        found = places(random.random((15, 15)))
        test = ChanceTest(["a", "b"], 15, permutations=99, seed=seed)
        test.add(0, 1, range(15), found)
        observed = metrics_of_answers(found, np.arange(15))
        p_values.append(chance_p_values(observed, test.values()["a", "b"]))
    mrr = np.array(p_values)[:, METRICS.index("mrr")]  # has hardly any ties, so p is not too large
    assert scipy.stats.kstest(mrr, "uniform").pvalue > 0.01
    assert (np.array(p_values) <= 0.05).mean(axis=0).max() < 0.09


def test_allowed_candidates_keep_their_chance_level():
    random = np.random.default_rng(0)
    allowed = random.random((10, 10)) < 0.4
    np.fill_diagonal(allowed, True)
    found = places(random.random((10, 10)), allowed)
    permuted = chance_test(found, allowed=allowed)
    assert permuted[:, 0].mean() == pytest.approx((1 / allowed.sum(axis=1)).mean(), abs=0.01)


def two_models(random, sentences=8, better=0.0):
    """Rank distributions of two models in one site pair."""
    places_ = []
    for strength in (1.0 + better, 1.0):
        scores = random.standard_normal((sentences, sentences)) + strength * np.eye(sentences)
        found = places(scores)
        places_.append(
            distributions_of_queries(np.diagonal(found.above), np.diagonal(found.equal), sentences)
        )
    return places_


def test_swapped_differences_against_all_swaps():
    first, second = two_models(np.random.default_rng(0))
    every = np.array(list(product((0, 1), repeat=8)), dtype=float)
    expected = []
    for swap in every.astype(bool):
        ours = np.where(swap[:, None], second, first)
        theirs = np.where(swap[:, None], first, second)
        expected.append(metrics_of(ours.sum(axis=0)) - metrics_of(theirs.sum(axis=0)))
    np.testing.assert_allclose(swapped_differences(first, second, every), expected, atol=1e-12)


def test_paired_p_value_agrees_with_scipy():
    first, second = two_models(np.random.default_rng(5), better=2.0)
    reciprocal = 1 / np.arange(1, 9)
    ours, theirs = first @ reciprocal, second @ reciprocal
    exact = scipy.stats.permutation_test(
        (ours, theirs), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    ).pvalue
    swaps = draw_swaps(8, permutations=20000, seed=0)
    observed = metrics_of(first.sum(axis=0)) - metrics_of(second.sum(axis=0))
    p = paired_p_values(observed, swapped_differences(first, second, swaps))
    assert p[METRICS.index("mrr")] == pytest.approx(exact, abs=0.012)


def test_models_of_equal_noise_differ_as_often_as_the_level_says():
    # Three sites say the same with noise of their own, and the two models add theirs: all six site pairs.
    random = np.random.default_rng(0)
    N, p_values = 14, []
    for seed in range(200):
        content = random.standard_normal((N, 10))
        swaps = draw_swaps(N, permutations=199, seed=seed)
        observed, swapped = np.zeros(len(METRICS)), np.zeros((199, len(METRICS)))
        models = []
        for _ in range(2):
            sites = content + 1.5 * random.standard_normal((3, N, 10))
            models.append(sites / np.linalg.norm(sites, axis=2, keepdims=True))
        for a, b in permutations(range(3), 2):
            pair = []
            for sites in models:
                found = places(sites[a] @ sites[b].T)
                answers = np.diagonal(found.above), np.diagonal(found.equal)
                pair.append(distributions_of_queries(*answers, N))
            observed += metrics_of(pair[0].sum(axis=0)) - metrics_of(pair[1].sum(axis=0))
            swapped += swapped_differences(*pair, swaps)
        p_values.append(paired_p_values(observed, swapped))
    assert (np.array(p_values) <= 0.05).mean(axis=0).max() < 0.1
    assert np.median(np.array(p_values)[:, METRICS.index("mrr")]) == pytest.approx(0.5, abs=0.12)


def test_equal_models_do_not_differ():
    first, _ = two_models(np.random.default_rng(0))
    swaps = draw_swaps(8, permutations=99, seed=0)
    p = paired_p_values(np.zeros(len(METRICS)), swapped_differences(first, first, swaps))
    np.testing.assert_array_equal(p, 1)


def test_holm_by_hand():
    # 0.01 x 4 = 0.04; 0.02 x 3 = 0.06; 0.03 x 2 = 0.06; 0.5 x 1
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.04, 0.03]) == pytest.approx([0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []
