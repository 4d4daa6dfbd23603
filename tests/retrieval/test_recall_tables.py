import csv
import io
import json
from itertools import chain

import numpy as np
import pytest
from planted import write_store
from reference.retrieval import chance_of_queries, metrics_of_queries, ranks_of_queries
from rich.console import Console

from retrieval.protocol.figure import recall_heat_map
from retrieval.protocol.outcome import Outcome
from retrieval.protocol.recall import retrieve
from retrieval.protocol.sites import Site, sites_of
from retrieval.protocol.tables import (
    tabulate,
    write_recall_csv,
    write_recall_json,
    write_site_pairs,
)
from retrieval.protocol.views import recall_matrix, recall_summary
from retrieval.statistics.ranks import METRICS
from zipformer.console import print_tables


def from_hits(sites, hits):
    """Every query that misses is second; the pool of a site pair is what it asks."""
    asked = ~np.isnan(hits)
    pool = np.where(asked, asked.sum(axis=2, keepdims=True), 0).astype(np.int32)
    above = np.where(asked & (hits == 0), 1, 0).astype(np.int32)
    return Outcome(sites, [f"s{n}" for n in range(hits.shape[2])], above, asked.astype(np.int32), pool)


def outcome() -> Outcome:
    """cmn and hak have one site, yue has two; yue/y2 lacks two of the five sentences."""
    sites = [Site(*name.split("/"), {}) for name in ("cmn/c1", "hak/h1", "yue/y1", "yue/y2")]
    hits = np.full((4, 4, 5), np.nan)
    shares = {(0, 1): 1, (1, 0): 2, (0, 2): 4, (2, 0): 5, (1, 2): 0, (2, 1): 1}
    for (a, b), right in shares.items():
        hits[a, b] = np.arange(5) < right
    for a, b, right in ((0, 3, 1), (3, 0, 2), (1, 3, 0), (3, 1, 3), (2, 3, 3), (3, 2, 2)):
        hits[a, b, :3] = np.arange(3) < right
    return from_hits(sites, hits)


def rows_by_pair(table):
    return {(row.source, row.target): row for row in [*table.pairs, *table.within]}


def test_group_pairs_are_unweighted_means_over_site_pairs():
    table = tabulate(outcome(), trained_groups=["cmn", "yue", "wuu"], resamples=50)
    rows = rows_by_pair(table)
    assert table.groups == ["cmn", "hak", "yue"]
    assert len(table.pairs) == 6
    assert rows["cmn", "hak"].recall_at_1 == pytest.approx(100 * 1 / 5)
    # sites count alike although one has fewer sentences: (4/5 + 1/3) / 2, chance (1/5 + 1/3) / 2
    assert rows["cmn", "yue"].recall_at_1 == pytest.approx(100 * (4 / 5 + 1 / 3) / 2)
    assert rows["cmn", "yue"].chance == pytest.approx(100 * (1 / 5 + 1 / 3) / 2)
    assert (rows["cmn", "yue"].site_pairs, rows["cmn", "yue"].queries) == (2, 8)
    assert rows["yue", "cmn"].recall_at_1 == pytest.approx(100 * (5 / 5 + 2 / 3) / 2)


def test_within_a_group_is_kept_apart():
    table = tabulate(outcome(), trained_groups=None, resamples=200)
    (within,) = table.within
    assert (within.source, within.target, within.site_pairs) == ("yue", "yue", 2)
    assert within.recall_at_1 == pytest.approx(100 * (3 / 3 + 2 / 3) / 2)
    assert not any(row.source == row.target for row in table.pairs)
    assert np.isnan(np.diagonal(table.matrix())).all()


def test_summaries_keep_the_held_out_group_apart():
    table = tabulate(outcome(), trained_groups=["cmn", "yue", "wuu"], resamples=50)
    rows, summary = rows_by_pair(table), {row.name: row for row in table.summary}
    trained = [rows["cmn", "yue"], rows["yue", "cmn"]]
    held_out = [rows[pair] for pair in (("cmn", "hak"), ("hak", "cmn"), ("hak", "yue"), ("yue", "hak"))]
    for name, members in (("trained", trained), ("held_out", held_out), ("all", trained + held_out)):
        assert summary[name].pairs == len(members)
        assert summary[name].recall_at_1 == pytest.approx(np.mean([row.recall_at_1 for row in members]))
        assert summary[name].chance == pytest.approx(np.mean([row.chance for row in members]))
    assert table.trained_groups == ["cmn", "yue"]
    assert table.held_out_groups == ["hak"]


def test_unknown_training_groups_give_one_summary():
    table = tabulate(outcome(), trained_groups=None, resamples=50)
    assert [row.name for row in table.summary] == ["all", "within"]
    assert table.held_out_groups == []


def test_intervals_hold_their_value_and_follow_the_seed():
    first = tabulate(outcome(), trained_groups=None, resamples=300, seed=1)
    again = tabulate(outcome(), trained_groups=None, resamples=300, seed=1)
    wider = tabulate(outcome(), trained_groups=None, resamples=300, seed=1, confidence=0.99)
    assert first == again
    for row, wide in zip([*first.pairs, *first.summary], [*wider.pairs, *wider.summary], strict=True):
        assert row.low <= row.recall_at_1 <= row.high
        assert wide.low <= row.low
        assert row.high <= wide.high
    # of 5 sentences 4 hit at one site, 1 of 3 at the other: surely not known to 10 %
    assert first.pairs[1].high - first.pairs[1].low > 30


def test_only_sentences_that_were_asked_count_for_the_interval():
    # One pair of sites asks 3 sentences and another one 2 others, all found; the rest is at no second site.
    sites = [Site("cmn", "c1", {}), Site("yue", "y1", {}), Site("yue", "y2", {})]
    hits = np.full((3, 3, 40), np.nan)
    hits[0, 1, :3] = hits[1, 0, :3] = hits[0, 2, 3:5] = hits[2, 0, 3:5] = 1
    table = tabulate(from_hits(sites, hits), trained_groups=None, resamples=50)
    assert len(table.summary) == 1
    for row in [*table.pairs, *table.summary]:
        assert (row.recall_at_1, row.high) == pytest.approx((100, 100))
        assert row.low == pytest.approx(100 * 0.025 ** (1 / 5))  # five found of five (Clopper and Pearson)


def test_files(tmp_path):
    hits = outcome()
    table = tabulate(hits, trained_groups=["cmn", "yue"], resamples=50)
    write_recall_json(tmp_path / "recall.json", table, {"split": "test", "model_dir": "exp/a"})
    content = json.loads((tmp_path / "recall.json").read_text())
    assert content["split"] == "test"
    assert content["groups"] == ["cmn", "hak", "yue"]
    assert content["trained_groups"] == ["cmn", "yue"]
    assert content["held_out_groups"] == ["hak"]
    assert content["pairs"][0]["recall_at_1"] == pytest.approx(20)
    assert set(content["pairs"][0]) == {
        *("source", "target", "recall_at_1", "low", "high", "chance", "site_pairs", "queries")
    }

    write_recall_csv(tmp_path / "recall.csv", table)
    lines = list(csv.DictReader(io.StringIO((tmp_path / "recall.csv").read_text())))
    assert [(line["source"], line["target"]) for line in lines][-1] == ("yue", "yue")
    assert float(lines[0]["recall_at_1"]) == pytest.approx(20)

    write_site_pairs(tmp_path / "site_pairs.csv", hits)
    lines = list(csv.DictReader(io.StringIO((tmp_path / "site_pairs.csv").read_text())))
    assert len(lines) == 12
    line = next(x for x in lines if (x["source_site"], x["target_site"]) == ("c1", "y2"))
    assert (line["queries"], float(line["hits"])) == ("3", 1.0)
    assert float(line["recall_at_1"]) == pytest.approx(100 / 3)
    assert float(line["chance"]) == pytest.approx(100 / 3)


def metric_row(table, part, metric, source="", target=""):
    return next(
        row
        for row in table.metrics
        if (row.part, row.metric, row.source, row.target) == (part, metric, source, target)
    )


def test_all_metrics_as_means_over_site_pairs_and_pooled():
    hits = outcome()
    above = hits.above.copy()
    above[0, 2, 4] = 4  # of the five sentences of c1 at y1: ranks 1, 1, 1, 1, 5; at y2 1, 2, 2
    hits = Outcome(hits.sites, hits.sentences, above, hits.equal, hits.pool)
    table = tabulate(hits, trained_groups=None, resamples=100)
    expected = {  # mean over site pairs, pooled, chance, pooled chance
        "recall_at_1": ((4 / 5 + 1 / 3) / 2, 5 / 8, (1 / 5 + 1 / 3) / 2, (5 * 1 / 5 + 3 * 1 / 3) / 8),
        "recall_at_5": (1, 1, 1, 1),
        "mrr": (
            ((4 + 1 / 5) / 5 + (1 + 2 / 2) / 3) / 2,
            (5 + 1 / 5 + 2 / 2) / 8,
            ((137 / 60) / 5 + (11 / 6) / 3) / 2,
            (137 / 60 + 11 / 6) / 8,
        ),
    }
    for metric, values in expected.items():
        row = metric_row(table, "pair", metric, "cmn", "yue")
        found = (row.value, row.pooled, row.chance, row.pooled_chance)
        assert found == pytest.approx([100 * value for value in values]), metric
        assert row.low - 1e-9 <= row.value <= row.high + 1e-9
        assert (row.p, row.p_holm) == (None, None)
    median = metric_row(table, "pair", "median_rank", "cmn", "yue")
    assert (median.value, median.pooled) == ((1 + 2) / 2, 1)
    # Five draws from the ranks 1 ... 5 and three from 1 ... 3: of 8 each of 1, 2, 3 is expected twice.
    assert (median.chance, median.pooled_chance) == ((3 + 2) / 2, (2 + 3) / 2)
    mean = metric_row(table, "all", "mrr")
    rows = [row for row in table.metrics if (row.part, row.metric) == ("pair", "mrr")]
    assert mean.value == pytest.approx(np.mean([row.value for row in rows]))
    assert {row.part for row in table.metrics} == {"pair", "ceiling", "all", "within"}


def test_all_metrics_against_loops_over_frames_queries_and_draws(tmp_path):
    """Groups of one, two and three sites, pools of several sizes, some utterances equal to others."""
    random = np.random.default_rng(3)
    words = random.standard_normal((14, 3, 5))
    stored = {}
    for site in ("cmn/c1", "hak/h1", "hak/h2", "hak/h3", "yue/y1", "yue/y2"):
        kept = random.permutation(14)[: int(random.integers(9, 14))]
        noisy = {f"s{n:02}": words[n, : int(random.integers(1, 4))] for n in kept}
        stored[tuple(site.split("/"))] = {
            name: (frames + 0.9 * random.standard_normal(frames.shape)).astype(np.float32)
            for name, frames in noisy.items()
        }
    for site in (("hak", "h2"), ("yue", "y1")):
        first, second, third, *_ = stored[site]
        stored[site][second] = stored[site][third] = stored[site][first]
    store = write_store(tmp_path / "store", stored)
    table = tabulate(retrieve(store, sites_of(store), within_groups=True), trained_groups=None, resamples=30)

    expected = {}
    for source in ("cmn", "hak", "yue"):
        for target in ("cmn", "hak", "yue"):
            asked = [
                ranks_of_queries(stored[a], stored[b])
                for a in stored
                for b in stored
                if a != b and (a[0], b[0]) == (source, target)
            ]
            if asked:
                chance = [chance_of_queries(ranks) for ranks in asked]
                expected[source, target] = [
                    np.mean([metrics_of_queries(ranks) for ranks in asked], axis=0),
                    np.mean([metrics_of_queries(ranks) for ranks in chance], axis=0),
                    metrics_of_queries(list(chain(*asked))),
                    metrics_of_queries(list(chain(*chance))),
                ]
                if target != "cmn":
                    assert any(len(rank) > 1 for ranks in asked for rank in ranks)  # some answers are tied
    assert len(expected) == 8  # within cmn there is no other site
    units = np.array([100, 100, 100, 100, 1])
    for (source, target), numbers in expected.items():
        part = "ceiling" if source == target else "pair"
        rows = [metric_row(table, part, metric, source, target) for metric in METRICS]
        found = [[row.value, row.chance, row.pooled, row.pooled_chance] for row in rows]
        np.testing.assert_allclose(np.transpose(found), units * numbers, rtol=1e-9)
    between = np.mean([numbers for pair, numbers in expected.items() if pair[0] != pair[1]], axis=0)
    rows = [metric_row(table, "all", metric) for metric in METRICS]
    np.testing.assert_allclose([row.value for row in rows], units * between[0], rtol=1e-9)
    np.testing.assert_allclose([row.chance for row in rows], units * between[1], rtol=1e-9)


def test_recall_of_the_table_is_that_of_the_metrics():
    table = tabulate(outcome(), trained_groups=["cmn", "yue"], resamples=80)
    for row in table.pairs:
        same = metric_row(table, "pair", "recall_at_1", row.source, row.target)
        assert (row.recall_at_1, row.low, row.high, row.chance) == (
            *(same.value, same.low, same.high, same.chance),
        )
    for row in table.summary:
        same = metric_row(table, row.name, "recall_at_1")
        assert (row.recall_at_1, row.low, row.high, row.chance) == (
            *(same.value, same.low, same.high, same.chance),
        )


def test_p_values_are_adjusted_for_the_pairs():
    hits = outcome()
    random = np.random.default_rng(0)
    permuted = {}
    for source in ("cmn", "hak", "yue"):
        for target in ("cmn", "hak", "yue"):
            permuted[source, target] = random.random((199, 5)) * [1, 1, 1, 1, 5]
    permuted["cmn", "yue"] *= 0.5  # recall@1 is 57 % there
    with_test = Outcome(hits.sites, hits.sentences, hits.above, hits.equal, hits.pool, permuted)
    table = tabulate(with_test, trained_groups=None, resamples=20)
    row = metric_row(table, "pair", "recall_at_1", "cmn", "yue")
    recall = (4 / 5 + 1 / 3) / 2
    assert row.p == pytest.approx((1 + (permuted["cmn", "yue"][:, 0] >= recall).sum()) / 200)
    p_values = [r.p for r in table.metrics if (r.part, r.metric) == ("pair", "recall_at_1")]
    adjusted = [r.p_holm for r in table.metrics if (r.part, r.metric) == ("pair", "recall_at_1")]
    assert len(p_values) == 6
    assert min(adjusted) == pytest.approx(min(1, 6 * min(p_values)))
    mean = metric_row(table, "all", "recall_at_1")
    null = np.mean([permuted[pair.source, pair.target][:, 0] for pair in table.pairs], axis=0)
    assert mean.p == pytest.approx((1 + (null >= mean.value / 100).sum()) / 200)
    assert mean.p_holm is None
    text = shown(recall_matrix(table))
    assert "?" in text
    assert "? not above chance" in text
    doubtful = [row for row in table.pairs if (row.source, row.target) in table.doubtful_pairs]
    assert 0 < len(doubtful) < 6
    axes = recall_heat_map(table).axes[0]
    shown_texts = [item.get_text() for item in axes.texts]
    assert sum(item.endswith("?") for item in shown_texts) == len(doubtful)
    assert "? not surely above chance" in axes.get_xlabel()


def shown(view) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(view)
    return console.export_text()


def test_printed_matrix():
    table = tabulate(outcome(), trained_groups=["cmn", "yue"], resamples=50)
    text = shown(recall_matrix(table))
    first = next(line for line in text.splitlines() if line.split()[:1] == ["cmn"] and "-" in line)
    assert first.split() == ["cmn", "-", "20.0", "56.7", "23.3"]  # chance (1/5 + (1/5 + 1/3)/2) / 2
    assert "hak*" in text
    assert "* not trained on" in text
    summary = shown(recall_summary(table, 0.95))
    assert "between trained groups" in summary
    assert "95 % interval" in summary


def test_a_group_without_a_query_has_no_chance_level():
    sites = [Site(group, group, {}) for group in ("cmn", "hak", "yue")]
    hits = np.full((3, 3, 4), np.nan)
    hits[0, 2] = hits[2, 0] = 1
    lines = shown(recall_matrix(tabulate(from_hits(sites, hits), trained_groups=None, resamples=20)))
    assert ["hak", "-", "-", "-", "-"] in [line.split() for line in lines.splitlines()]
    assert "nan" not in lines


def test_long_names_become_numbers():
    hits = outcome()
    names = {"cmn": "cmn-beijing", "hak": "hak-sixian", "yue": "yue-guangzhou"}
    sites = [Site(names[site.group], site.name, {}) for site in hits.sites]
    table = tabulate(from_hits(sites, hits.hits), trained_groups=None, resamples=50)
    text = shown(recall_matrix(table))
    assert "1 cmn-beijing" in text
    assert text.count("yue-guangzhou") == 1


def test_nothing_is_cut_off_on_a_narrow_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    table = tabulate(outcome(), trained_groups=None, resamples=50)
    capsys.readouterr()  # the progress of resampling
    print_tables([recall_matrix(table)])
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert "mean" not in printed
    assert "56.7" in printed
