import numpy as np
import pytest
import scipy.stats

from retrieval.statistics.bootstrap import (
    Resamples,
    difference_interval,
    groups_of_one_site,
    metric_difference_intervals,
    metric_intervals,
    percentile_interval,
    recall_interval,
    resampled,
)
from retrieval.statistics.ranks import METRICS, metrics_of


def draw(groups, sentences, resamples=200, seed=0):
    return Resamples.draw(np.array(groups), sentences, resamples=resamples, seed=seed)


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


@pytest.mark.parametrize(("sources", "targets"), [([0, 1, 2], [3, 4]), ([3, 4], [5]), ([0, 1, 2], [0, 1, 2])])
def test_resampled_recall_equals_loops(sources, targets):
    random = np.random.default_rng(0)
    hits = random.integers(0, 2, (6, 6, 5)).astype(float)
    hits[random.random(hits.shape) < 0.4] = np.nan
    draws = draw([0, 0, 0, 1, 1, 2], 5, resamples=40)
    expected = [
        recall_by_loops(hits, sources, targets, draws.sentences[n], draws.sites[n])
        for n in range(draws.count)
    ]
    np.testing.assert_allclose(draws.recall(hits, np.array(sources), np.array(targets)), expected)


def recalls(draws, hits, sources, targets):
    """Resampled recall@1 (B,); what is missed is second."""
    above, equal = np.where(hits == 0, 1, 0), (~np.isnan(hits)).astype(int)
    return draws.metrics(above, equal, sources, targets).mean[:, 0]


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


@pytest.mark.parametrize(("sources", "targets"), [([0, 1, 2], [3, 4]), ([3, 4], [5]), ([0, 1, 2], [0, 1, 2])])
def test_resampled_metrics_equal_loops(sources, targets):
    random = np.random.default_rng(0)
    ranks = random.choice([1, 1, 2, 4, 6, 12, 15], (6, 6, 5))
    ranks[random.random(ranks.shape) < 0.4] = 0  # not asked
    draws = draw([0, 0, 0, 1, 1, 2], 5, resamples=40)
    above, equal = np.maximum(ranks - 1, 0), (ranks > 0).astype(int)
    found = draws.metrics(above, equal, np.array(sources), np.array(targets))
    for n in range(draws.count):
        mean, pooled = metrics_by_loops(ranks, sources, targets, draws.sentences[n], draws.sites[n])
        np.testing.assert_allclose(found.mean[n], mean)
        np.testing.assert_allclose(metrics_of(found.pooled)[n], pooled)


def test_draws_keep_totals_and_seed():
    draws = draw([0, 0, 0, 1, 1], 7, resamples=50, seed=3)
    assert (draws.sentences.sum(axis=1) == 7).all()
    assert (draws.sites[:, :3].sum(axis=1) == 3).all()
    assert (draws.sites[:, 3:].sum(axis=1) == 2).all()
    again, other = draw([0, 0, 0, 1, 1], 7, 50, 3), draw([0, 0, 0, 1, 1], 7, 50, 4)
    np.testing.assert_array_equal(draws.sentences, again.sentences)
    np.testing.assert_array_equal(draws.sites, again.sites)
    assert (draws.sentences != other.sentences).any()


def test_one_site_pair_agrees_with_scipy():
    # With one site a group only sentences vary: the plain bootstrap of a mean.
    random = np.random.default_rng(1)
    answers = (random.random(60) < 0.7).astype(float)
    hits = np.full((2, 2, 60), np.nan)
    hits[0, 1] = answers
    replicates = recalls(draw([0, 1], 60, resamples=4000), hits, np.array([0]), np.array([1]))
    low, high = percentile_interval(replicates)
    expected = scipy.stats.bootstrap(
        (answers,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert low == pytest.approx(expected.low, abs=0.02)
    assert high == pytest.approx(expected.high, abs=0.02)


def test_bad_sites_widen_the_interval():
    # Half of the hits either way; once they depend on the sentence, once on the site.
    by_sentence = np.full((8, 8, 40), np.nan)
    by_sentence[:4, 4:] = np.arange(40) % 2
    by_site = np.full((8, 8, 40), np.nan)
    by_site[:4, 4:] = (np.arange(4) % 2)[:, None, None]
    draws, a, b = draw([0] * 4 + [1] * 4, 40, resamples=2000), np.arange(4), np.arange(4, 8)
    narrow = percentile_interval(recalls(draws, by_sentence, a, b))
    wide = percentile_interval(recalls(draws, by_site, a, b))
    assert narrow[1] - narrow[0] == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(40), rel=0.15)
    assert wide == pytest.approx((0.0, 1.0))


def test_percentiles():
    replicates = np.append(np.linspace(0, 1, 1001), [np.nan] * 50)
    assert percentile_interval(replicates, 0.9) == pytest.approx((0.05, 0.95))
    with pytest.raises(ValueError, match="no resample has a value"):
        percentile_interval(np.array([np.nan]))
    with pytest.raises(ValueError, match="between 0 and 1, found 95"):
        percentile_interval(replicates, 95)


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="at least one resample and one sentence"):
        draw([0, 1], 0)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize("rate", [0, 1])
def test_all_or_nothing_has_the_exact_binomial_interval(rate, confidence):
    replicates = np.full(100, float(rate))
    expected = scipy.stats.binomtest(40 * rate, 40).proportion_ci(confidence, method="exact")
    found = recall_interval(rate, replicates, sentences=40, confidence=confidence)
    assert found == pytest.approx((expected.low, expected.high))


def test_other_rates_have_the_interval_of_their_resamples():
    replicates = np.linspace(0.4, 0.6, 1001)
    assert recall_interval(0.5, replicates, sentences=40) == pytest.approx(percentile_interval(replicates))


def test_intervals_of_all_metrics_where_no_query_varies():
    # 40 sentences, all found first: a share of 1 - 0.025 ** (1 / 40) = 0.0881 may be missed after all.
    reach = 1 - 0.025 ** (1 / 40)
    perfect = np.array([1.0, 1, 1, 1, 1])
    found = dict(
        zip(METRICS, metric_intervals(perfect, np.tile(perfect, (9, 1)), sentences=40, pool=8), strict=True)
    )
    assert found["recall_at_1"] == found["recall_at_5"] == pytest.approx((1 - reach, 1))
    assert found["recall_at_10"] == (1, 1)  # a pool of 8
    assert found["mrr"] == pytest.approx((1 - reach * 7 / 8, 1))
    assert found["median_rank"] == (1, 1)
    few = metric_intervals(perfect, np.tile(perfect, (9, 1)), sentences=3, pool=8)
    assert few[-1] == (1, 8)  # of three sentences half may be missed
    none = np.array([0.0, 0, 0.4, 0.1, 9])
    missed = metric_intervals(none, np.tile(none, (9, 1)), sentences=40, pool=50)
    assert missed[0] == missed[1] == pytest.approx((0, reach))
    assert missed[2] == pytest.approx((0.4, 0.4))
    assert missed[3:] == [pytest.approx((0.1, 0.1)), (9, 9)]


@pytest.mark.parametrize(("first", "second"), [(1, 1), (0, 0), (1, 0), (0, 1)])
def test_differences_of_all_and_nothing_reach_from_end_to_end_of_both_intervals(first, second):
    ours, theirs = (
        scipy.stats.binomtest(30 * rate, 30).proportion_ci(0.95, method="exact") for rate in (first, second)
    )
    replicates = np.append(np.full(50, float(first - second)), np.nan)
    found = difference_interval(first - second, replicates, sentences=30)
    assert found == pytest.approx((ours.low - theirs.high, ours.high - theirs.low))


def test_intervals_of_differences_cover_what_may_be_missing():
    """Where a share of all sentences differs by 1, none of Q is seen with probability (1 - share)**Q.

    The upper end of the interval for none must be the share for which this is 2.5 %, and no other value.
    """
    low, high = difference_interval(0.25, np.full(9, 0.25), sentences=20)
    for end, extreme in ((high, 1.0), (low, -1.0)):
        share = (end - 0.25) / (extreme - 0.25)  # mean = 0.25 + share (extreme - 0.25)
        assert scipy.stats.binom.pmf(0, 20, share) == pytest.approx(0.025)


def test_differences_that_vary_have_the_interval_of_their_resamples():
    replicates = np.linspace(0, 0.2, 1001)
    found = difference_interval(0.1, replicates, sentences=20)
    assert found == pytest.approx(percentile_interval(replicates))


def test_intervals_of_differences_of_all_metrics():
    reach = 1 - 0.025 ** (1 / 40)
    nothing = np.zeros(5)
    found = metric_difference_intervals(nothing, np.zeros((9, 5)), sentences=40, pool=8)
    assert found[0] == found[1] == pytest.approx((-reach, reach))
    assert found[2] == (0, 0)  # recall@10 of a pool of 8
    assert found[3] == pytest.approx((-reach * 7 / 8, reach * 7 / 8))
    assert found[4] == (0, 0)
    few = metric_difference_intervals(nothing, np.zeros((9, 5)), sentences=3, pool=8)
    assert few[4] == (-7, 7)  # of three sentences half may be missing
    varying = np.linspace(-1, 1, 101)[:, None] * np.ones(5)
    for interval in metric_difference_intervals(nothing, varying, sentences=3, pool=8):
        assert interval == pytest.approx((-0.95, 0.95))


def test_groups_of_one_site_are_those_that_no_resample_varies():
    names = ["cmn", "hak", "hak", "yue", "wuu", "wuu"]
    draws = draw([0, 1, 1, 2, 3, 3], 5, resamples=100)
    never = [name for name, counts in zip(names, draws.sites.T, strict=True) if (counts == 1).all()]
    assert groups_of_one_site(names) == never == ["cmn", "yue"]


def test_captions_say_what_is_resampled():
    assert resampled(["cmn", "hak"], []) == "sentences and sites"
    assert resampled(["cmn", "hak"], ["cmn"]) == ("sentences and sites; sites cannot vary for cmn (one each)")
    everywhere = resampled(["cmn", "hak"], ["cmn", "hak"])
    assert everywhere == "sentences; sites cannot vary, since every group has one only"
    assert resampled(["cmn"], None) == "sentences, and over sites where a group has several"
