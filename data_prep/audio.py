"""What an audio file really holds, found by decoding it."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from lhotse import Recording

_BLOCK_FRAMES = 1 << 18
_SHORT_DATA_CHUNK = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
# Programs that write WAV to a pipe do not know its length and put a huge one into the header.
_STREAMED_LENGTH = 0x7FFFF000


@dataclass(frozen=True)
class AudioProbe:
    """Findings about the audio of one recording.

    Attributes:
        recording_id: the recording.
        fault: kind of problem (``missing_audio`` or ``unreadable_audio``), or None for sound audio.
        detail: what exactly is wrong.
        sampling_rate: samples per second in the file, 0 where it could not be read.
        num_samples: samples per channel that could be decoded.
        digest: hash of the decoded samples and the rate; equal for copies of a file.
    """

    recording_id: str
    fault: str | None = None
    detail: str = ""
    sampling_rate: int = 0
    num_samples: int = 0
    digest: str = ""


def audio_file(recording: Recording) -> Path | None:
    """File of a recording; None where the audio is not one file (a URL, a command, several files)."""
    sources = recording.sources
    return Path(sources[0].source) if len(sources) == 1 and sources[0].type == "file" else None


def probe_audio(recording: Recording) -> AudioProbe:
    """Decode the whole file of a recording and say what is in it.

    A header alone does not tell: the files of interrupted copies have sound headers. Audio that is not one
    file is taken as its manifest describes it.
    """
    path = audio_file(recording)
    if path is None:
        return AudioProbe(
            recording.id, None, "", recording.sampling_rate, recording.num_samples, recording.id
        )
    if not path.is_file():
        return AudioProbe(recording.id, "missing_audio", f"{path} does not exist")
    digest = hashlib.blake2b(digest_size=16)
    frames, finite = 0, True
    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            digest.update(f"{rate} {file.channels}".encode())
            truncated = _truncation(file.extra_info)
            for block in file.blocks(_BLOCK_FRAMES, dtype="float32"):
                frames += len(block)
                finite = finite and bool(np.isfinite(block).all())
                digest.update(block.tobytes())
    except soundfile.SoundFileError as error:
        return AudioProbe(recording.id, "unreadable_audio", f"{path}: {error}")
    if truncated or not finite:
        fault = truncated or "some of its samples are not numbers (NaN or infinite)"
        return AudioProbe(recording.id, "unreadable_audio", f"{path}: {fault}")
    return AudioProbe(recording.id, None, "", rate, frames, digest.hexdigest())


def _truncation(header_log: str) -> str | None:
    """libsndfile reads what there is of a WAV file that was cut off, and only notes it in its log."""
    match = _SHORT_DATA_CHUNK.search(header_log)
    if match and int(match[2]) < int(match[1]) < _STREAMED_LENGTH:
        return f"cut off: the header promises {match[1]} bytes of samples, the file has {match[2]}"
    return None
