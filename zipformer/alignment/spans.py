"""Time spans of units of text: from tokens to characters to words.

An aligner gives every token an interval of encoder frames. Byte tokens are joined to characters, and
characters to words by a segmenter.

Encoder frame k is centred at 40 k + 55 ms: front-end frame i depends on feature frames 2 i to 2 i + 8, an
encoder frame is made of two front-end frames, and feature frame i (100/s) is centred at 10 i + 5 ms.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zipformer.data.tokenizer import Tokenizer
from zipformer.errors import UserError

FRAME_SECONDS = 0.04
FIRST_FRAME_SECONDS = 0.035  # start of encoder frame 0
_LONGEST_CHARACTER = 4  # bytes of UTF-8
_INCOMPLETE = "\ufffd"
_SPACE = "▁"  # a space in sentencepiece, even if spelt in bytes

Segmenter = Callable[[str], list[str]]  # text -> words that make it up


@dataclass(frozen=True, slots=True)
class Span:
    """A unit of text and its encoder frames, from ``start`` to ``stop`` - 1."""

    text: str
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise UserError(f"span {self.text!r} has no frames: {self.start} to {self.stop}")

    @property
    def start_seconds(self) -> float:
        return FIRST_FRAME_SECONDS + FRAME_SECONDS * self.start

    @property
    def end_seconds(self) -> float:
        return FIRST_FRAME_SECONDS + FRAME_SECONDS * self.stop


def share_gaps(emissions: NDArray[np.int64], num_frames: int) -> NDArray[np.int64]:
    """Assign every frame between two emissions to the nearer one.

    CTC and the transducer emit a token at one or a few frames and blank elsewhere, so they align points in
    time; boundaries are set in the middle between two points. The first token is extended to the left and the
    last to the right by half the median distance between neighbours.

    Args:
        emissions: first frame of each token and the frame after its last, in order (U,2).
        num_frames: number T of frames.

    Returns:
        Intervals (U,2) in the same form. Tokens emitted at the same frame share it; no others overlap.
    """
    if not len(emissions):
        return emissions
    starts, stops = emissions[:, 0], emissions[:, 1]
    boundaries = np.maximum(stops[:-1] + starts[1:] + 1, 1) // 2  # (U-1,)
    centres = (starts + stops) / 2
    reach = float(np.median(np.diff(centres))) / 2 if len(centres) > 1 else 0.0
    first = max(0, min(int(starts[0]), round(centres[0] - reach)))
    last = min(num_frames, max(int(stops[-1]), round(centres[-1] + reach)))
    return np.stack(
        [
            np.minimum(np.concatenate([[first], boundaries]), starts),
            np.maximum(np.concatenate([boundaries, [last]]), stops),
        ],
        axis=1,
    )


def character_spans(tokens: Sequence[int], intervals: NDArray[np.int64], tokenizer: Tokenizer) -> list[Span]:
    """Spans of the characters of tokens; white space has no span.

    A character spelt in bytes extends from its first byte to its last. Bytes that are not a character, which
    may occur in a hypothesis, give the replacement character U+FFFD. A token of several characters is one
    span.

    Args:
        tokens: ids of the U tokens.
        intervals: frames of each token (U,2), from :func:`share_gaps`.
        tokenizer: tokenizer of the ids.

    Raises:
        UserError: the numbers of intervals and tokens differ.
    """
    if len(tokens) != len(intervals):
        raise UserError(f"{len(intervals)} intervals for {len(tokens)} tokens")
    spans: list[Span] = []
    pending: list[int] = []  # positions of bytes that are not yet a complete character

    def add(text: str, positions: Sequence[int]) -> None:
        if text := "".join(text.replace(_SPACE, " ").split()):
            covered = intervals[list(positions)]
            spans.append(Span(text, int(covered[:, 0].min()), int(covered[:, 1].max())))

    for position, token in enumerate(tokens):
        text = tokenizer.decode([token])
        if _INCOMPLETE not in text:
            if pending:
                add(_INCOMPLETE, pending)
                pending = []
            add(text, [position])
            continue
        pending.append(position)
        text = tokenizer.decode(tokens[p] for p in pending)
        if _INCOMPLETE not in text or len(pending) == _LONGEST_CHARACTER:
            add(text if _INCOMPLETE not in text else _INCOMPLETE, pending)
            pending = []
    if pending:
        add(_INCOMPLETE, pending)
    return spans


def word_spans(characters: Sequence[Span], segment: Segmenter) -> list[Span]:
    """Spans of words: each from the start of its first character to the end of its last.

    Args:
        characters: spans in the order of the text.
        segment: function that divides the text into words. A word that begins inside a span of several
            characters is joined to the word before it.

    Raises:
        UserError: the words, joined, are not the text.
    """
    text = "".join(span.text for span in characters)
    words = segment(text)
    if "".join(words) != text:
        raise UserError(f"the segmenter cut {text!r} into {words}, which is another text")
    beginnings = set(np.cumsum([0, *map(len, words)]).tolist())
    groups: list[list[Span]] = []
    position = 0
    for span in characters:
        if position in beginnings:
            groups.append([])
        groups[-1].append(span)
        position += len(span.text)
    return [
        Span("".join(span.text for span in group), group[0].start, max(span.stop for span in group))
        for group in groups
    ]
