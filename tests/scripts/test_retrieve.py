"""The retrieve script from a store of embeddings to the tables and the figure."""

import csv
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from dataset_files import DATA, results_of
from matplotlib.image import imread

from retrieval.embedding.store import EmbeddingWriter
from retrieval.statistics.ranks import METRICS
from zipformer.data.dataset import DataSet
from zipformer.errors import UserError

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
            results_of(tmp_path) / f"embeddings-test{suffix}",
            dimension=SENTENCES,
            dtype="float32",
            embedder="planted",
            fingerprint="f",
            dataset=DATA.record(),
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
        sys,
        "argv",
        [str(SCRIPT), f"model_dir={model_dir}", "device=cpu", "resamples=100", "permutations=99", *more],
    )
    runpy.run_path(str(SCRIPT), run_name="__main__")


def read(model_dir: Path, suffix: str = "") -> tuple[dict, dict]:
    content = json.loads(
        (model_dir / "results" / "data" / f"retrieval-test{suffix}" / "recall.json").read_text()
    )
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

    folder = model_dir / "results" / "data" / "retrieval-test"
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


def test_all_metrics(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, model_dir)
    content, _ = read(model_dir)
    rows = {(row["part"], row["metric"]): row for row in content["metrics"] if row["source"] in ("hak", "")}
    found = {metric: rows["all", metric]["value"] for metric in METRICS}
    # In four of six pairs of groups, two of eight answers are equal to all that is not first: ranks 2 to 8.
    share = 4 / 6 * 2 / 8
    expected = {
        "recall_at_1": 100 * (1 - share),
        "recall_at_5": 100 * (1 - share * 3 / 7),
        "recall_at_10": 100,
        "mrr": 100 * (1 - share * (1 - sum(1 / rank for rank in range(2, 9)) / 7)),
    }
    for metric, value in expected.items():
        assert found[metric] == pytest.approx(value), metric
    assert found["median_rank"] == 1
    assert rows["all", "recall_at_1"]["p"] == pytest.approx(1 / 100)
    assert content["settings"]["score"] == "seqsim"
    folder = model_dir / "results" / "data" / "retrieval-test"
    with (folder / "metrics.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5 * (6 + 1 + 4)


def test_an_error_leaves_the_former_table(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, model_dir)
    folder = model_dir / "results" / "data" / "retrieval-test"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*_: object) -> None:
        raise UserError("no space left")

    monkeypatch.setattr("retrieval.protocol.tables.write_site_pairs", fail)
    with pytest.raises(SystemExit, match=r"^error: no space left"):
        run(monkeypatch, model_dir, "seed=7")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not list(folder.parent.glob("*.partial"))


def test_broken_embeddings_leave_no_table(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = model_dir / "results" / "data" / "embeddings-test" / "frames.npy"
    frames = np.load(path)
    frames[4, 2] = np.nan
    np.save(path, frames)
    with pytest.raises(
        SystemExit, match=r"^error: utterance miaoli-1 of hak/miaoli has frames that are not f"
    ):
        run(monkeypatch, model_dir)
    np.save(path, frames[:, :5])
    with pytest.raises(SystemExit, match=r"^error: .*frames\.npy holds an array \(96, 5\) .* 8 dimensions"):
        run(monkeypatch, model_dir)
    assert not (model_dir / "results" / "data" / "retrieval-test").exists()


def test_settings_that_are_not_default_are_in_the_name(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, model_dir, "correction=center")
    content, _ = read(model_dir, "-center")
    assert content["settings"]["correction"] == "center"
    assert not (model_dir / "results" / "data" / "retrieval-test").exists()


def test_matrix_of_varieties(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, model_dir, "level=subdialect")
    content, pairs = read(model_dir)
    assert content["groups"] == ["hak-hailu", "hak-sixian", "nan-taiwan", "yue-guangzhou"]
    assert len(pairs) == 12
    assert content["within"] == []
    assert content["single_site_groups"] == content["groups"]
    assert "sites cannot vary, since every group has one only" in " ".join(capsys.readouterr().out.split())
    assert content["held_out_groups"] == ["nan-taiwan"]
    assert pairs["hak-hailu", "yue-guangzhou"]["recall_at_1"] == pytest.approx(75)


def test_selected_groups_without_the_ceiling(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, model_dir, "groups=[yue,hak]", "within=false", "trained=[hak]", "correction=center")
    content, pairs = read(model_dir, "-center")
    assert content["groups"] == ["yue", "hak"]
    assert content["held_out_groups"] == ["yue"]
    assert content["within"] == []
    assert pairs["yue", "hak"]["recall_at_1"] == pytest.approx(75)


def test_the_control_has_its_own_folder(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, model_dir, "embedder=mfcc")
    content, _ = read(model_dir, "-mfcc")
    assert content["embedder"] == "mfcc"
    assert not (model_dir / "results" / "data" / "retrieval-test").exists()


def test_errors_are_one_message(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"^error: no embeddings at .*embeddings-dev.*fangyan embed"):
        run(monkeypatch, model_dir, "split=dev")
    with pytest.raises(SystemExit, match=r"^error: no utterances of wuu; there are hak, nan, yue"):
        run(monkeypatch, model_dir, "groups=[hak,wuu]")
    known = r"no dialect of the embeddings, and none .* trained on; there are hak, nan, wuu, yue"
    (model_dir / "provenance.json").write_text('{"trained_dialects": ["hak", "wuu"]}')
    with pytest.raises(SystemExit, match=rf"^error: trained names yeu: {known}"):
        run(monkeypatch, model_dir, "trained=[hak,yeu,wuu]")
    assert not (model_dir / "results" / "data" / "retrieval-test").exists()
    with pytest.raises(SystemExit, match=r"^error: .*confidence=95"):
        run(monkeypatch, model_dir, "confidence=95")
    with pytest.raises(SystemExit, match=r"^error: 6 of 6 pairs of sites share fewer than 9 sentences"):
        run(monkeypatch, model_dir, "min_common=9")
    (model_dir / "provenance.json").write_text("{")
    with pytest.raises(SystemExit, match=r"^error: .*provenance\.json: not JSON"):
        run(monkeypatch, model_dir)


def test_embeddings_of_other_weights_are_not_retrieved(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = model_dir / "results" / "data" / "embeddings-test" / "embeddings.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"weights": "a" * 64}))
    (model_dir / "model.safetensors").write_bytes(b"new")
    with pytest.raises(SystemExit, match=r"^error: .*embeddings-test cannot be used: .*a{12}.*fangyan embed"):
        run(monkeypatch, model_dir)
    assert not (model_dir / "results" / "data" / "retrieval-test").exists()


def test_one_of_several_data_sets_has_to_be_named(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = DataSet("other", "test", "1" * 64, "2" * 64).claim(model_dir)
    with pytest.raises(SystemExit, match=r"^error: .*results of data, other: choose .*dataset="):
        run(monkeypatch, model_dir)
    run(monkeypatch, model_dir, "dataset=data")
    assert (folder.with_name("data") / "retrieval-test" / "recall.json").is_file()
    with pytest.raises(SystemExit, match=r"^error: no embeddings at .*results/other"):
        run(monkeypatch, model_dir, "dataset=other")
