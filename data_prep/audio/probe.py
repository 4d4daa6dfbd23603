"""Decodes an audio file to find its real content and its faults, and chooses the channels to use.

Most recordings are used where they are. Two kinds are decoded into WAV files in the data directory and used
from
there: recordings whose channels are mixed, and recordings that Lhotse cannot read.
"""

import hashlib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from lhotse import Recording
from numpy.typing import NDArray

from data_prep.audio.containers import ByteFindings, FlacSum, byte_findings
from data_prep.audio.decoding import AudioHeader, UndecodableError, decode, other_decoder, read_header
from data_prep.audio.levels import CLIPPED_SHARE, FROZEN_SHARE, FULL_SCALE_PEAK, Levels, Mix
from zipformer.errors import UserError
from zipformer.files import replacing

MEAN = "mean"

# Lhotse passes files with these suffixes to programs that are not installed.
_NOT_FOR_LHOTSE = frozenset({".sph", ".mp4", ".m4a", ".m4b"})
# Coders pad the sound to whole blocks, and the header may count the padding or not.
_LENGTH_TOLERANCE_SECONDS = 0.25
_TOLERATED_FRAMES = 4  # MPEG frames; decoders leave out frames that the encoder has added
_WAV_BYTES = 1 << 32
_SAMPLE_BYTES = 4
_EXACT_BITS = 24  # of an integer sample that a floating-point number of 32 bits holds exactly


@dataclass
class AudioConfig:
    """How recordings are read.

    Attributes:
        channel: ``mean``, or the number of the channel to use (from 0), for recordings with several channels.
            The mean is taken over the channels that have sound: a channel 30 dB weaker than the loudest is
            left out, and where the channels cancel each other, the loudest is used alone. Where each
            transcript names its channel, as in corpora of telephone calls, that channel is used instead.
    """

    channel: str = MEAN

    def __post_init__(self) -> None:
        if self.channel != MEAN and not self.channel.isdecimal():
            raise UserError(
                f"audio.channel is {self.channel!r}; it must be {MEAN} or the number of a channel, from 0"
            )

    @property
    def number(self) -> int | None:
        """The channel; None for the mean."""
        return None if self.channel == MEAN else int(self.channel)


@dataclass(frozen=True)
class AudioProbe:
    """Findings about the audio of one recording.

    Attributes:
        recording_id: id of the recording.
        findings: kind and details of each problem of the file.
        sampling_rate: samples per second in the file, 0 where it could not be read.
        num_samples: samples per channel that could be decoded.
        promised_samples: samples per channel that the header of the file promises.
        num_channels: number of channels in the file.
        mixed: True if the recording is used as one channel; False if each supervision names its channel.
        channels: numbers of the channels whose mean is used, if ``mixed``.
        used: reason for the choice of channels, in words.
        level: level of the mean that is used, dBFS.
        channel_levels: level of each channel, dBFS.
        converted: file with the decoded samples, which replaces the recording's own file; empty for none.
        digest: hash of the decoded samples and the rate; equal for copies of a file.
    """

    recording_id: str
    findings: list[tuple[str, str]] = field(default_factory=list)
    sampling_rate: int = 0
    num_samples: int = 0
    promised_samples: int = 0
    num_channels: int = 1
    mixed: bool = True
    channels: tuple[int, ...] = (0,)
    used: str = ""
    level: float = 0.0
    channel_levels: list[float] = field(default_factory=list)
    converted: str = ""
    digest: str = ""

    @property
    def decodable(self) -> bool:
        return not any(kind in ("missing_audio", "unreadable_audio") for kind, _ in self.findings)


def audio_file(recording: Recording) -> Path | None:
    """File of a recording; None where the audio is not one file (a URL, a command, several files)."""
    sources = recording.sources
    return Path(sources[0].source) if len(sources) == 1 and sources[0].type == "file" else None


def probe_audio(
    recording: Recording,
    config: AudioConfig | None = None,
    target: Path | None = None,
    mixed: bool = True,
) -> AudioProbe:
    """Decode the whole file of a recording and report its content and faults.

    A header alone is not enough: interrupted copies have correct headers. If the audio is not one file, its
    manifest is trusted.

    Args:
        recording: manifest of the recording.
        config: choice of the channel.
        target: file for the samples, written if Lhotse cannot read the recording or channels are to be mixed.
        mixed: use the recording as one channel; otherwise all channels are kept.

    Raises:
        UserError: ``target`` cannot be written.
    """
    path = audio_file(recording)
    if path is None:
        described = (recording.sampling_rate, recording.num_samples, recording.num_samples)
        return AudioProbe(
            recording.id, [], *described, recording.num_channels, mixed=False, digest=recording.id
        )
    try:
        header = read_header(path)
        reading = _read(path, header)
    except FileNotFoundError as error:
        return AudioProbe(recording.id, [("missing_audio", f"{path}: {error}{_other_spelling(path)}")])
    except (UndecodableError, OSError) as error:
        return AudioProbe(recording.id, [("unreadable_audio", f"{path}: {error}")])
    levels = reading.levels
    wanted = (config or AudioConfig()).number
    findings = [(kind, f"{path}: {detail}") for kind, detail in reading.findings]
    number = reading.header.num_channels
    if wanted is not None and wanted >= number > 1 and mixed:
        findings.append(
            ("missing_channel", f"audio.channel is {wanted}, {path} has channels 0 to {number - 1}")
        )
    mix = levels.mix(wanted if wanted is not None and wanted < number > 1 else None)
    findings += [
        (kind, f"{path}: {detail}") for kind, detail in _content_findings(levels, mix, reading.header)
    ]
    probe = AudioProbe(
        recording.id,
        findings,
        sampling_rate=reading.header.sampling_rate,
        num_samples=levels.samples,
        promised_samples=header.num_samples,
        num_channels=number,
        mixed=mixed,
        channels=mix.channels,
        used=mix.reason if mixed else "each transcript names its own",
        level=mix.level,
        channel_levels=levels.channel_levels(),
        digest=reading.digest,
    )
    unusual = not reading.header.seekable or path.suffix.lower() in _NOT_FOR_LHOTSE
    if not probe.decodable or not probe.num_samples or not (unusual or (mixed and len(mix.channels) > 1)):
        return probe
    if target is None:
        raise UserError(f"{path} has to be converted, but there is no target to write it to")
    channels = mix.channels if mixed else None
    try:
        _write_converted(
            _chosen(decode(path, reading.header), channels), probe, 1 if mixed else number, target
        )
    except UndecodableError as error:
        return AudioProbe(recording.id, [("unreadable_audio", f"{path}: {error}")])
    return AudioProbe(**{**vars(probe), "converted": str(target)})


@dataclass(frozen=True)
class _Reading:
    header: AudioHeader  # read by the decoder that decoded the file
    levels: Levels
    digest: str
    findings: list[tuple[str, str]]


@dataclass(frozen=True)
class _Measured:
    levels: Levels
    digest: str
    md5: bytes  # of the samples as FLAC computes it; empty where it was not asked for


def _read(path: Path, header: AudioHeader) -> _Reading:
    """Decode a file with the decoder that reads most of it.

    Raises:
        UndecodableError: no decoder can read it.
        OSError: the file cannot be read.
    """
    found = byte_findings(path)
    other, failure = None, ""
    try:
        measured = _measure(path, header, found.flac)
    except UndecodableError as first:
        if (other := other_decoder(path, header)) is None:
            raise
        try:
            header, measured = other, _measure(path, other, found.flac)
        except UndecodableError as second:
            raise UndecodableError(f"soundfile: {first}; PyAV: {second}") from second
        failure = str(first)
    if _left_out(found, header, measured.levels) and (other := other_decoder(path, header)):
        try:
            more = _measure(path, other, found.flac)
            if more.levels.samples > measured.levels.samples:
                header, measured = other, more
        except UndecodableError:
            pass  # the part that the first decoder has left out is reported
    findings = _length_findings(found, header, measured.levels)
    if not findings and (damage := _damage(found, measured, failure)):
        findings.append(("damaged_audio", damage))
    return _Reading(header, measured.levels, measured.digest, findings)


def _measure(path: Path, header: AudioHeader, flac: FlacSum | None) -> _Measured:
    levels = Levels(header.num_channels)
    digest = hashlib.blake2b(f"{header.sampling_rate} {header.num_channels}".encode(), digest_size=16)
    md5 = hashlib.md5(usedforsecurity=False) if flac and flac.bits <= _EXACT_BITS else None
    for block in decode(path, header):
        levels.add(block)
        digest.update(np.ascontiguousarray(block).tobytes())
        if flac and md5:
            integers = (block * 2.0 ** (flac.bits - 1)).astype("<i4")
            low_bytes = integers.view(np.uint8).reshape(*block.shape, _SAMPLE_BYTES)
            md5.update(low_bytes[:, :, : -(-flac.bits // 8)].tobytes())
    return _Measured(levels, digest.hexdigest(), md5.digest() if md5 else b"")


def _damage(found: ByteFindings, measured: _Measured, failure: str) -> str:
    """What says that bytes inside a file are damaged; empty if nothing does.

    Args:
        found: what the bytes of the file say.
        measured: what was decoded.
        failure: the error of soundfile, if it failed and PyAV has read the file.
    """
    if found.damaged:
        return found.damaged
    if found.flac and measured.md5 and found.streams == 1:
        wrong = measured.md5 != found.flac.md5
        because = f"; soundfile: {failure}" if failure else ""
        return f"its samples do not have the MD5 that its header promises{because}" if wrong else ""
    if failure and not found.mpeg:  # soundfile cannot read all MP3 files that were joined
        return f"soundfile cannot read all of it ({failure}); PyAV can, and may leave out or invent parts"
    return ""


def _left_out(found: ByteFindings, header: AudioHeader, levels: Levels) -> str:
    """Description of the sound in the file that the decoder has not read; empty if it has read everything."""
    if found.streams > 1 and header.decoder == "soundfile":
        return f"there are {found.streams} streams one after the other, of which only the first can be read"
    mpeg = found.mpeg
    if mpeg and levels.samples < mpeg.samples - _TOLERATED_FRAMES * mpeg.samples_per_frame:
        there, read = mpeg.samples / header.sampling_rate, levels.samples / header.sampling_rate
        return f"its frames hold {there:.2f} s, {read:.2f} s of them can be read"
    return ""


def _length_findings(found: ByteFindings, header: AudioHeader, levels: Levels) -> list[tuple[str, str]]:
    findings = []
    rate, mpeg = header.sampling_rate, found.mpeg
    if not levels.finite:
        findings.append(("unreadable_audio", "some of its samples are not numbers (NaN or infinite)"))
    if mpeg and len(mpeg.sampling_rates) > 1:
        rates = " to ".join(str(one) for one in mpeg.sampling_rates)
        findings.append(("unreadable_audio", f"its sampling rate changes from {rates} Hz"))
    if found.unread or (left_out := _left_out(found, header, levels)):
        findings.append(("unread_audio", found.unread or left_out))
    promised = header.num_samples if header.exact else 0
    if mpeg and mpeg.promised_frames and mpeg.frames < mpeg.promised_frames - _TOLERATED_FRAMES:
        promised = mpeg.promised_frames * mpeg.samples_per_frame
    if found.truncated:
        findings.append(("truncated_audio", found.truncated))
    elif levels.finite and levels.samples < promised - _LENGTH_TOLERANCE_SECONDS * rate:
        seconds = f"{promised / rate:.2f} s, {levels.samples / rate:.2f} s could be decoded"
        findings.append(("truncated_audio", f"cut off: the header promises {seconds}"))
    return findings


def _content_findings(levels: Levels, mix: Mix, header: AudioHeader) -> list[tuple[str, str]]:
    findings = []
    if levels.peak > FULL_SCALE_PEAK:
        findings.append(("not_full_scale", f"samples up to {levels.peak:.4g} instead of 1"))
    elif (share := levels.clipped_share(mix.channels)) > CLIPPED_SHARE:
        findings.append(("clipped_audio", f"{share:.0%} of the samples stay at full scale"))
    if FROZEN_SHARE * levels.samples < levels.longest_constant < levels.samples:
        seconds = levels.longest_constant / header.sampling_rate
        share = levels.longest_constant / levels.samples
        findings.append(("frozen_audio", f"no sample changes in {seconds:.2f} s of it ({share:.0%})"))
    return findings


def _chosen(
    blocks: Iterator[NDArray[np.float32]], channels: tuple[int, ...] | None
) -> Iterator[NDArray[np.float32]]:
    """Mean of the given channels, (number, 1); all channels if None."""
    for block in blocks:
        yield block if channels is None else block[:, list(channels)].mean(1, dtype=np.float64)[:, None]


def _write_converted(
    blocks: Iterator[NDArray[np.float32]], probe: AudioProbe, channels: int, target: Path
) -> None:
    """Write samples unchanged as 32-bit floats, so that nothing is clipped or rounded.

    Raises:
        UserError: the file cannot be written.
        UndecodableError: the recording has changed since it was measured.
    """
    large = _SAMPLE_BYTES * channels * probe.num_samples > _WAV_BYTES - (1 << 16)
    written = 0
    try:
        with (
            replacing(target) as temporary,
            soundfile.SoundFile(
                temporary, "w", probe.sampling_rate, channels, "FLOAT", format="W64" if large else "WAV"
            ) as file,
        ):
            for block in blocks:
                file.write(block)
                written += len(block)
    except (OSError, soundfile.SoundFileError) as error:
        raise UserError(
            f"cannot write {target} for recording {probe.recording_id}: {error}. Make room there, or "
            "correct its rights, and start again; what is finished is kept"
        ) from error
    if written != probe.num_samples:
        raise UndecodableError("the file changed while it was read")


def _other_spelling(path: Path) -> str:
    """A hint at a file whose name looks like the missing one, for the report."""
    spellings = {
        "with / instead of \\": str(path).replace("\\", "/"),
        "with composed characters (Unicode NFC)": unicodedata.normalize("NFC", str(path)),
        "with decomposed characters (Unicode NFD), as macOS writes them": unicodedata.normalize(
            "NFD", str(path)
        ),
    }
    for how, spelling in spellings.items():
        if spelling != str(path) and "\0" not in spelling:
            try:
                Path(spelling).stat()
            except OSError:
                continue
            return f"; there is a file of this name {how}"
    if "~" in path.parts:
        return "; ~ is not expanded here"
    return ""
