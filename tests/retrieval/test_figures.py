import base64
import json
import math
import xml.etree.ElementTree as ElementTree

import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from result_files import GROUPS, recall_table, write_decoding, write_metrics

from retrieval.figures.style import save_png, svg_data_uri
from retrieval.protocol.figure import recall_heat_map
from retrieval.report.figures import cer_bars, training_curves
from retrieval.results.decodings import read_decodings
from retrieval.results.training import read_metrics


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return recall_table(tmp_path_factory.mktemp("figure") / "store", sites=2, sentences=12, noise=1.5)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_heat_map_has_every_value_with_its_interval(table):
    axes = recall_heat_map(table).axes[0]
    shown = texts(axes)
    for row in table.pairs:
        assert f"{row.recall_at_1:.1f}" in shown
        assert f"{row.low:.0f}–{row.high:.0f}" in shown
    assert len(shown) == 2 * len(table.pairs)
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["cmn", "gan*"]
    assert "recall@1 (%)" in axes.get_title()
    assert "not trained on" in axes.get_xlabel()


def test_source_is_the_row_and_target_the_column(table):
    axes = recall_heat_map(table).axes[0]
    row = next(row for row in table.pairs if (row.source, row.target) == ("gan", "yue"))
    number = next(
        text
        for text in axes.texts
        if text.get_text() == f"{row.recall_at_1:.1f}" and text.get_position()[0] == 6
    )
    assert round(number.get_position()[1]) == 1
    assert axes.images[0].get_array()[1, 6] == pytest.approx(row.recall_at_1)


def test_numbers_can_be_read_on_their_cells(table):
    axes = recall_heat_map(table).axes[0]
    image = axes.images[0]
    for text in axes.texts:
        x, y = (round(value) for value in text.get_position())
        cell = sum(image.cmap(image.norm(table.matrix()[y, x]))[:3])
        assert abs(cell - sum(to_rgb(text.get_color()))) > 1.0  # of 3 between black and white


def test_error_rate_bars(tmp_path):
    for number, method in enumerate(("greedy", "ctc")):
        write_decoding(tmp_path / f"decode-test-{method}", method, better=number)
    results = read_decodings(tmp_path, "test")
    axes = cer_bars(results, held_out=["gan"]).axes[0]
    heights = sorted(patch.get_height() for patch in axes.patches)
    assert heights == pytest.approx(sorted(row.cer for result in results for row in result.level("dialect")))
    assert [label.get_text() for label in axes.get_xticklabels()][1] == "gan*"
    assert axes.get_ylabel() == "CER (%)"


def test_error_rates_without_reference_characters_leave_a_gap(tmp_path):
    write_decoding(tmp_path / "decode-test-greedy", "greedy")
    path = tmp_path / "decode-test-greedy" / "cer.json"
    content = json.loads(path.read_text())
    row = next(row for row in content["rows"] if row["name"] == "mandarin")
    row.update(cer=None, low=None, high=None)
    path.write_text(json.dumps(content))
    figure = cer_bars(read_decodings(tmp_path, "test"))
    heights = [patch.get_height() for patch in figure.axes[0].patches]
    assert [math.isnan(height) for height in heights] == [group == "mandarin" for group in GROUPS]
    save_png(figure, tmp_path / "cer.png")
    assert imread(tmp_path / "cer.png").shape[0] > 100


def test_training_curves(tmp_path):
    write_metrics(tmp_path / "metrics.jsonl")
    metrics = read_metrics(tmp_path / "metrics.jsonl")
    assert metrics is not None
    losses, errors, rates = training_curves(metrics).axes
    assert [line.get_label() for line in losses.lines] == ["simple RNN-T", "pruned RNN-T", "CTC"]
    assert [line.get_label() for line in errors.lines][:2] == ["overall", "cmn"]
    assert errors.lines[0].get_xdata()[-1] == pytest.approx(15.0)
    assert max(rates.lines[0].get_ydata()) == pytest.approx(0.045 / (1 + 1 / 3) ** 0.5)


def test_training_that_has_just_begun(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    metrics = read_metrics(tmp_path / "metrics.jsonl")
    assert metrics is not None
    save_png(training_curves(metrics), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_svg_is_whole_and_repeatable(table):
    first = svg_data_uri(recall_heat_map(table))
    head, _, body = first.partition(",")
    assert head == "data:image/svg+xml;base64"
    root = ElementTree.fromstring(base64.b64decode(body))
    assert root.tag.endswith("svg")
    assert first == svg_data_uri(recall_heat_map(table))


def test_both_validated_heads_are_drawn(tmp_path):
    write_metrics(tmp_path / "metrics.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == "valid":
            line["cer_ctc"] = {name: rate / 2 for name, rate in line["cer"].items()}

    def curves(kept):
        kept_lines = [
            {key: value for key, value in line.items() if key in kept or not key.startswith("cer")}
            for line in lines
        ]
        (tmp_path / "kept.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept_lines))
        axes = training_curves(read_metrics(tmp_path / "kept.jsonl")).axes[1]
        return axes, [line for line in axes.get_lines() if len(line.get_xdata())]

    axes, both = curves(("cer", "cer_ctc"))
    _, transducer = curves(("cer",))
    ctc_axes, ctc = curves(("cer_ctc",))
    assert len(both) == 2 * len(transducer) == 2 * len(ctc) == 2 * 7
    assert {line.get_linestyle() for line in both} == {"-", "--"}
    for solid, dashed in zip(both[::2], both[1::2], strict=True):
        assert dashed.get_color() == solid.get_color()
        assert list(dashed.get_ydata()) == pytest.approx([rate / 2 for rate in solid.get_ydata()])
    assert "dashed: CTC" in [text.get_text() for text in axes.get_legend().get_texts()]
    assert ctc_axes.get_title() == "CER in validation, CTC"
    assert "yue" in [text.get_text() for text in ctc_axes.get_legend().get_texts()]


def test_heat_map_says_what_its_small_numbers_are(table):
    assert "small: 90 % interval" in recall_heat_map(table, confidence=0.9).axes[0].get_xlabel()
