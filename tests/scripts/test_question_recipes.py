"""The recipes that compare variants: what they call, with a stand-in for Python that writes it down."""

import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from test_shell import ROOT, bash, lines, write_program

from data_prep.transcripts import TranscriptsConfig
from fangyan.commands import register

ConfigStore.instance().store(name="transcripts_schema", node=TranscriptsConfig)
register("train")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    names = ["scripts/stages.sh", "scripts/sweep.sh"]
    names += [f"recipes/{name}/run.sh" for name in (*SWEEPS, "pooling")]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    write_program(root / ".venv" / "bin" / "python", tmp_path / "log")
    return root


def write_model_files(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).touch()


SWEEPS = ("decoder_depth", "supervision", "orthography", "leave_one_out")


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_sweep_has_its_variants(sweep: str) -> None:
    assert (ROOT / "conf" / "sweep" / f"{sweep}.yaml").is_file()
    assert f"name: {sweep}\n" in (ROOT / "conf" / "sweep" / f"{sweep}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("sweep", ["decoder_depth", "supervision"])
def test_variants_start_from_one_model(checkout: Path, tmp_path: Path, sweep: str) -> None:
    recipe = checkout / "recipes" / sweep / "run.sh"
    arguments = ["--stage", "1", "--exp-dir", "exp one", "--", "model=large", "data=default"]
    result = bash(recipe, *arguments, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    exp = f"{tmp_path}/exp one"
    assert lines(tmp_path / "log") == [
        "scripts/prepare.py corpus=mini data_dir=data/mini",
        f"scripts/train.py experiment=start data_dir=data/mini exp_dir={exp}/start model=large data=default",
        f"scripts/average.py exp_dir={exp}/start",
        f"scripts/sweep.py sweep={sweep} data_dir=data/mini exp_dir={exp} "
        f'further=["model=large","data=default"] start={exp}/start/averaged',
    ]


def test_a_start_that_was_put_there_is_not_trained(checkout: Path, tmp_path: Path) -> None:
    averaged = checkout / "exp" / "questions" / "start" / "averaged"
    averaged.mkdir(parents=True)
    (averaged / "provenance.json").touch()
    result = bash(checkout / "recipes" / "supervision" / "run.sh", "--stage", "2", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert lines(tmp_path / "log") == [
        "scripts/sweep.py sweep=supervision data_dir=data/mini exp_dir=exp/questions further=[] "
        "start=exp/questions/start/averaged"
    ]


def test_a_start_of_this_recipe_is_compared_with_the_settings(checkout: Path, tmp_path: Path) -> None:
    folder = checkout / "exp" / "questions" / "start"
    (folder / "averaged").mkdir(parents=True)
    (folder / "averaged" / "provenance.json").touch()
    (folder / "checkpoints").mkdir()
    recipe = checkout / "recipes" / "supervision" / "run.sh"
    result = bash(recipe, "--stage", "2", "--", "model=large", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert lines(tmp_path / "log")[0] == (
        "scripts/train.py experiment=start data_dir=data/mini exp_dir=exp/questions/start model=large"
    )


def test_scripts_are_compared_on_a_second_data_directory(checkout: Path, tmp_path: Path) -> None:
    recipe = checkout / "recipes" / "orthography" / "run.sh"
    result = bash(recipe, "--stage", "1", "--data-dir", "prepared", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    called = lines(tmp_path / "log")
    data = f"{tmp_path}/prepared"
    assert called[1] == (
        f"scripts/transcripts.py source={data} data_dir={data}-customary "
        "+scripts.yue=s2hk +scripts.nan=s2tw +scripts.hak=s2tw"
    )
    assert called[-1].endswith(f"variants.customary.data_dir={data}-customary")


def test_leaving_out_starts_from_scratch(checkout: Path, tmp_path: Path) -> None:
    result = bash(checkout / "recipes" / "leave_one_out" / "run.sh", "--stage", "2", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert lines(tmp_path / "log") == [
        "scripts/sweep.py sweep=leave_one_out data_dir=data/mini exp_dir=exp/questions further=[]"
    ]


def test_pooling_takes_any_models(checkout: Path, tmp_path: Path) -> None:
    recipe = checkout / "recipes" / "pooling" / "run.sh"
    for name in ("one", "two"):
        write_model_files(tmp_path / name)
    more = ["--stage", "1", "--", "level=subdialect", "groups=[a,b]"]
    assert bash(recipe, "one", "two", *more, folder=tmp_path).returncode == 0
    corrections = "corrections=[none,center,all_but_the_top,whiten] level=subdialect groups=[a,b]"
    assert lines(tmp_path / "log") == [
        f"scripts/embed.py model_dir={tmp_path}/one data_dir=data/mini split=test",
        f"scripts/embed.py model_dir={tmp_path}/two data_dir=data/mini split=test",
        f'scripts/scores.py model_dirs=["{tmp_path}/one","{tmp_path}/two"] out_dir=exp/pooling {corrections}',
    ]


def test_pooling_says_how_a_model_that_is_missing_is_made(checkout: Path, tmp_path: Path) -> None:
    recipe = checkout / "recipes" / "pooling" / "run.sh"
    result = bash(recipe, "--stage", "1", folder=tmp_path)
    assert result.returncode == 1
    assert "exp/mini/averaged is no model directory" in result.stderr
    assert "bash recipes/mini/run.sh makes one" in result.stderr
    write_model_files(tmp_path / "one")
    result = bash(recipe, "one", "two", "--stage", "1", folder=tmp_path)
    assert f"{tmp_path}/two is no model directory" in result.stderr
    assert "scripts/average.py makes one" in result.stderr
    assert not (tmp_path / "log").exists()
    write_model_files(checkout / "exp" / "mini" / "averaged")
    assert bash(recipe, "--stage", "2", folder=tmp_path).returncode == 0
    assert 'model_dirs=["exp/mini/averaged"]' in lines(tmp_path / "log")[0]


def test_southern_min_is_not_taken_for_a_number() -> None:
    """Its code, nan, is also how a float that is not a number is written."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        transcripts = compose("transcripts", ["source=a", "data_dir=b", "+scripts.nan=s2tw"])
        training = compose("train", ["exp_dir=a", "data_dir=b", "data.left_out_dialects=[yue,nan]"])
    assert transcripts.scripts == {"nan": "s2tw"}
    assert training.data.left_out_dialects == ["yue", "nan"]
