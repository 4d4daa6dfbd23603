"""Every kind of problem, each in a corpus that is sound otherwise."""

import csv
import dataclasses
import io
import os
import re
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment, load_manifest
from rich.console import Console
from sound_folder import COLUMNS, WriteTable, good_rows, write_noise

from data_prep.audio.probe import AudioConfig, AudioProbe, probe_audio
from data_prep.checks import CheckConfig, CorpusChecker, OnProblem, weighted_length
from data_prep.corpora.folder import FolderConfig
from data_prep.pipeline import PrepareConfig, prepare
from data_prep.problems import REMEDIES, ProblemLog, Severities, Severity, remedy_of
from data_prep.state import fingerprint
from data_prep.text.normaliser import TextNormaliser
from zipformer.errors import UserError

Rows = list[dict[str, str]]
MakeConfig = Callable[[FolderConfig], PrepareConfig]


def corrupt_wav(rows: Rows, folder: Path) -> str:
    (folder / rows[0]["path"]).write_bytes(b"RIFF, but nothing else" * 50)
    return "unreadable_audio"


def cut_off_wav(rows: Rows, folder: Path) -> str:
    file = folder / rows[0]["path"]
    file.write_bytes(file.read_bytes()[:5000])
    return "truncated_audio"


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


def one_very_short_word(rows: Rows, folder: Path) -> str:
    rows[0]["text"] = "好"
    return very_short(rows, folder)


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


def ambiguous_dialect(rows: Rows, folder: Path) -> str:
    rows[0]["dialect"] = "Mandarin"
    return "unknown_dialect"


def no_dialect(rows: Rows, folder: Path) -> str:
    rows[0]["dialect"] = ""
    return "unknown_dialect"


def far_too_much_text(rows: Rows, folder: Path) -> str:
    rows[0]["text"] = "好" * 10_000
    return "text_too_long"


def too_much_text(rows: Rows, folder: Path) -> str:
    rows[0]["text"] = "好" * 11  # in half a second
    return "text_too_long"


def too_many_words(rows: Rows, folder: Path) -> str:
    rows[0]["text"] = "o kin a jit khi chhit tho to bo lang chai"
    return "text_too_long"


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


def silence(rows: Rows, folder: Path) -> str:
    soundfile.write(folder / rows[0]["path"], np.full(8000, 0.25), 16000)
    return "silent_audio"


def barely_a_hum(rows: Rows, folder: Path) -> str:
    soundfile.write(folder / rows[0]["path"], 1e-4 * np.sin(np.arange(8000) / 50), 16000, subtype="FLOAT")
    return "silent_audio"


def integers_as_floats(rows: Rows, folder: Path) -> str:
    samples = 32767 * np.random.default_rng(6).uniform(-0.1, 0.1, 8000)
    soundfile.write(folder / rows[0]["path"], samples, 16000, subtype="FLOAT")
    return "not_full_scale"


def very_low(rows: Rows, folder: Path) -> str:
    samples = np.random.default_rng(7).uniform(-1e-3, 1e-3, 8000)
    soundfile.write(folder / rows[0]["path"], samples, 16000)
    return "faint_audio"


def clipped(rows: Rows, folder: Path) -> str:
    tone = 2 * np.sin(np.arange(8000) / 20)
    soundfile.write(folder / rows[0]["path"], tone.clip(-1, 1), 16000)
    return "clipped_audio"


def zeros_at_the_end(rows: Rows, folder: Path) -> str:
    samples = np.random.default_rng(8).uniform(-0.1, 0.1, 8000)
    samples[3000:] = 0
    soundfile.write(folder / rows[0]["path"], samples, 16000)
    return "frozen_audio"


def composition_without_character(rows: Rows, folder: Path) -> str:
    rows[0]["text"] = "請[勿愛]耍"
    return "unknown_composition"


def unclosed_label(rows: Rows, folder: Path) -> str:
    rows[0]["text"] = "(music" + rows[0]["text"]
    return "unmatched_bracket"


def label_of_another_corpus(rows: Rows, folder: Path) -> str:
    rows[0]["text"] = "[OVERLAP]" + rows[0]["text"]
    return "unknown_label"


def alternative_in_parentheses(rows: Rows, folder: Path) -> str:
    rows[0]["text"] += "（夜餐）"
    return "dropped_remark"


def percent_sign(rows: Rows, folder: Path) -> str:
    rows[0]["text"] += "５０％"
    return "dropped_symbol"


def katakana_for_han(rows: Rows, folder: Path) -> str:
    rows[0]["text"] = "ニ" + rows[0]["text"]
    return "unusual_letter"


def missing_character(rows: Rows, folder: Path) -> str:
    rows[0]["text"] = "□" + rows[0]["text"]
    return "untranscribed_speech"


def little_text(rows: Rows, folder: Path) -> str:
    write_noise(folder / rows[0]["path"], seconds=20)
    return "text_too_short"


def sentence_of_the_test_in_valid(rows: Rows, folder: Path) -> str:
    rows[0].update(split="valid", speaker=rows[2]["speaker"], sentence_id=rows[3]["sentence_id"])
    return "held_out_sentence_overlap"


def text_of_the_test_in_valid(rows: Rows, folder: Path) -> str:
    sentence_of_the_test_in_valid(rows, folder)
    rows[0]["sentence_id"] = "none"
    rows[0]["text"] = rows[3]["text"]
    return "held_out_sentence_overlap"


ERRORS = [
    corrupt_wav,
    cut_off_wav,
    cut_off_flac,
    not_a_number,
    missing_file,
    no_samples,
    silence,
    integers_as_floats,
    barely_a_hum,
    very_short,
    very_long,
    empty_transcript,
    punctuation_only,
    unknown_dialect,
    ambiguous_dialect,
    no_dialect,
    far_too_much_text,
    too_much_text,
    too_many_words,
    same_path_twice,
    copied_file,
    sentence_number_of_the_test,
    text_of_the_test,
    text_of_the_valid_split,
    speaker_of_the_test,
]
WARNINGS = [
    other_rate,
    stereo,
    very_low,
    clipped,
    zeros_at_the_end,
    composition_without_character,
    unclosed_label,
    label_of_another_corpus,
    alternative_in_parentheses,
    percent_sign,
    katakana_for_han,
    missing_character,
    little_text,
    sentence_of_the_test_in_valid,
    text_of_the_test_in_valid,
]


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
    assert problem["remedy"] == REMEDIES[kind]
    assert len(cuts(config)) == 12


def test_a_header_that_promises_too_little_is_reported(
    tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig
) -> None:
    rows = good_rows(tmp_path)
    file = tmp_path / "good0.wav"  # 16 kHz, 0.5 s: 16000 bytes of samples behind a header of 44 bytes
    content = bytearray(file.read_bytes())
    content[40:44] = (3200).to_bytes(4, "little")
    file.write_bytes(content)
    config = prepare_config(write_table(rows))
    (problem,) = run(config)
    assert (problem["problem"], problem["severity"]) == ("unread_audio", "error")
    assert "3200 bytes of samples, but 12800 more (0.40 s)" in problem["detail"]
    assert "good0" not in cuts(config)


def test_a_format_that_cannot_seek_is_used_and_the_others_go_on(
    tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig
) -> None:
    rows = good_rows(tmp_path)
    samples = 0.2 * np.sin(np.arange(8000) / 8)  # a tone: the coder is made for speech
    soundfile.write(tmp_path / "good0.wav", samples, 8000, subtype="GSM610")
    config = prepare_config(write_table(rows))
    assert [problem["problem"] for problem in run(config)] == ["sampling_rate"]
    decoded = soundfile.SoundFile(tmp_path / "good0.wav").read(1 << 20, dtype="float32")
    cut = cuts(config)["good0"]
    assert cut.duration == len(decoded) / 8000
    np.testing.assert_array_equal(soundfile.read(cut.recording.sources[0].source)[0], decoded)


def test_the_channel_with_the_speech_is_used(
    tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig
) -> None:
    rows = good_rows(tmp_path)
    speech = soundfile.read(tmp_path / "good0.wav")[0]
    soundfile.write(tmp_path / "right.wav", np.stack([1e-4 * speech, speech], 1), 16000)
    soundfile.write(tmp_path / "both.wav", np.stack([speech, 0.5 * np.roll(speech, 7)], 1), 16000)
    rows[0]["path"], rows[4]["path"] = "right.wav", "both.wav"
    config = prepare_config(write_table(rows))
    assert {problem["problem"] for problem in run(config)} == {"several_channels"}
    found = cuts(config)
    right, both = (found[name].load_audio() for name in ("right", "both"))
    np.testing.assert_array_equal(right[0], soundfile.read(tmp_path / "right.wav", dtype="float32")[0][:, 1])
    channels = soundfile.read(tmp_path / "both.wav", dtype="float32")[0]
    np.testing.assert_allclose(both, channels.mean(1)[None], atol=1e-7)
    assert found["both"].recording.num_channels == 1


def test_a_channel_can_be_chosen(tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig) -> None:
    rows = good_rows(tmp_path)
    samples = np.random.default_rng(4).uniform(-0.1, 0.1, (8000, 3))
    soundfile.write(tmp_path / "good0.wav", samples[:, :2], 16000)
    soundfile.write(tmp_path / "good1.wav", samples, 16000)
    config = prepare_config(write_table(rows))
    config.audio = AudioConfig(channel="2")
    assert {(row["utterance_id"], row["problem"]) for row in run(config)} == {
        ("good0", "missing_channel"),
        ("good0", "several_channels"),
        ("good1", "several_channels"),
    }
    (cut,) = (cut for cut in cuts(config).values() if cut.id == "good1")
    expected = soundfile.read(tmp_path / "good1.wav", dtype="float32")[0][:, 2]
    np.testing.assert_array_equal(cut.load_audio()[0], expected)
    with pytest.raises(UserError, match=r"audio\.channel is 'left'"):
        AudioConfig(channel="left")


@pytest.mark.parametrize("severity", [Severity.error, Severity.warning])
def test_what_is_left_of_a_cut_off_file_is_used_if_that_is_wanted(
    severity: Severity, tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig
) -> None:
    rows = good_rows(tmp_path)
    cut_off_wav(rows, tmp_path)  # 4956 bytes of samples are left
    rows[0]["text"] = "好"  # in 0.15 s
    config = prepare_config(write_table(rows))
    config.checks.severities.truncated_audio = severity
    (problem,) = run(config)
    assert problem["problem"] == "truncated_audio"
    found = cuts(config)
    assert ("good0" in found) == (severity is Severity.warning)
    if severity is Severity.warning:
        assert found["good0"].duration == found["good0"].supervisions[0].duration == 2478 / 16000


def test_what_is_left_of_a_cut_off_file_must_have_the_time_for_the_text(
    tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig
) -> None:
    rows = good_rows(tmp_path)
    cut_off_wav(rows, tmp_path)
    config = prepare_config(write_table(rows))
    config.checks.severities.truncated_audio = Severity.warning
    found = {problem["problem"]: problem["detail"] for problem in run(config)}
    assert set(found) == {"truncated_audio", "text_too_long"}
    assert "4 characters in 0.15 s, at most 20 a second" in found["text_too_long"]
    assert "good0" not in cuts(config)


def test_a_path_with_a_nul_character_is_that_of_no_file() -> None:
    """Tables with this character are refused, but a manifest can hold it."""
    source = AudioSource("file", [0], "a\0b.wav")
    probe = probe_audio(Recording("one", [source], sampling_rate=16000, num_samples=16000, duration=1.0))
    ((kind, detail),) = probe.findings
    assert kind == "missing_audio"
    assert "cannot exist" in detail


def test_nothing_in_the_place_of_a_file_stops_or_hangs_the_preparation(
    tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig
) -> None:
    rows = good_rows(tmp_path)
    decomposed = unicodedata.normalize("NFD", "é.wav")
    shutil.copy(tmp_path / "good11.wav", tmp_path / decomposed)
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "link.wav").symlink_to(tmp_path / "gone.wav")
    (tmp_path / "circle.wav").symlink_to(tmp_path / "circle.wav")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("今日天氣" * 1000, encoding="utf-8")
    (tmp_path / "raw.wav").write_bytes((tmp_path / "good11.wav").read_bytes()[44:])
    expected = {
        "pipe.wav": ("unreadable_audio", "a named pipe"),
        "folder.wav": ("unreadable_audio", "a folder"),
        "link.wav": ("missing_audio", "does not exist"),
        "circle.wav": ("missing_audio", "cannot exist"),
        "empty.wav": ("unreadable_audio", "0 bytes"),
        "text.wav": ("unreadable_audio", "soundfile"),
        "raw.wav": ("unreadable_audio", "soundfile"),
        "x" * 300 + ".wav": ("missing_audio", "cannot exist"),
        "..": ("unreadable_audio", "a folder"),
        "/": ("unreadable_audio", "a folder"),
        "~/a.wav": ("missing_audio", "~ is not expanded"),
        "é.wav": ("missing_audio", "NFD"),
        "gone\u2028\x85[b] 'c' #%,{}🎤.wav": ("missing_audio", "does not exist"),
    }
    names = list(expected)
    odd = [
        {**rows[0], "path": name, "text": f"{rows[0]['text']}{chr(0x6000 + i)}"}
        for i, name in enumerate(names)
    ]
    ids = {f"odd{i}": name for i, name in enumerate(names)}
    table = [{**row, "id": row["path"].removesuffix(".wav")} for row in rows]
    table += [{**row, "id": key} for key, row in zip(ids, odd, strict=True)]
    config = prepare_config(write_table(table, (*COLUMNS, "id")))
    found = {ids[row["utterance_id"]]: (row["problem"], row["detail"]) for row in run(config)}
    assert set(found) == set(names)
    for name, (kind, words) in expected.items():
        assert found[name][0] == kind, name
        assert words in found[name][1], name
    assert len(cuts(config)) == 12


def test_ids_and_paths_of_any_characters(
    tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig
) -> None:
    rows = good_rows(tmp_path)
    ids = [
        "A b",
        "a b",
        "nan",
        "01",
        "x,y",
        "[z]",
        "q'u\"o",
        "#%",
        "-dash",
        "é",
        "e\u0301",
        "a/../b\\c\u2028🎤",
    ]
    names = [f"n{i} [{i}]'\",#%é\u2028.wav" for i in range(12)]
    for row, name in zip(rows, names, strict=True):
        (tmp_path / row["path"]).rename(tmp_path / name)
    table = [{**row, "id": key, "path": name} for row, key, name in zip(rows, ids, names, strict=True)]
    config = prepare_config(write_table(table, (*COLUMNS, "id")))
    assert run(config) == []
    found = cuts(config)
    assert set(found) == set(ids)
    assert [Path(found[key].recording.sources[0].source).name for key in ids] == names


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
    with pytest.raises(UserError, match="supervision s0 belongs to recording one"):
        check([], [segment(0, 1)])


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
