"""The shell scripts, with stand-ins for Python that write down how they are called."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """#!/usr/bin/env bash
case "$*" in
    -c*version_info*) exit {suitable} ;;
    --version) echo "Python {version}" ;;
    "-m venv --clear .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "-m pip --version") ;;
    -c*sha256*) exec "{python}" "$@" ;;
    *) echo "$*" >>"{log}" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The shell scripts and what they read, without the rest of the checkout."""
    root = tmp_path / "with space" / "checkout"
    for name in (
        "scripts/setup.sh",
        "scripts/stages.sh",
        "recipes/mini/run.sh",
        "recipes/human/run.sh",
        "recipes/yubao/run.sh",
        "pyproject.toml",
        "constraints.txt",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    return root


def write_program(path: Path, log: Path, *, version: str = "3.12.1", suitable: bool = True) -> Path:
    """A stand-in for Python; calls other than those of the set-up go to ``log``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        PROGRAM.format(suitable=int(not suitable), version=version, python=sys.executable, log=log)
    )
    path.chmod(0o755)
    return path


def bash(script: Path, *arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", script, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8").splitlines()


def test_set_up_installs_once_until_the_requirements_change(checkout: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    python = write_program(tmp_path / "bin" / "python3.12", log)
    script = checkout / "scripts" / "setup.sh"
    for _ in range(2):
        result = bash(script, "mini,dev", python, folder=tmp_path)
        assert result.returncode == 0, result.stderr
    assert "up to date" in result.stdout
    install = (
        "-m pip install --progress-bar off --disable-pip-version-check -c constraints.txt -e .[mini,dev]"
    )
    assert lines(log) == [install]
    with (checkout / "constraints.txt").open("a") as file:
        file.write("# changed\n")
    bash(script, "mini,dev", folder=tmp_path)
    assert lines(log) == [install, install]


def test_set_up_shows_what_pip_does(checkout: Path, tmp_path: Path) -> None:
    python = write_program(tmp_path / "bin" / "python3.12", tmp_path / "log")
    pip = (
        "Obtaining file:///checkout",
        "Collecting torch==2.11.0 (from fangyan==0.1.0)",
        "  Using cached torch.metadata (25 kB)",
        "  Downloading torch-2.11.0-cp312-manylinux_2_28_x86_64.whl (190.3 MB)",
        "Requirement already satisfied: numpy>=1.26 in ./.venv/lib",
        "  Building wheel for jieba (setup.py): started",
        "Installing collected packages: torch, jieba",
    )
    print_lines = "; ".join(f"echo '{line}'" for line in pip)
    content = python.read_text().replace(
        '*) echo "$*"', f'*pip\\ install*) {print_lines} ;;\n    *) echo "$*"'
    )
    python.write_text(content)
    result = bash(checkout / "scripts" / "setup.sh", "mini", python, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-4:] == [
        "  torch==2.11.0",
        "    downloading torch-2.11.0-cp312-manylinux_2_28_x86_64.whl, 190.3 MB",
        "    building jieba",
        "  installing them",
    ]


def test_an_interrupted_installation_is_repeated(checkout: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    python = write_program(tmp_path / "bin" / "python3.12", log)
    content = python.read_text().replace('*) echo "$*"', '*pip\\ install*) exit 1 ;;\n    *) echo "$*"')
    python.write_text(content)
    script = checkout / "scripts" / "setup.sh"
    assert bash(script, "mini", python, folder=tmp_path).returncode == 1
    write_program(checkout / ".venv" / "bin" / "python", log)
    assert bash(script, "mini", folder=tmp_path).returncode == 0
    assert len(lines(log)) == 1


def test_an_old_python_is_refused(checkout: Path, tmp_path: Path) -> None:
    python = write_program(tmp_path / "bin" / "old", tmp_path / "log", version="3.9.18", suitable=False)
    result = bash(checkout / "scripts" / "setup.sh", "mini", python, folder=tmp_path)
    assert result.returncode == 1
    assert "is Python 3.9.18; Fangyan needs Python 3.10 or newer" in result.stderr
    assert not (checkout / ".venv").exists()


def test_recipe_runs_its_stages_in_order(checkout: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    write_program(checkout / ".venv" / "bin" / "python", log)
    recipe = checkout / "recipes" / "mini" / "run.sh"
    result = bash(recipe, "--stage", "1", "--exp-dir", "exp one", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    exp, model = f"{tmp_path}/exp one", f"{tmp_path}/exp one/averaged"
    assert lines(log) == [
        "scripts/prepare.py corpus=mini data_dir=data/mini",
        f"scripts/train.py experiment=mini data_dir=data/mini exp_dir={exp}",
        f"scripts/average.py exp_dir={exp}",
        f"scripts/decode.py model_dir={model} data_dir=data/mini split=test method=ctc",
        f"scripts/decode.py model_dir={model} data_dir=data/mini split=test method=greedy",
        f"scripts/decode.py model_dir={model} data_dir=data/mini split=test method=beam",
        f"scripts/embed.py model_dir={model} data_dir=data/mini split=test",
        f"scripts/retrieve.py model_dir={model} split=test",
        f"scripts/controls.py model_dir={model} data_dir=data/mini split=test"
        " controls=[zipformer-pooled,mfcc,mfcc-dtw,random,duration,permuted]",
        f"scripts/report.py model_dir={model} split=test",
        f"scripts/summary.py model_dir={model} split=test",
    ]


def test_folders_may_have_any_name(checkout: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    write_program(checkout / ".venv" / "bin" / "python", log)
    name = '方言 (一), "二"=3'
    recipe = checkout / "recipes" / "mini" / "run.sh"
    result = bash(recipe, "--stage", "2", "--stop-stage", "2", "--exp-dir", name, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    (line,) = lines(log)
    _, _, setting = line.partition("data_dir=data/mini ")
    assert OverridesParser.create().parse_override(setting).value() == f"{tmp_path}/{name}"


def test_human_recipe_starts_from_the_model_of_the_embedded_corpus(checkout: Path, tmp_path: Path) -> None:
    log, recipe = tmp_path / "log", checkout / "recipes" / "human" / "run.sh"
    write_program(checkout / ".venv" / "bin" / "python", log)
    (tmp_path / "my recordings").mkdir()
    result = bash(recipe, "my recordings", folder=tmp_path)
    assert "there is no manifest.tsv in" in result.stderr
    (tmp_path / "my recordings" / "manifest.tsv").touch()
    result = bash(recipe, "my recordings", folder=tmp_path)
    assert "run recipes/mini/run.sh first" in result.stderr
    for name in ("exp/mini/averaged/model.safetensors", "data/mini/cuts_train.jsonl.gz"):
        (checkout / name).parent.mkdir(parents=True)
        (checkout / name).touch()
    result = bash(recipe, "my recordings", "English", folder=tmp_path)
    assert "TARGET is text or translation_cmn, not English" in result.stderr
    result = bash(
        recipe, "my recordings", "translation_cmn", "--stage", "1", "--stop-stage", "2", folder=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert lines(log) == [
        "scripts/prepare.py corpus=human data_dir=data/human/translation_cmn dataset=human-translation_cmn "
        f"corpus.tsv={tmp_path}/my recordings/manifest.tsv corpus.columns.text=translation_cmn "
        "tokens.further_data_dirs=[data/mini]",
        "scripts/train.py experiment=human data_dir=data/human/translation_cmn "
        "exp_dir=exp/human/translation_cmn init_from=exp/mini/averaged",
    ]


def test_yubao_recipe_measures_a_model_without_writing_to_it(checkout: Path, tmp_path: Path) -> None:
    log, recipe = tmp_path / "log", checkout / "recipes" / "yubao" / "run.sh"
    write_program(checkout / ".venv" / "bin" / "python", log)
    data, model = tmp_path / "my data", tmp_path / "some" / "averaged"
    result = bash(recipe, "my data", "some/averaged", folder=tmp_path)
    assert f"there is no folder {data}/metadata" in result.stderr
    for folder in (data / "metadata", data / "audio", model / "results"):
        folder.mkdir(parents=True)
    result = bash(recipe, "my data", "some/averaged", folder=tmp_path)
    assert f"{model} is no model directory" in result.stderr
    for name in ("config.json", "model.safetensors", "results/old.json"):
        (model / name).touch()
    result = bash(recipe, "my data", "some/averaged", "--stage", "3", folder=tmp_path)
    assert "no sites in data/yubao/sites; run stage 1 first" in result.stderr
    for group in ("yue", "cmn", "nan"):
        (checkout / "data" / "yubao" / "sites" / group).mkdir(parents=True)
    result = bash(recipe, "my data", "some/averaged/", "--stage", "1", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    results = "exp/yubao/some-averaged"
    assert lines(log) == [
        f"scripts/prepare.py corpus=yubao data_dir=data/yubao corpus.metadata={data}/metadata "
        f"corpus.audio_dir={data}/audio",
        f"scripts/embed.py model_dir={results} data_dir=data/yubao split=test embedder=zipformer",
        f"scripts/embed.py model_dir={results} data_dir=data/yubao split=test embedder=mfcc",
        f"scripts/retrieve.py model_dir={results} split=test groups=[cmn,nan,yue] embedder=zipformer",
        f"scripts/retrieve.py model_dir={results} split=test groups=[cmn,nan,yue] embedder=mfcc",
        f"scripts/report.py model_dir={results} split=test",
        f"scripts/paper_table.py model_dir={results} split=test",
    ]
    log.unlink()
    partial = ["--stage", "4", "--", "allow_partial=true"]
    assert bash(recipe, "my data", "some/averaged", *partial, folder=tmp_path).returncode == 0
    assert lines(log)[-1] == f"scripts/paper_table.py model_dir={results} split=test allow_partial=true"
    linked = {path.name: path.readlink() for path in (checkout / results).iterdir()}
    assert linked == {name: model / name for name in ("config.json", "model.safetensors")}
    model.rename(tmp_path / "moved")
    (tmp_path / "other").mkdir()
    (tmp_path / "moved").rename(tmp_path / "other" / "averaged")
    result = bash(
        *(recipe, "my data", "other/averaged", "--stage", "2"),
        *("--exp-dir", checkout / results),
        folder=tmp_path,
    )
    assert f"config.json is not of {tmp_path}/other/averaged; choose another --exp-dir" in result.stderr


def test_recipe_runs_only_the_stages_asked_for(checkout: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    write_program(checkout / ".venv" / "bin" / "python", log)
    result = bash(
        checkout / "recipes" / "mini" / "run.sh", "--stage", "5", "--stop-stage", "6", folder=tmp_path
    )
    assert [line.split()[0] for line in lines(log)] == ["scripts/embed.py", "scripts/retrieve.py"]
    assert "=== stage 5 took" in result.stdout
    assert "=== stages 5 to 6 took" in result.stdout


def test_recipe_stops_where_a_stage_fails(checkout: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    python = write_program(checkout / ".venv" / "bin" / "python", log)
    python.write_text(python.read_text().replace("*) echo", "*train.py*) exit 3 ;;\n    *) echo"))
    result = bash(checkout / "recipes" / "mini" / "run.sh", "--stage", "1", folder=tmp_path)
    assert result.returncode == 3
    assert lines(log) == ["scripts/prepare.py corpus=mini data_dir=data/mini"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage", "9"], "stages are 0 to 8, not 9"),
        (["--stage", "two"], "stages are 0 to 8, not two"),
        (["--stage", "3", "--stop-stage", "2"], "nothing to do between"),
        (["--stage"], "--stage needs a value"),
        (["--stages", "1"], "unknown option --stages"),
        (["--", "max_minutes=1"], "this recipe takes no settings after --"),
        (["--python", "no-such-program"], "there is no program no-such-program"),
        (["--stage", "1"], "there is no .venv; run stage 0 first"),
    ],
)
def test_wrong_options_are_named(checkout: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    result = bash(checkout / "recipes" / "mini" / "run.sh", *arguments, folder=tmp_path)
    assert result.returncode == 1
    assert f"error: {message}" in result.stderr


def test_help_names_every_option(checkout: Path, tmp_path: Path) -> None:
    result = bash(checkout / "recipes" / "mini" / "run.sh", "--help", folder=tmp_path)
    assert result.returncode == 0
    for option in ("--stage", "--stop-stage", "--exp-dir", "--data-dir", "--python"):
        assert f"  {option} " in result.stdout
