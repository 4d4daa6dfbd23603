"""The report script on a model directory with, and without, results."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "report.py"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_page_of_a_model_without_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, f"model_dir={tmp_path}", "split=dev")
    folder = tmp_path / "results" / "report"
    assert {path.name for path in folder.iterdir()} == {"index.html", "cer.csv", "recall.csv", "results.json"}
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert f"fangyan decode model_dir={tmp_path}" in page
    assert "split=dev" in page
    assert f"report: {folder / 'index.html'}" in capsys.readouterr().out


def test_metrics_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.jsonl").write_text(
        '{"kind": "train", "step": 1, "elapsed_seconds": 2.0, "ctc": 1.0, "lr": 0.1}\n'
    )
    run(monkeypatch, f"model_dir={tmp_path}", f"metrics={tmp_path / 'other.jsonl'}")
    page = (tmp_path / "results" / "report" / "index.html").read_text(encoding="utf-8")
    assert 'alt="Training losses' in page


def test_errors_are_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"^error: no model directory .*none.*fangyan average"):
        run(monkeypatch, f"model_dir={tmp_path / 'none'}")
    (tmp_path / "metrics.jsonl").write_text('{"kind": "?"}\n')
    with pytest.raises(SystemExit, match=r"^error: .*metrics\.jsonl: line 1"):
        run(monkeypatch, f"model_dir={tmp_path}", f"metrics={tmp_path / 'metrics.jsonl'}")
