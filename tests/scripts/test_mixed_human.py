"""The recipe that mixes human recordings with the embedded corpus."""

import importlib.util
import shutil
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from lhotse import CutSet, MonoCut, SupervisionSegment
from test_shell import ROOT, bash, lines, write_program

from zipformer.errors import UserError


@pytest.fixture(scope="module")
def syllables() -> ModuleType:
    file = ROOT / "recipes" / "mixed_human" / "syllables.py"
    specification = importlib.util.spec_from_file_location("syllables", file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_a_syllable_gets_its_most_frequent_character(syllables: ModuleType) -> None:
    characters = Counter("是是事女吕食")
    assert syllables.spelling(characters, syllables.pinyin) == {
        "shi4": "是", "nv3": "女", "lv3": "吕", "shi2": "食",
    }  # fmt: skip
    assert syllables.spelling(characters, syllables.jyutping)["sik6"] == "食"


def test_syllables_without_a_character_are_left_out(syllables: ModuleType, tmp_path: Path) -> None:
    text = [SupervisionSegment("a", "a", 0.0, 1.0, text="你好 OK")]
    cuts = CutSet.from_cuts([MonoCut("a", 0.0, 1.0, 0, text)])
    (tmp_path / "prepared").mkdir()
    cuts.to_file(tmp_path / "prepared" / "cuts_train.jsonl.gz")
    manifest = tmp_path / "recorded" / "manifest.tsv"
    manifest.parent.mkdir()
    manifest.write_text("path\tdialect\ttext\tromanization\na.opus\tcmn\t\tni3\nb.opus\tcmn\t\tzuo4\n")
    table = tmp_path / "tables" / "syllables.tsv"
    syllables.main(manifest, "pinyin", table, [tmp_path / "prepared"])
    assert table.read_text(encoding="utf-8").splitlines() == [
        "path\tdialect\ttext\tromanization",
        f"{tmp_path}/recorded/a.opus\tcmn\t你\tni3",
    ]
    with pytest.raises(UserError, match="wade"):
        syllables.main(manifest, "wade", table, [])


def test_all_corpora_are_prepared_before_the_models_are_compared(tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    for name in ("scripts/stages.sh", "scripts/sweep.sh", "recipes/mixed_human/run.sh"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    write_program(root / ".venv" / "bin" / "python", tmp_path / "log")
    folders = ("googi", "taigi_ku", "cmn_words", "cmn_syllables", "yue_syllables")
    recipe = root / "recipes" / "mixed_human" / "run.sh"
    recordings = tmp_path / "recordings"
    for name in folders:
        result = bash(recipe, recordings, "--stage", "1", folder=tmp_path)
        assert result.returncode == 1
        assert f"there is no {name}/manifest.tsv" in result.stderr
        (recordings / name).mkdir(parents=True)
        (recordings / name / "manifest.tsv").touch()
    for file in ("exp/mini/averaged/model.safetensors", "data/mini/cuts_train.jsonl.gz"):
        (root / file).parent.mkdir(parents=True)
        (root / file).touch()
    result = bash(recipe, recordings, "--stage", "1", "--", "model=large", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    calls = lines(tmp_path / "log")
    assert [call.split("data_dir=")[1].split()[0] for call in calls if "scripts/prepare" in call] == [
        f"data/mixed_human/{name}" for name in (*folders[1:], "sentences")
    ]
    assert calls[-1] == (
        "scripts/sweep.py sweep=mixed_human data_dir=data/mixed_human/sentences exp_dir=exp/mixed_human "
        'further=["model=large"]'
    )
