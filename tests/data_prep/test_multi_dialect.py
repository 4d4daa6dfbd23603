"""The recipe multi_dialect on all miniatures together, from the corpora to the table of error rates."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fork_server import write_stand_in
from hydra import compose, initialize_config_dir
from miniatures import MINIATURES
from omegaconf import OmegaConf

from data_prep.corpora import corpora, corpus_of
from data_prep.pipeline import PrepareConfig
from data_prep.taxonomy import groups
from fangyan.commands import CONF_DIR, register
from zipformer.data.cuts import read_cuts
from zipformer.data.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "model=tiny",
    "max_steps=3",
    "save_interval=3",
    "average_period=1",
    "log_interval=1",
    "ref_duration=8",
    "data.max_duration=20",
    "data.num_workers=0",
    "data.num_buckets=1",
    "validation.interval=3",
    "device=cpu",
)


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "checkout"
    root.mkdir()
    for name in ("scripts", "recipes", "conf", "fangyan", "data_prep", "zipformer", "retrieval"):
        (root / name).symlink_to(ROOT / name)
    write_stand_in(root / ".venv" / "bin" / "python", tmp_path / "server")
    command = [sys.executable, str(Path(__file__).with_name("fork_server.py")), str(tmp_path / "server")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(command, env=environment)
    yield root
    server.kill()
    server.wait()


def run(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = checkout / "recipes" / "multi_dialect" / "run.sh"
    return subprocess.run(
        ["bash", script, *arguments],
        cwd=checkout,
        timeout=900,
        capture_output=True,
        text=True,
        check=False,
    )


def test_all_miniatures_together(checkout: Path, tmp_path: Path) -> None:
    lines, texts, with_test = [], set(), set()
    for name, write in MINIATURES.items():
        miniature = write(tmp_path / "corpora" / name)
        settings = [*miniature.settings, "num_workers=1", "fbank.speed_factors=[]"]
        lines.append("\t".join((name, "1", "-", "plain", *settings)))
        texts |= {text for text, _ in miniature.cuts.get("train", {}).values()}
        if "test" in miniature.cuts:
            with_test.add(name)
    table = tmp_path / "corpora.tsv"
    table.write_text("# all\n" + "\n".join(lines), encoding="utf-8")  # no newline at the end
    places = ("--data-dir", str(tmp_path / "data"), "--exp-dir", str(tmp_path / "exp"), "--stage", "1")
    result = run(checkout, str(table), *places, "--", *SMALL)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    mixture = tmp_path / "data" / "mixture"
    listed = yaml.safe_load((mixture / "mixture.yaml").read_text(encoding="utf-8"))["corpora"]
    assert {Path(entry["data_dir"]).name for entry in listed} == set(MINIATURES) - {"speechio", "wu_bench"}
    pieces = set(Tokenizer.load(mixture / "tokens").pieces)
    assert {"▁" if character == " " else character for text in texts for character in text} <= pieces
    # Gan is a test set of its own, and described like all others.
    held_out = {cut.supervisions[0].language for cut in read_cuts(mixture / "cuts_test.jsonl.gz")}
    assert held_out == {"gan"}
    card = (mixture / "card.md").read_text(encoding="utf-8")
    named = {line.split(" | ")[0].removeprefix("| ").replace("\\", "") for line in card.splitlines()}
    assert set(MINIATURES) <= named
    rates = (tmp_path / "exp" / "averaged" / "error_rates.md").read_text(encoding="utf-8")
    rows = {tuple(cell.strip() for cell in row.split("|")[1:3]) for row in rates.splitlines()[2:]}
    assert {name for name, _ in rows} == with_test
    heads = ("ctc", "beam", "attention")
    assert {(name, head) for name, decoding in rows for head in heads if decoding.startswith(head)} == {
        (name, head) for name in with_test for head in heads
    }


def test_a_wrong_table_is_named(checkout: Path, tmp_path: Path) -> None:
    table = tmp_path / "corpora.tsv"
    table.write_text("#all\nkespeech 1 - plain corpus=kespeech\n")
    result = run(checkout, str(table), "--stage", "1")
    assert result.returncode == 1
    assert f"{table}, line 2" in result.stderr
    table.write_text("#nothing\n")
    assert "names no corpus" in run(checkout, str(table), "--stage", "1").stderr


def test_the_table_of_the_recipe_has_every_public_corpus() -> None:
    """With settings that exist, and the convention by which the corpus is scored."""
    register("prepare")
    lines = (ROOT / "recipes" / "multi_dialect" / "corpora.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.removeprefix("#").split("\t") for line in lines if line.count("\t") >= 4][1:]
    chosen = set()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        for name, weight, group, scoring, *settings in rows:
            config = OmegaConf.to_object(compose("prepare", [f"data_dir={name}", *settings]))
            assert isinstance(config, PrepareConfig)
            corpus = corpus_of(config.corpus)
            chosen.add(corpus.name)
            # Transcripts of TAT and HAT are Han characters, unless their settings say otherwise.
            assert scoring == ("plain" if corpus.scoring == "syllables" else corpus.scoring), name
            assert float(weight) == 1
            assert group in ("-", *groups()), name
    assert len({name for name, *_ in rows}) == len(rows)
    assert chosen == set(corpora()) - {"folder", "mini", "yubao"}
