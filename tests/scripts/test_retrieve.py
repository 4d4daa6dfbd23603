"""The retrieve script from a store of embeddings to the tables and the figure."""

import csv
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from retrieval.embeddings import EmbeddingWriter

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "retrieve.py"
SENTENCES = 8
SITES = (
    ("hak", "hak-sixian", "miaoli"),
    ("hak", "hak-hailu", "hsinchu"),
    ("nan", "nan-taiwan", "tainan"),
    ("yue", "yue-guangzhou", "guangzhou"),
)


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """Every sentence is one direction, except that yue says sentences 0 and 1 with each other's."""
    for suffix in ("", "-mfcc"):
        writer = EmbeddingWriter(
            tmp_path / "results" / f"embeddings-test{suffix}",
            dimension=SENTENCES,
            dtype="float32",
            embedder="planted",
            fingerprint="f",
        )
        with writer:
            for dialect, variety, site in SITES:
                for n in range(SENTENCES):
                    word = 1 - n if dialect == "yue" and n < 2 else n
                    frames = np.repeat(np.eye(SENTENCES)[[word]], 3, axis=0)
                    writer.add(
                        f"{site}-{n}",
                        frames,
                        dialect=dialect,
                        subdialect=variety,
                        site=site,
                        sentence_id=f"{n}",
                    )
    (tmp_path / "provenance.json").write_text('{"trained_dialects": ["hak", "yue"]}')
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, model_dir: Path, *more: str) -> None:
    monkeypatch.setattr(
        sys, "argv", [str(SCRIPT), f"model_dir={model_dir}", "device=cpu", "resamples=100", *more]
    )
    runpy.run_path(str(SCRIPT), run_name="__main__")


def read(model_dir: Path, suffix: str = "") -> tuple[dict, dict]:
    content = json.loads((model_dir / "results" / f"retrieval-test{suffix}" / "recall.json").read_text())
    return content, {(row["source"], row["target"]): row for row in content["pairs"]}


def test_files_and_table(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, model_dir)
    content, pairs = read(model_dir)
    assert (content["split"], content["model_dir"], content["embedder"]) == (
        "test",
        str(model_dir),
        "zipformer",
    )
    assert content["groups"] == ["hak", "nan", "yue"]
    assert (content["trained_groups"], content["held_out_groups"]) == (["hak", "yue"], ["nan"])
    assert pairs["hak", "nan"]["recall_at_1"] == 100
    assert pairs["hak", "yue"]["recall_at_1"] == pytest.approx(75)
    assert pairs["hak", "yue"]["chance"] == pytest.approx(12.5)
    assert (pairs["hak", "yue"]["site_pairs"], pairs["hak", "yue"]["queries"]) == (2, 16)
    assert content["within"][0]["recall_at_1"] == 100
    summary = {row["name"]: row["recall_at_1"] for row in content["summary"]}
    assert summary["trained"] == pytest.approx(75)
    assert summary["held_out"] == pytest.approx((100 + 100 + 75 + 75) / 4)
    assert content["settings"]["resamples"] == 100
    assert content["embeddings"]["fingerprint"] == "f"

    folder = model_dir / "results" / "retrieval-test"
    with (folder / "recall.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 7
    with (folder / "site_pairs.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 12
    assert imread(folder / "recall.png").shape[0] > 300

    printed = capsys.readouterr().out
    assert "nan*" in printed
    assert "75.0" in printed
    assert "12.5" in printed
    assert "between trained groups" in printed


def test_matrix_of_varieties(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, model_dir, "level=subdialect")
    content, pairs = read(model_dir)
    assert content["groups"] == ["hak-hailu", "hak-sixian", "nan-taiwan", "yue-guangzhou"]
    assert len(pairs) == 12
    assert content["within"] == []
    assert content["held_out_groups"] == ["nan-taiwan"]
    assert pairs["hak-hailu", "yue-guangzhou"]["recall_at_1"] == pytest.approx(75)


def test_selected_groups_without_the_ceiling(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, model_dir, "groups=[yue,hak]", "within=false", "trained=[hak]", "correction=center")
    content, pairs = read(model_dir)
    assert content["groups"] == ["yue", "hak"]
    assert content["held_out_groups"] == ["yue"]
    assert content["within"] == []
    assert pairs["yue", "hak"]["recall_at_1"] == pytest.approx(75)


def test_the_control_has_its_own_folder(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, model_dir, "embedder=mfcc")
    content, _ = read(model_dir, "-mfcc")
    assert content["embedder"] == "mfcc"
    assert not (model_dir / "results" / "retrieval-test").exists()


def test_errors_are_one_message(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"^error: no embeddings at .*embeddings-dev.*scripts/embed\.py"):
        run(monkeypatch, model_dir, "split=dev")
    with pytest.raises(SystemExit, match=r"^error: no utterances of wuu; there are hak, nan, yue"):
        run(monkeypatch, model_dir, "groups=[hak,wuu]")
    with pytest.raises(SystemExit, match=r"^error: .*confidence=95"):
        run(monkeypatch, model_dir, "confidence=95")
    (model_dir / "provenance.json").write_text("{")
    with pytest.raises(SystemExit, match=r"^error: .*provenance\.json: not JSON"):
        run(monkeypatch, model_dir)
