"""The command line: settings, messages, and a run that is killed for real."""

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import load_manifest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "prepare.py"
UTTERANCES = 200


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Prepare a folder in many small shards."""
    random = np.random.default_rng(0)
    lines = ["path\ttext\tdialect\tspeaker\tsplit"]
    for i in range(UTTERANCES):
        soundfile.write(tmp_path / f"{i:03d}.wav", random.uniform(-0.1, 0.1, 8000), 16000)
        split = "test" if i % 10 == 0 else "train"
        lines.append(f"{i:03d}.wav\t{chr(0x5000 + i)}\tyue\t{split}\t{split}")
    (tmp_path / "table.tsv").write_text("\n".join(lines), encoding="utf-8")
    return [
        *(sys.executable, str(SCRIPT), "corpus=folder", f"corpus.tsv={tmp_path / 'table.tsv'}"),
        *(f"data_dir={tmp_path / 'data'}", "fbank.shard_size=2"),
    ]


def test_killed_and_started_again(command: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "data" / "fbank" / "train"
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (finished := list(folder.glob("cuts-?????.jsonl.gz"))):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    time.sleep(0.5)  # workers notice that they are alone
    finished = list(folder.glob("cuts-?????.jsonl.gz"))
    assert len(finished) < UTTERANCES * 9 // 10 // 2
    before = {path: path.stat().st_mtime_ns for path in finished}

    again = subprocess.run(
        [*command, "num_workers=1"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "manifests, checks finished before, resuming with fbank" in again.stdout
    assert f"{len(finished)} of {UTTERANCES * 9 // 10 // 2} shards of train are finished" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    cuts = list(load_manifest(tmp_path / "data" / "cuts_train.jsonl.gz"))
    assert len(cuts) == 3 * UTTERANCES * 9 // 10  # three speeds
    assert all(cut.load_features().shape == (cut.num_frames, 80) for cut in cuts[:50])
    assert not (tmp_path / ".hydra").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_group_end_it_quietly(command: list[str], tmp_path: Path, number: int) -> None:
    """As Ctrl-C in a terminal; nobody prints a traceback, no process and no lock stays."""
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    while not list((tmp_path / "data" / "fbank" / "train").glob("cuts-?????.jsonl.gz")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, number)
    assert process.wait(timeout=60) == 128 + number, (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert (tmp_path / "data" / ".lock").read_bytes() == b""
    deadline = time.monotonic() + 30
    while group_exists(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("checks.max_duraton=20", "max_duraton"),
        ("fbank.shard_size=many", "shard_size"),
        ("checks.on_problem=halt", "expected one of [drop, stop]"),
        ("corpus=nonesuch", "nonesuch"),
        ("corpus.columns.text=transcript", "no column 'transcript' (corpus.columns.text)"),
        ("fbank.speed_factors=[9]", "fbank.speed_factors is [9.0]"),
        ("corpus.tsv=???", "error: give corpus.tsv=VALUE (file of the table); python scripts/prepare.py"),
    ],
)
def test_one_clear_message_for_a_wrong_setting(
    override: str,
    message: str,
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [*command[1:], override])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    output = str(end.value.code) + capsys.readouterr().err
    assert end.value.code
    assert message in output
    assert "Traceback" not in output
