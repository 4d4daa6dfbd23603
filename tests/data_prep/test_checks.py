"""Every kind of problem, each in a corpus that is sound otherwise."""

import csv
import dataclasses
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import MonoCut, Recording, SupervisionSegment, load_manifest
from rich.console import Console
from sound_folder import WriteTable, good_rows, write_noise

from data_prep.audio import AudioProbe, probe_audio
from data_prep.checks import CheckConfig, CorpusChecker, OnProblem
from data_prep.corpora.folder import FolderConfig
from data_prep.errors import PreparationError
from data_prep.pipeline import PrepareConfig, prepare
from data_prep.problems import REMEDIES, ProblemLog, Severities, Severity
from data_prep.text import TextNormaliser

Rows = list[dict[str, str]]
MakeConfig = Callable[[FolderConfig], PrepareConfig]


def corrupt_wav(rows: Rows, folder: Path) -> str:
    (folder / rows[0]["path"]).write_bytes(b"RIFF, but nothing else" * 50)
    return "unreadable_audio"


def cut_off_wav(rows: Rows, folder: Path) -> str:
    file = folder / rows[0]["path"]
    file.write_bytes(file.read_bytes()[:5000])
    return "unreadable_audio"


def cut_off_flac(rows: Rows, folder: Path) -> str:
    samples, rate = soundfile.read(folder / rows[0]["path"])
    rows[0]["path"] = "good0.flac"
    soundfile.write(folder / "good0.flac", samples, rate)
    (folder / "good0.flac").write_bytes((folder / "good0.flac").read_bytes()[:5000])
    return "unreadable_audio"


def not_a_number(rows: Rows, folder: Path) -> str:
    soundfile.write(folder / rows[0]["path"], np.full(8000, np.nan, np.float32), 16000, subtype="FLOAT")
    return "unreadable_audio"


def missing_file(rows: Rows, folder: Path) -> str:
    (folder / rows[0]["path"]).unlink()
    return "missing_audio"


def no_samples(rows: Rows, folder: Path) -> str:
    soundfile.write(folder / rows[0]["path"], np.zeros(0), 16000)
    return "zero_duration"


def very_short(rows: Rows, folder: Path) -> str:
    write_noise(folder / rows[0]["path"], seconds=0.05)
    return "zero_duration"


def very_long(rows: Rows, folder: Path) -> str:
    write_noise(folder / rows[0]["path"], seconds=31)
    return "overlong"


def empty_transcript(rows: Rows, folder: Path) -> str:
    rows[0]["text"] = " "
    return "empty_text"


def punctuation_only(rows: Rows, folder: Path) -> str:
    rows[0]["text"] = "……！（笑）"
    return "empty_after_normalisation"


def unknown_dialect(rows: Rows, folder: Path) -> str:
    rows[0]["dialect"] = "Klingon"
    return "unknown_dialect"


def same_path_twice(rows: Rows, folder: Path) -> str:
    rows.append(dict(rows[0]))
    return "duplicate_id"


def copied_file(rows: Rows, folder: Path) -> str:
    shutil.copy(folder / rows[1]["path"], folder / rows[0]["path"])
    return "duplicate_audio"


def sentence_number_of_the_test(rows: Rows, folder: Path) -> str:
    rows[0]["sentence_id"] = rows[3]["sentence_id"]
    return "sentence_overlap"


def text_of_the_test(rows: Rows, folder: Path) -> str:
    rows[0]["text"] = rows[3]["text"].replace("。", "！")
    return "sentence_overlap"


def text_of_the_valid_split(rows: Rows, folder: Path) -> str:
    rows[0]["text"] = rows[2]["text"]
    return "sentence_overlap"


def speaker_of_the_test(rows: Rows, folder: Path) -> str:
    rows[0]["speaker"] = rows[3]["speaker"]
    return "speaker_overlap"


def other_rate(rows: Rows, folder: Path) -> str:
    write_noise(folder / rows[0]["path"], seconds=0.4, rate=8000, seed=77)
    return "sampling_rate"


def stereo(rows: Rows, folder: Path) -> str:
    samples = np.random.default_rng(5).uniform(-0.1, 0.1, (8000, 2))
    soundfile.write(folder / rows[0]["path"], samples, 16000)
    return "several_channels"


def composition_without_character(rows: Rows, folder: Path) -> str:
    rows[0]["text"] = "請[勿愛]耍"
    return "unknown_composition"


ERRORS = [
    corrupt_wav,
    cut_off_wav,
    cut_off_flac,
    not_a_number,
    missing_file,
    no_samples,
    very_short,
    very_long,
    empty_transcript,
    punctuation_only,
    unknown_dialect,
    same_path_twice,
    copied_file,
    sentence_number_of_the_test,
    text_of_the_test,
    text_of_the_valid_split,
    speaker_of_the_test,
]
WARNINGS = [other_rate, stereo, composition_without_character]


def run(config: PrepareConfig) -> list[dict[str, str]]:
    """Prepare; gives the lines of problems.tsv."""
    prepare(config, Console(quiet=True))
    return problems(config)


def problems(config: PrepareConfig) -> list[dict[str, str]]:
    with (Path(config.data_dir) / "problems.tsv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def cuts(config: PrepareConfig) -> dict[str, MonoCut]:
    return {
        cut.id: cut
        for split in ("train", "valid", "test")
        for cut in load_manifest(Path(config.data_dir) / f"cuts_{split}.jsonl.gz")
    }


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
    with pytest.raises(PreparationError, match=r"2 utterances have an error.*problems\.tsv.*on_problem=drop"):
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
        row["dialect"] = "Klingon" if row["split"] == "valid" else row["dialect"]
    with pytest.raises(PreparationError, match="no usable utterance is left in valid"):
        run(prepare_config(write_table(rows)))


# What a table cannot express, but the manifests of another corpus can.


def check(
    recordings: list[tuple[Recording, AudioProbe]], supervisions: list[SupervisionSegment]
) -> tuple[list[str], list[MonoCut]]:
    """Kinds of the problems of a training split, and the cuts that are left."""
    stream = io.StringIO()
    checker = CorpusChecker(CheckConfig(), TextNormaliser(), 16000, ProblemLog(stream, Severities()))
    left = list(checker.check_split("train", recordings, supervisions))
    stream.seek(0)
    return [row["problem"] for row in csv.DictReader(stream, delimiter="\t")], left


def recording_of_one_second(folder: Path) -> tuple[Recording, AudioProbe]:
    write_noise(folder / "one.wav", seconds=1.0)
    recording = Recording.from_file(folder / "one.wav", recording_id="one")
    return recording, probe_audio(recording)


def segment(start: float, duration: float, number: int = 0) -> SupervisionSegment:
    return SupervisionSegment(f"s{number}", "one", start, duration, text="好，", language="wuu")


def test_segments_of_a_recording(tmp_path: Path) -> None:
    kinds, left = check([recording_of_one_second(tmp_path)], [segment(0, 0.5, 0), segment(0.5, 0.505, 1)])
    assert kinds == []  # five milliseconds too long is rounding
    assert [(cut.start, cut.duration, cut.supervisions[0].start) for cut in left] == [
        (0, 0.5, 0),
        (0.5, 0.5, 0),
    ]
    assert left[0].supervisions[0].text == "好"
    assert left[0].supervisions[0].custom == {"raw_text": "好，"}


def test_translations_are_normalised_like_transcripts(tmp_path: Path) -> None:
    spoken = segment(0, 0.5, 0)
    spoken.custom = {"translation": "好，對。"}
    _, left = check([recording_of_one_second(tmp_path)], [spoken])
    custom = {"raw_text": "好，", "translation": "好對", "raw_translation": "好，對。"}
    assert left[0].supervisions[0].custom == custom


@pytest.mark.parametrize(("start", "duration"), [(0.5, 0.6), (-0.1, 0.5), (2.0, 0.5)])
def test_segment_beyond_its_recording(start: float, duration: float, tmp_path: Path) -> None:
    kinds, left = check([recording_of_one_second(tmp_path)], [segment(start, duration)])
    assert (kinds, left) == (["beyond_audio"], [])


def test_file_that_changed_after_its_manifest_was_made(tmp_path: Path) -> None:
    recording, _ = recording_of_one_second(tmp_path)
    write_noise(tmp_path / "one.wav", seconds=0.9)
    kinds, left = check([(recording, probe_audio(recording))], [segment(0, 1)])
    assert (kinds, left) == (["audio_mismatch"], [])


def test_recording_without_transcript(tmp_path: Path) -> None:
    kinds, left = check([recording_of_one_second(tmp_path)], [])
    assert (kinds, left) == (["no_transcript"], [])


def test_supervision_without_recording_is_the_fault_of_the_corpus() -> None:
    with pytest.raises(PreparationError, match="supervision s0 belongs to recording one"):
        check([], [segment(0, 1)])


def test_every_kind_of_problem_has_a_remedy() -> None:
    assert set(REMEDIES) == {field.name for field in dataclasses.fields(Severities)}
