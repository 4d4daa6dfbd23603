"""The remedy that is named with each kind of problem: there is one, its settings exist, and they help."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from sound_folder import MakeConfig, WriteTable, cuts, good_rows, run
from spoilt_rows import (
    Rows,
    little_text,
    one_very_short_word,
    speaker_of_the_test,
    too_much_text,
    very_long,
)

from data_prep.checks import CheckConfig
from data_prep.problems import REMEDIES, Severities, Severity, remedy_of
from data_prep.state import fingerprint


def test_every_kind_of_problem_has_a_remedy() -> None:
    assert set(REMEDIES) == {field.name for field in dataclasses.fields(Severities)}


def test_settings_in_remedies_exist_and_change_something(
    tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig
) -> None:
    config = prepare_config(write_table(good_rows(tmp_path)))
    known = set(fingerprint(config))
    for kind in REMEDIES:
        for severity in Severity:
            remedy = remedy_of(kind, severity)
            for name, value in re.findall(r"((?:checks|corpus|text)\.[a-z_.]+)(?:=(\w+))?", remedy):
                assert any(setting == name or setting.startswith(f"{name}.") for setting in known) or hasattr(
                    config.text if name.startswith("text.") else config.corpus, name.split(".")[1]
                ), name
                if name == f"checks.severities.{kind}":
                    assert value != severity.value, f"{kind}: the remedy is the setting that is on"


@pytest.mark.parametrize(
    ("spoil", "mend"),
    [
        (one_very_short_word, lambda checks: setattr(checks, "min_duration", 0.01)),
        (very_long, lambda checks: setattr(checks, "max_duration", 40.0)),
        (too_much_text, lambda checks: setattr(checks, "max_characters_per_second", 30.0)),
        (little_text, lambda checks: setattr(checks, "min_characters_per_second", 0.1)),
        (speaker_of_the_test, lambda checks: setattr(checks.severities, "speaker_overlap", Severity.ignore)),
    ],
)
def test_remedies_in_the_settings_work(
    spoil: Callable[[Rows, Path], str],
    mend: Callable[[CheckConfig], None],
    tmp_path: Path,
    write_table: WriteTable,
    prepare_config: MakeConfig,
) -> None:
    rows = good_rows(tmp_path)
    kind = spoil(rows, tmp_path)
    config = prepare_config(write_table(rows))
    mend(config.checks)
    assert kind not in {problem["problem"] for problem in run(config)}
    assert len(cuts(config)) == 12
