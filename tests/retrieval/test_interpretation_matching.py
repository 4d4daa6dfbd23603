"""Matches between the words of two utterances, by hand."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment, minimize

from retrieval.interpretation.matching import (
    Match,
    Matcher,
    match_words,
    mutual_best,
    softly_transported,
    transported,
)


def pairs(matches: list[Match]) -> list[tuple[int, int]]:
    return [(match.source, match.target) for match in matches]


def test_mutual_best_by_hand() -> None:
    cosines = np.array(
        [
            [0.9, 0.1, 0.3, 0.2],  # best 0, whose best is this: a match
            [0.8, 0.2, 0.1, 0.4],  # best 0, whose best is the row above: no match
            [0.1, 0.3, 0.5, 0.7],  # best 3, whose best is this: a match
        ]
    )
    assert mutual_best(cosines) == [Match(0, 0, 0.9), Match(2, 3, 0.7)]
    assert pairs(mutual_best(cosines.T)) == [(0, 0), (3, 2)]


@pytest.mark.parametrize("seed", range(5))
def test_mutual_best_equals_its_definition(seed: int) -> None:
    cosines = np.random.default_rng(seed).normal(size=(6, 8))
    expected = [
        (i, j)
        for i in range(6)
        for j in range(8)
        if all(cosines[i, j] >= cosines[i, k] for k in range(8))
        and all(cosines[i, j] >= cosines[k, j] for k in range(6))
    ]
    assert pairs(mutual_best(cosines)) == expected


def test_permuted_words_are_found_again() -> None:
    order = np.random.default_rng(1).permutation(7)
    words = np.linalg.qr(np.random.default_rng(2).normal(size=(9, 7)))[0].T  # seven orthogonal words
    for kind in (Matcher.mutual, Matcher.transport, Matcher.unbalanced):
        if kind is not Matcher.mutual:
            pytest.importorskip("ot")
        found = match_words(kind, words @ words[order].T)
        assert [(match.source, order[match.target]) for match in found] == [(n, n) for n in range(7)]
        assert all(match.share == pytest.approx(1, abs=1e-6) for match in found)


def test_equal_words_have_one_match() -> None:
    assert pairs(mutual_best(np.ones((3, 4)))) == [(0, 0)]
    assert pairs(mutual_best(np.array([[0.2]]))) == [(0, 0)]


def test_transport_splits_a_word_in_two() -> None:
    pytest.importorskip("ot")
    cosines = np.array([[0.9, 0.8, 0.1, 0.0], [0.0, 0.1, 0.9, 0.7]])
    found = transported(cosines)
    assert pairs(found) == [(0, 0), (0, 1), (1, 2), (1, 3)]
    assert [match.share for match in found] == pytest.approx([1, 1, 1, 1])
    assert [match.cosine for match in found] == pytest.approx([0.9, 0.8, 0.9, 0.7])


def test_threshold_of_transport_by_hand() -> None:
    pytest.importorskip("ot")
    # Masses 1/2 and 1/3: the first source fills the first target (1/3) and half of the second (1/6), the
    # second source the rest. Of the most, 1/3, these are shares 1, 1/2, 1/2 and 1.
    cosines = np.array([[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]])
    shares = {(match.source, match.target): match.share for match in transported(cosines, threshold=0.5)}
    assert shares == pytest.approx({(0, 0): 1.0, (0, 1): 0.5, (1, 1): 0.5, (1, 2): 1.0})
    assert pairs(transported(cosines, threshold=0.6)) == [(0, 0), (1, 2)]


@pytest.mark.parametrize("seed", range(5))
def test_transport_of_equal_numbers_is_the_best_assignment(seed: int) -> None:
    pytest.importorskip("ot")
    cosines = np.random.default_rng(seed).normal(size=(7, 7))
    rows, columns = linear_sum_assignment(-cosines)
    assert pairs(transported(cosines)) == list(zip(rows.tolist(), columns.tolist(), strict=True))


def test_unbalanced_transport_is_one_to_many_both_ways_or_none() -> None:
    pytest.importorskip("ot")
    # Source 0 means targets 0 and 1, sources 1 and 2 mean target 2; source 3 and target 3 have no
    # counterpart. There are as many on either side, so that balanced transport must pair them off.
    cosines = np.zeros((4, 4))
    cosines[[0, 0, 1, 2], [0, 1, 2, 2]] = 0.9
    expected = [(0, 0), (0, 1), (1, 2), (2, 2)]
    assert len(pairs(transported(cosines))) == 4 != len({*expected} & {*pairs(transported(cosines))})
    found = softly_transported(cosines)
    assert pairs(found) == expected
    # By hand: for mass p of two, the cost 0.1 + penalty (log 2p + log p) is 0 where it is least.
    share = np.exp(-0.1 / (2 * 0.5)) / np.sqrt(2)
    assert [match.share for match in found] == pytest.approx([share] * 4, abs=1e-5)
    # The two without a counterpart would move exp(-1).
    lone = {(m.source, m.target): m.share for m in softly_transported(cosines, threshold=0.01)}
    assert lone == pytest.approx(dict.fromkeys(expected, share) | {(3, 3): np.exp(-1)}, abs=1e-5)
    assert softly_transported(cosines) == found
    assert pairs(softly_transported(cosines.T)) == sorted((j, i) for i, j in expected)


@pytest.mark.parametrize("seed", range(3))
def test_unbalanced_transport_is_the_least_of_its_costs(seed: int) -> None:
    pytest.importorskip("ot")
    W, V, penalty = 3, 4, 0.3
    cosines = np.random.default_rng(seed).uniform(-1, 1, size=(W, V))

    def divergence(mass: np.ndarray, reference: float) -> float:
        return float(np.sum(mass * np.log(mass / reference) - mass + reference))

    def cost(plan: np.ndarray) -> float:
        P = plan.reshape(W, V)
        unequal = divergence(P.sum(1), 1 / W) + divergence(P.sum(0), 1 / V)
        return float(np.sum(P * (1 - cosines))) + penalty * unequal

    plan = np.zeros((W, V))
    for match in softly_transported(cosines, threshold=1e-8, penalty=penalty):
        plan[match.source, match.target] = match.share / V
    options = {"maxiter": 5000, "ftol": 1e-14, "gtol": 1e-10}
    best = minimize(cost, np.full(W * V, 0.05), bounds=[(1e-12, None)] * (W * V), options=options)
    assert cost(np.maximum(plan, 1e-12)) == pytest.approx(best.fun, abs=1e-6)


@pytest.mark.parametrize("size", [(4, 4), (2, 4), (3, 4)])
def test_a_strong_penalty_comes_to_the_balanced_plan(size: tuple[int, int]) -> None:
    pytest.importorskip("ot")
    cosines = np.random.default_rng(4).uniform(-0.5, 1, size=size)
    balanced = {(m.source, m.target): m.share for m in transported(cosines, threshold=0.1)}
    soft = {(m.source, m.target): m.share for m in softly_transported(cosines, threshold=0.1, penalty=20.0)}
    assert soft == pytest.approx(balanced, abs=0.06)


def test_penalty_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"penalty=0\.0 must be over 0"):
        softly_transported(np.ones((2, 2)), penalty=0.0)


def test_same_place_by_hand() -> None:
    def places(W: int, V: int) -> list[tuple[int, int]]:
        return pairs(match_words(Matcher.position, np.zeros((W, V))))

    assert places(3, 3) == [(0, 0), (1, 1), (2, 2)]
    assert places(2, 4) == [(0, 1), (1, 3)]
    assert places(5, 1) == [(2, 0)]


@pytest.mark.parametrize("threshold", [0.0, 1.5])
def test_bad_threshold(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold="):
        transported(np.ones((2, 2)), threshold=threshold)
