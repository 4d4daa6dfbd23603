"""Results that were computed with other weights than the model directory has now."""

import hashlib
import html
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from dataset_files import DATA, results_of
from recall_files import Pairs, write_recall
from result_files import write_decoding, write_json

from retrieval.comparison.controls import ControlRow, write_controls
from retrieval.comparison.finished import Finished
from retrieval.comparison.models import Comparison, DifferenceRow, write_comparison
from retrieval.depth.results import LayerStudy, Rate, TapResult, write_study
from retrieval.depth.study import LayersConfig, taps_of
from retrieval.interpretation.config import InterpretConfig
from retrieval.interpretation.run import weights_of_words
from retrieval.interpretation.whisper import WhisperConfig
from retrieval.protocol.estimates import MetricRow
from retrieval.report.page import Report, collect, render
from retrieval.results.weights import (
    Sieve,
    architecture_of,
    recorded_weights,
    weights_behind,
    weights_of,
)
from retrieval.statistics.ranks import METRICS
from zipformer.data.dataset import DataSet
from zipformer.decoding.recognise import DATA_KEY
from zipformer.model_dir import WEIGHTS_FILE

PAIRS: Pairs = {("cmn", "yue"): (80, 2), ("yue", "cmn"): (70, 2)}
OLD, NEW = (hashlib.sha256(content).hexdigest() for content in (b"old", b"new"))
MODEL = {"embedder": "zipformer", "fingerprint": "f", "weights": OLD, "dataset": DATA.record()}
MFCC = MODEL | {"embedder": "mfcc", "weights": None}


def result_files(results: Path) -> list[Path]:
    """The files of the model's results."""
    names = (
        "decode-test-greedy/cer.json",
        "retrieval-test/recall.json",
        "retrieval-test-no-names/recall.json",
        "comparison-test/comparison.json",
        "controls-test/controls.json",
        "interpret-test-ctc/summary.json",
        "layers-test/layers.json",
    )
    return [results / name for name in names]


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A model directory with one result of each kind, all computed with the weights that it has."""
    model_dir = tmp_path / "averaged"
    results = results_of(model_dir)
    (model_dir / WEIGHTS_FILE).write_bytes(b"old")
    write_decoding(results / "decode-test-greedy", "greedy")
    write_json(results / "decode-test-greedy" / "decode.json", made_with(OLD))
    for challenge in (None, "no-names"):
        suffix = f"-{challenge}" if challenge else ""
        for embedder, description in (("zipformer", MODEL), ("mfcc", MFCC)):
            name = "" if embedder == "zipformer" else "-mfcc"
            folder = f"retrieval-test{name}{suffix}"
            write_recall(results, folder, embedder, challenge, PAIRS, embeddings=description)
    write_models(results, [MODEL, MODEL | {"weights": "of another model directory"}])
    row = ControlRow("zipformer", "model, SeqSim", "all", 75.0, 70.0, 80.0, 2.0, None, None, None)
    header = {"settings": {"data_dir": "data", "seed": 3}, "embeddings": {"zipformer": MODEL, "mfcc": MFCC}}
    write_controls(results / "controls-test", [row], {}, header)
    config = InterpretConfig(str(model_dir), "data", dataset=DATA.name)
    test = dict.fromkeys(("matched", "random", "difference", "low", "high", "cohen_d"), 0.5)
    summary = {
        "settings": json.loads(json.dumps(asdict(config))),
        "weights": weights_of_words(config),
        "dataset": DATA.record(),
        "word_pairs": 2,
        "matched_words": 4,
        "words": 8,
        "tests": {"characters": {"overall": test}},
    }
    config.folder.mkdir()
    write_json(config.folder / "summary.json", summary)
    taps = [TapResult(tap, Rate(50.0, 40.0, 60.0), 2.0) for tap in taps_of([(0, 3, 1)], 3)]
    study = LayerStudy(str(model_dir), "test", taps, weights=[OLD], data=[DATA.digest])
    write_study(study, LayersConfig(str(model_dir), "data", seed=4))
    return model_dir


def made_with(weights: str) -> dict[str, str]:
    """``decode.json``."""
    return {"method": "greedy", WEIGHTS_FILE: weights, DATA_KEY: DATA.digest}


def write_models(results: Path, embeddings: list[dict[str, Any]]) -> None:
    """``comparison.json`` of the model and of one of another directory."""
    rows = [
        MetricRow(part, *pair, metric, 50, 40, 60, 2, None, None, 50, 40, 60, 2)
        for metric in METRICS
        for part, pair in (("pair", ("cmn", "yue")), ("all", ("", "")))
    ]
    outcome: Any = None
    models = [
        Finished(name, folder / "retrieval-test", outcome, {"embeddings": description, "settings": {}})
        for name, folder, description in zip(
            ("a", "b"), (results, results.parents[2] / "b" / "results"), embeddings, strict=True
        )
    ]
    difference = DifferenceRow("a", "b", "all", "", "", METRICS[0], 1.0, -1.0, 3.0, 0.1, 0.1)
    (results / "comparison-test").mkdir(exist_ok=True)
    comparison = Comparison(["a", "b"], ["cmn", "yue"], {"a": rows, "b": rows}, [difference])
    settings = {"results": ["m", "b"]}
    write_comparison(results / "comparison-test", comparison, models, settings)


def of_the_model(report: Report) -> list[bool]:
    """Whether there is a result of each kind, in the order of :func:`result_files`."""
    sets = [] if report.challenges is None else report.challenges.tables
    return [
        bool(report.decodings),
        report.recall is not None,
        ("zipformer", "no-names") in sets,
        report.comparison is not None,
        report.controls is not None,
        report.interpretations is not None,
        report.layers is not None,
    ]


def test_what_was_computed_with_other_weights_is_left_out(
    model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = collect(model_dir, "test")
    assert of_the_model(report) == [True] * 7
    assert report.warnings == []
    (model_dir / WEIGHTS_FILE).write_bytes(b"new")
    report = collect(model_dir, "test")
    assert of_the_model(report) == [False] * 7
    assert report.control is not None  # MFCCs have no weights
    assert report.challenges is not None
    assert report.challenges.systems == ["mfcc"]
    paths = result_files(model_dir / "results" / "data")
    assert len(report.warnings) == len(paths)
    for path in paths:
        (warning,) = (text for text in report.warnings if text.startswith(f"{path} is left out: "))
        assert OLD[:12] in warning
        assert NEW[:12] in warning
        assert warning in caplog.text
    page = html.unescape(render(report))
    for warning in report.warnings:
        assert warning in page


def test_what_does_not_say_its_weights_is_left_out(model_dir: Path) -> None:
    results = model_dir / "results" / "data"
    write_json(results / "decode-test-greedy" / "decode.json", {DATA_KEY: DATA.digest})
    for path in result_files(results)[1:]:
        content = json.loads(path.read_text())
        content.pop("weights", None)
        if path.name == "controls.json":
            content["embeddings"]["zipformer"].pop("weights")
        elif path.name == "recall.json":
            content["embeddings"].pop("weights")
        write_json(path, content)
    report = collect(model_dir, "test")
    assert of_the_model(report) == [False] * 7
    paths = result_files(results)
    assert len(report.warnings) == len(paths)
    for path in paths:
        assert any(
            text.startswith(f"{path} is left out: it does not say which weights") for text in report.warnings
        )


def test_a_comparison_with_a_model_that_changed_says_so_only_of_its_own(model_dir: Path) -> None:
    write_models(model_dir / "results" / "data", [MODEL | {"weights": NEW}, MODEL])
    report = collect(model_dir, "test")
    assert report.comparison is None
    assert [text.split(" ")[0] for text in report.warnings] == [
        str(result_files(model_dir / "results" / "data")[3])
    ]


def test_what_is_of_other_data_is_left_out(model_dir: Path) -> None:
    """Under a name that now stands for other data, as after folders were moved."""
    results = model_dir / "results" / "data"
    claim = json.loads((results / "dataset.json").read_text())
    claim["splits"]["test"]["digest"] = "f" * 64
    write_json(results / "dataset.json", claim)
    report = collect(model_dir, "test")
    assert of_the_model(report) == [False] * 7
    assert report.control is None
    assert report.challenges is None
    for path in result_files(results):
        (warning,) = (text for text in report.warnings if text.startswith(f"{path} is left out: "))
        assert "it is of other data (dddddddddddd), and data stands for ffffffffffff here" in warning


def test_what_does_not_say_its_data_is_left_out(model_dir: Path) -> None:
    results = model_dir / "results" / "data"
    for path in result_files(results):
        content = json.loads(path.read_text())
        for record in (content, *content.get("embeddings", {}).values(), content.get("embeddings", {})):
            if isinstance(record, dict):
                record.pop("dataset", None)
                record.pop("data", None)
        write_json(path, content)
    write_json(results / "decode-test-greedy" / "decode.json", {"method": "greedy", WEIGHTS_FILE: OLD})
    report = collect(model_dir, "test")
    assert of_the_model(report) == [False] * 7
    assert len([text for text in report.warnings if "it does not say which data it is of" in text]) == 7


def test_results_outside_a_data_set_are_not_read_and_named(model_dir: Path) -> None:
    results = model_dir / "results"
    (results / "data" / "decode-test-greedy").rename(results / "decode-test-greedy")
    report = collect(model_dir, "test")
    assert not report.decodings
    (warning,) = report.warnings
    assert warning.startswith(f"decode-test-greedy in {results} do not say which data they are of")


def test_pages_of_several_data_sets_do_not_mix(model_dir: Path) -> None:
    other = DataSet("other", "test", "a" * 64, "b" * 64)
    folder = other.claim(model_dir) / "decode-test-greedy"
    write_decoding(folder, "greedy", better=3)
    write_json(folder / "decode.json", made_with(OLD) | {DATA_KEY: other.digest})
    with pytest.raises(ValueError, match=r"holds results of data, other: choose .* dataset=NAME"):
        collect(model_dir, "test")
    for name, folder_of_name in (("data", "data"), ("other", "other")):
        report = collect(model_dir, "test", dataset=name)
        (decoding,) = report.decodings
        assert decoding.folder == model_dir / "results" / folder_of_name / "decode-test-greedy"
        assert not report.warnings
        page = render(report)
        assert f"data set <code>{name}</code>" in page
        assert f"pages of their own: {({'data', 'other'} - {name}).pop()}" in page


def test_an_untrained_encoder_of_another_architecture_is_left_out(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text("{}")
    (tmp_path / WEIGHTS_FILE).write_bytes(b"old")
    architecture = architecture_of(tmp_path)
    assert architecture == "config:" + hashlib.sha256(b"{}").hexdigest()
    assert Sieve(tmp_path).passes([architecture, OLD], [], tmp_path / "recall.json", "scripts/x.py")
    config.write_text('{"encoder": 1}')
    sieve = Sieve(tmp_path)
    assert not sieve.passes([architecture], [], tmp_path / "recall.json", "scripts/x.py")
    assert "computed with the architecture" in sieve.warnings[0]
    assert "config.json is" in sieve.warnings[0]


def test_a_command_whose_whole_point_are_results_of_other_weights_ends(model_dir: Path) -> None:
    path = model_dir / "recall.json"
    Sieve(model_dir).require([OLD], path, "scripts/x.py")
    with pytest.raises(ValueError, match=rf"{path} cannot be used: it was computed with .*scripts/x.py"):
        Sieve(model_dir).require([NEW], path, "scripts/x.py")


def test_without_weights_nothing_can_be_judged(tmp_path: Path) -> None:
    sieve = Sieve(tmp_path)
    assert sieve.passes([OLD], [], tmp_path / "recall.json", "scripts/x.py")
    assert sieve.passes([], [], tmp_path / "mfcc.json", "scripts/x.py")
    (warning,) = sieve.warnings
    assert f"recall.json was computed with the weights {OLD[:12]}, and {tmp_path} has no" in warning


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    assert weights_of(tmp_path) is None
    content = bytes(range(256)) * 5000  # more than a block
    (tmp_path / WEIGHTS_FILE).write_bytes(content)
    assert weights_of(tmp_path) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("descriptions", "expected"),
    [
        ([MODEL, MFCC, MODEL], [OLD]),
        ([MODEL, MODEL | {"weights": NEW}], sorted([OLD, NEW])),
        ([MFCC], []),
        ([{"embedder": "mfcc"}], None),
        ([MODEL, {}], None),
        ([], []),
    ],
)
def test_weights_behind_embeddings(descriptions: list[dict[str, Any]], expected: list[str] | None) -> None:
    assert weights_behind(descriptions) == expected


def test_a_record_that_is_none_is_not_taken_for_one() -> None:
    assert recorded_weights({"weights": [OLD]}) == [OLD]
    for content in ({}, {"weights": None}, {"weights": OLD}, {"weights": [3]}):
        assert recorded_weights(content) is None


def test_words_depend_on_the_aligner_and_on_embeddings_of_the_same_directory(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / WEIGHTS_FILE).write_bytes(b"new")
    for folder, description in (("m/model", MODEL), ("m/mfcc", MFCC), ("m/none", {}), ("other", MODEL)):
        (tmp_path / folder).mkdir()
        write_json(tmp_path / folder / "embeddings.json", description)

    def weights(embeddings: str | None = None, **more: Any) -> list[str] | None:
        folder = None if embeddings is None else str(tmp_path / embeddings)
        return weights_of_words(InterpretConfig(str(tmp_path / "m"), "data", embeddings=folder, **more))

    assert weights() == [NEW]
    assert weights("m/mfcc") == [NEW]  # the model says when words are spoken
    assert weights("m/model") == sorted([NEW, OLD])
    assert weights("m/none") is None
    assert weights("m/mfcc", words="words.tsv") == []
    assert weights("m/model", words="words.tsv") == [OLD]
    assert weights("other", words="words.tsv") == []
    assert weights(aligner="whisper", whisper=WhisperConfig(model="w")) == [NEW]
    assert weights("other", aligner="whisper", whisper=WhisperConfig(model="w")) == []
