"""Kinds of problems: each function spoils the first row of a sound corpus or its audio; returns its kind."""

import shutil
from pathlib import Path

import numpy as np
import soundfile
from sound_folder import write_noise

Rows = list[dict[str, str]]


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
