import math

import numpy as np
import pytest
import scipy.special
import scipy.stats

from benchmarks.coverage import coverage_of_recall
from retrieval.statistics.bootstrap import (
    Factor,
    Resamples,
    components,
    difference_interval,
    groups_of_one_site,
    metric_difference_intervals,
    metric_intervals,
    recall_interval,
    resampled,
)
from retrieval.statistics.ranks import METRICS, metrics_of

SITES = {"a": [0, 1, 2], "b": [3, 4], "c": [5]}


def draw(groups, sentences, resamples=200, seed=0):
    return Resamples.draw(groups, sentences, resamples=resamples, seed=seed)


def recall_by_loops(hits, sources, targets, sentence_counts, site_counts):
    """Recall of one resample by its definition: every drawn copy of a site pair and of a sentence."""
    values = []
    for a in sources:
        for b in targets:
            if a == b:
                continue
            answers = [
                hits[a, b, q]
                for q, copies in enumerate(sentence_counts)
                for _ in range(int(copies))
                if not np.isnan(hits[a, b, q])
            ]
            if answers:
                values += [np.mean(answers)] * int(site_counts[a] * site_counts[b])
    return np.mean(values) if values else np.nan


@pytest.mark.parametrize(("source", "target"), ["ab", "bc", "aa"])
def test_resampled_recall_equals_loops(source, target):
    random = np.random.default_rng(0)
    hits = random.integers(0, 2, (6, 6, 5)).astype(float)
    hits[random.random(hits.shape) < 0.4] = np.nan
    draws = draw("aaabbc", 5, resamples=40)
    expected = [
        recall_by_loops(hits, SITES[source], SITES[target], draws.sentences[n], draws.sites[n])
        for n in range(draws.count)
    ]
    np.testing.assert_allclose(draws.recall(hits, source, target), expected)


def recalls(draws, hits):
    """Resampled recall@1 (B,) from group a to group b; what is missed is second."""
    above, equal = np.where(hits == 0, 1, 0), (~np.isnan(hits)).astype(int)
    return draws.metrics(above, equal, "a", "b").mean[:, 0]


def metrics_by_loops(ranks, sources, targets, sentence_counts, site_counts):
    """Metrics of one resample, mean and pooled: of every drawn copy of a site pair and a sentence."""
    values, pool = [], []
    for a in sources:
        for b in targets:
            drawn = [ranks[a, b, q] for q, copies in enumerate(sentence_counts) for _ in range(int(copies))]
            drawn = [rank for rank in drawn if rank > 0]
            if a != b and drawn:
                copies = int(site_counts[a] * site_counts[b])
                values += [metrics_of_ranks(drawn)] * copies
                pool += drawn * copies
    nothing = np.full(5, np.nan)
    return np.mean(values, axis=0) if values else nothing, metrics_of_ranks(pool) if pool else nothing


def metrics_of_ranks(ranks):
    ranks = np.array(ranks)
    return [*((ranks <= k).mean() for k in (1, 5, 10)), (1 / ranks).mean(), np.median(ranks)]


@pytest.mark.parametrize(("source", "target"), ["ab", "bc", "aa"])
def test_resampled_metrics_equal_loops(source, target):
    random = np.random.default_rng(0)
    ranks = random.choice([1, 1, 2, 4, 6, 12, 15], (6, 6, 5))
    ranks[random.random(ranks.shape) < 0.4] = 0  # not asked
    draws = draw("aaabbc", 5, resamples=40)
    above, equal = np.maximum(ranks - 1, 0), (ranks > 0).astype(int)
    found = draws.metrics(above, equal, source, target)
    for n in range(draws.count):
        mean, pooled = metrics_by_loops(
            ranks, SITES[source], SITES[target], draws.sentences[n], draws.sites[n]
        )
        np.testing.assert_allclose(found.mean[n], mean)
        np.testing.assert_allclose(metrics_of(found.pooled)[n], pooled)


def test_draws_keep_totals_and_seed():
    draws = draw("aaabb", 7, resamples=50, seed=3)
    assert (draws.sentences.sum(axis=1) == 7).all()
    assert (draws.sites[:, :3].sum(axis=1) == 3).all()
    assert (draws.sites[:, 3:].sum(axis=1) == 2).all()
    again, other = draw("aaabb", 7, 50, 3), draw("aaabb", 7, 50, 4)
    np.testing.assert_array_equal(draws.sentences, again.sentences)
    np.testing.assert_array_equal(draws.sites, again.sites)
    assert (draws.sentences != other.sentences).any()


def interval_of_recalls(draws, hits):
    rate = float(np.nanmean(hits[np.ix_(draws.members["a"], draws.members["b"])]))
    replicates = recalls(draws, hits)
    return recall_interval(rate, replicates, factors=draws.factors, sentences=hits.shape[2])


def logit_interval(rate, standard_error, freedom):
    """Student's interval on the logit scale, with scipy."""
    end = scipy.stats.t.ppf(0.975, freedom) * standard_error / (rate * (1 - rate))
    return tuple(scipy.stats.logistic.cdf(scipy.special.logit(rate) + np.array([-end, end])))


def test_one_site_pair_has_the_interval_of_a_mean():
    # With one site a group only sentences vary.
    random = np.random.default_rng(1)
    answers = (random.random(60) < 0.7).astype(float)
    hits = np.full((2, 2, 60), np.nan)
    hits[0, 1] = answers
    draws = draw("ab", 60, resamples=8000)
    found = interval_of_recalls(draws, hits)
    assert draws.factors == ()
    assert found == pytest.approx(logit_interval(answers.mean(), scipy.stats.sem(answers), 59), abs=0.005)


def test_bad_sites_widen_the_interval():
    # Half of the hits either way; once they depend on the sentence, once on the site.
    by_sentence = np.full((8, 8, 40), np.nan)
    by_sentence[:4, 4:] = np.arange(40) % 2
    by_site = np.full((8, 8, 40), np.nan)
    by_site[:4, 4:] = np.array([0.2, 0.4, 0.6, 0.8])[:, None, None]
    draws = draw("aaaabbbb", 40, resamples=8000)
    by_sites = draws.recall(by_site, "a", "b")
    found = recall_interval(0.5, by_sites, factors=draws.factors, sentences=40)
    # As the mean of four sites with three degrees of freedom, of which a resample knows 3/4 of the variance.
    expected = logit_interval(0.5, scipy.stats.sem([0.2, 0.4, 0.6, 0.8]), 3)
    assert found == pytest.approx(expected, abs=0.02)
    narrow = interval_of_recalls(draws, by_sentence)
    assert narrow == pytest.approx(logit_interval(0.5, scipy.stats.sem(np.arange(40) % 2), 39), abs=0.01)


def test_components_of_sums_are_those_of_their_parts():
    """An estimate that is a mean over sites of two groups plus one over sentences."""
    random = np.random.default_rng(0)
    draws = draw("aaabb", 30, resamples=20_000)
    first, second, of_sentences = random.normal(size=3), random.normal(size=2), random.normal(size=30)
    replicates = draws.sites[:, :3] @ first / 3 + draws.sites[:, 3:] @ second / 2
    replicates += draws.sentences @ of_sentences / 30
    replicates[:100] = np.nan
    found = components(replicates, draws.factors, 30)
    assert [freedom for _, freedom in found] == [2, 1, 29]
    expected = [scipy.stats.sem(values) ** 2 for values in (first, second, of_sentences)]
    assert [variance for variance, _ in found] == pytest.approx(expected, rel=0.05)


def test_resamples_without_a_value():
    with pytest.raises(ValueError, match="no resample has a value"):
        components(np.array([np.nan, 0.5]), (), 3)


def test_intervals_of_recall_hold_the_true_one_also_with_few_sites():
    percentiles, ours, _ = coverage_of_recall(sites=2, of_site=0.45, data_sets=120, seed=0, truth_sets=500)
    assert percentiles < 0.85
    assert ours > 0.9


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="at least one resample and one sentence"):
        draw("ab", 0)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize("rate", [0, 1])
def test_all_or_nothing_has_the_exact_binomial_interval(rate, confidence):
    replicates = np.full(100, float(rate))
    expected = scipy.stats.binomtest(40 * rate, 40).proportion_ci(confidence, method="exact")
    found = recall_interval(rate, replicates, factors=(), sentences=40, confidence=confidence)
    assert found == pytest.approx((expected.low, expected.high))


def test_other_rates_have_the_interval_of_their_resamples():
    replicates = np.linspace(0.4, 0.6, 1001)
    expected = logit_interval(0.5, replicates.std(ddof=1) * math.sqrt(40 / 39), 39)
    assert recall_interval(0.5, replicates, factors=(), sentences=40) == pytest.approx(expected)


def test_intervals_of_all_metrics_where_no_query_varies():
    # 40 sentences, all found first: a share of 1 - 0.025 ** (1 / 40) = 0.0881 may be missed after all.
    reach = 1 - 0.025 ** (1 / 40)
    perfect = np.array([1.0, 1, 1, 1, 1])
    found = dict(
        zip(
            METRICS,
            metric_intervals(perfect, np.tile(perfect, (9, 1)), factors=(), sentences=40, pool=8),
            strict=True,
        )
    )
    assert found["recall_at_1"] == found["recall_at_5"] == pytest.approx((1 - reach, 1))
    assert found["recall_at_10"] == (1, 1)  # a pool of 8
    assert found["mrr"] == pytest.approx((1 - reach * 7 / 8, 1))
    assert found["median_rank"] == (1, 1)
    few = metric_intervals(perfect, np.tile(perfect, (9, 1)), factors=(), sentences=3, pool=8)
    assert few[-1] == (1, 8)  # of three sentences half may be missed
    none = np.array([0.0, 0, 0.4, 0.1, 9])
    missed = metric_intervals(none, np.tile(none, (9, 1)), factors=(), sentences=40, pool=50)
    assert missed[0] == missed[1] == pytest.approx((0, reach))
    assert missed[2] == pytest.approx((0.4, 0.4))
    assert missed[3:] == [pytest.approx((0.1, 0.1)), (9, 9)]


@pytest.mark.parametrize(("first", "second"), [(1, 1), (0, 0), (1, 0), (0, 1)])
def test_differences_of_all_and_nothing_reach_from_end_to_end_of_both_intervals(first, second):
    ours, theirs = (
        scipy.stats.binomtest(30 * rate, 30).proportion_ci(0.95, method="exact") for rate in (first, second)
    )
    replicates = np.append(np.full(50, float(first - second)), np.nan)
    found = difference_interval(first - second, replicates, factors=(), sentences=30)
    assert found == pytest.approx((ours.low - theirs.high, ours.high - theirs.low))


def test_intervals_of_differences_cover_what_may_be_missing():
    """Where a share of all sentences differs by 1, none of Q is seen with probability (1 - share)**Q.

    The upper end of the interval for none must be the share for which this is 2.5 %, and no other value.
    """
    low, high = difference_interval(0.25, np.full(9, 0.25), factors=(), sentences=20)
    for end, extreme in ((high, 1.0), (low, -1.0)):
        share = (end - 0.25) / (extreme - 0.25)  # mean = 0.25 + share (extreme - 0.25)
        assert scipy.stats.binom.pmf(0, 20, share) == pytest.approx(0.025)


def test_differences_that_vary_have_the_interval_of_their_resamples():
    replicates = np.linspace(0, 0.2, 1001)
    found = difference_interval(0.1, replicates, factors=(), sentences=20)
    width = scipy.stats.t.ppf(0.975, 19) * replicates.std(ddof=1) * math.sqrt(20 / 19)
    assert found == pytest.approx((0.1 - width, 0.1 + width))


def test_few_runs_widen_the_interval_of_a_difference():
    """Two models, all of whose resamples come from which of three runs were drawn."""
    runs = np.array([0.1, 0.2, 0.4])
    counts = np.random.default_rng(0).multinomial(3, [1 / 3] * 3, size=20_000).astype(float)
    found = difference_interval(
        runs.mean(), counts @ runs / 3, factors=[Factor(counts)], sentences=50, confidence=0.9
    )
    expected = scipy.stats.t.interval(0.9, 2, loc=runs.mean(), scale=scipy.stats.sem(runs))
    assert found == pytest.approx(expected, abs=0.01)


def test_intervals_of_differences_of_all_metrics():
    reach = 1 - 0.025 ** (1 / 40)
    nothing = np.zeros(5)
    found = metric_difference_intervals(nothing, np.zeros((9, 5)), factors=(), sentences=40, pool=8)
    assert found[0] == found[1] == pytest.approx((-reach, reach))
    assert found[2] == (0, 0)  # recall@10 of a pool of 8
    assert found[3] == pytest.approx((-reach * 7 / 8, reach * 7 / 8))
    assert found[4] == (0, 0)
    few = metric_difference_intervals(nothing, np.zeros((9, 5)), factors=(), sentences=3, pool=8)
    assert few[4] == (-7, 7)  # of three sentences half may be missing
    varying = np.linspace(-0.1, 0.1, 101)[:, None] * np.ones(5)
    width = scipy.stats.t.ppf(0.975, 39) * varying[:, 0].std(ddof=1) * math.sqrt(40 / 39)
    for interval in metric_difference_intervals(nothing, varying, factors=(), sentences=40, pool=50):
        assert interval == pytest.approx((-width, width))


def test_groups_of_one_site_are_those_that_no_resample_varies():
    names = ["cmn", "hak", "hak", "yue", "wuu", "wuu"]
    draws = draw("abbcdd", 5, resamples=100)
    never = [name for name, counts in zip(names, draws.sites.T, strict=True) if (counts == 1).all()]
    assert groups_of_one_site(names) == never == ["cmn", "yue"]


def test_captions_say_what_is_resampled():
    assert resampled(["cmn", "hak"], []) == "sentences and sites"
    assert resampled(["cmn", "hak"], ["cmn"]) == ("sentences and sites; sites cannot vary for cmn (one each)")
    everywhere = resampled(["cmn", "hak"], ["cmn", "hak"])
    assert everywhere == "sentences; sites cannot vary, since every group has one only"
    assert resampled(["cmn"], None) == "sentences, and over sites where a group has several"
