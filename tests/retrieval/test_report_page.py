import csv
import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from result_files import write_json, write_results

from retrieval.comparison import Comparison, DifferenceRow, write_comparison
from retrieval.controls import ControlRow, write_controls
from retrieval.report import collect, render, write_report
from retrieval.results import MalformedResultError
from retrieval.statistics.ranks import METRICS

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags are closed in order; collects text, sources and tags."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.sources, self.tags = [], "", [], set()
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return write_results(tmp_path_factory.mktemp("report"), sites=2, sentences=20)


def squeezed(text):
    return re.sub(r"\s+", " ", text)


def test_page_holds_the_numbers(model_dir):
    report = collect(model_dir, "test")
    page = Page(render(report))
    text, cells = squeezed(page.text), re.sub(r"\s", "", page.text)
    for row in report.recall.table.pairs:
        assert f"{row.recall_at_1:.1f}{row.low:.1f}–{row.high:.1f}" in cells
    for row in [row for result in report.decodings for row in result.rows]:
        assert (
            f"{row.cer:.1f}{row.low:.1f}–{row.high:.1f}{row.substitutions}{row.deletions}{row.insertions}"
            f"{row.reference_characters}{row.utterances}"
        ) in cells
    trained = next(row for row in report.recall.table.summary if row.name == "trained")
    assert f"{trained.recall_at_1:.1f} %" in text
    assert f"chance {trained.chance:.1f} %" in text
    assert "recall@1 of sound alone: MFCC, SeqSim" in text
    assert "not trained on: gan." in text
    assert "interval over sentences and sites." in text
    assert "0123abcd" in text
    assert "torch" in text


def test_all_metrics_and_hubs_are_shown(model_dir):
    report = collect(model_dir, "test")
    cells = re.sub(r"\s", "", Page(render(report)).text)
    for row in report.recall.table.metrics:
        if row.part in ("trained", "held_out", "all", "within"):
            assert f"{row.value:.1f}{row.low:.1f}–{row.high:.1f}" in cells
            assert f"{row.pooled:.1f}{row.pooled_low:.1f}–{row.pooled_high:.1f}" in cells
    for hub in report.recall.table.hubness:
        if hub.part == "all":
            numbers = (hub.largest_hub, hub.antihubs, hub.antihubs_chance)
            assert f"{hub.k}{hub.skewness:.2f}" + "".join(f"{x:.1f}" for x in numbers) in cells
    assert "abovechance" not in cells  # there was no test


def test_the_page_says_what_intervals_are_over(model_dir, tmp_path):
    shutil.copytree(model_dir, tmp_path / "averaged")
    results = tmp_path / "averaged" / "results"
    content = json.loads((results / "retrieval-test" / "recall.json").read_text())
    write_json(results / "retrieval-test" / "recall.json", content | {"single_site_groups": ["gan", "yue"]})
    rows = [ControlRow("permuted", "model, sentences permuted", "all", 2.0, 1.9, 2.1, 2.0, 80.0, 75.0, 85.0)]
    header = {
        "settings": {"permuted_draws": 20},
        "groups": content["groups"],
        "single_site_groups": content["groups"],
    }
    write_controls(results / "controls-test", rows, {}, header)
    table = collect(model_dir, "test").recall.table
    differences = [DifferenceRow("a", "b", "all", "", "", metric, 1, 0, 2, 0.1, 0.1) for metric in METRICS]
    metrics = {"a": table.metrics, "b": table.metrics}
    compared = Comparison(["a", "b"], table.groups, metrics, differences, ["gan"])
    (results / "comparison-test").mkdir()
    write_comparison(results / "comparison-test", compared, [], {})
    text = squeezed(Page(render(collect(tmp_path / "averaged", "test"))).text)
    assert "interval over sentences and sites; sites cannot vary for gan, yue (one each)." in text
    assert "%, over sentences; sites cannot vary, since every group has one only; that of" in text
    assert "permuted sentences: over the 20 draws that their recall is the mean of" in text
    assert "are over sentences and sites; sites cannot vary for gan (one each). p is" in text


def test_p_values_of_the_means_are_shown(model_dir, tmp_path):
    content = json.loads((model_dir / "results" / "retrieval-test" / "recall.json").read_text())
    means = [row for row in content["metrics"] if row["part"] == "all"]
    for number, row in enumerate(means, start=1):
        row["p"] = number / 2000
    folder = tmp_path / "averaged" / "results" / "retrieval-test"
    folder.mkdir(parents=True)
    write_json(folder / "recall.json", content)
    cells = re.sub(r"\s", "", Page(render(collect(tmp_path / "averaged", "test"))).text)
    assert cells.count("pofthemean") == 1  # the other means were not tested
    assert "pofthemean0.00050.0010.00150.0020.0025" in cells


def test_results_without_metrics_have_no_section(model_dir, tmp_path):
    content = json.loads((model_dir / "results" / "retrieval-test" / "recall.json").read_text())
    for key in ("metrics", "hubness"):
        content.pop(key)
    folder = tmp_path / "averaged" / "results" / "retrieval-test"
    folder.mkdir(parents=True)
    write_json(folder / "recall.json", content)
    page = Page(render(collect(tmp_path / "averaged", "test")))
    assert "All metrics" not in page.text
    assert "Models side by side" not in page.text


def test_models_side_by_side_are_shown(model_dir, tmp_path):
    shutil.copytree(model_dir, tmp_path / "averaged")
    table = collect(model_dir, "test").recall.table
    rows = [DifferenceRow("a", "b", "all", "", "", metric, 1.25, -0.5, 3.0, 0.04, 0.08) for metric in METRICS]
    metrics = {"a": table.metrics, "b": table.metrics}
    folder = tmp_path / "averaged" / "results" / "comparison-test"
    folder.mkdir()
    write_comparison(folder, Comparison(["a", "b"], table.groups, metrics, rows), [], {})
    page = Page(render(collect(tmp_path / "averaged", "test")))
    assert "Models side by side" in page.text
    assert "a - b" in page.text
    assert page.text.count("p 0.08") == len(METRICS)
    assert len(page.sources) == 3  # error rates, recall and the comparison
    (folder / "comparison.json").write_text('{"groups": []}')
    with pytest.raises(MalformedResultError, match=r"metrics must be dict.*scripts/compare\.py"):
        collect(tmp_path / "averaged", "test")


def test_page_is_self_contained(model_dir):
    html = render(collect(model_dir, "test"))
    page = Page(html)
    assert "script" not in page.tags
    assert len(page.sources) == 3
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.sources)
    assert not re.search(r"url\(|@import|https?://", re.sub(r'src="[^"]*"', "", html))


def test_transcripts_are_escaped_and_differences_marked(model_dir):
    html = render(collect(model_dir, "test"))
    assert "<mark>汽</mark>" in html
    assert "<mark>&lt;</mark>" in html
    assert "今日天" in Page(html).text


def test_headline_is_the_mean_over_trained_dialects(model_dir):
    report = collect(model_dir, "test")
    assert [result.method for result in report.decodings] == ["beam", "greedy"]
    rows = [row for row in report.decodings[0].level("dialect") if row.name != "gan"]
    mean = sum(row.cer for row in rows) / len(rows)
    text = squeezed(Page(render(report)).text)
    assert f"mean CER of trained dialects{mean:.1f} %" in text
    assert "CER of gan, held out" in text


def test_files_beside_the_page_hold_the_same_numbers(model_dir, tmp_path):
    report = collect(model_dir, "test")
    page = write_report(report, tmp_path / "report")
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    with (tmp_path / "report" / "cer.csv").open() as file:
        rates = {
            (line["method"], line["level"], line["name"]): float(line["cer"]) for line in csv.DictReader(file)
        }
    assert len(rates) == 2 * 15
    assert rates["beam", "dialect", "yue"] == pytest.approx(report.decodings[0].level("dialect")[-1].cer)
    with (tmp_path / "report" / "recall.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [sum(line["embedder"] == name for line in lines) for name in ("zipformer", "mfcc")] == [49, 49]
    content = json.loads((tmp_path / "report" / "results.json").read_text())
    assert content["recall"][0]["pairs"][0]["recall_at_1"] == report.recall.table.pairs[0].recall_at_1
    assert content["cer"][1]["rows"][0]["cer"] == report.decodings[1].rows[0].cer


def test_the_model_stands_beside_its_controls(tmp_path):
    model_dir = tmp_path / "averaged"
    rows = [
        ControlRow(name, label, "all", recall, recall - 5, recall + 6, 2.0, *difference)
        for name, label, recall, difference in (
            ("zipformer", "model, SeqSim", 83.1, (None, None, None)),
            ("mfcc-dtw", "MFCC, DTW", 31.7, (51.4, 44.2, 58.6)),
        )
    ]
    header = {"settings": {"confidence": 0.9}, "embeddings": {"zipformer": {"weights": None}}}
    write_controls(model_dir / "results" / "controls-test", rows, {}, header)
    page = Page(render(collect(model_dir, "test")))
    # As earlier versions wrote it: nothing of single sites, and one draw of permuted sentences.
    assert "90 %, over sentences, and over sites where a group has several" in squeezed(page.text)
    assert "the mean of" not in page.text
    cells = re.sub(r"\s", "", page.text)
    assert "model,SeqSimallpairsofgroups83.178.1–89.12.0" in cells
    assert "MFCC,DTWallpairsofgroups31.726.7–37.72.051.444.2–58.6" in cells
    assert "scripts/controls.py" not in page.text
    assert sum(source.startswith("data:image/svg") for source in page.sources) == 1


def test_the_card_shows_the_strongest_control_of_sound(model_dir, tmp_path):
    shutil.copytree(model_dir, tmp_path / "averaged")
    folder = tmp_path / "averaged" / "results" / "controls-test"
    (weak,) = (row for row in collect(model_dir, "test").control.table.summary if row.name == "all")

    def text_with(**recalls):
        rows = [
            ControlRow(name, name.upper(), "all", recall, recall - 5, recall + 6, 2.0, 1.0, 0.0, 2.0)
            for name, recall in recalls.items()
        ]
        write_controls(folder, rows, {}, {"settings": {}})
        return squeezed(Page(render(collect(tmp_path / "averaged", "test"))).text)

    # Neither the model nor an encoder that was trained on speech is sound alone.
    text = text_with(**{"zipformer": 99.0, "speech_embedding-dtw": 98.0, "mfcc-dtw": 97.3, "fbank-dtw": 96.0})
    assert "recall@1 of sound alone: MFCC-DTW97.3 %92.3 to 103.3; chance 2.0 %" in text
    assert text.count("of sound alone") == 1
    text = text_with(zipformer=99.0, fbank=0.5)
    assert f"recall@1 of sound alone: MFCC, SeqSim{weak.recall_at_1:.1f} %" in text


def test_missing_inputs_say_which_command_makes_them(tmp_path):
    model_dir = tmp_path / "averaged"
    model_dir.mkdir()
    text = squeezed(Page(render(collect(model_dir, "test"))).text)
    for script in ("decode", "embed", "retrieve", "controls", "train", "average"):
        assert f"scripts/{script}.py" in text
    write_report(collect(model_dir, "test"), tmp_path / "report")
    assert json.loads((tmp_path / "report" / "results.json").read_text())["cer"] == []


def test_unknown_training_dialects(model_dir, tmp_path):
    report = collect(write_results(tmp_path, sites=1, sentences=4, methods=("ctc",)), "test")
    assert report.trained_groups
    write_json(tmp_path / "averaged" / "provenance.json", {"git_revision": "0123abcd"})
    text = squeezed(Page(render(collect(tmp_path / "averaged", "test"))).text)
    assert "mean CER of dialects" in text


def test_malformed_input_is_an_error(tmp_path):
    model_dir = write_results(tmp_path, sites=1, sentences=4, methods=("greedy",))
    (model_dir / "results" / "retrieval-test" / "recall.json").write_text("{")
    with pytest.raises(MalformedResultError, match=r"retrieval-test/recall\.json: not JSON"):
        collect(model_dir, "test")


def test_no_model_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model directory .*scripts/average\.py"):
        collect(tmp_path / "none", "test")
