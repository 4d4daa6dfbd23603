"""Finds the characters in byte-level tokens, which may contain a part of a character, one or several."""

import codecs
from collections.abc import Container, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from zipformer.alignment import Span

# Byte-level BPE (GPT-2, Whisper) writes every byte as a character: printable bytes as themselves, others as
# U+0100 and so on.
_VISIBLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_HIDDEN = sorted(set(range(256)) - set(_VISIBLE))
_BYTES = {chr(byte): byte for byte in _VISIBLE} | {chr(0x100 + n): byte for n, byte in enumerate(_HIDDEN)}


def bytes_of(token: str) -> bytes:
    """The bytes of a token of byte-level BPE, given as in the vocabulary."""
    return bytes(_BYTES[character] for character in token)


def spells_every_text(vocabulary: Container[str]) -> bool:
    """Whether a vocabulary has a token for every byte."""
    return all(character in vocabulary for character in _BYTES)


def spell(pieces: Sequence[bytes], intervals: NDArray[np.int64]) -> list[Span]:
    """Spans of the characters in pieces of UTF-8; white space has no span.

    A piece may contain a part of a character, one or several. The frames of a piece are divided evenly among
    its bytes, rounded down, and a character extends from its first byte to its last, at least one frame.
    Bytes that are not a character, which may occur in a hypothesis, give U+FFFD.

    Args:
        pieces: the U tokens as bytes.
        intervals: first frame of each token and the frame after its last (U,2).
    """
    bounds: list[tuple[int, int]] = []  # frames of every byte
    for piece, (start, stop) in zip(pieces, intervals.tolist(), strict=True):
        edges = [start + (stop - start) * n // len(piece) for n in range(len(piece) + 1)]
        bounds += pairwise(edges)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    spans: list[Span] = []
    first = 0  # byte of the next character
    data = b"".join(pieces)
    for position in range(len(data) + 1):
        text = decoder.decode(data[position : position + 1], final=position == len(data))
        after = min(position + 1, len(data)) - len(decoder.getstate()[0])
        # Two characters: bytes that are not a character, as the last byte shows, and the last byte itself.
        for number, character in enumerate(text, start=1):
            last = after if number == len(text) else after - 1
            if not character.isspace():
                start = bounds[first][0]
                spans.append(Span(character, start, max(bounds[last - 1][1], start + 1)))
            first = last
    return spans
