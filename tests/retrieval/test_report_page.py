import csv
import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from dataset_files import DATA, results_of
from result_files import write_decoding, write_json, write_results

from retrieval.comparison.controls import ControlRow, write_controls
from retrieval.comparison.models import Comparison, DifferenceRow, write_comparison
from retrieval.report.page import collect, render, write_report
from retrieval.statistics.ranks import METRICS
from zipformer.errors import UserError
from zipformer.typed_json import MalformedResultError

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags are closed in order; collects text, tags, figures, links and ids."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.tags = [], "", set()
        self.figures, self.links, self.ids = [], [], set()
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.figures += [value for name, value in attributes if name == "src"]
        self.links += [value for name, value in attributes if name == "href"]
        self.ids |= {value for name, value in attributes if name == "id"}
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
    assert "recall@1 between trained groups by sound alone: MFCC, SeqSim" in text
    assert "not trained on: gan." in text
    assert "interval over sentences and sites." in text
    assert "0123abcd" in text
    assert "torch" in text


def test_all_metrics_are_shown(model_dir):
    report = collect(model_dir, "test")
    cells = re.sub(r"\s", "", Page(render(report)).text)
    for row in report.recall.table.metrics:
        if row.part in ("trained", "held_out", "all", "within"):
            assert f"{row.value:.1f}{row.low:.1f}–{row.high:.1f}" in cells
            assert f"{row.pooled:.1f}{row.pooled_low:.1f}–{row.pooled_high:.1f}" in cells
    assert "abovechance" not in cells  # there was no test


def test_the_page_says_what_intervals_are_over(model_dir, tmp_path):
    shutil.copytree(model_dir, tmp_path / "averaged")
    results = tmp_path / "averaged" / "results" / "data"
    content = json.loads((results / "retrieval-test" / "recall.json").read_text())
    write_json(results / "retrieval-test" / "recall.json", content | {"single_site_groups": ["gan", "yue"]})
    rows = [ControlRow("permuted", "model, sentences permuted", "all", 2.0, 1.9, 2.1, 2.0, 80.0, 75.0, 85.0)]
    header = {
        "settings": {"permuted_draws": 20},
        "groups": content["groups"],
        "single_site_groups": content["groups"],
        "embeddings": {"zipformer": {"weights": None, "dataset": DATA.record()}},
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
    content = json.loads((model_dir / "results" / "data" / "retrieval-test" / "recall.json").read_text())
    means = [row for row in content["metrics"] if row["part"] == "all"]
    for number, row in enumerate(means, start=1):
        row["p"] = number / 2000
    folder = results_of(tmp_path / "averaged") / "retrieval-test"
    folder.mkdir()
    write_json(folder / "recall.json", content)
    cells = re.sub(r"\s", "", Page(render(collect(tmp_path / "averaged", "test"))).text)
    assert cells.count("pofthemean") == 1  # the other means were not tested
    assert "pofthemean0.00050.0010.00150.0020.0025" in cells


def test_results_without_metrics_have_no_section(model_dir, tmp_path):
    content = json.loads((model_dir / "results" / "data" / "retrieval-test" / "recall.json").read_text())
    content["metrics"] = []
    folder = results_of(tmp_path / "averaged") / "retrieval-test"
    folder.mkdir()
    write_json(folder / "recall.json", content)
    page = Page(render(collect(tmp_path / "averaged", "test")))
    assert "All metrics" not in page.text
    assert "Models side by side" not in page.text


def test_models_side_by_side_are_shown(model_dir, tmp_path):
    shutil.copytree(model_dir, tmp_path / "averaged")
    table = collect(model_dir, "test").recall.table
    rows = [DifferenceRow("a", "b", "all", "", "", metric, 1.25, -0.5, 3.0, 0.04, 0.08) for metric in METRICS]
    metrics = {"a": table.metrics, "b": table.metrics}
    folder = tmp_path / "averaged" / "results" / "data" / "comparison-test"
    folder.mkdir()
    write_comparison(folder, Comparison(["a", "b"], table.groups, metrics, rows), [], {})
    page = Page(render(collect(tmp_path / "averaged", "test")))
    assert "Models side by side" in page.text
    assert "a - b" in page.text
    assert page.text.count("p 0.08") == len(METRICS)
    assert len(page.figures) == 3  # error rates, recall and the comparison
    (folder / "comparison.json").write_text('{"groups": []}')
    with pytest.raises(MalformedResultError, match=r"metrics must be dict.*fangyan compare"):
        collect(tmp_path / "averaged", "test")


def test_page_is_self_contained(model_dir):
    html = render(collect(model_dir, "test"))
    page = Page(html)
    assert "script" not in page.tags
    assert len(page.figures) == 3
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.figures)
    assert page.links
    assert all(link.removeprefix("#") in page.ids for link in page.links)
    assert not re.search(r"url\(|@import|https?://", re.sub(r'src="[^"]*"', "", html))


def test_transcripts_are_escaped_and_differences_marked(model_dir):
    html = render(collect(model_dir, "test"))
    assert "<mark>汽</mark>" in html
    assert "<mark>&lt;</mark>" in html
    assert "今日天" in Page(html).text


def test_headline_is_the_mean_over_trained_dialects(model_dir):
    report = collect(model_dir, "test")
    (beam,) = report.shown
    assert beam.method == "beam"  # both are of the transducer
    rows = [row for row in beam.level("dialect") if row.name != "gan"]
    mean = sum(row.cer for row in rows) / len(rows)
    text = squeezed(Page(render(report)).text)
    assert f"mean CER of trained dialects{mean:.1f} %transducer, beam search; worst" in text
    assert "CER of gan, held out" in text
    assert "Decoding: transducer, beam search, which looks further than greedy search." in text


def with_validation(model_dir, folder, rates):
    """A copy with results of CTC, and with these rates in the last validation of the training."""
    shutil.copytree(model_dir.parent, folder)
    copied = folder / "averaged"
    write_decoding(copied / "results" / "data" / "decode-test-ctc", "ctc", better=-5)  # worse on the test set
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        line = {"kind": "valid", "step": 600, "epoch": 6}
        line |= {key: {"overall": 0.0, "gan": 0.0, "yue": rate} for key, rate in rates.items()}
        file.write(json.dumps(line) + "\n")
    return copied


def test_headline_method_is_chosen_on_validation_data(model_dir, tmp_path):
    copied = with_validation(model_dir, tmp_path / "exp", {"cer": 8.0, "cer_ctc": 5.25})
    report = collect(copied, "test")
    assert report.headline.method == "ctc"
    text = squeezed(Page(render(report)).text)
    assert (
        "Decoding: CTC. Its head has the lowest mean CER over trained dialects in the last validation" in text
    )
    assert "step 600 without averaging: transducer, greedy search 8.0 %, CTC 5.2 %." in text
    assert "All dialects together, decoding: CTC." in text
    write_report(report, tmp_path / "report")
    written = json.loads((tmp_path / "report" / "results.json").read_text())
    assert written["headline"] == {"method": "ctc", "rule": report.headline.rule}


def test_without_validation_all_methods_are_headlines(model_dir, tmp_path):
    copied = with_validation(model_dir, tmp_path / "exp", {"cer": 8.0})
    report = collect(copied, "test")
    assert report.headline.method is None
    text = squeezed(Page(render(report)).text)
    assert text.count("mean CER of trained dialects") == 3
    assert "Decoding: no validation results say which method to prefer" in text
    for name in ("CTC", "transducer, greedy search", "transducer, beam search"):
        assert f"All dialects together, decoding: {name}" in text
    drawn = re.findall(r"yue-\d", Page(render(report)).text)
    assert len(drawn) == 3 * 3
    assert len(set(drawn)) == 3


def test_codes_are_spelt_out(model_dir):
    text = squeezed(Page(render(collect(model_dir, "test"))).text)
    assert "nan Southern Min (闽南语)" in text
    assert "wuu Wu (吴语)" in text


def test_the_record_of_the_training_is_folded(model_dir):
    html = render(collect(model_dir, "test"))
    assert re.search(r"<details><summary>Record of the training: code 0123abcd</summary><pre>", html)


def test_doubtful_cells_are_marked_in_the_table_too(model_dir, tmp_path):
    shutil.copytree(model_dir, tmp_path / "averaged")
    file = tmp_path / "averaged" / "results" / "data" / "retrieval-test" / "recall.json"
    content = json.loads(file.read_text())
    for row in content["metrics"]:
        if (row["part"], row["metric"], row["source"], row["target"]) == ("pair", METRICS[0], "gan", "yue"):
            row["p"] = row["p_holm"] = 0.5
            value = f"{row['value']:.1f}"
    write_json(file, content)
    text = re.sub(r"\s", "", Page(render(collect(tmp_path / "averaged", "test"))).text)
    assert f"{value}?" in text
    assert text.count("?") == 2  # in the cell and in the caption
    assert "small:95%interval" in text


class Tables(HTMLParser):
    """Rows of all tables, as lists of the texts of their cells without space."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.inside = [], False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.inside = True
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += "".join(data.split())


def test_page_csv_and_json_hold_the_same_numbers(model_dir, tmp_path):
    report = collect(model_dir, "test")
    page = write_report(report, tmp_path / "report")
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    shown = [row[1:] for row in Tables(page.read_text(encoding="utf-8")).rows if row]
    content = json.loads((tmp_path / "report" / "results.json").read_text())

    def written(name):
        with (tmp_path / "report" / name).open(encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def as_text(row):
        return {key: "" if value is None else str(value) for key, value in row.items()}

    rates = [{"method": found["method"], **row} for found in content["cer"] for row in found["rows"]]
    assert written("cer.csv") == [as_text(row) for row in rates]
    assert len(rates) == 2 * 15
    counts = ("substitutions", "deletions", "insertions", "reference_characters", "utterances")
    for row in rates:
        interval = f"{row['low']:.1f}–{row['high']:.1f}"
        assert [f"{row['cer']:.1f}", interval, *(str(row[key]) for key in counts)] in shown

    recalls = [
        {"embedder": found["embedder"], **row}
        for found in content["recall"]
        for row in found["pairs"] + found["within"]
    ]
    assert written("recall.csv") == [as_text(row) for row in recalls]
    assert len(recalls) == 2 * 49
    groups = content["recall"][0]["groups"]
    matrix = [["–"] * len(groups) for _ in groups]
    for row in content["recall"][0]["pairs"]:
        cell = f"{row['recall_at_1']:.1f}{row['low']:.1f}–{row['high']:.1f}"
        matrix[groups.index(row["source"])][groups.index(row["target"])] = cell
    assert all(cells in shown for cells in matrix)
    for found in content["recall"]:
        for row in found["summary"]:
            interval = f"{row['low']:.1f}–{row['high']:.1f}"
            cells = [str(row["pairs"]), f"{row['recall_at_1']:.1f}", interval, f"{row['chance']:.1f}"]
            assert cells in shown


def test_the_model_stands_beside_its_controls(tmp_path):
    model_dir = tmp_path / "averaged"
    rows = [
        ControlRow(name, label, "all", recall, recall - 5, recall + 6, 2.0, *difference)
        for name, label, recall, difference in (
            ("zipformer", "model, SeqSim", 83.1, (None, None, None)),
            ("mfcc-dtw", "MFCC, DTW", 31.7, (51.4, 44.2, 58.6)),
        )
    ]
    embeddings = {"zipformer": {"weights": None, "dataset": DATA.record()}}
    header = {"settings": {"confidence": 0.9}, "embeddings": embeddings}
    write_controls(results_of(model_dir) / "controls-test", rows, {}, header)
    page = Page(render(collect(model_dir, "test")))
    # As earlier versions wrote it: nothing of single sites, and one draw of permuted sentences.
    assert "90 %, over sentences, and over sites where a group has several" in squeezed(page.text)
    assert "the mean of" not in page.text
    cells = re.sub(r"\s", "", page.text)
    assert "model,SeqSimallpairsofgroups83.178.1–89.12.0" in cells
    assert "MFCC,DTWallpairsofgroups31.726.7–37.72.051.444.2–58.6" in cells
    assert "fangyan controls" not in page.text
    assert sum(source.startswith("data:image/svg") for source in page.figures) == 1


def test_the_card_shows_the_strongest_control_of_sound_over_the_same_pairs(model_dir, tmp_path):
    shutil.copytree(model_dir, tmp_path / "averaged")
    folder = tmp_path / "averaged" / "results" / "data" / "controls-test"
    summary = collect(model_dir, "test").control.table.summary
    weak = next(row for row in summary if row.name == "trained")

    def text_with(recalls, **header):
        rows = [
            ControlRow(name, name.upper(), part, recall, recall - 5, recall + 6, 2.0, 1.0, 0.0, 2.0)
            for name, of_parts in recalls.items()
            for part, recall in of_parts.items()
        ]
        embeddings = {"zipformer": {"weights": None, "dataset": DATA.record()}}
        write_controls(folder, rows, {}, {"settings": {}, "embeddings": embeddings} | header)
        return squeezed(Page(render(collect(tmp_path / "averaged", "test"))).text)

    # Neither the model nor an encoder that was trained on speech is sound alone.
    recalls = {
        "zipformer": {"all": 99.0, "trained": 99.0},
        "speech_embedding-dtw": {"all": 98.0, "trained": 98.0},
        "mfcc-dtw": {"all": 97.3, "trained": 50.0},
        "fbank-dtw": {"all": 96.0, "trained": 51.0},
    }
    text = text_with(recalls)
    title = "recall@1 between trained groups by sound alone: "
    assert f"{title}FBANK-DTW51.0 %46.0 to 57.0; chance 2.0 %" in text
    assert text.count("sound alone") == 1
    other = text_with(recalls, groups=["cmn", "yue"])  # over other pairs: not to be held against the model
    assert f"{title}MFCC, SeqSim{weak.recall_at_1:.1f} %" in other
    text = text_with({"zipformer": {"all": 99.0, "trained": 99.0}, "fbank": {"all": 9.0, "trained": 0.5}})
    assert f"{title}MFCC, SeqSim{weak.recall_at_1:.1f} %" in text


def test_missing_inputs_say_which_command_makes_them(tmp_path):
    model_dir = tmp_path / "averaged"
    model_dir.mkdir()
    text = squeezed(Page(render(collect(model_dir, "test"))).text)
    for script in ("decode", "embed", "retrieve", "controls", "train", "average"):
        assert f"fangyan {script}" in text
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
    (model_dir / "results" / "data" / "retrieval-test" / "recall.json").write_text("{")
    with pytest.raises(MalformedResultError, match=r"retrieval-test/recall\.json: not JSON"):
        collect(model_dir, "test")


def test_no_model_directory(tmp_path):
    with pytest.raises(UserError, match=r"no model directory .*fangyan average"):
        collect(tmp_path / "none", "test")


def test_the_scoring_convention_is_shown_where_it_is_not_plain(tmp_path):
    model_dir = write_results(tmp_path, sites=1, sentences=4, methods=("ctc", "greedy"))
    page = render(collect(model_dir, "test"), samples=0)
    assert "scored as" not in page
    path = model_dir / "results/data/decode-test-ctc/cer.json"
    write_json(path, json.loads(path.read_text()) | {"scoring": "mer"})
    report = collect(model_dir, "test")
    page = render(report, samples=0)
    assert re.search(r"<caption>Decoding: .*CTC.*, scored as mer\. Intervals", page)
    assert '<th scope="col">MER %</th>' in page
    (warning,) = (text for text in report.warnings if "cannot be compared" in text)
    assert "(ctc: mer, greedy: plain)" in warning
