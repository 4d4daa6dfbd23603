"""Every kind of problem, each in a corpus that is sound otherwise, and what preparation does about them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sound_folder import MakeConfig, WriteTable, cuts, good_rows, problems, run
from spoilt_rows import (
    ERRORS,
    WARNINGS,
    Rows,
    copied_file,
    corrupt_wav,
    empty_transcript,
    other_rate,
    same_path_twice,
    speaker_of_the_test,
    unknown_dialect,
    very_long,
)

from data_prep.checks import OnProblem, weighted_length
from data_prep.problems import REMEDIES, Severity
from zipformer.errors import UserError


def test_a_sound_corpus_has_no_problems(
    tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig
) -> None:
    config = prepare_config(write_table(good_rows(tmp_path)))
    assert run(config) == []
    assert len(cuts(config)) == 12


@pytest.mark.parametrize("spoil", ERRORS, ids=lambda function: function.__name__)
def test_errors_are_reported_and_the_rest_goes_on(
    spoil: Callable[[Rows, Path], str], tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig
) -> None:
    rows = good_rows(tmp_path)
    kind = spoil(rows, tmp_path)
    config = prepare_config(write_table(rows))
    (problem,) = run(config)
    assert (problem["problem"], problem["split"], problem["severity"]) == (kind, "train", "error")
    # A twin is reported where it comes second.
    guilty = "good1" if spoil is copied_file else "good0"
    assert problem["utterance_id"] == guilty
    line = {same_path_twice: 14, copied_file: 3}.get(spoil, 2)
    assert f"(table.tsv:{line})" in problem["detail"]
    assert problem["remedy"] == REMEDIES[kind]
    left = {f"good{i}" for i in range(12)} - ({guilty} if spoil is not same_path_twice else set())
    assert set(cuts(config)) == left


@pytest.mark.parametrize("spoil", WARNINGS, ids=lambda function: function.__name__)
def test_warnings_are_reported_and_the_utterance_is_used(
    spoil: Callable[[Rows, Path], str], tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig
) -> None:
    rows = good_rows(tmp_path)
    kind = spoil(rows, tmp_path)
    config = prepare_config(write_table(rows))
    (problem,) = run(config)
    assert (problem["utterance_id"], problem["problem"], problem["severity"]) == ("good0", kind, "warning")
    assert problem["remedy"] == REMEDIES[kind]
    assert len(cuts(config)) == 12


def test_every_problem_of_an_utterance_is_named(
    tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig
) -> None:
    rows = good_rows(tmp_path)
    expected = {
        spoil(rows, tmp_path) for spoil in (empty_transcript, unknown_dialect, very_long, speaker_of_the_test)
    }
    found = run(prepare_config(write_table(rows)))
    assert {problem["problem"] for problem in found} == expected
    assert {problem["utterance_id"] for problem in found} == {"good0"}


def test_severities_are_configurable(
    tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig
) -> None:
    rows = good_rows(tmp_path)
    speaker_of_the_test(rows, tmp_path)
    other_rate(rows, tmp_path)
    config = prepare_config(write_table(rows))
    config.checks.severities.speaker_overlap = Severity.warning
    config.checks.severities.sampling_rate = Severity.ignore
    (problem,) = run(config)
    assert (problem["problem"], problem["severity"]) == ("speaker_overlap", "warning")
    assert len(cuts(config)) == 12


def test_stopping_reports_everything_and_can_be_run_again(
    tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig
) -> None:
    rows = good_rows(tmp_path)
    corrupt_wav(rows, tmp_path)
    rows[4]["text"] = ""
    config = prepare_config(write_table(rows))
    config.checks.on_problem = OnProblem.stop
    with pytest.raises(UserError, match=r"2 utterances have an error.*problems\.tsv.*on_problem=drop"):
        run(config)
    assert {problem["utterance_id"] for problem in problems(config)} == {"good0", "good4"}
    # Mended, the same command goes through: nothing of the first attempt is in the way.
    good_rows(tmp_path)
    rows[4]["text"] = "好"
    write_table(rows)
    assert run(config) == []
    assert len(cuts(config)) == 12


def test_warnings_alone_do_not_stop(
    tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig
) -> None:
    rows = good_rows(tmp_path)
    other_rate(rows, tmp_path)
    config = prepare_config(write_table(rows))
    config.checks.on_problem = OnProblem.stop
    assert len(run(config)) == 1


def test_a_split_without_usable_utterances_stops(
    tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig
) -> None:
    rows = good_rows(tmp_path)
    for row in rows:
        row["text"] = "" if row["split"] == "valid" else row["text"]
    with pytest.raises(UserError, match="no usable utterance is left in valid"):
        run(prepare_config(write_table(rows)))


def test_many_unknown_labels_stop_with_each_label_and_can_be_mapped(
    tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig
) -> None:
    rows = good_rows(tmp_path)
    for i, label in {0: "Klingon", 4: "Klingon", 1: "火星話", 5: "Mandarin"}.items():
        rows[i]["dialect"] = label
    config = prepare_config(write_table(rows))
    with pytest.raises(UserError) as error:
        run(config)
    message = str(error.value)
    assert "4 of 12 utterances have a dialect label without a variety" in message
    assert "2 utterances: unknown dialect label 'Klingon': '+corpus.dialect_map={klingon: <id>}'" in message
    assert "1 utterances: unknown dialect label '火星話': corpus.dialect_map_file=FILE" in message
    assert "1 utterances: the dialect label 'Mandarin' is ambiguous" in message
    assert "checks.max_unknown_dialects=1" in message
    config.checks.max_unknown_dialects = 1
    assert {problem["problem"] for problem in run(config)} == {"unknown_dialect"}
    assert len(cuts(config)) == 8
    shutil.rmtree(config.data_dir)
    config.checks.max_unknown_dialects = 0.1
    config.corpus.dialect_map = {"klingon": "hak", "Mandarin": "cmn", "火星话": "yue"}
    assert run(config) == []
    assert len(cuts(config)) == 12


def test_overlap_of_speakers_between_valid_and_test_is_reported_on_request(
    tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig
) -> None:
    rows = good_rows(tmp_path)
    rows[2]["speaker"] = rows[3]["speaker"]
    config = prepare_config(write_table(rows))
    config.checks.severities.held_out_speaker_overlap = Severity.warning
    (problem,) = run(config)
    assert (problem["problem"], problem["utterance_id"]) == ("held_out_speaker_overlap", "good2")


def test_long_details_leave_a_readable_table(
    tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig
) -> None:
    rows = good_rows(tmp_path)
    rows[0]["text"] = "！" * 140_000
    config = prepare_config(write_table(rows))
    (problem,) = run(config)  # read by csv, which refuses values of more than 131,072 characters
    assert problem["problem"] == "empty_after_normalisation"


@pytest.mark.parametrize(("text", "length"), [("你好", 2), ("ABC DEF", 2), ("2024年", 5), ("", 0)])
def test_length_of_a_text_is_about_its_syllables(text: str, length: float) -> None:
    assert weighted_length(text) == length
