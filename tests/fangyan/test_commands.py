"""The table of commands, and the two ways to start one."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from fangyan.__main__ import main, overview
from fangyan.commands import COMMANDS, CONF_DIR

ROOT = Path(__file__).resolve().parents[2]


def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["fangyan", *arguments])
    main()
    return capsys.readouterr().out


def test_the_list_of_commands_is_fast_and_complete() -> None:
    code = (
        "import sys; sys.argv = ['fangyan', '--help']; from fangyan.__main__ import main; main();"
        "sys.exit(bool({'torch', 'numpy', 'lhotse'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == overview() + "\n"
    listed = [line.split()[0] for line in overview().splitlines() if line.startswith("  ")]
    assert listed == list(COMMANDS)
    assert all(len(line) <= 120 for line in overview().splitlines())


def test_every_command_has_a_script_and_a_configuration() -> None:
    assert {path.stem for path in (ROOT / "scripts").glob("*.py")} == COMMANDS.keys()
    assert CONF_DIR.resolve() == ROOT / "conf"
    files = {path.stem for path in CONF_DIR.glob("*.yaml")}
    assert files == {command.config or name for name, command in COMMANDS.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_both_ways_run_the_same_command(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    by_name = printed(monkeypatch, capsys, name, "--help")
    script = ROOT / "scripts" / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    runpy.run_path(str(script), run_name="__main__")
    by_script = capsys.readouterr().out
    assert f"usage: fangyan {name} " in by_name
    as_script = by_name.replace(f"-m fangyan {name} ", f"scripts/{name}.py ")
    assert by_script == as_script.replace(f"fangyan {name} ", f"python scripts/{name}.py ")


def test_a_misspelt_command_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"there is no command trian; did you mean train\? fangyan --help"):
        printed(monkeypatch, capsys, "trian", "seed=1")
    assert printed(monkeypatch, capsys) == printed(monkeypatch, capsys, "--help")


def test_own_configurations_can_be_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 9\n")
    own = [f"hydra.searchpath=[{tmp_path}]", "experiment=mine", "exp_dir=a", "data_dir=b"]
    assert "\n  seed=9\n" in printed(monkeypatch, capsys, "train", "--help", *own)
    assert "\nseed: 9\n" in printed(monkeypatch, capsys, "train", "--cfg", "job", *own)


def test_a_command_that_cannot_run_says_how_it_is_called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^error: give model_dir=VALUE .*; fangyan summary --help lists"):
        printed(monkeypatch, capsys, "summary")
