"""The compare script over finished retrievals."""

import hashlib
import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dataset_files import DATA
from matplotlib.image import imread

from retrieval.protocol.outcome import Outcome
from retrieval.protocol.sites import Site
from retrieval.protocol.tables import tabulate, write_tables
from retrieval.statistics.ranks import METRICS
from zipformer.data.dataset import DataSet

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "compare.py"
OLD = hashlib.sha256(b"old").hexdigest()
SITES = [Site("cmn", "a", {}), Site("yue", "b", {})]


def write(model_dir: Path, ranks: list[int], *, split: str = "test", dataset: DataSet = DATA) -> Path:
    """A finished retrieval with these ranks of the sentences in both directions."""
    folder = dataset.claim(model_dir) / f"retrieval-{split}"
    folder.mkdir(parents=True)
    above = np.zeros((2, 2, len(ranks)), dtype=np.int32)
    above[0, 1] = above[1, 0] = np.array(ranks) - 1
    asked = np.array([[[0], [1]], [[1], [0]]], dtype=np.int32) * np.ones(len(ranks), dtype=np.int32)
    outcome = Outcome(SITES, [f"s{n:02}" for n in range(len(ranks))], above, asked, asked * len(ranks))
    settings = {"level": "group", "duplicates": "error", "layer": None}
    header = {"split": split, "embedder": "zipformer", "challenge": None, "settings": settings}
    header["embeddings"] = {"dimension": 4, "embedder": "zipformer", "weights": OLD}
    header["dataset"] = dataset.record()
    (model_dir / "model.safetensors").write_bytes(b"old")
    write_tables(folder, tabulate(outcome, trained_groups=None, resamples=50), outcome, header)
    return model_dir


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "resamples=50", "permutations=999", *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_differences_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write(tmp_path / "first", [1, 1, 1, 1, 1, 1, 1, 2, 4, 12, 1, 1])
    second = write(tmp_path / "second", [1, 2, 1, 3, 5, 6, 1, 2, 8, 12, 7, 1])
    output = tmp_path / "out" / "comparison"
    run(monkeypatch, f"results=[{first},{second}]", f"output={output}")
    content = json.loads((output / "comparison.json").read_text())
    differences = {row["metric"]: row for row in content["differences"] if row["part"] == "all"}
    expected = [9 / 12 - 4 / 12, 11 / 12 - 8 / 12, 11 / 12 - 11 / 12]
    reciprocal = (0.5 + 1 - 1 / 3 + 1 - 1 / 5 + 1 - 1 / 6 + 1 / 4 - 1 / 8 + 1 - 1 / 7) / 12
    for metric, value in zip(METRICS, [*expected, reciprocal], strict=False):
        assert differences[metric]["difference"] == pytest.approx(100 * value), metric
    assert differences["median_rank"]["difference"] == 1 - 2.5
    # Five sentences differ in recall@1, all in one direction: p = 2/32 but for the draws.
    assert differences["recall_at_1"]["p"] == pytest.approx(2 / 32, abs=0.03)
    assert "first - second" in capsys.readouterr().out
    # Without output, the same lies beside the results of the first model, where its report finds it.
    run(monkeypatch, f"results=[{first},{second}]")
    beside = first / "results" / "data" / "comparison-test"
    assert json.loads((beside / "comparison.json").read_text())["differences"] == content["differences"]
    assert imread(beside / "comparison.png").shape[0] > 500


def test_errors_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write(tmp_path / "first", [1, 1, 2])
    second = write(tmp_path / "second", [1, 1, 2, 2])
    output = tmp_path / "out"
    with pytest.raises(SystemExit, match=r"^error: .*sentence s03 is missing in the first"):
        run(monkeypatch, f"results=[{first},{second}]", f"output={output}")
    for results in ("", first):
        with pytest.raises(SystemExit, match=r"^error: .*at least two models"):
            run(monkeypatch, f"results=[{results}]", f"output={output}")
    with pytest.raises(SystemExit, match=r"^error: 1 names for 2 results"):
        run(monkeypatch, f"results=[{first},{second}]", f"output={output}", "names=[x]")
    with pytest.raises(SystemExit, match=r"^error: no recall\.json in .*none"):
        run(monkeypatch, f"results=[{first},{tmp_path / 'none'}]", f"output={output}")
    assert not output.exists()


def test_results_of_other_weights_or_recordings_are_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (write(tmp_path / name, [1, 1, 2]) for name in ("first", "second"))
    output = f"output={tmp_path / 'out'}"
    written_otherwise = replace(DATA, name="traditional", digest="f" * 64)
    third = write(tmp_path / "third", [1, 2, 2], dataset=written_otherwise)
    run(monkeypatch, f"results=[{first},{third}]", output)  # other transcripts, the same recordings
    elsewhere = write(tmp_path / "elsewhere", [1, 2, 2], dataset=replace(DATA, recordings="f" * 64))
    with pytest.raises(SystemExit, match=r"^error: .*elsewhere.* of different recordings.*one prepared"):
        run(monkeypatch, f"results=[{first},{elsewhere}]", output)
    (second / "model.safetensors").write_bytes(b"new")
    remedy = r"fangyan embed and fangyan retrieve"
    with pytest.raises(SystemExit, match=rf"^error: {second}/.*recall\.json cannot be used: .*{remedy}"):
        run(monkeypatch, f"results=[{first},{second}]", output)
    # Folders that lie in no model directory have no weights to be held against.
    moved = (second / "results" / "data" / "retrieval-test").rename(tmp_path / "moved")
    run(monkeypatch, f"results=[{first},{moved}]", output)
    with pytest.raises(SystemExit, match=r"^error: .*moved is not named retrieval-.*output=FOLDER"):
        run(monkeypatch, f"results=[{moved},{first}]")


def test_one_of_several_data_sets_has_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (write(tmp_path / name, [1, 1, 2]) for name in ("first", "second"))
    write(first, [1, 1, 1], dataset=replace(DATA, name="other"))
    output = f"output={tmp_path / 'out'}"
    with pytest.raises(SystemExit, match=r"^error: .*first/results holds results of data, other.*dataset="):
        run(monkeypatch, f"results=[{first},{second}]", output)
    run(monkeypatch, f"results=[{first},{second}]", output, "dataset=data")
