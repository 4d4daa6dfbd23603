"""Recordings of every usual rate, channel layout and coding become the same features of 16 kHz."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import MonoCut
from numpy.typing import NDArray
from sound_folder import MakeConfig, WriteTable, cuts, run

from data_prep.audio.probe import AudioConfig
from data_prep.pipeline import PrepareConfig
from zipformer.data.audio import load_audio
from zipformer.data.features import fbank_extractor

RATE = 16000
SECONDS = 1.5
# File, sampling rate, channels, and what PyAV writes it with; None = soundfile writes it.
FORMATS = [
    ("wav8.wav", 8000, 1, None),
    ("wav44.wav", 44100, 2, None),
    ("flac44.flac", 44100, 2, None),
    ("flac48.flac", 48000, 1, None),
    ("mp3-44.mp3", 44100, 2, None),
    ("mp3-22.mp3", 22050, 1, None),
    ("opus48.opus", 48000, 2, None),
    ("opus16.opus", 16000, 1, None),
    ("m4a-44.m4a", 44100, 2, ("mp4", "aac")),
    ("m4a-8.m4a", 8000, 1, ("mp4", "aac")),
    ("mp4-48.mp4", 48000, 2, ("mp4", "aac")),
]


def speech(rate: int, seconds: float = SECONDS) -> NDArray[np.float64]:
    """A voiced sound below 4 kHz whose pitch and loudness change, of which every format keeps nearly all."""
    time = np.arange(round(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * k * (150 * time + 40 * time**2)) / k for k in range(1, 9))
    return 0.2 * (1.2 + np.sin(2 * np.pi * 3 * time)) / 2 * np.asarray(tones)


def write(path: Path, samples: NDArray[np.float64], rate: int, coding: tuple[str, str] | None) -> None:
    """Write samples (T, channels); an MP4 file gets a video as well."""
    if coding is None:
        kind = {".mp3": ("MP3", "MPEG_LAYER_III"), ".opus": ("OGG", "OPUS")}.get(path.suffix)
        soundfile.write(path, samples, rate, format=kind and kind[0], subtype=kind and kind[1])
        return
    av = pytest.importorskip("av")
    container, codec = coding
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.layout, stream.bit_rate = layout, 128000
        if path.suffix == ".mp4":
            video = output.add_stream("mpeg4", rate=10)
            video.width = video.height = 16
            video.pix_fmt = "yuv420p"
            for number in range(10):
                picture = av.VideoFrame(16, 16, "yuv420p")
                picture.pts, picture.time_base = number, Fraction(1, 10)
                output.mux(video.encode(picture))
            output.mux(video.encode(None))
        converter = av.AudioResampler(stream.codec_context.format, layout, rate, frame_size=1024)
        pcm = np.ascontiguousarray((32767 * samples).astype("<i2").reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        for part in [*converter.resample(frame), *converter.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))


@pytest.fixture
def config(tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig) -> PrepareConfig:
    """A recording of each format; of two channels, the second is a softer copy of the first."""
    rows = []
    for number, (name, rate, channels, coding) in enumerate(FORMATS):
        # Each a little longer than the one before, so that none is a copy of another.
        mono = speech(rate, SECONDS + 0.01 * number)
        write(tmp_path / name, np.stack([mono, 0.5 * mono][:channels], 1), rate, coding)
        text = f"第{chr(0x4E00 + number)}句"
        split = ("train", "valid", "test")[number % 3]
        row = {"path": name, "text": text, "dialect": "wuu-shanghai", "split": split}
        rows.append({**row, "speaker": split, "sentence_id": str(number)})
    return prepare_config(write_table(rows))


def best_match(samples: NDArray[np.float32], wanted: NDArray[np.float64]) -> tuple[float, float]:
    """Correlation at the best of the shifts up to 0.1 s, by which coders delay, and the gain there."""
    length = min(len(samples), len(wanted)) - RATE // 5
    middle = wanted[RATE // 10 : RATE // 10 + length]
    found = [samples[shift : shift + length] for shift in range(0, RATE // 5)]
    products = [float(part @ middle) / float(np.linalg.norm(part) * np.linalg.norm(middle)) for part in found]
    best = int(np.argmax(products))
    return products[best], float(np.linalg.norm(found[best]) / np.linalg.norm(middle))


def check(cut: MonoCut, number: int, gain: float) -> None:
    wanted = speech(RATE, SECONDS + 0.01 * number)
    assert cut.sampling_rate == RATE
    assert cut.duration == pytest.approx(SECONDS + 0.01 * number, abs=0.1)  # coders pad to whole blocks
    (samples,) = load_audio(cut)
    likeness, found = best_match(samples, wanted)
    assert likeness > 0.98
    assert found == pytest.approx(gain, rel=0.05)
    # Resampled once: the features are those of the sound as it is decoded and resampled here.
    expected = fbank_extractor(RATE).extract(samples[None], RATE)
    np.testing.assert_allclose(cut.load_features(), expected[: cut.num_frames], atol=2**-5)


@pytest.mark.parametrize(("channel", "gain"), [("mean", 0.75), ("0", 1.0), ("1", 0.5)])
def test_every_format_gives_the_same_sound(channel: str, gain: float, config: PrepareConfig) -> None:
    pytest.importorskip("av")
    config.audio = AudioConfig(channel=channel)
    problems = run(config)
    assert {row["problem"] for row in problems} <= {"sampling_rate", "several_channels"}
    found = cuts(config)
    assert len(found) == len(FORMATS)
    for number, (name, rate, channels, _) in enumerate(FORMATS):
        check(found[name.rpartition(".")[0]], number, gain if channels > 1 else 1.0)
        kinds = {row["problem"] for row in problems if row["utterance_id"] == name.rpartition(".")[0]}
        expected = [("sampling_rate", rate != RATE), ("several_channels", channels > 1)]
        assert kinds == {kind for kind, reported in expected if reported}
