"""The controls script from a model and prepared cuts to the table and the figure."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from lhotse import CutSet
from lhotse.utils import fastcopy
from matplotlib.image import imread
from small_model import write_cuts, write_model

from retrieval.embedding.store import EmbeddingStore

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "controls.py"
FRAMES = (110, 97, 80, 130, 120, 101)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A model directory, and six utterances at two sites of two dialects with three sentences."""
    write_model(tmp_path / "model")
    (tmp_path / "model" / "provenance.json").write_text('{"trained_dialects": ["yue", "wuu"]}')
    cuts = []
    for number, cut in enumerate(
        sorted(write_cuts(tmp_path / "data", "test", FRAMES), key=lambda cut: cut.id)
    ):
        dialect = ("yue", "wuu")[number % 2]
        custom = {"subdialect": f"{dialect}-x", "site": dialect, "sentence_id": f"{number // 2}"}
        supervision = fastcopy(cut.supervisions[0], language=dialect, custom=custom)
        cuts.append(fastcopy(cut, supervisions=[supervision]))
    CutSet.from_cuts(cuts).to_file(tmp_path / "data" / "cuts_test.jsonl.gz")
    return tmp_path / "model", tmp_path / "data"


def run(monkeypatch: pytest.MonkeyPatch, folders: tuple[Path, Path], *more: str) -> None:
    model_dir, data_dir = folders
    arguments = [f"model_dir={model_dir}", f"data_dir={data_dir}", "device=cpu", "resamples=20", *more]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_every_control_of_the_default_list(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, folders)
    results = folders[0] / "results" / "data"
    content = json.loads((results / "controls-test" / "controls.json").read_text())
    names = list(dict.fromkeys(row["name"] for row in content["rows"]))
    assert names == [
        "zipformer",
        "zipformer-pooled",
        "zipformer-dtw",
        "random",
        "fbank-dtw",
        "mfcc",
        "mfcc-dtw",
        "duration",
        "permuted",
    ]
    assert all(row["chance"] == pytest.approx(100 / 3) for row in content["rows"])
    permuted = [row for row in content["rows"] if row["name"] == "permuted"]
    assert permuted
    assert all(abs(row["recall_at_1"] - 100 / 3) < 25 for row in permuted)  # the mean of 20 draws
    assert all(row["low"] < row["recall_at_1"] < row["high"] for row in permuted)
    assert content["settings"]["permuted_draws"] == 20
    assert content["settings"]["seed"] == 0
    assert set(content["embeddings"]) == {"zipformer", "random", "fbank", "mfcc", "duration"}
    for suffix in ("", "-random", "-fbank", "-mfcc", "-duration"):
        assert len(EmbeddingStore(results / f"embeddings-test{suffix}")) == 6
    assert imread(results / "controls-test" / "controls.png").shape[0] > 300
    printed = capsys.readouterr().out
    assert "untrained encoder, SeqSim" in printed
    assert "model - control" in printed


def test_chosen_controls_by_variety(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, folders, "controls=[duration]", "level=subdialect")
    content = json.loads((folders[0] / "results" / "data" / "controls-test" / "controls.json").read_text())
    assert {row["source"] for row in content["pairs"]["duration"]} == {"yue-x", "wuu-x"}
    assert not (folders[0] / "results" / "data" / "embeddings-test-random").exists()


def test_settings_of_the_sounds(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["fbank.stride=8", "mfcc.stride=5", "mfcc.coefficients=7", "storage=float16"]
    run(monkeypatch, folders, "controls=[fbank,mfcc]", *settings)
    results = folders[0] / "results" / "data"
    fbank, mfcc = (EmbeddingStore(results / f"embeddings-test-{name}").frames for name in ("fbank", "mfcc"))
    assert fbank.shape == (sum(-(-T // 8) for T in FRAMES), 80)
    assert mfcc.shape == (sum(-(-T // 5) for T in FRAMES), 21)
    assert fbank.dtype == mfcc.dtype == np.float16


def test_errors_are_one_message(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"^error: no control mel: give permuted"):
        run(monkeypatch, folders, "controls=[mel]")
    with pytest.raises(SystemExit, match=r"^error: .*cuts_dev\..* does not exist"):
        run(monkeypatch, folders, "split=dev")
    with pytest.raises(SystemExit, match=r"^error: .*confidence=2"):
        run(monkeypatch, folders, "confidence=2")
    with pytest.raises(SystemExit, match=r"^error: trained names yeu: .*; there are wuu, yue"):
        run(monkeypatch, folders, "controls=[duration]", "trained=[yeu]")
    with pytest.raises(SystemExit, match=r"^error: two models of huggingface=.* have one name"):
        run(monkeypatch, folders, "huggingface=[here/whisper,there/whisper]")
    assert not (folders[0] / "results" / "data" / "controls-test").exists()
