"""Recordings of YuBao: WAV or MP4 files named by utterance id, in any folders.

The platform provides videos. Their audio is decoded with PyAV, which includes the libraries of FFmpeg, to
16-bit WAV with all channels, like ``mp4_to_wav.sh`` of the benchmark. ``audio.channel`` selects the channels,
of WAV files and of videos.
"""

import os
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from lhotse import AudioSource, Recording

from zipformer.errors import UserError
from zipformer.files import files_below, replacing

SUFFIXES = (".wav", ".mp4")  # the first is preferred where there are both
SAMPLING_RATE = 16000  # Hz, of decoded videos

# Coders pad the sound to whole blocks, and the header may count the padding or not.
_LENGTH_TOLERANCE_SECONDS = 0.25


class AudioFileError(Exception):
    """A file that cannot be decoded; the message has the name and the reason."""


@dataclass(frozen=True)
class FoundAudio:
    """The files of a folder.

    Attributes:
        files: file of each wanted utterance that was found, by utterance id.
        others: files whose name is not the id of a wanted utterance.
    """

    files: dict[str, Path]
    others: list[Path]


def find_audio(
    folder: Path, wanted: Container[str], id_of_number: Callable[[Path], str | None] = lambda path: None
) -> FoundAudio:
    """Find the audio of utterances anywhere below a folder, including folders that are links.

    Args:
        folder: folder to search.
        wanted: ids of the utterances.
        id_of_number: function that returns the id of the utterance in a file with another name, or None.

    Raises:
        UserError: the folder is missing, or two files of one kind have the same utterance id.
    """
    if not folder.is_dir():
        raise UserError(f"the folder of recordings {folder} does not exist; correct corpus.audio_dir")
    files: dict[str, Path] = {}
    others: list[Path] = []
    for path in files_below(folder):
        if path.suffix.lower() not in SUFFIXES:
            continue
        utterance_id = path.stem if path.stem in wanted else id_of_number(path)
        if utterance_id is None:
            others.append(path)
            continue
        first = files.setdefault(utterance_id, path)
        if first is path:
            continue
        if first.suffix.lower() == path.suffix.lower():
            raise UserError(f"two recordings of {utterance_id}: {first} and {path}; remove one of them")
        if path.suffix.lower() == SUFFIXES[0]:
            files[utterance_id] = path
    return FoundAudio(files, others)


def recording_of(utterance_id: str, source: Path, converted: Path) -> Recording:
    """Manifest of a recording, from its header.

    Args:
        utterance_id: id of the utterance.
        source: WAV or MP4 file.
        converted: file for the audio of an MP4 file, written unless an earlier run has done so from the same
            video.

    Raises:
        AudioFileError: the file cannot be read.
        UserError: it is an MP4 file and PyAV is not installed.
    """
    if source.suffix.lower() == ".mp4":
        if not converted.is_file() or converted.stat().st_mtime_ns != source.stat().st_mtime_ns:
            decode_video(source, converted)
        source = converted
    try:
        info = soundfile.info(str(source))
    except soundfile.SoundFileError as error:
        raise AudioFileError(f"{source}: {error}") from error
    if not info.frames:
        raise AudioFileError(f"{source}: there are no samples in it")
    return Recording(
        id=utterance_id,
        sources=[AudioSource(type="file", channels=list(range(info.channels)), source=str(source.resolve()))],
        sampling_rate=info.samplerate,
        num_samples=info.frames,
        duration=info.frames / info.samplerate,
    )


def decode_video(source: Path, target: Path) -> None:
    """Write the audio of a video as WAV: 16 kHz, 16 bit, with all channels.

    The file gets the modification time of the video, which shows later whether it was made from it.

    Raises:
        AudioFileError: the video has no audio, or cannot be decoded to its end.
        UserError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise UserError(
            f"decoding {source} needs PyAV: pip install 'fangyan[yubao]'; or convert the videos to WAV "
            "beside them: ffmpeg -i NAME.mp4 -vn -ar 16000 -acodec pcm_s16le NAME.wav"
        ) from error
    blocks, promised = [], None
    try:
        with av.open(str(source)) as container:
            if not container.streams.audio:
                raise AudioFileError(f"{source}: the video has no sound")
            stream = container.streams.audio[0]
            if stream.duration is not None and stream.time_base is not None:
                promised = float(stream.duration * stream.time_base)
            resampler = av.AudioResampler(format="s16p", layout=stream.layout, rate=SAMPLING_RATE)
            for frame in container.decode(stream):
                blocks += [part.to_ndarray() for part in resampler.resample(frame)]  # (channels, samples)
            blocks += [part.to_ndarray() for part in resampler.resample(None)]
    except av.FFmpegError as error:
        raise AudioFileError(f"{source}: {error}") from error
    samples = np.concatenate(blocks, axis=1).T if blocks else np.zeros((0, 1), np.int16)
    seconds = len(samples) / SAMPLING_RATE
    if promised is not None and seconds < promised - _LENGTH_TOLERANCE_SECONDS:
        raise AudioFileError(
            f"{source}: cut off: the header promises {promised:.2f} s, {seconds:.2f} s could be decoded"
        )
    with replacing(target) as temporary:
        soundfile.write(temporary, samples, SAMPLING_RATE, subtype="PCM_16", format="WAV")
        times = source.stat()
        os.utime(temporary, ns=(times.st_atime_ns, times.st_mtime_ns))
