"""Comparison of variants: values by hand, resamples by brute force, and the tables."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dataset_files import results_of
from planted import directions, write_store

from retrieval.comparison.runs import ScoresConfig, retrieve_run
from retrieval.comparison.variant_tables import transfer_rows, variant_rows, variants_markdown, write_tables
from retrieval.comparison.variants import Errors, Run, VariantMeasures
from retrieval.protocol.sites import Duplicates, Level, Site
from retrieval.statistics.bootstrap import Factor, Resamples, components, recall_interval
from zipformer.scoring.intervals import bounded_error_interval, half_width

SENTENCES = ("1", "2", "3")
SITES = [
    Site(group, name, {sentence: f"{name}-{sentence}" for sentence in SENTENCES})
    for group, name in (("cmn", "beijing"), ("hak", "meixian"), ("yue", "canton"), ("yue", "macau"))
]


def run_of(name: str, *, trained: tuple[str, ...] = ("cmn", "yue"), seed: int = 0) -> Run:
    """Hits and errors drawn at random; not every site has every sentence."""
    random = np.random.default_rng(seed)
    hits = random.integers(0, 2, size=(4, 4, 3)).astype(float)
    hits[np.arange(4), np.arange(4)] = np.nan
    hits[0, 1, 2] = hits[1, 0, 2] = np.nan
    characters = random.integers(4, 9, size=(4, 3)).astype(float)
    return Run(name, SITES, SENTENCES, hits, trained, Errors(random.integers(0, 4, size=(4, 3)), characters))


def test_values_are_means_over_site_pairs_then_pairs_of_groups_then_runs() -> None:
    hits = np.full((4, 4, 3), np.nan)
    hits[0, 2], hits[0, 3] = [1, 0, 0], [1, 1, 1]  # cmn to yue: 1/3 and 1, mean 2/3
    hits[2, 0], hits[3, 0] = [0, 0, 0], [1, np.nan, 0]  # yue to cmn: 0 and 1/2, mean 1/4
    hits[2, 3] = hits[3, 2] = [1, 1, 0]
    hits[0, 1] = hits[1, 0] = [0.5, 0, 0]  # cmn and hak: 1/6
    first = Run("a", SITES, SENTENCES, hits, ["cmn", "yue"])
    second = Run("b", SITES, SENTENCES, np.where(np.isnan(hits), np.nan, 1.0), ["cmn", "yue"])
    comparison = VariantMeasures({"one": [first], "both": [first, second]})
    found = comparison.recall("one", comparison.pairs("one", "trained"))
    assert found is not None
    assert found.value == pytest.approx(100 * (2 / 3 + 1 / 4) / 2)
    found = comparison.recall("both", comparison.pairs("both", "trained"))
    assert found is not None
    assert found.runs == pytest.approx((100 * (2 / 3 + 1 / 4) / 2, 100))
    assert found.value == pytest.approx(sum(found.runs) / 2)
    held_out = comparison.recall("one", comparison.pairs("one", "held_out"))
    assert held_out is not None
    assert held_out.value == pytest.approx(100 / 6)  # the pairs of hak and yue were not asked
    within = comparison.recall("one", comparison.pairs("one", "within"))
    assert within is not None
    assert within.value == pytest.approx(200 / 3)
    assert comparison.recall("one", [("hak", "yue")]) is None


def test_error_rates_against_other_transcripts_have_no_difference() -> None:
    def run(name: str, transcripts: str) -> Run:
        drawn = run_of(name)
        assert drawn.errors is not None
        return replace(drawn, errors=replace(drawn.errors, transcripts=transcripts))

    variants = {"simplified": [run("a", "听")], "same": [run("b", "听")], "customary": [run("c", "聽")]}
    rows = {
        (row.variant, row.measure): row.difference
        for row in variant_rows(VariantMeasures(variants, resamples=20), "simplified")
    }
    assert rows["same", "cer_trained"] == 0
    assert rows["customary", "cer_trained"] is None
    assert rows["customary", "cer_held_out"] is None
    assert rows["customary", "recall_trained"] == 0


def test_sentences_that_no_two_sites_share_do_not_count_for_the_interval() -> None:
    hits = np.full((4, 4, 40), np.nan)
    hits[0, 2, :5] = hits[2, 0, :5] = 1
    run = Run("a", SITES, [str(n) for n in range(40)], hits, ["cmn", "yue"])
    comparison = VariantMeasures({"one": [run]}, resamples=100)
    found = comparison.recall("one", comparison.pairs("one", "trained"))
    assert found is not None
    assert (found.value, found.high) == (100, 100)
    assert found.low == pytest.approx(100 * 0.025 ** (1 / 5))


def test_resamples_are_those_of_a_double_loop() -> None:
    runs = [run_of("a", seed=1), run_of("b", seed=2)]
    comparison = VariantMeasures({"v": runs}, resamples=50, seed=7)
    found = comparison.recall("v", [("cmn", "yue"), ("yue", "hak")])
    rates = comparison.error_rate("v", ["hak", "yue"])
    assert found is not None
    assert rates is not None

    draws = Resamples.draw(["cmn", "hak", "yue", "yue"], 3, resamples=50, seed=7)
    drawn_runs = np.random.default_rng([7, 1]).multinomial(2, [0.5, 0.5], size=50)
    members = {"cmn": [0], "hak": [1], "yue": [2, 3]}
    for b in range(50):
        sentences, sites = draws.sentences[b], draws.sites[b]
        values, error_rates = [], []
        for run in runs:
            means = []
            for source, target in (("cmn", "yue"), ("yue", "hak")):
                total = weight = 0.0
                for i in members[source]:
                    for j in members[target]:
                        known = [q for q in range(3) if not np.isnan(run.hits[i, j, q])]
                        asked = sum(sentences[q] for q in known)
                        if asked:
                            copies = sites[i] * sites[j]
                            total += copies * sum(sentences[q] * run.hits[i, j, q] for q in known) / asked
                            weight += copies
                means.append(total / weight)
            values.append(np.mean(means))
            assert run.errors is not None
            weights = sites[1:, None] * sentences[None]
            error_rates.append(
                (weights * run.errors.errors[1:]).sum() / (weights * run.errors.characters[1:]).sum()
            )
        share = drawn_runs[b] / 2
        assert found.resamples[b] == pytest.approx(100 * share @ values)
        assert rates.resamples[b] == pytest.approx(100 * share @ error_rates)
    factors = (*draws.factors, Factor(drawn_runs))
    expected = recall_interval(found.value / 100, found.resamples / 100, factors=factors, sentences=3)
    assert (found.low, found.high) == pytest.approx((100 * expected[0], 100 * expected[1]))
    width = half_width(components(rates.resamples / 100, factors, 3))
    assert all(run.errors is not None for run in runs)
    worst = max(float((run.errors.errors / run.errors.characters)[1:].max()) for run in runs if run.errors)
    low, high = bounded_error_interval(rates.value / 100, width, worst=worst, sentences=3, confidence=0.95)
    assert (rates.low, rates.high) == pytest.approx((100 * low, 100 * high))


def test_equal_variants_differ_by_nothing_where_runs_are_drawn_together() -> None:
    runs = [run_of("a", seed=1), run_of("b", seed=2), run_of("c", seed=3)]
    for paired in (True, False):
        comparison = VariantMeasures({"x": runs, "y": runs}, paired=paired, resamples=200)
        pairs = comparison.pairs("x", "all")
        x, y = comparison.recall("x", pairs), comparison.recall("y", pairs)
        assert x is not None
        assert y is not None
        difference = comparison.difference(y, x)
        assert difference.value == 0
        resamples = y.resamples - x.resamples
        assert (np.ptp(resamples) < 1e-9) == paired
        if paired:  # three sentences that all agree
            reach = 100 * (1 - 0.025 ** (1 / 3))
            assert (difference.low, difference.high) == pytest.approx((-reach, reach))
        else:
            # The sites of yue, and the runs of either.
            assert [factor.units for factor in (*x.factors, *y.factors)] == [2, 3, 2, 3]
            width = half_width(components(resamples, tuple({*x.factors, *y.factors}), 3))
            assert (difference.low, difference.high) == pytest.approx((-width, width))


def test_interval_of_several_runs_has_their_spread() -> None:
    """Runs that hit all or nothing: sentences and sites do not matter, the draw of the runs does."""
    all_hit, none_hit = (
        Run(name, SITES, SENTENCES, np.where(np.eye(4, dtype=bool)[..., None], np.nan, value), ["cmn"])
        for name, value in (("a", np.ones(3)), ("b", np.zeros(3)))
    )
    comparison = VariantMeasures({"v": [all_hit, none_hit]}, resamples=2000)
    found = comparison.recall("v", comparison.pairs("v", "all"))
    assert found is not None
    # Two runs say next to nothing: the interval of Student's t with one degree of freedom.
    assert (found.value, found.low, found.high) == pytest.approx((50, 0, 100), abs=1e-3)
    assert set(np.round(found.resamples)) == {0, 50, 100}
    assert np.mean(found.resamples == 50) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("variants", "paired", "message"),
    [
        ({}, False, "nothing to compare"),
        ({"a": []}, False, "variant a has no run"),
        (
            {"a": [run_of("x")], "b": [Run("y", SITES, ("1", "2", "4"), np.zeros((4, 4, 3)), ["cmn"])]},
            False,
            "y and x were not asked the same",
        ),
        ({"a": [run_of("x"), run_of("y", trained=("cmn",))]}, False, "trained on different groups"),
        ({"a": [run_of("x")], "b": [run_of("x"), run_of("y")]}, True, "same models in all variants"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    variants: dict[str, list[Run]], paired: bool, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        VariantMeasures(variants, paired=paired)


def test_tables(tmp_path: Path) -> None:
    without = ("cmn",)
    comparison = VariantMeasures(
        {
            "all": [run_of("a", seed=1), run_of("b", seed=2)],
            "more": [run_of("c", seed=3)],
            "no yue": [run_of("d", seed=4, trained=without)],
        },
        resamples=100,
    )
    rows = variant_rows(comparison, "all")
    by_name = {(row.variant, row.measure): row for row in rows}
    assert by_name["all", "recall_trained"].difference is None
    more = by_name["more", "recall_trained"]
    assert more.difference == pytest.approx(more.value - by_name["all", "recall_trained"].value)
    assert more.runs == 1
    assert by_name["no yue", "recall_held_out"].difference is None  # of other pairs than the baseline's
    assert ("no yue", "recall_trained") not in by_name  # a single trained group has no pair
    assert by_name["all", "cer_held_out"].value > 0

    transfer = transfer_rows(comparison, "all", {"all": [], "more": [], "no yue": ["yue"]})
    assert [(row.source, row.target) for row in transfer] == [("yue", "cmn"), ("cmn", "yue")]
    expected = comparison.recall("no yue", [("yue", "cmn")])
    assert expected is not None
    assert transfer[0].value == expected.value
    assert transfer[0].difference == pytest.approx(transfer[0].value - transfer[0].trained)

    write_tables(tmp_path, rows, transfer, baseline="all", header={"note": "planted"})
    content = json.loads((tmp_path / "variants.json").read_text(encoding="utf-8"))
    assert (content["note"], content["baseline"], len(content["rows"])) == ("planted", "all", len(rows))
    with (tmp_path / "transfer.csv").open(encoding="utf-8", newline="") as file:
        assert [row["left_out"] for row in csv.DictReader(file)] == ["yue", "yue"]
    text = (tmp_path / "variants.md").read_text(encoding="utf-8")
    assert text.startswith(variants_markdown(rows, "all"))
    assert f"| more | 1 | {more.value:.1f} ({more.low:.1f} to {more.high:.1f}) |" in text
    assert f"| yue | {transfer[0].value:.1f} / {transfer[1].value:.1f} |" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "transfer.csv",
        "variants.csv",
        "variants.json",
        "variants.md",
    ]


def planted_model(folder: Path) -> Path:
    """Four sentences; Taishan says the first two with each other's words."""
    said = {"beijing": [0, 1, 2, 3], "canton": [0, 1, 2, 3], "taishan": [1, 0, 2, 3]}
    write_store(
        results_of(folder) / "embeddings-test",
        {
            ("cmn" if site == "beijing" else "yue", site): {
                str(n): directions([word], 4) for n, word in enumerate(words)
            }
            for site, words in said.items()
        },
        subdialects={"beijing": "cmn-beijing", "canton": "yue-canton", "taishan": "yue-taishan"},
    )
    (folder / "provenance.json").write_text('{"trained_dialects": ["yue"]}')
    return folder


def recalls(run: Run) -> dict[tuple[str, str], float]:
    comparison = VariantMeasures({"one": [run]}, resamples=10)
    found = {pair: comparison.recall("one", [pair]) for pair in comparison.pairs("one", "all")}
    return {pair: estimate.value for pair, estimate in found.items() if estimate is not None}


def test_runs_by_variety_and_of_chosen_groups_do_not_share_what_is_kept(tmp_path: Path) -> None:
    model = planted_model(tmp_path)
    by_variety = {
        ("cmn-beijing", "yue-canton"): 100,
        ("cmn-beijing", "yue-taishan"): 50,
        ("yue-canton", "cmn-beijing"): 100,
        ("yue-canton", "yue-taishan"): 50,
        ("yue-taishan", "cmn-beijing"): 50,
        ("yue-taishan", "yue-canton"): 50,
    }
    for _ in range(2):  # made, then read where nothing else has taken its place
        assert recalls(retrieve_run(model, "test")) == {("cmn", "yue"): 75, ("yue", "cmn"): 75}
        run = retrieve_run(model, "test", level=Level.subdialect)
        assert recalls(run) == by_variety
        assert run.trained_groups == ["yue-canton", "yue-taishan"]
        chosen = ["yue-taishan", "cmn-beijing"]
        run = retrieve_run(model, "test", level=Level.subdialect, groups=chosen)
        assert [site.group for site in run.sites] == chosen
        assert recalls(run) == {pair: by_variety[pair] for pair in (tuple(chosen), tuple(chosen[::-1]))}


def test_a_sentence_that_a_site_has_twice_can_be_left_out(tmp_path: Path) -> None:
    model = planted_model(tmp_path)
    index = model / "results" / "data" / "embeddings-test" / "index.tsv"
    index.write_text(index.read_text().replace("\ttaishan\t", "\tcanton\t"))
    with pytest.raises(ValueError, match="set duplicates=first"):
        retrieve_run(model, "test")
    run = retrieve_run(model, "test", duplicates=Duplicates.first)
    assert recalls(run) == {("cmn", "yue"): 100, ("yue", "cmn"): 100}


def test_one_model_is_not_two_runs(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "model")
    for again in ("model", "other/../model", "link"):
        with pytest.raises(ValueError, match=rf"model_dirs names {tmp_path}/model twice"):
            ScoresConfig([f"{tmp_path}/model", f"{tmp_path}/b", f"{tmp_path}/{again}"], "out")


def model_with(folder: Path, second_of_yue: tuple[str, ...]) -> Path:
    """A model directory whose second site of yue has only these sentences."""
    words = {sentence: directions([n], 3) for n, sentence in enumerate(SENTENCES)}
    stored = {
        ("cmn", "beijing"): words,
        ("yue", "canton"): {sentence: words[sentence] for sentence in SENTENCES[:2]},
        ("yue", "macau"): {sentence: words[sentence] for sentence in second_of_yue},
    }
    write_store(results_of(folder) / "embeddings-test", stored)
    (folder / "provenance.json").write_text('{"trained_dialects": ["cmn", "yue"]}')
    return folder


def test_groups_whose_sites_share_too_little_are_not_asked_within(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_with(tmp_path / "a", ("2", "3"))
    for _ in range(2):  # the second time from the file
        run = retrieve_run(model, "test")
        assert np.nansum(run.hits[0]) == 4
        assert np.isnan(run.hits[1, 2]).all()
        assert "yue/canton and yue/macau share 1 sentences: no recall within groups" in caplog.text
        caplog.clear()
    whole = retrieve_run(model_with(tmp_path / "b", ("1", "2", "3")), "test")
    assert np.nansum(whole.hits[1, 2]) == 2
    assert not caplog.text
    with pytest.raises(ValueError, match=r"1 of 2 pairs of sites .*: cmn/beijing and yue/macau share 1"):
        retrieve_run(model_with(tmp_path / "c", ("3",)), "test")
