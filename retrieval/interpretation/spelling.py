"""Characters of byte-level tokens, which may hold parts of characters, one or several."""

import codecs
from collections.abc import Container, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from zipformer.alignment import Span

# Byte-level BPE (GPT-2, Whisper) writes every byte as a character: those that can be seen as themselves, the
# others as U+0100 and so on.
_VISIBLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_HIDDEN = sorted(set(range(256)) - set(_VISIBLE))
_BYTES = {chr(byte): byte for byte in _VISIBLE} | {chr(0x100 + n): byte for n, byte in enumerate(_HIDDEN)}


def bytes_of(token: str) -> bytes:
    """The bytes that a token of byte-level BPE stands for, as the vocabulary writes it."""
    return bytes(_BYTES[character] for character in token)


def spells_every_text(vocabulary: Container[str]) -> bool:
    """Whether a vocabulary has a token for every byte."""
    return all(character in vocabulary for character in _BYTES)


def spell(pieces: Sequence[bytes], intervals: NDArray[np.int64]) -> list[Span]:
    """Spans of the characters that pieces of UTF-8 spell; white space has none.

    A piece may hold parts of characters, one or several. Its bytes share its frames evenly, rounded down, and
    a character reaches from the first of its bytes to the last, at least one frame. Bytes that are no
    character, which a hypothesis may hold, give U+FFFD.

    Args:
        pieces: U tokens.
        intervals: (U,2) first frame of each and the frame after its last.
    """
    bounds: list[tuple[int, int]] = []  # of every byte
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
        # Two characters: bytes that were none, which the last byte shows, and the last byte itself.
        for number, character in enumerate(text, start=1):
            last = after if number == len(text) else after - 1
            if not character.isspace():
                start = bounds[first][0]
                spans.append(Span(character, start, max(bounds[last - 1][1], start + 1)))
            first = last
    return spans
