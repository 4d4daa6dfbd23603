"""Findings about the sound of an audio file by its bytes, to compare with what a decoder reads from it.

A decoder trusts the header. After a crash of the recorder, the header promises less than the file holds; in
an interrupted copy, it promises more; and the headers of MP3 and Ogg files do not contain the length. Bytes
inside a file may be damaged: FLAC and Ogg have checksums of the sound, and in MP3 a frame is missing where it
should begin. Nothing is decoded here.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from data_prep.audio.mpeg import MpegLength, mpeg_length

_BUFFER_BYTES = 1 << 20
# Programs that write WAV to a pipe do not know the length and write a huge one into the header.
_STREAMED_LENGTH = 0x7FFFF000
# Anything shorter behind the promised end is no speech. Bytes are for formats with an unknown byte rate.
_TRAILING_BYTES = 4096
_TRAILING_SECONDS = 0.1
# Ogg computes the CRC of zlib with the bits of each byte, and those of the result, in reverse order.
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
# Begin a FLAC stream: its signature and the header of STREAMINFO, the last block of metadata or not.
_FLAC_STARTS = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")


@dataclass(frozen=True)
class FlacSum:
    """The sum over all samples of a FLAC file, which its encoder has written into the header.

    Attributes:
        md5: MD5 of the samples as little-endian integers, channel by channel in each sample (RFC 9639).
        bits: of each sample.
    """

    md5: bytes
    bits: int


@dataclass(frozen=True)
class ByteFindings:
    """Faults of the sound of an audio file, found in its bytes.

    Attributes:
        truncated: description of how the file is cut off; empty if there is no sign of it.
        unread: description of the bytes behind the promised end, which no decoder reads; empty if there are
            none.
        damaged: description of the damaged bytes inside the file; empty if there is no sign of any.
        streams: number of logical streams one after the other. Some decoders read only the first.
        mpeg: frames of an MP3 file; None for other files.
        flac: sum over the samples of a FLAC file; None for other files and where the header has none.
    """

    truncated: str = ""
    unread: str = ""
    damaged: str = ""
    streams: int = 1
    mpeg: MpegLength | None = None
    flac: FlacSum | None = None


@dataclass(frozen=True)
class _Chunks:
    """Layout of the chunks in a container format.

    Attributes:
        start: position of the first chunk.
        id_bytes: length of a chunk's id.
        size: format of a chunk's size, for ``struct``.
        data: id of the chunk of samples.
        alignment: chunks begin at multiples of this number of bytes.
        counts_header: True if the size of a chunk includes the chunk's header.
    """

    start: int
    id_bytes: int
    size: str
    data: bytes
    alignment: int = 2
    counts_header: bool = False

    @property
    def header_bytes(self) -> int:
        return self.id_bytes + struct.calcsize(self.size)


_RIFF = _Chunks(start=12, id_bytes=4, size="<I", data=b"data")
_CONTAINERS = {
    b"RIFF": _RIFF,
    b"RF64": _RIFF,
    b"BW64": _RIFF,
    b"RIFX": _Chunks(start=12, id_bytes=4, size=">I", data=b"data"),
    b"FORM": _Chunks(start=12, id_bytes=4, size=">I", data=b"SSND"),
    b"caff": _Chunks(start=8, id_bytes=4, size=">q", data=b"data", alignment=1),
    b"riff": _Chunks(start=40, id_bytes=16, size="<Q", data=b"data", alignment=8, counts_header=True),
}


def byte_findings(path: Path) -> ByteFindings:
    """Examine a file of any format; unknown formats have no findings.

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb", buffering=_BUFFER_BYTES) as file:
        magic = file.read(4)
        if magic in _CONTAINERS:
            return _chunk_findings(file, size, magic)
        start = _tag_bytes(file, 0) if magic[:3] == b"ID3" else 0
        if _read_at(file, start, 4) == b"fLaC":
            return ByteFindings(streams=_flac_streams(file), flac=_flac_sum(file, start))
        if magic == b"OggS":
            return _ogg_findings(file, size)
        if magic == b".snd":
            offset, promised = struct.unpack(">II", _read_at(file, 4, 8))
            unknown = promised >= _STREAMED_LENGTH
            return ByteFindings() if unknown else _compare(file, size, offset, promised, None, 0)
        if magic == b"NIST":
            return _nist_findings(file, size)
        mpeg = mpeg_length(file, size)
        lost = mpeg.lost_bytes if mpeg else 0
        return ByteFindings(
            mpeg=mpeg, damaged=f"{lost} bytes between its frames are no frames" if lost else ""
        )


def _read_at(file: BinaryIO, position: int, count: int) -> bytes:
    """Exactly ``count`` bytes, filled up with zeros behind the end of the file."""
    file.seek(position)
    return file.read(count).ljust(count, b"\0")


def _compare(
    file: BinaryIO, size: int, start: int, promised: int, layout: _Chunks | None, byte_rate: int
) -> ByteFindings:
    """Compare a promised number of bytes of samples with those of the file.

    Args:
        file: the file.
        size: size of the file in bytes.
        start: position of the first sample.
        promised: bytes of samples that the header promises.
        layout: layout of the chunks that may follow; None where nothing may follow.
        byte_rate: bytes per second, 0 if unknown.
    """
    there = max(0, size - start)
    if promised > there:
        return ByteFindings(f"cut off: the header promises {promised} bytes of samples, the file has {there}")
    end = start + promised
    left = min(_unexplained(file, size, begin, layout) for begin in {end, _aligned(end, layout)})
    least = max(1, int(_TRAILING_SECONDS * byte_rate)) if byte_rate else _TRAILING_BYTES
    if left < least or not _has_content(file, size - left):
        return ByteFindings()
    seconds = f" ({left / byte_rate:.2f} s)" if byte_rate else ""
    return ByteFindings(
        unread=f"the header promises {promised} bytes of samples, but {left} more{seconds} follow them"
    )


def _aligned(position: int, layout: _Chunks | None) -> int:
    return position + -position % layout.alignment if layout else position


def _unexplained(file: BinaryIO, size: int, position: int, layout: _Chunks | None) -> int:
    """Bytes from a position to the end that are neither chunks nor tags.

    More samples and a second file, which was written behind the first one, look like chunks too.
    """
    if layout:
        for name, start, length in _chunks(file, size, position, layout):
            if name == layout.data or name in _CONTAINERS:
                break
            position = min(size, _aligned(start + length, layout))
    while position < size and (tag := _tag_bytes(file, position)):
        position += tag
    return max(0, size - position)


def _tag_bytes(file: BinaryIO, position: int) -> int:
    """Length of a tag that programs for MP3 files write behind the samples of any file; 0 where none is."""
    head = _read_at(file, position, 32)
    if head.startswith(b"TAG"):
        return 227 if head.startswith(b"TAG+") else 128
    if head.startswith(b"ID3"):
        return 10 + sum(
            (byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)
        )
    if head.startswith(b"APETAGEX"):
        return 32 + int(struct.unpack("<I", head[12:16])[0])
    return 0


def _has_content(file: BinaryIO, position: int) -> bool:
    """Whether non-zero bytes follow a position; zeros are space that a recorder has reserved."""
    file.seek(position)
    while block := file.read(_BUFFER_BYTES):
        if block.strip(b"\0"):
            return True
    return False


def _chunks(
    file: BinaryIO, size: int, position: int, layout: _Chunks, last: bytes | None = None
) -> Iterator[tuple[bytes, int, int]]:
    """Id, position and length of each chunk, until something is no chunk or ends behind the file.

    Reading stops after the chunk ``last``, which may be longer than the file.
    """
    while position + layout.header_bytes <= size:
        header = _read_at(file, position, layout.header_bytes)
        name = header[:4]
        length = int(struct.unpack(layout.size, header[layout.id_bytes :])[0])
        if layout.counts_header:
            length -= layout.header_bytes
        start = position + layout.header_bytes
        if name == last:
            yield name, start, length
            return
        if not all(0x20 <= byte < 0x7F for byte in name) or length < 0 or start + length > size:
            return
        yield name, start, length
        position = _aligned(start + length, layout)


def _chunk_findings(file: BinaryIO, size: int, magic: bytes) -> ByteFindings:
    layout = _CONTAINERS[magic]
    byte_rate, long_size = 0, None
    for name, start, length in _chunks(file, size, layout.start, layout, last=layout.data):
        if name == b"fmt " and layout.size.startswith("<"):
            (byte_rate,) = struct.unpack("<I", _read_at(file, start + 8, 4))
        elif name == b"ds64":
            (long_size,) = struct.unpack("<Q", _read_at(file, start + 8, 8))
        elif name == layout.data:
            if magic in (b"RF64", b"BW64") and length == 0xFFFFFFFF:
                length = long_size if long_size else _STREAMED_LENGTH
            streamed = length < 0 or (length >= _STREAMED_LENGTH and start + length > size)
            return ByteFindings() if streamed else _compare(file, size, start, length, layout, byte_rate)
    return ByteFindings()


def _nist_findings(file: BinaryIO, size: int) -> ByteFindings:
    """NIST SPHERE: a header of text lines, ``name -type value``."""
    header = _read_at(file, 0, 16).split()
    length = int(header[1]) if len(header) > 1 and header[1].isdigit() else 0
    lines = (line.split(None, 2) for line in _read_at(file, 0, min(length, size)).splitlines())
    fields = {line[0]: line[2].strip() for line in lines if len(line) == 3}
    needed = [fields.get(name, b"") for name in (b"sample_count", b"sample_n_bytes")]
    if b"shorten" in fields.get(b"sample_coding", b"") or not all(value.isdigit() for value in needed):
        return ByteFindings()
    channels = fields.get(b"channel_count", b"1")
    promised = int(needed[0]) * int(needed[1]) * (int(channels) if channels.isdigit() else 1)
    return _compare(file, size, length, promised, None, 0)


def _ogg_findings(file: BinaryIO, size: int) -> ByteFindings:
    """Ogg: the last page of every logical stream is marked as the last one (RFC 3533)."""
    position, streams, pages = 0, 0, 0
    open_streams: dict[int, int] = {}  # serial number -> number of its last page
    lost, wrong = 0, 0
    while position + 27 <= size:
        header = _read_at(file, position, 27)
        if header[:4] != b"OggS":
            break
        flags, serial, number = header[5], *struct.unpack("<II", header[14:22])
        length = 27 + header[26] + sum(_read_at(file, position + 27, header[26]))
        if position + length > size:
            break
        if flags & 2:
            streams += not open_streams  # streams that are open at the same time are not one after the other
        elif serial in open_streams:
            lost += max(0, number - open_streams[serial] - 1)
        wrong += _ogg_crc(_read_at(file, position, length)) != header[22:26]
        open_streams[serial] = number
        if flags & 4:
            del open_streams[serial]
        pages += 1
        position += length
    damaged = f"{wrong} of {pages} pages of the Ogg stream have a wrong checksum" if wrong else ""
    if open_streams or not pages:
        return ByteFindings("cut off: the last page of the Ogg stream is missing", damaged=damaged)
    if lost:
        return ByteFindings(f"{lost} pages of the Ogg stream are missing", damaged=damaged)
    left = _unexplained(file, size, position, None)
    if left >= _TRAILING_BYTES and _has_content(file, size - left):
        return ByteFindings(unread=f"{left} bytes follow the last page of the Ogg stream", damaged=damaged)
    return ByteFindings(damaged=damaged, streams=max(1, streams))


def _ogg_crc(page: bytes) -> bytes:
    """Checksum of a page as it stands in bytes 22 to 25 of the page (RFC 3533, section 6)."""
    content = page[:22] + b"\0\0\0\0" + page[26:]
    # zlib begins with all bits set and inverts the result; Ogg begins with 0.
    crc = zlib.crc32(content.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return crc.to_bytes(4, "big").translate(_REVERSED_BITS)


def _flac_streams(file: BinaryIO) -> int:
    """Number of FLAC streams one after the other."""
    file.seek(0)
    streams, overlap = 0, b""
    while block := file.read(_BUFFER_BYTES):
        block = overlap + block
        streams += sum(block.count(start) for start in _FLAC_STARTS)
        overlap = block[-(len(_FLAC_STARTS[0]) - 1) :]
    return max(1, streams)


def _flac_sum(file: BinaryIO, start: int) -> FlacSum | None:
    """The sum in STREAMINFO, the first block of a stream that begins at ``start``; None if it is not set."""
    info = _read_at(file, start + 8, 34)
    bits = ((info[12] & 1) << 4 | info[13] >> 4) + 1
    return FlacSum(info[18:], bits) if any(info[18:]) else None
