import logging
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import torch

from zipformer.data.selection import Selection
from zipformer.distributed import World
from zipformer.training import environment
from zipformer.training.environment import describe_environment, git_revision, log_data, log_parameters


def test_git_revision_of_a_checkout_and_outside_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_revision() is None
    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "first")
    assert git_revision() == git("rev-parse", "HEAD")
    (tmp_path / "file").write_text("2")
    assert git_revision() == git("rev-parse", "HEAD") + "-dirty"


def test_description_names_what_decides_speed() -> None:
    found = describe_environment(World(0, 1, torch.device("cpu")), "fp32")
    assert found["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert found["precision"] == "fp32"
    assert str(found["device"]).startswith("cpu (")


def test_parameters_are_counted_by_part(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log_parameters(torch.nn.ModuleDict({"small": torch.nn.Linear(2, 3), "large": torch.nn.Linear(100, 30)}))
    assert "Parameters: 3,039 (large 3,030, small 9)" in caplog.text


def test_dropped_utterances_are_listed_in_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    names = [f"u{index}" for index in range(7)]
    selection = Selection(10, 5400.0, Counter({"yue": 1800.0, "cmn": 3600.0}), dropped={"too long": names})
    log_data(selection, tmp_path / "dropped.tsv")
    assert "10 utterances, 1.50 hours (cmn 1.00, yue 0.50)" in caplog.text
    assert "Left out 7 utterances, too long: u0, u1, u2, u3, u4, ..." in caplog.text
    assert (tmp_path / "dropped.tsv").read_text() == "".join(f"{name}\ttoo long\n" for name in names)
