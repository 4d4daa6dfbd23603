"""Length of an MP3 file, counted frame by frame.

Many MP3 files begin with a frame that holds the number of frames instead of sound (``Xing``, ``Info``).
Without it, decoders estimate the length from the bit rate of the first frame, which is wrong where the bit
rate changes.
"""

from dataclasses import dataclass
from typing import BinaryIO

# kbit/s by bit rate index 1 to 14, for MPEG-1 layers I, II, III and MPEG-2 layer I, layers II and III.
_RATES_V1 = {
    1: (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_LOW_RATES = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES_V2 = {
    1: (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    2: _LOW_RATES,
    3: _LOW_RATES,
}
_SAMPLING_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_SEARCHED_BYTES = 1 << 16


@dataclass(frozen=True)
class MpegLength:
    """Frames of an MP3 file.

    Attributes:
        samples: samples per channel in all frames with sound.
        samples_per_frame: samples in each frame.
        sampling_rates: sampling rates in Hz, in the order of their first frames; more than one where streams
            were joined.
        frames: number of frames with sound.
        promised_frames: number of frames that the ``Xing`` or ``Info`` frame gives; None without such a
            frame.
        lost_bytes: number of bytes between frames that are neither frames nor tags, counted where they are at
            least a frame long. Joined files leave less of their last frame.
    """

    samples: int
    samples_per_frame: int
    sampling_rates: tuple[int, ...]
    frames: int
    promised_frames: int | None
    lost_bytes: int = 0


@dataclass(frozen=True)
class _Frame:
    length: int
    sampling_rate: int
    samples: int


def _frame(header: bytes) -> _Frame | None:
    """Frame that begins with these four bytes; None if they do not begin a frame."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bit_rate, sampling_rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or bit_rate in (0, 15) or sampling_rate == 3:
        return None  # reserved values; 0 is the free format, whose length cannot be computed
    rate = _SAMPLING_RATES[version][sampling_rate]
    bits = 1000 * (_RATES_V1 if version == 3 else _RATES_V2)[layer][bit_rate - 1]
    padding = header[2] >> 1 & 1
    if layer == 1:
        return _Frame((12 * bits // rate + padding) * 4, rate, 384)
    samples = 576 if layer == 3 and version != 3 else 1152
    return _Frame(samples // 8 * bits // rate + padding, rate, samples)


def mpeg_length(file: BinaryIO, size: int) -> MpegLength | None:
    """Count the frames of a file of ``size`` bytes; None if it does not begin like an MP3 file."""
    position = _behind_tags(file, 0)
    file.seek(position)
    if _frame(file.read(4)) is None:
        return None
    samples, frames, samples_per_frame, promised = 0, 0, 0, None
    lost_bytes, shortest = 0, size
    rates: dict[int, None] = {}
    while position + 4 <= size:
        file.seek(position)
        frame = _frame(file.read(4))
        if frame is None:
            following = _behind_tags(file, position)
            if following == position:
                following = _next_frame(file, position + 1, size)
                if shortest <= following - position and following < size:
                    lost_bytes += following - position
            position = following
            continue
        if (
            not samples
            and promised is None
            and (promised := _promised_frames(file, position, frame)) is not None
        ):
            position += frame.length
            continue
        if position + frame.length > size:
            break  # the last frame is not complete
        samples += frame.samples
        samples_per_frame = frame.samples
        shortest = min(shortest, frame.length)
        frames += 1
        rates.setdefault(frame.sampling_rate)
        position += frame.length
    if not frames:
        return None
    return MpegLength(samples, samples_per_frame, tuple(rates), frames, promised, lost_bytes)


def _promised_frames(file: BinaryIO, position: int, frame: _Frame) -> int | None:
    file.seek(position)
    content = file.read(min(frame.length, 200))
    for tag in (b"Xing", b"Info"):
        found = content.find(tag, 4, 48)
        if found >= 0 and content[found + 7] & 1:
            return int.from_bytes(content[found + 8 : found + 12], "big")
    return None


def _behind_tags(file: BinaryIO, position: int) -> int:
    """Position behind the tags that begin at a position."""
    while True:
        file.seek(position)
        head = file.read(16)
        if head[:3] == b"ID3" and len(head) >= 10:
            seven_bits = head[6:10]
            position += 10 + sum((byte & 127) << 7 * (3 - i) for i, byte in enumerate(seven_bits))
        elif head[:3] == b"TAG":
            position += 128
        elif head[:8] == b"APETAGEX" and len(head) == 16:
            position += 32 + int.from_bytes(head[12:16], "little")
        else:
            return position


def _next_frame(file: BinaryIO, position: int, size: int) -> int:
    """Position of the next frame that another frame or the end of the file follows; ``size`` if none."""
    while position < size:
        file.seek(position)
        block = file.read(_SEARCHED_BYTES)
        found = block.find(b"\xff")
        while 0 <= found < len(block) - 3:
            frame = _frame(block[found : found + 4])
            if frame is not None:
                after = position + found + frame.length
                file.seek(after)
                if after == size or _frame(file.read(4)) is not None:
                    return position + found
            found = block.find(b"\xff", found + 1)
        if position + len(block) >= size:
            return size
        position += max(1, len(block) - 3)
    return size
