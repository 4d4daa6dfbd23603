"""Sweeps and score comparisons as a user starts them; stand-ins take the place of training and measuring."""

import hashlib
import json
import os
import runpy
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from dataset_files import DATA, results_of

from retrieval.embedding.store import EmbeddingWriter
from zipformer.model import WEIGHTS_FILE

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SITES = (("hak", "miaoli"), ("nan", "tainan"), ("yue", "canton"), ("yue", "macau"))
SENTENCES = 6


def value(arguments: list[str], name: str) -> str:
    return next(argument.partition("=")[2] for argument in arguments if argument.startswith(f"{name}="))


def write_embeddings(model_dir: Path, noise: float, seed: int) -> None:
    """Every sentence is one direction; more noise, more misses."""
    random = np.random.default_rng(seed)
    writer = EmbeddingWriter(
        results_of(model_dir) / "embeddings-test",
        dimension=SENTENCES,
        dtype="float32",
        embedder="planted",
        fingerprint=f"{noise} {seed}",
        dataset=DATA.record(),
    )
    with writer:
        for group, site in SITES:
            for n in range(SENTENCES):
                frames = np.eye(SENTENCES)[[n] * 3] + noise * random.normal(size=(3, SENTENCES))
                writer.add(
                    f"{site}-{n}", frames, dialect=group, subdialect=group, site=site, sentence_id=f"{n}"
                )


class Steps:
    """In place of the commands: writes what each of them leaves, and remembers the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.failing: str | None = None

    def __call__(self, command: list[str], **settings: object) -> "subprocess.CompletedProcess[str]":
        step, arguments = command[3], command[4:]
        directory = Path(value(arguments, "exp_dir" if step in ("train", "average") else "model_dir"))
        run = directory.parent if directory.name == "averaged" else directory
        self.calls.append((f"{run.parent.name}/{run.name}", step))
        if step == self.failing:
            settings["stdout"].write("error: out of memory\n")  # type: ignore[attr-defined]
            return subprocess.CompletedProcess(command, 1)
        getattr(self, step)(run / "averaged", run.parent.name)
        return subprocess.CompletedProcess(command, 0)

    def train(self, model_dir: Path, variant: str) -> None:
        model_dir.mkdir(parents=True)

    def average(self, model_dir: Path, variant: str) -> None:
        trained = ["nan"] if variant == "yue" else ["nan", "yue"]
        (model_dir / "provenance.json").write_text(json.dumps({"trained_dialects": trained}))
        (model_dir / WEIGHTS_FILE).write_bytes(b"weights")

    def decode(self, model_dir: Path, variant: str) -> None:
        folder = model_dir / "results" / "data" / "decode-test-ctc"
        folder.mkdir(parents=True)
        hypotheses = [
            {
                "id": f"{site}-{n}",
                "dialect": group,
                "subdialect": None,
                "site": site,
                "sentence_id": f"{n}",
                "reference": "今天天气好",
                "hypothesis": "今天天气坏" if group == "hak" else "今天天气好",
            }
            for group, site in SITES
            for n in range(SENTENCES)
        ]
        lines = "".join(json.dumps(hypothesis) + "\n" for hypothesis in hypotheses)
        (folder / "hypotheses.jsonl").write_text(lines)
        (folder / "cer.json").write_text(json.dumps({"method": "ctc", "split": "test", "rows": []}))
        digest = hashlib.sha256(b"weights").hexdigest()
        (folder / "decode.json").write_text(json.dumps({WEIGHTS_FILE: digest}))

    def embed(self, model_dir: Path, variant: str) -> None:
        write_embeddings(model_dir, 0.9 if variant == "yue" else 0.0, int(model_dir.parent.name[-1]))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        (tmp_path / "data" / f"cuts_{split}.jsonl.gz").write_text(split)
    (tmp_path / "data" / "tokens").mkdir()
    (tmp_path / "data" / "tokens" / "tokens.model").write_text("tokens")
    return tmp_path / "data"


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    steps = Steps()
    monkeypatch.setattr(subprocess, "run", steps)
    return steps


def call(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPTS / f"{script}.py"), *arguments])
    runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")


def leave_one_out(data_dir: Path, *more: str) -> list[str]:
    dropped = [f"~variants.{name}" for name in ("cmn", "mandarin", "nan", "wuu")]
    where = [f"data_dir={data_dir}", f"exp_dir={data_dir.parent}/exp"]
    return ["sweep=leave_one_out", *where, "seeds=[1,2]", "resamples=50", "at_once=1", *dropped, *more]


def test_a_sweep_goes_on_where_it_stopped_and_tabulates(
    data_dir: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps.failing = "embed"
    with pytest.raises(
        SystemExit, match=r"embed of .*scratch/seed-1 ended with exit status 1(.|\n)*out of mem"
    ):
        call(monkeypatch, "sweep", *leave_one_out(data_dir))
    assert steps.calls == [("scratch/seed-1", step) for step in ("train", "average", "decode", "embed")]

    steps.failing, steps.calls = None, []
    call(monkeypatch, "sweep", *leave_one_out(data_dir))
    assert steps.calls[0] == ("scratch/seed-1", "embed")
    assert [run for run, step in steps.calls if step == "train"] == [
        "yue/seed-1",
        "scratch/seed-2",
        "yue/seed-2",
    ]
    folder = data_dir.parent / "exp" / "results" / "leave_one_out"
    content = json.loads((folder / "variants.json").read_text())
    rows = {(row["variant"], row["measure"]): row for row in content["rows"]}
    assert rows["nothing", "recall_trained"]["value"] == 100
    assert rows["nothing", "cer_trained"]["value"] == 0
    assert rows["nothing", "cer_held_out"]["value"] == pytest.approx(20)
    assert rows["yue", "cer_held_out"]["value"] == pytest.approx(20 / 3)  # hak and both sites of yue
    assert rows["yue", "recall_held_out"]["value"] < 90
    pairs = {(row["source"], row["target"]) for row in content["transfer"]}
    assert pairs == {("yue", "nan"), ("nan", "yue")}  # hak is trained on by neither
    assert all(row["trained"] == 100 for row in content["transfer"])
    assert "recall@1, trained dialects" in capsys.readouterr().out

    steps.calls = []
    call(monkeypatch, "sweep", *leave_one_out(data_dir))
    assert steps.calls == []


def test_a_table_of_what_is_finished(data_dir: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="no run of the baseline nothing is finished"):
        call(monkeypatch, "sweep", *leave_one_out(data_dir, "table_only=true"))
    call(monkeypatch, "sweep", *leave_one_out(data_dir, "seeds=[1]"))
    steps.calls = []
    call(monkeypatch, "sweep", *leave_one_out(data_dir, "table_only=true"))
    assert steps.calls == []
    content = json.loads((data_dir.parent / "exp/results/leave_one_out/variants.json").read_text())
    assert {row["runs"] for row in content["rows"]} == {1}


def test_utterances_that_were_not_recognised_are_named(
    data_dir: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(monkeypatch, "sweep", *leave_one_out(data_dir, "seeds=[1]"))
    path = data_dir.parent / "exp/scratch/seed-1/averaged/results/data/decode-test-ctc/hypotheses.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(SystemExit, match=r"lacks 1 of the 24 utterances .* miaoli-0: .*fangyan decode"):
        call(monkeypatch, "sweep", *leave_one_out(data_dir, "table_only=true"))


def test_other_settings_are_refused_before_anything_is_trained(
    data_dir: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(monkeypatch, "sweep", *leave_one_out(data_dir, "seeds=[1]"))
    steps.calls = []
    with pytest.raises(SystemExit, match="holds a run with other settings"):
        call(monkeypatch, "sweep", *leave_one_out(data_dir, 'further=["max_steps=9"]'))
    assert steps.calls == []


def test_settings_of_conf_that_have_changed_are_refused(
    data_dir: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(monkeypatch, "sweep", *leave_one_out(data_dir, "seeds=[1]"))
    file = data_dir.parent / "exp" / "yue" / "seed-1" / "run.json"
    content = json.loads(file.read_text())
    resolved = content["settings"]["resolved"]
    assert (resolved["max_steps"], resolved["loss.ctc"]) == (1600, 0.5)  # of experiment=scratch and of mini
    assert resolved["data.left_out_dialects"] == ["yue"]
    resolved["max_steps"] = 700
    file.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match="max_steps: 700 then, 1600 now"):
        call(monkeypatch, "sweep", *leave_one_out(data_dir, "seeds=[1]"))


def test_scores_are_compared_on_the_same_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [tmp_path / "a", tmp_path / "b"]
    for seed, model in enumerate(models):
        write_embeddings(model, 0.3, seed)
        (model / "provenance.json").write_text('{"trained_dialects": ["nan", "yue"]}')
    arguments = [f"model_dirs=[{models[0]},{models[1]}]", f"out_dir={tmp_path}/out", "resamples=50"]
    call(monkeypatch, "scores", *arguments)
    content = json.loads((tmp_path / "out" / "variants.json").read_text())
    assert content["baseline"] == "seqsim"
    assert content["single_site_groups"] == ["hak", "nan"]
    printed = " ".join(capsys.readouterr().out.split())
    assert "over runs, sentences and sites; sites cannot vary for hak, nan (one each)" in printed
    assert {row["variant"] for row in content["rows"]} == {
        "seqsim",
        "seqsim, center",
        "pooled",
        "pooled, center",
    }
    assert {row["runs"] for row in content["rows"]} == {2}
    kept = sorted(path.name for path in (models[0] / "results" / "data").glob("hits*"))
    assert len(kept) == 4
    call(monkeypatch, "scores", *arguments)
    assert "site pairs" not in capsys.readouterr().out  # read from what was kept
    assert json.loads((tmp_path / "out" / "variants.json").read_text()) == content
    call(monkeypatch, "scores", *arguments, "level=subdialect", "groups=[yue,nan]", "scores=[seqsim]")
    content = json.loads((tmp_path / "out" / "variants.json").read_text())
    assert (content["settings"]["level"], content["settings"]["groups"]) == ("subdialect", ["yue", "nan"])
    with pytest.raises(SystemExit, match=r"^error: .*model_dirs names .*/a twice"):
        call(monkeypatch, "scores", f"model_dirs=[{models[0]},{models[0]}/]", f"out_dir={tmp_path}/out")


def test_a_model_without_provenance_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_embeddings(tmp_path, 0.0, 0)
    with pytest.raises(SystemExit, match=r"has no provenance\.json with trained_dialects"):
        call(monkeypatch, "scores", f"model_dirs=[{tmp_path}]", f"out_dir={tmp_path}/out")


def test_runs_side_by_side_share_the_cores(
    data_dir: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    together = threading.Barrier(2, timeout=20)
    seen: list[tuple[list[str], str]] = []

    def run(command: list[str], **settings: object) -> "subprocess.CompletedProcess[str]":
        if command[3] == "train":
            together.wait()  # for another run that trains at the same time
            seen.append((command, settings["env"]["OMP_NUM_THREADS"]))  # type: ignore[index]
        return steps(command, **settings)

    monkeypatch.setattr(subprocess, "run", run)
    call(monkeypatch, "sweep", *leave_one_out(data_dir, "at_once=2"))
    assert sorted(run for run, step in steps.calls if step == "embed") == [
        "scratch/seed-1",
        "scratch/seed-2",
        "yue/seed-1",
        "yue/seed-2",
    ]
    assert all("num_threads=4" in command and threads == "4" for command, threads in seen)
    assert "recall@1, trained dialects" in capsys.readouterr().out


def test_no_run_is_begun_after_one_failed(
    data_dir: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_began = threading.Event()

    def run(command: list[str], **settings: object) -> "subprocess.CompletedProcess[str]":
        if "/scratch/seed" in str(command) and command[3] == "train":
            assert other_began.wait(20)
            settings["stdout"].write("error: no space left\n")  # type: ignore[attr-defined]
            return subprocess.CompletedProcess(command, 1)
        if command[3] == "train":
            other_began.set()
        return steps(command, **settings)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SystemExit, match=r"train of .*scratch/seed-1 ended(.|\n)*no space left"):
        call(monkeypatch, "sweep", *leave_one_out(data_dir, "at_once=2"))
    assert {run for run, _ in steps.calls} == {"yue/seed-1"}  # the one that ran beside it
