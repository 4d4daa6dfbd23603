"""Lengths, channels and levels of audio files of many formats."""

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment
from numpy.typing import NDArray
from split_checks import check

from data_prep.audio import decoding
from data_prep.audio.containers import byte_findings
from data_prep.audio.decoding import UndecodableError, decode, read_header
from data_prep.audio.levels import Levels
from data_prep.audio.probe import AudioConfig, AudioProbe, probe_audio

RATE = 16000


def glide(seconds: float = 2.0, rate: int = RATE) -> NDArray[np.float64]:
    """A tone from 200 to 600 Hz."""
    time = np.arange(round(seconds * rate)) / rate
    return 0.2 * np.sin(2 * np.pi * (200 * time + 200 * time**2 / seconds))


def recording_of(path: Path) -> Recording:
    """As the folder corpus describes a file."""
    header = read_header(path)
    return Recording(
        id="one",
        sources=[AudioSource("file", list(range(header.num_channels)), str(path))],
        sampling_rate=header.sampling_rate,
        num_samples=header.num_samples,
        duration=header.num_samples / header.sampling_rate,
    )


def checked(path: Path, config: AudioConfig | None = None) -> tuple[list[str], MonoCut | None, AudioProbe]:
    """Kinds of problems of a recording with a transcript, and its cut if it is used."""
    recording = recording_of(path)
    channel = recording.channel_ids if recording.num_channels > 1 else 0
    probe = probe_audio(recording, config, path.with_name("converted.wav"))
    transcript = SupervisionSegment("one", "one", 0, recording.duration, channel, "今朝天氣好", "wuu")
    kinds, cuts = check([(recording, probe)], [transcript])
    return kinds, cuts[0] if cuts else None, probe


@pytest.mark.parametrize(
    ("name", "subtype", "error"),
    [
        ("a.wav", "PCM_U8", 0.01),
        ("a.wav", "PCM_16", 1e-4),
        ("a.wav", "PCM_24", 1e-6),
        ("a.wav", "PCM_32", 1e-6),
        ("a.wav", "FLOAT", 1e-7),
        ("a.wav", "DOUBLE", 1e-7),
        ("a.wav", "ALAW", 0.01),
        ("a.wav", "ULAW", 0.01),
        ("a.wav", "IMA_ADPCM", 0.05),
        ("a.wav", "MS_ADPCM", 0.05),
        ("a.rf64", "PCM_16", 1e-4),
        ("a.w64", "PCM_16", 1e-4),
        ("a.aiff", "PCM_16", 1e-4),
        ("a.au", "PCM_16", 1e-4),
        ("a.caf", "PCM_16", 1e-4),
        ("a.caf", "ALAC_16", 1e-4),
        ("a.flac", "PCM_16", 1e-4),
        ("a.ogg", "VORBIS", 0.05),
        ("a.mp3", "MPEG_LAYER_III", 0.05),
    ],
)
def test_whole_files_have_no_problem_and_are_used_where_they_are(
    name: str, subtype: str, error: float, tmp_path: Path
) -> None:
    path = tmp_path / name
    soundfile.write(path, glide(), RATE, subtype=subtype)
    kinds, cut, probe = checked(path)
    assert (kinds, probe.converted) == ([], "")
    assert cut is not None
    samples = cut.load_audio()[0]
    assert 2.0 <= cut.duration < 2.05  # ADPCM comes in blocks
    assert np.abs(samples[: 2 * RATE] - glide()).mean() < error


@pytest.mark.parametrize("subtype", ["PCM_16", "ULAW"])
def test_nist_sphere(subtype: str, tmp_path: Path) -> None:
    """Lhotse gives these to a program that is not installed."""
    path = tmp_path / "a.sph"
    soundfile.write(path, glide(), RATE, subtype=subtype, format="NIST")
    kinds, cut, probe = checked(path)
    assert (kinds, probe.converted) == ([], str(tmp_path / "converted.wav"))
    assert cut is not None
    np.testing.assert_array_equal(cut.load_audio()[0], soundfile.read(path, dtype="float32")[0])


@pytest.mark.parametrize(
    "name", ["a.wav", "a.rf64", "a.w64", "a.aiff", "a.au", "a.caf", "a.sph", "a.ogg", "a.opus"]
)
def test_files_that_are_cut_off(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    kind = {"sph": ("PCM_16", "NIST"), "ogg": ("VORBIS", "OGG"), "opus": ("OPUS", "OGG")}
    subtype, container = kind.get(name[2:], ("PCM_16", None))
    soundfile.write(path, glide(8), RATE, subtype=subtype, format=container)
    content = path.read_bytes()
    assert byte_findings(path).truncated == ""
    path.write_bytes(content[: len(content) * 3 // 5])
    assert "cut off" in byte_findings(path).truncated
    if decodable := name != "a.caf":  # libsndfile reads what is left of the others
        kinds, cut, _ = checked(path)
        assert kinds[0] == "truncated_audio"
        assert cut is None
    assert decodable or path.suffix == ".caf"


def wav(data: bytes, size: int, before: bytes = b"", behind: bytes = b"") -> bytes:
    """A WAV file of 16-bit samples, whose header says that they are ``size`` bytes."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", 0)
        + b"WAVE"
        + form
        + before
        + b"data"
        + struct.pack("<I", size)
        + data
        + behind
    )


def chunk(name: bytes, content: bytes, padded: bool = True) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2 if padded else 0)


@pytest.mark.parametrize(
    ("promised", "before", "behind", "unread"),
    [
        (64000, b"", b"", False),
        (64000, chunk(b"JUNK", b"abc"), b"", False),
        (64000, b"", chunk(b"LIST", b"INFOISFT\4\0\0\0abc\0"), False),
        (64000, b"", chunk(b"LIST", b"abc") + chunk(b"id3 ", b"x" * 9000), False),
        (64000, b"", b"ID3\3\0\0\0\0\x46\x28" + b"x" * 9000, False),
        (64000, b"", bytes(50000), False),  # space that a recorder has reserved
        (64000, b"", b"x" * 100, False),  # 3 ms
        (0xFFFFFFFF, b"", b"", False),  # written to a pipe
        (0x7FFFFFFF, b"", b"", False),
        (32000, b"", b"", True),
        (32000, b"", chunk(b"LIST", b"abcd"), True),
        (32001, b"", b"", True),
        (0, b"", b"", True),
    ],
)
def test_sound_behind_the_promised_end_of_a_wav_file(
    promised: int, before: bytes, behind: bytes, unread: bool, tmp_path: Path
) -> None:
    data = (32767 * glide()).astype("<i2").tobytes()  # 64000 bytes
    (tmp_path / "a.wav").write_bytes(wav(data, promised, before, behind))
    findings = byte_findings(tmp_path / "a.wav")
    assert findings.truncated == ""
    assert bool(findings.unread) == unread
    if unread:
        assert f"promises {promised} bytes of samples, but" in findings.unread
        assert "unread_audio" in checked(tmp_path / "a.wav")[0]


@pytest.mark.parametrize(
    ("offset", "size", "name"), [(8, ">I", "a.au"), (None, ">I", "a.aiff"), (None, "<Q", "a.w64")]
)
def test_sound_behind_the_promised_end_of_other_files(
    offset: int | None, size: str, name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    soundfile.write(path, glide(), RATE, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    if offset is None:
        offset = content.index(b"SSND") + 4 if name == "a.aiff" else content.index(b"data") + 16
    content[offset : offset + struct.calcsize(size)] = struct.pack(size, 20000)
    path.write_bytes(content)
    assert "promises" in byte_findings(path).unread


@pytest.mark.parametrize("tag", [b"", b"TAG" + bytes(125), b"ID3\3\0\0\0\0\0\5" + b"x" * 5])
@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.w64", "a.caf", "a.au", "a.flac", "a.ogg"])
def test_a_second_file_behind_the_first(
    name: str, tag: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "av", None)  # which reads both of some formats
    path = tmp_path / name
    soundfile.write(path, glide(), RATE)
    content = path.read_bytes()
    path.write_bytes(content + tag)
    assert "unread_audio" not in checked(path)[0]
    path.write_bytes(content + tag + content)
    findings = byte_findings(path)
    assert findings.unread or findings.streams == 2
    if findings.streams == 2:
        assert "unread_audio" in checked(path)[0]


def spoilt(content: bytes, place: float, count: int) -> bytes:
    """Random bytes at a place between 0 and 1."""
    start = int(place * len(content))
    return content[:start] + np.random.default_rng(3).bytes(count) + content[start + count :]


@pytest.mark.parametrize(
    ("name", "subtype", "count"),
    [
        ("a.flac", "PCM_S8", 4),
        ("a.flac", "PCM_16", 4),
        ("a.flac", "PCM_24", 4),
        ("a.ogg", "VORBIS", 4),
        ("a.opus", "OPUS", 4),
        ("a.mp3", "MPEG_LAYER_III", 2000),  # a few bytes inside a frame cannot be told from others
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_bytes_that_are_damaged_inside_a_file(
    name: str, subtype: str, count: int, channels: int, tmp_path: Path
) -> None:
    path = tmp_path / name
    noise = np.random.default_rng(0).normal(0, 0.1, (6 * RATE, channels))
    soundfile.write(path, noise, RATE, subtype=subtype, format="OGG" if name == "a.opus" else None)
    whole = path.read_bytes()
    assert not {"damaged_audio", "unreadable_audio"} & set(checked(path)[0])
    for place in (0.4, 0.6, 0.8):
        path.write_bytes(spoilt(whole, place, count))
        kinds, cut, _ = checked(path)
        assert {"damaged_audio", "truncated_audio", "unreadable_audio"} & set(kinds), place
        assert cut is None


def test_the_sum_of_flac_samples_is_compared_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, glide(), RATE)
    content = path.read_bytes()
    tagged = b"ID3\3\0\0\0\0\0\5" + b"x" * 5 + content
    for whole, start in ((content, 26), (tagged, 41)):
        path.write_bytes(whole)
        assert checked(path)[0] == []
        path.write_bytes(whole[:start] + b"\1" * 16 + whole[start + 16 :])
        ((kind, detail),) = probe_audio(recording_of(path)).findings
        assert kind == "damaged_audio"
        assert detail == f"{path}: its samples do not have the MD5 that its header promises"
        path.write_bytes(whole[:start] + bytes(16) + whole[start + 16 :])  # an encoder that computes none
        assert checked(path)[0] == []


def test_a_second_chunk_of_samples(tmp_path: Path) -> None:
    data = (32767 * glide()).astype("<i2").tobytes()
    (tmp_path / "a.wav").write_bytes(wav(data, len(data), behind=chunk(b"data", data)))
    assert "64008 more (2.00 s)" in byte_findings(tmp_path / "a.wav").unread


def mp3(path: Path, bit_rate: int, seconds: float, rate: int = 32000) -> bytes:
    """An MP3 file without a header that tells its length."""
    av = pytest.importorskip("av")
    with av.open(
        str(path), "w", format="mp3", options={"write_xing": "0", "id3v2_version": "0"}
    ) as container:
        stream = container.add_stream("libmp3lame", rate=rate)
        stream.layout, stream.bit_rate = "mono", bit_rate
        samples = (32767 * glide(seconds, rate)).astype("<i2")
        for start in range(0, len(samples), 1152):
            frame = av.AudioFrame.from_ndarray(
                samples[None, start : start + 1152], format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize("bit_rates", [(32000, 160000), (160000, 32000)])
@pytest.mark.parametrize("with_av", [True, False])
def test_mp3_files_whose_bit_rate_changes(
    bit_rates: tuple[int, int], with_av: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [
        mp3(tmp_path / "part.mp3", bit_rate, seconds)
        for bit_rate, seconds in zip(bit_rates, (1, 4), strict=True)
    ]
    path = tmp_path / "joined.mp3"
    path.write_bytes(b"".join(parts) + b"TAG" + bytes(125))
    if not with_av:
        monkeypatch.setattr(decoding, "av", None)
    length = byte_findings(path).mpeg
    assert length is not None
    assert 5.0 < length.samples / 32000 < 5.2  # each part has up to 2 frames more than sound
    kinds, cut, _ = checked(path)
    if with_av or bit_rates[0] < bit_rates[1]:  # libsndfile reads all if it expects too much
        assert kinds == ["sampling_rate"]
        assert cut is not None
        assert 5.0 < cut.duration < 5.2
        assert cut.load_audio().shape == (1, cut.num_samples)
    else:
        assert kinds == ["unread_audio", "sampling_rate"]
        assert cut is None


def test_an_mp3_file_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, glide(4), RATE)  # with a header that tells the number of frames
    assert checked(path)[0] == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert checked(path)[0] == ["truncated_audio"]


def test_ogg_streams_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    for number, seconds in enumerate((2, 3)):
        soundfile.write(tmp_path / f"{number}.ogg", glide(seconds), RATE, subtype="VORBIS")
    path = tmp_path / "both.ogg"
    path.write_bytes((tmp_path / "0.ogg").read_bytes() + (tmp_path / "1.ogg").read_bytes())
    kinds, cut, _ = checked(path)
    assert kinds == []
    assert cut is not None
    assert cut.duration == pytest.approx(5.0, abs=0.1)
    monkeypatch.setattr(decoding, "av", None)
    assert checked(path)[0] == ["unread_audio"]


@pytest.mark.parametrize(
    ("name", "container", "codec", "start"),
    [
        ("a.m4a", "mp4", "aac", 0),
        ("a.mkv", "matroska", "flac", 0),
        ("a.mkv", "matroska", "pcm_s16le", 3 * RATE),  # a part of a longer recording, with its times
    ],
)
def test_formats_that_only_pyav_reads(
    name: str, container: str, codec: str, start: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / name
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=RATE)
        stream.layout = "mono"
        converter = av.AudioResampler(
            format=stream.codec_context.format, layout="mono", rate=RATE, frame_size=1024
        )
        samples = (32767 * glide()).astype("<i2")[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, start
        for part in [*converter.resample(frame), *converter.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    kinds, cut, probe = checked(path)
    assert (kinds, probe.converted) == ([], str(tmp_path / "converted.wav"))
    assert cut is not None
    assert cut.duration == pytest.approx(2.0, abs=0.1)
    assert np.abs(cut.load_audio()[0, : 2 * RATE] - glide()).mean() < 0.01
    monkeypatch.setattr(decoding, "av", None)
    with pytest.raises(UndecodableError, match=r"pip install 'fangyan\[audio\]'"):
        read_header(path)


@pytest.mark.parametrize(
    "content", [b"\xff\xfb" + glide().astype("<f4").tobytes(), b"RIFF", b"OggS", b"fLaC", b"ID3"]
)
def test_rubbish_is_not_taken_for_sound(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    recording = Recording("one", [AudioSource("file", [0], str(tmp_path / "a.wav"))], RATE, 0, 0)
    ((kind, detail),) = probe_audio(recording).findings
    assert kind == "unreadable_audio"
    assert str(tmp_path / "a.wav") in detail


def test_errors_of_the_caller_are_not_taken_for_those_of_the_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", glide(), RATE)
    blocks = decode(tmp_path / "a.wav", read_header(tmp_path / "a.wav"))
    next(blocks)
    with pytest.raises(OSError, match="disk full"):
        blocks.throw(OSError("disk full"))  # type: ignore[attr-defined]


SPEECH = np.random.default_rng(0).normal(0, 0.1, (4000, 3))


@pytest.mark.parametrize(
    ("channels", "used"),
    [
        ([SPEECH[:, 0]], (0,)),
        ([SPEECH[:, 0], SPEECH[:, 0]], (0, 1)),
        ([SPEECH[:, 0], SPEECH[:, 1]], (0, 1)),
        ([SPEECH[:, 0], 0.1 * SPEECH[:, 1]], (0, 1)),  # -20 dB
        ([0.01 * SPEECH[:, 0], SPEECH[:, 1]], (1,)),  # -40 dB
        ([0 * SPEECH[:, 0], SPEECH[:, 1], SPEECH[:, 2]], (1, 2)),
        ([0 * SPEECH[:, 0] + 0.9, SPEECH[:, 1]], (1,)),  # a constant is no sound
        ([SPEECH[:, 0], -SPEECH[:, 0]], (0,)),  # they cancel each other
        ([0.8 * SPEECH[:, 0], -SPEECH[:, 0] + 0.01 * SPEECH[:, 1]], (1,)),
        ([0 * SPEECH[:, 0], 0 * SPEECH[:, 0]], (0, 1)),
    ],
)
def test_channels_that_are_used(channels: list[NDArray[np.float64]], used: tuple[int, ...]) -> None:
    samples = np.stack(channels, 1).astype(np.float32)
    levels = Levels(samples.shape[1])
    for block in np.array_split(samples, 7):
        levels.add(block)
    mix = levels.mix(None)
    assert mix.channels == used
    power = float(samples[:, list(used)].astype(np.float64).mean(1).var())
    assert mix.level == pytest.approx(10 * np.log10(max(power, 1e-20)), abs=1e-3)


def test_levels_do_not_depend_on_blocks() -> None:
    random = np.random.default_rng(1)
    samples = random.normal(0, 0.5, (3000, 2)).clip(-1, 1).astype(np.float32)
    samples[700:1900] = samples[699]
    whole = Levels(2)
    whole.add(samples)
    for cut in (1, 699, 700, 701, 1900, 2999):
        parts = Levels(2)
        parts.add(samples[:cut])
        parts.add(samples[cut:])
        assert parts.longest_constant == whole.longest_constant == 1201
        assert parts.clipped_share((0, 1)) == whole.clipped_share((0, 1))
        assert parts.channel_levels() == pytest.approx(whole.channel_levels())


def test_transcripts_that_name_a_channel_keep_it(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    samples = np.stack([glide(), 0 * glide(), np.flip(glide())], 1)
    soundfile.write(path, samples, RATE)
    recording = recording_of(path)
    probe = probe_audio(recording, mixed=False)
    assert probe.converted == ""
    transcripts = [SupervisionSegment(f"s{i}", "one", 0, 2.0, i, "好", "wuu") for i in range(3)]
    kinds, cuts = check([(recording, probe)], transcripts)
    assert [cut.channel for cut in cuts] == [0, 2]
    assert kinds.count("silent_audio") == 1
    np.testing.assert_allclose(cuts[1].load_audio()[0], samples[:, 2], atol=1e-4)
