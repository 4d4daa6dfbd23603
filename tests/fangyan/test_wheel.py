"""The wheel, installed where there is no checkout: it prepares a corpus, trains, averages and recognises."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "conf", "fangyan", "zipformer", "data_prep", "retrieval")
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
TINY = [
    "model=tiny",
    "model.transducer=false",  # whose loss would first be compiled, for seconds
    "model.attention_decoder.num_layers=0",
    "data.max_duration=20",
    "data.num_workers=0",
    "validation.interval=0",
    "average_period=1",
    "num_threads=1",
]


def run(*command: str | Path, folder: Path) -> str:
    """Standard output of a command that must end well."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """``fangyan`` of an environment that has the wheel and, beside it, the packages of this one."""
    sources = tmp_path / "sources"
    sources.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, sources / name, symlinks=True, ignore=ignore)
        else:
            shutil.copy(ROOT / name, sources)
    run(sys.executable, "-c", BUILD, tmp_path, folder=sources)
    (wheel,) = tmp_path.glob("fangyan-*.whl")
    shutil.rmtree(sources)
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment, folder=tmp_path)
    (packages,) = environment.glob("lib/python*/site-packages")
    # Lines that are plain folders: the .pth files in them, such as that of an editable install, are not read.
    others = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "others.pth").write_text("\n".join(others))
    python = environment / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", "--ignore-installed", wheel, folder=tmp_path)
    where = run(python, "-c", "import zipformer, fangyan; print(zipformer.__path__[0])", folder=tmp_path)
    assert where.strip() == str(packages / "zipformer")
    return environment / "bin" / "fangyan"


def test_a_wheel_works_outside_a_checkout(program: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    random = np.random.default_rng(0)
    lines = ["path\ttext\tdialect\tspeaker\tsplit"]
    for i in range(10):
        soundfile.write(folder / f"{i}.wav", random.uniform(-0.1, 0.1, 16000 + 800 * i), 16000)
        split = "test" if i < 2 else "train"
        lines.append(f"{i}.wav\t{'天地人你我他'[i % 6]}{'上下左右'[i % 4]}\tyue\t{split}\t{split}")
    (folder / "table.tsv").write_text("\n".join(lines), encoding="utf-8")

    assert "  prepare  " in run(program, "--help", folder=folder)
    speeds = "fbank.speed_factors=[]"
    run(program, "prepare", "corpus=folder", "corpus.tsv=table.tsv", "data_dir=data", speeds, folder=folder)
    run(program, "train", *TINY, "data_dir=data", "exp_dir=exp", "max_steps=2", folder=folder)
    run(program, "average", "exp_dir=exp", "start_step=0", folder=folder)
    decode = ("decode", "model_dir=exp/averaged", "data_dir=data", "method=ctc", "device=cpu")
    assert "yue" in run(program, *decode, folder=folder)
    assert (folder / "exp" / "averaged" / "results" / "data" / "decode-test-ctc" / "cer.json").is_file()
