"""Files of sound that are cut off, of odd formats and channels, in odd places, or no files at all."""

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import AudioSource, Recording
from sound_folder import COLUMNS, MakeConfig, WriteTable, cuts, good_rows, run
from spoilt_rows import cut_off_wav

from data_prep.audio.probe import AudioConfig, probe_audio
from data_prep.problems import Severity
from zipformer.errors import UserError


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
