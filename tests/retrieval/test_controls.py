import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from planted import directions, write_store

from retrieval.comparison.controls import (
    DEFAULT,
    Control,
    ControlsConfig,
    control_rows,
    control_table,
    parse_controls,
    read_controls,
    shown_parts,
    write_controls,
)
from retrieval.comparison.controls_figure import control_dots
from retrieval.comparison.permuted import mean_of_draws, permuted_table
from retrieval.embedding.acoustic import DurationEmbedder
from retrieval.protocol.recall import retrieve
from retrieval.protocol.sites import sites_of
from retrieval.protocol.tables import tabulate
from retrieval.report.controls import controls_section
from retrieval.similarity.scores import ScoreKind
from retrieval.statistics.bootstrap import Resamples, difference_interval
from zipformer.typed_json import MalformedResultError

NAMES = [f"s{n}" for n in range(10)]
GROUPS = ("hak", "nan", "yue")


def store_of(directory, wrong):
    """Two sites a group; ``wrong[group]`` of the sentences are said as the next one at every site of it."""
    stored = {}
    for group in GROUPS:
        count = wrong.get(group, 0)
        words = [(n + 1) % count if n < count else n for n in range(len(NAMES))]
        for site in ("1", "2"):
            stored[group, group + site] = {
                name: directions([word], len(NAMES), repeat=2)
                for name, word in zip(NAMES, words, strict=True)
            }
    return write_store(directory, stored)


def results_of(stores, trained=("hak", "nan")):
    controls = parse_controls(name for name in stores if name != "zipformer")
    outcomes = {
        control.name: retrieve(stores[control.name], sites_of(stores[control.name])) for control in controls
    }
    tables = {
        name: tabulate(outcome, trained_groups=trained, resamples=200, seed=1)
        for name, outcome in outcomes.items()
    }
    return outcomes, tables, controls


@pytest.fixture
def compared(tmp_path):
    """The model is right; MFCC confuse five of ten sentences of yue, durations two of nan and five of yue."""
    stores = {
        "zipformer": store_of(tmp_path / "model", {}),
        "mfcc": store_of(tmp_path / "mfcc", {"yue": 5}),
        "duration": store_of(tmp_path / "duration", {"nan": 2, "yue": 5}),
    }
    outcomes, tables, controls = results_of(stores)
    return outcomes, tables, control_rows(outcomes, tables, controls, resamples=200, seed=1)


def test_names_of_controls():
    controls = parse_controls(["mfcc-dtw", "duration", "mfcc-dtw", "permuted", "xls-r-pooled"], ["xls-r"])
    assert controls == [
        Control("zipformer", "zipformer", ScoreKind.seqsim),
        Control("mfcc-dtw", "mfcc", ScoreKind.dtw),
        Control("duration", "duration", ScoreKind.seqsim),
        Control("permuted", "zipformer", ScoreKind.seqsim, permuted=True),
        Control("xls-r-pooled", "xls-r", ScoreKind.pooled),
    ]
    assert [control.label for control in controls] == [
        "model, SeqSim",
        "MFCC, DTW",
        "duration only",
        "model, sentences permuted",
        "xls-r, mean frames",
    ]
    assert parse_controls(["fbank-seqsim"])[1] == Control("fbank", "fbank", ScoreKind.seqsim)
    assert len(parse_controls(DEFAULT)) == 1 + len(DEFAULT)
    for name in ("whisper", "mfcc-cosine", "huggingface", ""):
        with pytest.raises(ValueError, match=f"no control {name}: give permuted, or an embedder"):
            parse_controls([name])


def test_rows_hold_recall_and_difference(compared):
    _, tables, rows = compared
    found = {(row.name, row.pairs): row for row in rows}
    assert list(found) == [
        (name, part) for name in ("zipformer", "mfcc", "duration") for part in ("trained", "held_out", "all")
    ]
    # Of the six ordered pairs of groups, two are between trained groups and four are with yue. MFCC halve
    # those four. Durations also lose two sentences between hak and nan, and between nan and yue 2 + 3 words
    # differ (1, 2, 3, 4, 0 against 1, 0, 2, 3, 4): only s0 of the first five keeps its word, and the last
    # five.
    expected = {
        ("zipformer", "trained"): (100, None),
        ("zipformer", "held_out"): (100, None),
        ("zipformer", "all"): (100, None),
        ("mfcc", "trained"): (100, 0),
        ("mfcc", "held_out"): (50, 50),
        ("mfcc", "all"): ((2 * 100 + 4 * 50) / 6, 200 / 6),
        ("duration", "trained"): (80, 20),
        ("duration", "held_out"): ((2 * 50 + 2 * 60) / 4, 45),
        ("duration", "all"): ((2 * 80 + 2 * 50 + 2 * 60) / 6, 100 - 380 / 6),
    }
    for key, (recall, difference) in expected.items():
        assert found[key].recall_at_1 == pytest.approx(recall), key
        assert found[key].chance == pytest.approx(10)
        assert found[key].difference == (None if difference is None else pytest.approx(difference)), key
    for row in rows:
        summary = {line.name: line for line in tables[row.name].summary}[row.pairs]
        assert (row.low, row.high) == (summary.low, summary.high)


def test_intervals_of_differences_come_from_the_same_resamples(compared):
    outcomes, _, rows = compared
    row = next(row for row in rows if (row.name, row.pairs) == ("mfcc", "held_out"))
    draws = Resamples.draw("aabbcc", len(NAMES), resamples=200, seed=1)

    def recall(name):
        pairs = ["ac", "ca", "bc", "cb"]
        return np.mean([draws.recall(outcomes[name].hits, *pair) for pair in pairs], axis=0)

    low, high = difference_interval(
        row.difference / 100,
        recall("zipformer") - recall("mfcc"),
        factors=draws.factors,
        sentences=len(NAMES),
    )
    assert (row.difference_low, row.difference_high) == (pytest.approx(100 * low), pytest.approx(100 * high))
    assert 0 < row.difference_low < 50 < row.difference_high


def test_what_is_hard_for_both_does_not_widen_the_difference(tmp_path):
    stores = {name: store_of(tmp_path / name, {"yue": 5}) for name in ("zipformer", "mfcc")}
    rows = control_rows(*results_of(stores), resamples=100)
    same = next(row for row in rows if (row.name, row.pairs) == ("mfcc", "held_out"))
    assert same.high - same.low > 10
    reach = 100 * (1 - 0.025 ** (1 / 10))  # ten sentences that all agree
    assert same.difference == 0
    assert (same.difference_low, same.difference_high) == pytest.approx((-reach, reach))


def clear_store(directory, sentences=40, order=1):
    """Three sites in each of three groups that say the same words clearly, in this order of their store."""
    words = np.random.default_rng(0).standard_normal((sentences, 8))
    named = [(f"{n:02}", words[[n]]) for n in range(sentences)]
    sites = [(group, f"{group}{site}") for group in GROUPS for site in range(3)]
    return write_store(directory, {site: dict(named[::order]) for site in sites[::order]})


def test_permuted_recall_is_the_mean_of_draws(tmp_path):
    store = clear_store(tmp_path)
    outcome = retrieve(store, sites_of(store), permutations=20, seed=3)
    model = tabulate(replace(outcome, permuted=None), trained_groups=("hak", "nan"), resamples=50)
    assert all(row.recall_at_1 == 100 for row in model.pairs)
    table = permuted_table(model, outcome.permuted)
    pairs = {
        "trained": [("hak", "nan"), ("nan", "hak")],
        "held_out": [(a, b) for a, b in outcome.permuted if "yue" in (a, b)],
    }
    for name, of_part in pairs.items():
        draws = 100 * np.mean([outcome.permuted[pair][:, 0] for pair in of_part], axis=0)
        assert draws.shape == (20,)
        expected = scipy.stats.ttest_1samp(draws, 0).confidence_interval(0.95)
        (row,) = (row for row in table.summary if row.name == name)
        assert row.recall_at_1 == pytest.approx(draws.mean())
        assert (row.low, row.high) == pytest.approx((max(0, expected.low), expected.high))
        assert row.chance == pytest.approx(2.5)
    for row in table.pairs:
        assert row.recall_at_1 == pytest.approx(100 * outcome.permuted[row.source, row.target][:, 0].mean())


def test_permuted_recall_depends_on_the_seed_and_not_on_the_order_of_the_store(tmp_path):
    tables = []
    for name, order, seed in (("a", 1, 3), ("b", -1, 3), ("c", 1, 4)):
        store = clear_store(tmp_path / name, order=order)
        outcome = retrieve(store, sites_of(store), permutations=5, seed=seed)
        model = tabulate(replace(outcome, permuted=None), trained_groups=None, resamples=5)
        tables.append(permuted_table(model, outcome.permuted))
    assert tables[0] == tables[1]
    assert tables[0] != tables[2]


def test_intervals_of_permuted_recall_hold_chance_as_often_as_they_say(tmp_path):
    store = clear_store(tmp_path)
    outcome = retrieve(store, sites_of(store), permutations=1600, seed=0)
    draws = np.mean([values[:, 0] for values in outcome.permuted.values()], axis=0)
    intervals = [mean_of_draws(part, 0.95) for part in draws.reshape(80, 20)]
    held = sum(low <= 1 / 40 <= high for _, low, high in intervals)
    assert 70 <= held <= 80  # 76 +- 2 are expected
    # A single draw is often far from chance; the mean of twenty is not.
    assert np.abs(draws - 1 / 40).max() > 0.025
    assert max(abs(mean - 1 / 40) for mean, _, _ in intervals) < 0.01


def test_means_of_few_draws():
    assert mean_of_draws(np.zeros(20), 0.95) == (0, 0, pytest.approx(1 - 0.025 ** (1 / 20)))
    with pytest.raises(ValueError, match="1 draws give no interval; take permuted_draws=20"):
        mean_of_draws(np.zeros(1), 0.95)
    with pytest.raises(ValueError, match="permuted_draws=1 gives no interval"):
        ControlsConfig("m", "d", permuted_draws=1)


def test_the_difference_from_permuted_sentences_adds_both_intervals(tmp_path):
    store = clear_store(tmp_path)
    outcome = retrieve(store, sites_of(store), permutations=20)
    model = tabulate(replace(outcome, permuted=None), trained_groups=None, resamples=50)
    tables = {"zipformer": model, "permuted": permuted_table(model, outcome.permuted)}
    rows = control_rows({"zipformer": outcome}, tables, parse_controls(["permuted"]), resamples=50)
    ours, permuted = rows
    assert permuted.difference == pytest.approx(100 - permuted.recall_at_1)
    # The model hits everything: its own interval is the exact one, and reaches no higher than 100.
    below = np.hypot(100 - ours.low, permuted.high - permuted.recall_at_1)
    assert permuted.difference_low == pytest.approx(permuted.difference - below)
    assert permuted.difference_high == pytest.approx(100 - permuted.low)
    assert ours.low == pytest.approx(100 * 0.025 ** (1 / 40))


def test_duration_only_equals_the_nearest_duration(tmp_path):
    random = np.random.default_rng(0)
    sentences = random.integers(100, 400, 30)
    frames = {site: np.round(sentences * random.normal(1, 0.05, 30)).astype(int) for site in GROUPS}
    store = write_store(
        tmp_path,
        {
            (site, site): {
                f"{n:02}": DurationEmbedder().embed(torch.zeros(1, 1, 80), torch.tensor([length]))[0]
                for n, length in enumerate(lengths)
            }
            for site, lengths in frames.items()
        },
    )
    outcome = retrieve(store, sites_of(store))
    for a, source in enumerate(GROUPS):
        for b, target in enumerate(GROUPS):
            if a == b:
                continue
            differences = np.abs(np.log(frames[source])[:, None] - np.log(frames[target]))
            cosines = np.cos(np.pi * differences / np.log(100))
            best = cosines >= cosines.max(axis=1, keepdims=True) - 1e-6
            assert (best[np.arange(30), differences.argmin(axis=1)]).all()
            expected = np.where(np.diagonal(best), 1 / best.sum(axis=1), 0)
            assert outcome.recall(a, b) == pytest.approx(expected.mean(), abs=1e-6)
            assert outcome.recall(a, b) > 2 / 30  # lengths alone beat chance


def test_files_are_read_back(compared, tmp_path):
    _, tables, rows = compared
    folder = tmp_path / "results" / "data" / "controls-test"
    assert controls_section(tmp_path / "controls.json") is None
    header = {"settings": {"confidence": 0.9, "level": "subdialect"}}
    for _ in range(2):  # the second time replaces the first
        write_controls(folder, rows, tables, header)
    assert list(folder.parent.iterdir()) == [folder]
    read, found = read_controls(folder / "controls.json")
    assert read == rows
    assert found["settings"] == header["settings"]
    assert len(found["pairs"]["mfcc"]) == 6
    with (folder / "controls.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == [row.name for row in rows]
    section = controls_section(folder / "controls.json")
    assert [row.pairs for row in section.rows] == ["trained", "held_out"] * 3
    assert (section.confidence, section.level) == (0.9, "subdialect")


def test_malformed_files_are_named(tmp_path):
    path = tmp_path / "controls.json"
    for rows, message in (
        (None, "must be list"),
        ("rows", "must be list"),
        ([{"name": "mfcc"}], "row 1 has no"),
    ):
        path.write_text(json.dumps({"rows": rows}))
        with pytest.raises(MalformedResultError, match=rf"controls\.json: rows,? {message}"):
            read_controls(path)


def test_all_pairs_are_shown_where_nothing_is_held_out(tmp_path):
    stores = {name: store_of(tmp_path / name, {}) for name in ("zipformer", "mfcc")}
    rows = control_rows(*results_of(stores, trained=GROUPS), resamples=20)
    assert {row.pairs for row in rows} == {"trained", "all"}
    assert shown_parts(rows) == ["all"]
    rows = control_rows(*results_of(stores, trained=None), resamples=20)
    assert shown_parts(rows) == ["all"]
    view = control_table(rows, 0.95, "sentences")
    assert (view.row_count, view.caption) == (2, "intervals: over sentences")


def test_figure_has_a_point_a_row_and_chance(compared):
    _, _, rows = compared
    figure = control_dots(rows)
    (axes,) = figure.axes
    shown = [row for row in rows if row.pairs in shown_parts(rows)]
    points = [tuple(line.get_xydata()[0]) for line in (c.lines[0] for c in axes.containers)]
    assert sorted(x for x, _ in points) == sorted(row.recall_at_1 for row in shown)
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "model, SeqSim",
        "MFCC, SeqSim",
        "duration only",
    ]
    assert "chance, 10.0 %" in axes.get_title(loc="left")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "between trained groups",
        "with a held-out group",
    ]
