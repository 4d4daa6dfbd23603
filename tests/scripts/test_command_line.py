"""Mistakes on the command line: one line, with the remedy, from every script."""

import os
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def end_of(script: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    """What the script says at its end; one line."""
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    assert isinstance(end.value.code, str)
    assert "\n" not in end.value.code
    assert "HYDRA_FULL_ERROR" not in os.environ
    return end.value.code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["corpus=nonesuch"], "error: corpus=nonesuch is unknown; choose one of folder, human, mini, yubao"),
        ([], "You must specify 'corpus'"),
        (["corpus=folder", "checks.max_duraton=3"], "did you mean max_duration?"),
        (["corpus=folder", "fbank.shard_size=many"], "fbank.shard_size=many: Value 'many' of type 'str'"),
        (["corpus=folder", "data_dir=d"], "missing mandatory value: tsv; give corpus.tsv=VALUE"),
        (["corpus=folder", "corpus.tsv"], "'corpus.tsv' is not a setting; write NAME=VALUE"),
        (["corpus=folder", "+corpus.dialect_map={官話: yue}"], "corpus.dialect_map_file=FILE"),
        (["corpus=folder", "+corpus.keep={lang: [官話]}"], "Put values in quotes"),
        (["corpus=folder", "corpus.tsv=x", "data_dir=d"], "the table x does not exist; set corpus.tsv"),
    ],
)
def test_messages_of_preparation(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert message in end_of("prepare.py", arguments, monkeypatch, tmp_path)


@pytest.mark.parametrize("script", ["prepare.py", "transcripts.py", "train.py"])
@pytest.mark.parametrize("value", ["/data/lang=yue/t.tsv", "/录音/t.tsv", "/a(b)/c", "it's, 1=2"])
def test_a_path_that_hydra_cannot_read_comes_back_in_quotes(
    value: str, script: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    message = end_of(script, [f"data_dir={value}"], monkeypatch, tmp_path)
    (argument,) = shlex.split(message.partition("put it in quotes: ")[2])
    (override,) = OverridesParser.create().parse_overrides([argument])
    assert (override.key_or_group, override.value()) == ("data_dir", value)


def test_every_script_reports_so() -> None:
    scripts = [path for path in SCRIPTS.glob("*.py") if "@hydra.main" in path.read_text(encoding="utf-8")]
    assert len(scripts) >= 17
    for path in scripts:
        assert path.read_text(encoding="utf-8").endswith('if __name__ == "__main__":\n    run_main(main)\n')
