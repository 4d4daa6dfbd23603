"""Intervals of rates against loops, scipy, hand-made extremes, and their coverage in a simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.coverage import character_errors, coverage_of_error_rates, percentiles_of_utterances
from zipformer.scoring.intervals import (
    Component,
    Design,
    bounded_error_interval,
    error_rate_interval,
    half_width,
    possible_rate,
    rate_interval,
)


def design(sentences: list[int], places: list[int], strata: list[int] | None = None) -> Design:
    return Design(np.array(sentences), np.array(places), np.array(strata or [0] * len(places)))


def components_by_loops(
    errors: np.ndarray, characters: np.ndarray, labels: Design
) -> list[tuple[float, int]]:
    """Variances and degrees of freedom by their definition."""
    utterances = range(len(errors))
    residuals = []
    for n in utterances:
        stratum = [m for m in utterances if labels.strata[m] == labels.strata[n]]
        rate = errors[stratum].sum() / characters[stratum].sum()
        residuals.append((errors[n] - rate * characters[n]) / characters.sum())
    found, single = [], set()
    for stratum in sorted(set(labels.strata.tolist())):
        places = sorted({labels.places[n] for n in utterances if labels.strata[n] == stratum})
        sums = [sum(residuals[n] for n in utterances if labels.places[n] == place) for place in places]
        if len(places) == 1:
            single.add(places[0])
        else:
            found.append((sum(x**2 for x in sums) * len(sums) / (len(sums) - 1), len(sums) - 1))
    sums = []
    for sentence in sorted(set(labels.sentences.tolist())):
        members = [n for n in utterances if labels.sentences[n] == sentence]
        places = {labels.places[n] for n in members}
        if len(places) > 1 or places <= single:
            sums.append(sum(residuals[n] for n in members))
    if len(sums) > 1:
        found.append((sum(x**2 for x in sums) * len(sums) / (len(sums) - 1), len(sums) - 1))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_error_rate_intervals_equal_loops(seed: int) -> None:
    random = np.random.default_rng(seed)
    places = random.integers(0, 7, 60)
    strata = np.array([0, 0, 0, 1, 1, 2, 3])[places]  # two strata of a single place
    labels = Design(random.permutation(30)[random.integers(0, 30, 60)], places, strata)
    characters = random.integers(5, 20, 60)
    errors = random.binomial(characters, 0.3)
    found = components_by_loops(errors, characters, labels)
    assert len(found) == 3
    rate = errors.sum() / characters.sum()
    total = sum(variance for variance, _ in found)
    freedom = total**2 / sum(variance**2 / df for variance, df in found)
    distance = stats.t.ppf(0.95, freedom) * math.sqrt(total) / (rate * (1 - rate))
    expected = stats.logistic.cdf(math.log(rate / (1 - rate)) + np.array([-distance, distance]))
    assert error_rate_interval(errors, characters, labels, confidence=0.9) == pytest.approx(tuple(expected))


def test_half_width_of_one_component_is_that_of_a_mean() -> None:
    values = np.array([1.0, 2.5, 4.0, 3.0])
    expected = stats.t.interval(0.95, 3, loc=0, scale=stats.sem(values))[1]
    assert half_width([Component(values.var(ddof=1) / 4, 3)]) == pytest.approx(expected)
    assert half_width([]) == half_width([Component(0.0, 3)]) == 0
    with pytest.raises(ValueError, match="between 0 and 1, found 95"):
        half_width([], 95)


def test_two_equal_components_have_the_freedom_of_both() -> None:
    expected = stats.t.ppf(0.975, 8) * math.sqrt(2 * 0.3)
    assert half_width([Component(0.3, 4), Component(0.3, 4)]) == pytest.approx(expected)


def test_rate_intervals_stay_inside_the_possible_rates() -> None:
    assert rate_interval(0.5, 0.0) == (0.5, 0.5)
    low, high = rate_interval(0.98, 0.2)
    assert 0 < low < 0.98 < high < 1
    low, high = rate_interval(1.2, 0.9, largest=3.0)
    assert 0 < low < 1.2 < high < 3
    assert rate_interval(0.5, 1e6) == pytest.approx((0, 1))


def test_error_rates_above_one_have_room_on_both_sides() -> None:
    found = bounded_error_interval(1.2, 0.3, worst=1.3, sentences=9, confidence=0.95)
    assert found == rate_interval(1.2, 0.3, largest=2.4)
    assert found.low + found.high == pytest.approx(2.4)
    assert bounded_error_interval(0.9, 0.3, worst=1.0, sentences=9, confidence=0.95).high < 1


def test_no_error_at_all_leaves_what_may_be_missing() -> None:
    """40 sentences without an error: the share of wholly wrong ones that is missed with probability 2.5 %."""
    labels = design(list(range(40)) * 2, [0] * 40 + [1] * 40)
    found = error_rate_interval(np.zeros(80), np.full(80, 9.0), labels)
    expected = stats.binomtest(0, 40).proportion_ci(0.95, method="exact")
    assert found == pytest.approx((expected.low, expected.high))
    nothing_right = error_rate_interval(np.full(80, 9.0), np.full(80, 9.0), labels)
    assert nothing_right == pytest.approx((1 - expected.high, 1))


def test_one_sentence_one_place_and_no_characters() -> None:
    errors, characters = np.array([1.0, 3.0, 2.0]), np.full(3, 10.0)
    # One sentence at three sites: only sites vary. Three sentences at one site: only sentences do.
    one_sentence = error_rate_interval(errors, characters, design([0, 0, 0], [0, 1, 2]))
    one_site = error_rate_interval(errors, characters, design([0, 1, 2], [0, 0, 0]))
    assert one_sentence == one_site
    assert one_site is not None
    assert one_site.low < 0.2 < one_site.high
    assert error_rate_interval(errors, characters, design([0, 0, 0], [0, 0, 0])) is None
    assert error_rate_interval(errors, np.zeros(3), design([0, 1, 2], [0, 0, 0])) is None
    with pytest.raises(ValueError, match="non-empty"):
        error_rate_interval(np.array([]), np.array([]), design([], []))


def test_sites_that_share_no_sentence_vary_with_their_sentences() -> None:
    """Every sentence is at one site: only the rates of the sites count, as in a mean of three values."""
    errors, characters = np.array([1.0, 3.0, 2.0, 2.0, 4.0, 6.0]), np.full(6, 10.0)
    found = error_rate_interval(errors, characters, design(list(range(6)), [0, 0, 1, 1, 2, 2]))
    rates = np.array([0.2, 0.2, 0.5])
    width = stats.t.ppf(0.975, 2) * stats.sem(rates)
    assert found == pytest.approx(rate_interval(0.3, width))


def test_wider_confidence_gives_a_wider_interval() -> None:
    errors, characters = character_errors(np.random.default_rng(0), sites=4, of_site=0.3, sentences=30)
    labels = design([n % 30 for n in range(120)], [n // 30 for n in range(120)])
    narrow, wide = (
        error_rate_interval(errors.ravel(), characters.ravel(), labels, confidence=confidence)
        for confidence in (0.5, 0.99)
    )
    assert narrow is not None
    assert wide is not None
    assert wide.low < narrow.low < errors.sum() / characters.sum() < narrow.high < wide.high


def test_possible_rate_is_that_of_an_exact_test() -> None:
    expected = stats.binomtest(0, 25).proportion_ci(0.9, method="exact").high
    assert possible_rate(25, 0.9) == pytest.approx(expected)


def test_intervals_of_error_rates_hold_the_true_rate_as_often_as_they_say() -> None:
    """With five sites; intervals over single utterances do so in six to seven cases of ten."""
    design = {"sites": 5, "of_site": 0.3, "data_sets": 300, "seed": 0}
    assert coverage_of_error_rates(**design) == pytest.approx(0.95, abs=0.035)
    assert coverage_of_error_rates(**design, method=percentiles_of_utterances) < 0.75
