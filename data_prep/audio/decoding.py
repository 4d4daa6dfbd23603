"""Decoding of audio files of any format, block by block.

soundfile (libsndfile) reads the formats of most corpora. PyAV (the libraries of FFmpeg) reads the others, if
it is installed: the extra ``audio``. Every failure with a file becomes an ``UndecodableError``.
"""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

try:
    import av
except ImportError:
    av = None  # type: ignore[assignment]

_BLOCK_FRAMES = 1 << 18
# FFmpeg guesses the format of files without a signature (text becomes subtitles, raw samples MP3). These
# formats have a signature.
_SIGNED_FORMATS = frozenset(
    [
        "mov",
        "matroska",
        "asf",
        "amr",
        "avi",
        "flv",
        "ogg",
        "caf",
        "w64",
        "wav",
        "aiff",
        "au",
        "nistsphere",
        "flac",
        "wv",
        "ape",
        "tta",
        "mpegts",
        "voc",
    ]
)
_UNSIGNED_FORMATS = {"mp3": (".mp3", ".mp2", ".mpga"), "aac": (".aac",), "ac3": (".ac3",), "eac3": (".eac3",)}
# Formats with the length in the header; the length of others is an estimate.
_EXACT_FORMATS = frozenset(["mov", "matroska", "asf", "flac", "wv", "ape", "tta"])
_RATES = range(2000, 768001)  # Hz, sampling rates of sound


class UndecodableError(Exception):
    """A file that cannot be decoded; the message says why, without the file's name."""


@dataclass(frozen=True)
class AudioHeader:
    """The header of an audio file.

    Attributes:
        sampling_rate: samples per second, Hz.
        num_channels: channels in the file.
        num_samples: samples per channel that the header promises; 0 where it does not say.
        decoder: ``soundfile`` or ``PyAV``.
        format: name of the format in libsndfile or FFmpeg.
        exact: True if fewer decoded samples than ``num_samples`` mean that some are missing; False if
            ``num_samples`` is an estimate.
        seekable: True if soundfile can start reading in the middle, which Lhotse needs.
    """

    sampling_rate: int
    num_channels: int
    num_samples: int
    decoder: str
    format: str
    exact: bool
    seekable: bool


@contextmanager
def _undecodable() -> Iterator[None]:
    """Turn any exception that a decoder raises for one file into an ``UndecodableError``.

    For broken files, decoders raise many classes of exceptions: their own, OSError, ValueError, RuntimeError,
    OverflowError, even MemoryError for a wrong length in a header. One file must not end a preparation.
    """
    try:
        yield
    except UndecodableError:
        raise
    except Exception as error:
        raise UndecodableError(" ".join(str(error).split()) or type(error).__name__) from error


def require_ordinary_file(path: Path) -> None:
    """Raise where opening a path would fail, or wait forever.

    Raises:
        FileNotFoundError: there is no such file.
        UndecodableError: it is a folder, a named pipe or a device, or may not be read.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_symlink():
            raise FileNotFoundError(f"it is a link to {path.readlink()}, which does not exist") from error
        raise FileNotFoundError("it does not exist") from error
    except (OSError, ValueError) as error:  # too long a name, a NUL character in it, a loop of links
        raise FileNotFoundError(f"it cannot exist: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a named pipe or a device"
        raise UndecodableError(f"it is {kind}, not a file")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise UndecodableError("the file is empty (0 bytes)")
    except OSError as error:
        raise UndecodableError(error.strerror or str(error)) from error


def read_header(path: Path) -> AudioHeader:
    """Header of an audio file, read by the first decoder that can open the file.

    Raises:
        FileNotFoundError: there is no such file.
        UndecodableError: no decoder can open it.
    """
    require_ordinary_file(path)
    try:
        with _undecodable():
            return _soundfile_header(path)
    except UndecodableError as error:
        return _av_header(path, error)


def _soundfile_header(path: Path) -> AudioHeader:
    with soundfile.SoundFile(path) as file:
        _require_sound(file.samplerate, file.channels)
        # The length of an MP3 file is an estimate; that of a FLAC stream may be unknown, which is 2**63 - 1.
        known = file.frames < 1 << 62
        frames = file.frames if known else 0
        exact = known and file.format != "MP3"
        return AudioHeader(
            file.samplerate, file.channels, frames, "soundfile", file.format, exact, file.seekable()
        )


def _require_sound(sampling_rate: int, num_channels: int) -> None:
    if sampling_rate not in _RATES or num_channels < 1:
        raise UndecodableError(f"the header says {sampling_rate} Hz and {num_channels} channels")


def _av_header(path: Path, first: UndecodableError) -> AudioHeader:
    """Header by PyAV, after soundfile has failed with the error ``first``."""
    if av is None:
        raise UndecodableError(
            f"{first} (PyAV is not installed, which reads MP4, M4A, AAC, AMR, WMA and WebM too: "
            "pip install 'fangyan[audio]')"
        ) from first
    try:
        with _undecodable(), av.open(str(path)) as container:
            stream = _audio_stream(path, container)
            seconds = (
                float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            )
            name = container.format.name.split(",")[0]
            if not seconds and not container.streams.video and container.duration:
                # The duration of Matroska counts from time 0, where a part of a longer file does not begin.
                start = container.start_time or 0 if name == "matroska" else 0
                seconds = (container.duration - max(0, start)) / av.time_base
            rate = stream.rate
            _require_sound(rate, stream.channels)
            exact = name in _EXACT_FORMATS and seconds > 0
            return AudioHeader(rate, stream.channels, round(seconds * rate), "PyAV", name, exact, False)
    except UndecodableError as second:
        raise UndecodableError(f"soundfile: {first}; PyAV: {second}") from second


def _audio_stream(path: Path, container: "av.container.InputContainer") -> "av.AudioStream":
    name = container.format.name.split(",")[0]
    if name not in _SIGNED_FORMATS and path.suffix.lower() not in _UNSIGNED_FORMATS.get(name, ()):
        raise UndecodableError("its content has no signature of an audio format")
    if not container.streams.audio:
        raise UndecodableError("there is no sound in it")
    return container.streams.audio[0]


def decode(path: Path, header: AudioHeader) -> Iterator[NDArray[np.float32]]:
    """Samples of a file from its beginning to its end, in blocks of (number of samples, channels).

    Args:
        path: the file.
        header: names the decoder to use.

    Raises:
        UndecodableError: there is an error in the file.
    """
    blocks = _soundfile_blocks(path) if header.decoder == "soundfile" else _av_blocks(path, header)
    while True:
        with _undecodable():  # not around the yield: an error of the caller is no fault of the file
            block = next(blocks, None)
        if block is None:
            return
        yield block


def _soundfile_blocks(path: Path) -> Iterator[NDArray[np.float32]]:
    with soundfile.SoundFile(path) as file:
        while len(block := file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
            yield block


def _av_blocks(path: Path, header: AudioHeader) -> Iterator[NDArray[np.float32]]:
    with av.open(str(path)) as container:
        stream = _audio_stream(path, container)
        converter = av.AudioResampler(format="fltp", layout=stream.layout, rate=header.sampling_rate)
        for frame in _av_frames(container, stream):
            if frame.sample_rate != header.sampling_rate:
                raise UndecodableError(
                    f"its sampling rate changes from {header.sampling_rate} to {frame.sample_rate} Hz"
                )
            for part in converter.resample(frame):
                yield np.ascontiguousarray(part.to_ndarray().T)
        for part in converter.resample(None):
            yield np.ascontiguousarray(part.to_ndarray().T)


def _av_frames(
    container: "av.container.InputContainer", stream: "av.AudioStream"
) -> Iterator["av.AudioFrame"]:
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.InvalidDataError:
            # Where MP3 files were joined, the first frame needs data from the frame before, which is missing.
            # Counting the frames shows how much is left out altogether.
            if container.format.name != "mp3":
                raise


def other_decoder(path: Path, header: AudioHeader) -> AudioHeader | None:
    """Header by PyAV of a file that soundfile opens but does not read whole; None if PyAV cannot open it."""
    if av is None or header.decoder == "PyAV":
        return None
    try:
        return _av_header(path, UndecodableError(""))
    except UndecodableError:
        return None
