"""Cuts long recordings into utterances once, because seeking in a long compressed file is slow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from data_prep.audio.decoding import UndecodableError, decode, read_header
from zipformer.data.audio import resample
from zipformer.files import replacing

CLIP_RATE = 16000  # Hz


@dataclass(frozen=True)
class Clip:
    """A part of a recording.

    Attributes:
        file: file of the clip, FLAC.
        start, end: seconds from the beginning of the recording.
    """

    file: Path
    start: float
    end: float


@dataclass(frozen=True)
class CutJob:
    """A recording and its clips."""

    audio: Path
    clips: Sequence[Clip]


def cut(job: CutJob) -> int:
    """Decode a recording from its beginning to its end and write its clips: 16 kHz, one channel, 16 bits.

    Existing clips are kept. Clips of a recording that cannot be read are not written, and neither are clips
    that end after the recording.

    Returns:
        Number of clips written.
    """
    missing = sorted((clip for clip in job.clips if not clip.file.is_file()), key=lambda clip: clip.start)
    written = 0
    if missing:
        try:
            for clip, samples, rate in _parts(job.audio, missing):
                _write(clip.file, samples, rate)
                written += 1
        except (FileNotFoundError, UndecodableError):
            pass  # for these clips the reader names the recording, and the checks report it
    return written


def _parts(audio: Path, clips: Sequence[Clip]) -> Iterator[tuple[Clip, NDArray[np.float32], int]]:
    """Clips in the order of their starts, each with samples ``(frames,)`` and sampling rate in Hz."""
    header = read_header(audio)
    rate, begin = header.sampling_rate, 0
    held = np.zeros(0, dtype=np.float32)
    remaining = list(clips)
    for block in decode(audio, header):
        held = np.concatenate([held, block.mean(1)])
        # Even after a clip that ends later, or never, because segments may overlap.
        complete = [clip for clip in remaining if round(clip.end * rate) <= begin + len(held)]
        for clip in complete:
            yield clip, held[round(clip.start * rate) - begin : round(clip.end * rate) - begin], rate
        remaining = [clip for clip in remaining if clip not in complete]
        if not remaining:
            return
        unneeded = min(max(0, round(remaining[0].start * rate) - begin), len(held))
        held, begin = held[unneeded:], begin + unneeded


def _write(file: Path, samples: NDArray[np.float32], rate: int) -> None:
    if rate != CLIP_RATE:
        samples = resample(np.ascontiguousarray(samples)[None], rate, CLIP_RATE)[0]
    with replacing(file) as temporary:
        soundfile.write(temporary, samples, CLIP_RATE, format="FLAC", subtype="PCM_16")
