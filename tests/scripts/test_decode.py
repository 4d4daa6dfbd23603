"""The decode script from its command line to the files and the table that it leaves."""

import csv
import json
import os
import runpy
import sys
from pathlib import Path

import pytest
from small_model import write_cuts, write_model

from retrieval.results.decodings import read_decodings

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "decode.py"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Model directory and data directory."""
    write_cuts(tmp_path / "data", "test")
    write_model(tmp_path / "model")
    return tmp_path / "model", tmp_path / "data"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    monkeypatch.setenv("COLUMNS", "120")
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_files_and_table(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model_dir, data_dir = folders
    (model_dir / "provenance.json").write_text('{"trained_dialects": ["wuu"]}', encoding="utf-8")
    run(monkeypatch, f"model_dir={model_dir}", f"data_dir={data_dir}", "method=ctc", "device=cpu")

    results = model_dir / "results" / "data" / "decode-test-ctc"
    lines = (results / "hypotheses.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 6
    expected = {
        "id",
        "dialect",
        "subdialect",
        "site",
        "sentence_id",
        "reference",
        "hypothesis",
        "speaker",
        "duration",
        "part",
    }
    assert set(json.loads(lines[0])) == expected

    document = json.loads((results / "cer.json").read_text(encoding="utf-8"))
    assert (document["method"], document["split"], document["model_dir"]) == ("ctc", "test", str(model_dir))
    rows = {(row["level"], row["name"]): row for row in document["rows"]}
    assert {level for level, _ in rows} == {"overall", "dialect", "subdialect", "site"}
    overall = rows["overall", "overall"]
    assert overall["utterances"] == 6
    assert overall["reference_characters"] == 30
    errors = overall["substitutions"] + overall["deletions"] + overall["insertions"]
    assert overall["cer"] == pytest.approx(100 * errors / 30)
    assert overall["low"] <= overall["cer"] <= overall["high"]
    assert overall["resampled"] == "sentences and sites"

    with (results / "cer.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(document["rows"])
    assert float(table[0]["cer"]) == pytest.approx(overall["cer"])
    with (results / "confusions.csv").open(encoding="utf-8", newline="") as file:
        listed = [row for row in csv.DictReader(file) if row["dialect"] == ""]
    assert {row["kind"] for row in listed} <= {"substitution", "deletion", "insertion"}
    assert listed
    alignments = (results / "alignments.txt").read_text(encoding="utf-8")
    assert "test-0  yue / yue-guangzhou / yue-0" in alignments
    assert alignments.count("\nREF ") == 6

    printed = capsys.readouterr().out
    assert f"{overall['cer']:.2f}" in printed
    assert "yue*" in printed
    assert "wuu*" not in printed
    assert f"mean of the trained dialects {rows['dialect', 'wuu']['cer']:.2f} %" in printed


def test_errors_against_the_translation_are_called_so(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model_dir, data_dir = folders
    write_model(model_dir, decoder_layers=1, translation=True)
    for reference in ("text", "translation"):
        run(
            monkeypatch,
            f"model_dir={model_dir}",
            f"data_dir={data_dir}",
            "method=attention",
            f"reference={reference}",
            "device=cpu",
        )
        assert ("against the translation" in capsys.readouterr().out) == (reference == "translation")
    for folder, reference, characters in (("decode", "text", 30), ("translation", "translation", 27)):
        path = model_dir / "results" / "data" / f"{folder}-test-attention" / "cer.json"
        document = json.loads(path.read_text(encoding="utf-8"))
        assert (document["method"], document["reference"]) == ("attention", reference)
        assert document["rows"][0]["reference_characters"] == characters
    # Error rates of another text do not stand among those of recognition in the report.
    (decoding,) = read_decodings(model_dir / "results" / "data", "test")
    assert decoding.level("overall")[0].reference_characters == 30


def test_two_test_sets_stand_side_by_side(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model_dir, data_dir = folders
    write_cuts(data_dir.parent / "my", "test", frames=(90, 95, 100))
    common = (f"model_dir={model_dir}", "device=cpu", "method=ctc")
    run(monkeypatch, *common, f"data_dir={data_dir}")
    first = (model_dir / "results" / "data" / "decode-test-ctc" / "cer.json").read_bytes()
    run(monkeypatch, *common, f"data_dir={data_dir.parent / 'my'}")
    assert "my, test, ctc" in capsys.readouterr().out
    assert (model_dir / "results" / "data" / "decode-test-ctc" / "cer.json").read_bytes() == first
    for name, utterances in (("data", 6), ("my", 3)):
        (decoding,) = read_decodings(model_dir / "results" / name, "test")
        assert decoding.level("overall")[0].utterances == utterances
        header = json.loads((decoding.folder / "cer.json").read_text(encoding="utf-8"))["dataset"]
        assert header["name"] == name
        assert decoding.data == [header["digest"]]
    with pytest.raises(SystemExit, match=r"^error: .*results/my holds .* other data.*dataset=NAME"):
        run(monkeypatch, *common, f"data_dir={data_dir}", "dataset=my")


def test_characters_without_a_token_are_named(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model_dir, data_dir = folders
    common = (f"model_dir={model_dir}", f"data_dir={data_dir}", "device=cpu", "method=ctc")
    run(monkeypatch, *common)
    assert "no token" not in capsys.readouterr().out
    cuts = write_cuts(data_dir, "test")
    for cut in cuts:
        if cut.supervisions[0].language == "yue":
            cut.supervisions[0].text += "學學"  # two of 17 + 6 characters
    cuts.to_file(data_dir / "cuts_test.jsonl.gz")
    run(monkeypatch, *common, "dataset=traditional")
    printed = " ".join(capsys.readouterr().out.split())
    assert "no token" in printed
    assert "6 of 36 characters of the references of traditional, test, are no tokens" in printed
    assert "Most frequent: 學 (6)" in printed
    path = model_dir / "results" / "traditional" / "decode-test-ctc" / "cer.json"
    rows = {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}
    assert (rows["yue"]["no_token"], rows["wuu"]["no_token"]) == (6, 0)
    assert rows["yue"]["cer"] >= 100 * 6 / rows["yue"]["reference_characters"]


def test_finished_hypotheses_are_scored_by_another_convention(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model_dir, data_dir = folders
    run(monkeypatch, f"model_dir={model_dir}", f"data_dir={data_dir}", "device=cpu", "method=ctc")
    assert "scored as" not in capsys.readouterr().out
    results = model_dir / "results" / "data" / "decode-test-ctc"
    plain = json.loads((results / "cer.json").read_text(encoding="utf-8"))
    assert (plain["scoring"], plain["empty_references"]) == ("plain", 0)
    hypotheses = (results / "hypotheses.jsonl").read_text(encoding="utf-8")
    # All references but the first as they were; that one has a mark only, and its hypothesis is empty.
    lines = [json.loads(line) for line in hypotheses.splitlines()]
    lines[0] |= {"reference": "<unk>", "hypothesis": ""}
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (results / "hypotheses.jsonl").write_text(text, encoding="utf-8")

    again(monkeypatch, f"results={results}", "scoring=mer")
    captured = capsys.readouterr()
    assert "mixed error rate: data, test, ctc, scored as mer" in captured.out
    assert "MER %" in captured.out
    mixed = json.loads((results / "cer.json").read_text(encoding="utf-8"))
    assert mixed["scoring"] == "mer"
    assert mixed["empty_references"] == 1
    assert {key for key in plain if key not in ("scoring", "empty_references", "rows")} <= mixed.keys()
    rows = {(row["level"], row["name"]): row for row in mixed["rows"]}
    overall, han = rows["overall", "overall"], rows["kind", "Han characters"]
    assert overall["reference_characters"] == 30 - len(plain_reference(hypotheses))
    assert han["reference_characters"] == overall["reference_characters"]
    (decoding,) = read_decodings(model_dir / "results" / "data", "test")
    assert decoding.scoring.name == "mer"
    assert (results / "ref.trn").read_text(encoding="utf-8").splitlines()[0].startswith("(")
    assert len((results / "ref.stm").read_text(encoding="utf-8").splitlines()) == 6

    (results / "hypotheses.jsonl").write_text(hypotheses, encoding="utf-8")
    again(monkeypatch, f"results={results}", "scoring=plain")
    found = json.loads((results / "cer.json").read_text(encoding="utf-8"))
    for row, expected in zip(found["rows"], plain["rows"], strict=True):
        assert row == pytest.approx(expected)


def plain_reference(hypotheses: str) -> str:
    """Reference of the first line of a file of hypotheses."""
    reference: str = json.loads(hypotheses.splitlines()[0])["reference"]
    return reference


def again(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Run the script that scores finished hypotheses."""
    script = SCRIPT.with_name("score.py")
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    runpy.run_path(str(script), run_name="__main__")


def test_what_cannot_be_scored_is_named(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model_dir, data_dir = folders
    with pytest.raises(SystemExit, match=r"^error: scoring=cer is not known; choose one of plain, "):
        run(monkeypatch, f"model_dir={model_dir}", f"data_dir={data_dir}", "scoring=cer")
    with pytest.raises(SystemExit, match=r"^error: .*cer\.json is missing: .*fangyan decode has finished"):
        again(monkeypatch, f"results={model_dir}", "scoring=mer")
    with pytest.raises(SystemExit, match=r"^error: give scoring=VALUE"):
        again(monkeypatch, f"results={model_dir}")


def test_errors_are_one_message(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model_dir, data_dir = folders
    with pytest.raises(SystemExit, match=r"^error: .*cuts_dev.*test"):
        run(monkeypatch, f"model_dir={model_dir}", f"data_dir={data_dir}", "split=dev", "device=cpu")
    with pytest.raises(SystemExit, match=r"^error: method=best"):
        run(monkeypatch, f"model_dir={model_dir}", f"data_dir={data_dir}", "method=best")
    with pytest.raises(SystemExit, match=r"^error: .*model_dir"):
        run(monkeypatch, f"data_dir={data_dir}")


def test_an_unknown_setting_is_named(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model_dir, data_dir = folders
    with pytest.raises(SystemExit, match=r"^error: beem cannot be set: .*did you mean beam\?"):
        run(monkeypatch, f"model_dir={model_dir}", f"data_dir={data_dir}", "beem=8")


def test_results_of_a_model_that_cannot_be_written_go_elsewhere(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir, data_dir = folders
    settings = [f"model_dir={model_dir}", f"data_dir={data_dir}", "method=ctc", "device=cpu"]
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, rights: Path(path) != model_dir and access(path, rights))
    with pytest.raises(SystemExit, match=r"^error: .*results cannot be written .*results_dir=DIR$"):
        run(monkeypatch, *settings)
    place = tmp_path / "mine"
    run(monkeypatch, *settings, f"results_dir={place}")
    assert not (model_dir / "results").exists()
    assert len(list(place.glob("results/**/cer.json"))) == 1
    run(monkeypatch, f"model_dir={place}", *settings[1:])  # the place is a model directory itself
