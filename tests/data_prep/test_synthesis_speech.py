"""The sound of the embedded corpus: measured, as nobody listens in a test."""

import hashlib
import json
import random
import subprocess
import sys
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.corpora.mini.acoustics import (
    Room,
    Samples,
    add_room,
    convolve,
    draw_room,
    impulse_response,
    resample,
    set_level,
)
from data_prep.corpora.mini.lexicon import entries
from data_prep.corpora.mini.readings import READERS, reader_of
from data_prep.corpora.mini.unit import DONE, SAMPLING_RATE, SYLLABLES, Line, Unit
from data_prep.corpora.mini.voices import (
    PITCHES,
    TEST_VOICES,
    TRAIN_VOICES,
    VALID_VOICES,
    Speaker,
    draw_speaker,
    site_speakers,
)
from data_prep.corpora.mini.workers import run_units

pytest.importorskip("espeakng_loader")
from data_prep.corpora.mini.espeak import Espeak, Parameter

ROOM = Room(reverberation_seconds=0.2, wet=0.2, snr_decibels=30.0, noise_tilt=0.5, seed=3)
SPEAKER = Speaker("m3", 160, 50, 80)


@pytest.fixture(scope="module")
def espeak() -> Espeak:
    """One for all tests: the library does not bear being initialised again and again."""
    synthesiser = Espeak()
    # The settings are the process's own, and tests elsewhere may have left theirs.
    synthesiser.set_parameter(Parameter.RATE, 175)
    synthesiser.set_parameter(Parameter.PITCH, 50)
    synthesiser.set_parameter(Parameter.RANGE, 80)
    return synthesiser


def speech_of(espeak: Espeak, phonemes: str, voice: str = "m3", table: str = "cmn") -> Samples:
    """The sounding part of a syllable, 16 kHz."""
    espeak.set_voice(table, voice)
    samples = resample(espeak.speak(phonemes), espeak.sampling_rate, SAMPLING_RATE)
    loud = np.flatnonzero(np.abs(samples) > 0.02)
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples[:0]


def pitch_of(samples: Samples) -> float:
    """Pitch in Hz by the highest peak of the autocorrelation between 50 and 250 Hz."""
    correlation = np.correlate(samples, samples, "full")[len(samples) - 1 :]
    low, high = SAMPLING_RATE // 250, SAMPLING_RATE // 50
    return SAMPLING_RATE / (low + int(np.argmax(correlation[low:high])))


def spectrum_of(samples: Samples) -> Samples:
    """Log spectrum of the three thirds of a syllable, in 30 bands below 7 kHz."""
    power = np.stack([np.abs(np.fft.rfft(part, 4096)) ** 2 for part in np.array_split(samples, 3)])
    bands = np.stack([band.sum(1) for band in np.array_split(power[:, :1800], 30, axis=1)], axis=1)
    return np.asarray(np.log(bands / bands.max() + 1e-4), dtype=np.float32)


@pytest.mark.parametrize("variety", READERS)
def test_no_syllable_is_silent(espeak: Espeak, variety: str) -> None:
    reader = reader_of(variety)
    for phonemes in {p for entry in entries().values() for p in reader.read(entry.word(variety))}:
        samples = speech_of(espeak, phonemes, table=reader.table)
        assert 0.04 < len(samples) / SAMPLING_RATE < 0.7, phonemes
        assert np.sqrt(np.mean(samples**2)) > 0.01, phonemes


def test_tones_have_their_contours(espeak: Espeak) -> None:
    def ends(tone: str) -> tuple[float, float]:
        # Flutter, whose phase goes on from call to call, now and then leads the autocorrelation astray.
        spoken = [np.array_split(speech_of(espeak, f"lA{tone}"), 4) for _ in range(9)]
        second, last = (float(np.median([pitch_of(quarters[i]) for quarters in spoken])) for i in (1, 3))
        return second, last

    assert min(ends("55")) > 1.2 * max(ends("11"))
    assert ends("35")[1] > 1.1 * ends("35")[0]
    assert max(ends("33")) < 1.15 * min(ends("33"))
    assert ends("51")[0] > 1.1 * ends("51")[1]


def test_sounds_that_must_differ_do(espeak: Espeak) -> None:
    """Different vowels, codas and onsets are further apart than one syllable said twice, mostly."""

    def distance(one: str, other: str) -> float:
        spoken = [
            (spectrum_of(speech_of(espeak, one)), spectrum_of(speech_of(espeak, other))) for _ in range(9)
        ]
        return float(np.median([np.linalg.norm(a - b) for a, b in spoken]))

    for one, other in (
        ("mA55", "mE55"),
        ("siA51n^", "siA51N"),
        ("tsi[55", "tsi55"),
        ("si55", "s.i.55"),
        ("to55", "tuo55"),
        ("phA55", "pA55"),
        ("tA22p", "tA22"),
    ):
        same = max(distance(one, one), distance(other, other))
        assert distance(one, other) > 1.3 * same, (one, other)


def test_when_syllables_begin(espeak: Espeak) -> None:
    """Stops are silent before they burst: the quietest moments of ta-ta-ta-ta are at the boundaries."""
    espeak.set_voice("cmn", "m3")
    samples = espeak.speak("ta55 ta55 ta55 ta55").astype(np.float64)
    starts = list(espeak.syllable_starts)
    assert len(starts) == 4
    assert starts[0] == 0
    window = espeak.sampling_rate // 100
    loudness = np.convolve(samples**2, np.ones(window) / window, "same")
    for start, end in zip(starts[1:], [*starts[2:], len(samples)], strict=True):
        onset = loudness[start - window : start + 4 * window].min()
        vowel = loudness[start + 4 * window : end].max()
        assert onset < 0.01 * vowel
    espeak.speak("ma55")
    assert espeak.syllable_starts == [0]


def test_unknown_voice(espeak: Espeak) -> None:
    with pytest.raises(ValueError, match=r"cmn\+nobody"):
        espeak.set_voice("cmn", "nobody")


def test_every_voice_speaks_at_the_lowest_pitch() -> None:
    """In a process of its own: the synthesiser ends its process when a voice falls too low."""
    script = """
from data_prep.corpora.mini.espeak import Espeak, Parameter
from data_prep.corpora.mini.voices import *
espeak = Espeak()
for voice in TRAIN_VOICES + VALID_VOICES + TEST_VOICES:
    for table, phonemes in (("cmn", "lA11 tsi[11 ma214 ka21 fu11 uei11n^"), ("yue", "maa4 jau4 si6 jyu4")):
        espeak.set_voice(table, voice)
        espeak.set_parameter(Parameter.PITCH, PITCHES[0])
        espeak.set_parameter(Parameter.RANGE, 95)
        espeak.speak(phonemes)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_splits_share_no_voice() -> None:
    for one, other in (
        (TRAIN_VOICES, TEST_VOICES),
        (TRAIN_VOICES, VALID_VOICES),
        (VALID_VOICES, TEST_VOICES),
    ):
        assert not set(one) & set(other)
    draw = random.Random(0)
    assert {draw_speaker(TRAIN_VOICES, draw).voice for _ in range(1000)} == set(TRAIN_VOICES)
    assert {s.voice for i in range(10) for s in site_speakers(i, draw)} == set(TEST_VOICES)
    assert all(len({s.voice for s in site_speakers(i, draw)}) == 2 for i in range(30))
    assert all(PITCHES[0] <= draw_speaker(TRAIN_VOICES, draw).pitch <= PITCHES[1] for _ in range(100))


def test_resampling_keeps_time_and_pitch() -> None:
    times = np.arange(22050) / 22050
    sine = np.round(20000 * np.sin(2 * np.pi * 440 * times)).astype(np.int16)
    samples = resample(sine, 22050, 16000)
    assert len(samples) == 16000
    expected = 20000 / 32768 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    np.testing.assert_allclose(samples[200:-200], expected[200:-200], atol=2e-3)
    above = np.round(20000 * np.sin(2 * np.pi * 9000 * times)).astype(np.int16)  # would alias to 7 kHz
    assert np.abs(resample(above, 22050, 16000)[200:-200]).max() < 2e-3


def test_convolution() -> None:
    numbers = np.random.default_rng(0)
    samples, response = (numbers.standard_normal(n).astype(np.float32) for n in (500, 70))
    np.testing.assert_allclose(convolve(samples, response), np.convolve(samples, response)[:500], atol=1e-4)


def test_room() -> None:
    """Energy of the reverberation, its decay, and the signal-to-noise ratio are those asked for."""
    response = impulse_response(ROOM, SAMPLING_RATE)
    assert response[0] == 1
    assert float(np.sum(response[1:] ** 2)) == pytest.approx(ROOM.wet, rel=1e-4)
    early, late = response[200:600], response[1800:2200]  # a tenth of a second apart: 30 dB
    assert 10 * np.log10(np.mean(early**2) / np.mean(late**2)) == pytest.approx(30, abs=3)

    speech = np.random.default_rng(0).standard_normal(80000).astype(np.float32)
    dry = replace(ROOM, wet=0.0)
    heard = add_room(speech, dry, impulse_response(dry, SAMPLING_RATE), np.random.default_rng(1))
    snr = 10 * np.log10(np.mean(speech**2) / np.mean((heard - speech) ** 2))
    assert snr == pytest.approx(ROOM.snr_decibels, abs=0.1)
    assert draw_room(random.Random(4)) == draw_room(random.Random(4))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-40, 0))
def test_level(seed: int, decibels: float) -> None:
    samples = np.random.default_rng(seed).standard_normal(2000).astype(np.float32)
    levelled = set_level(samples, decibels).astype(np.float64) / 32767
    assert np.abs(levelled).max() <= 0.981
    if np.abs(levelled).max() < 0.97:
        assert 20 * np.log10(np.sqrt(np.mean(levelled**2))) == pytest.approx(decibels, abs=0.05)


def a_unit(*, seed: int = 5, voice: str = "f3") -> Unit:
    lines = (
        Line("first", "ts.A55N s.i.51 xo-35", SPEAKER),
        Line("second", "ni214 xAu214", replace(SPEAKER, voice=voice, rate=180)),
        Line("third", "s.i.51 tsh@55N tA51", SPEAKER),
    )
    return Unit("cmn", ROOM, seed, lines)


def digest(folder: Path) -> str:
    return hashlib.sha256(b"".join(p.read_bytes() for p in sorted(folder.glob("*.wav")))).hexdigest()


def test_unit_is_described_completely() -> None:
    assert Unit.from_json(a_unit().to_json()) == a_unit()


def test_units_are_reproducible_and_kept(tmp_path: Path) -> None:
    """Side by side or one after the other, the bytes are the same; finished work is not done again."""
    units = {tmp_path / "a" / str(i): a_unit(seed=i) for i in range(3)}
    counts = run_units(units, 2)
    alone = {tmp_path / "b" / str(i): a_unit(seed=i) for i in range(3)}
    run_units(alone, 1)
    for one, other in zip(units, alone, strict=True):
        assert digest(one) == digest(other)
    assert digest(tmp_path / "a" / "0") != digest(tmp_path / "a" / "1")

    folder = tmp_path / "a" / "1"
    with wave.open(str(folder / "second.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        assert file.getnframes() == counts[folder]["second"]
        assert 0.4 < file.getnframes() / 16000 < 1.5

    boundaries = json.loads((folder / SYLLABLES).read_text())
    assert boundaries == json.loads((tmp_path / "b" / "1" / SYLLABLES).read_text())
    for line in a_unit(seed=1).lines:
        positions = boundaries[line.id]
        assert len(positions) == 1 + len(line.phonemes.split())
        assert positions == sorted(set(positions))
        assert 800 <= positions[0] <= 3200  # a pause of 50 to 200 ms, and one after
        assert 800 <= counts[folder][line.id] - positions[-1] <= 3200

    made = (folder / "first.wav").stat().st_mtime_ns
    assert run_units({folder: a_unit(seed=1)}, 1) == {folder: counts[folder]}
    assert (folder / "first.wav").stat().st_mtime_ns == made
    run_units({folder: a_unit(seed=2)}, 1)
    assert digest(folder) == digest(tmp_path / "a" / "2")


def test_half_made_unit_is_made_anew(tmp_path: Path) -> None:
    partial = tmp_path / ".unit.partial"
    partial.mkdir()
    (partial / "stray.wav").write_bytes(b"killed")
    run_units({tmp_path / "unit": a_unit()}, 1)
    assert {p.name for p in (tmp_path / "unit").glob("*.wav")} == {"first.wav", "second.wav", "third.wav"}
    assert not partial.exists()
    assert set(json.loads((tmp_path / "unit" / DONE).read_text())) == {"first", "second", "third"}


def test_failed_unit_says_where_and_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"unit\.partial[\s\S]*no voice 'cmn\+nobody'"):
        run_units({tmp_path / "unit": a_unit(voice="nobody")}, 1)
    assert not (tmp_path / "unit").exists()
