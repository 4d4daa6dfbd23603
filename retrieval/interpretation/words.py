"""Words with times and embeddings, and the table of words."""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zipformer.errors import UserError

COLUMNS = ("utterance_id", "word", "start", "end")


@dataclass(frozen=True, slots=True)
class Word:
    """A word (or character) with start and end in seconds from the start of the utterance."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class SpokenWords:
    """The words (W) of an utterance and their embeddings (W,D), each of length 1."""

    words: list[Word]
    embeddings: NDArray[np.float32]


@dataclass(frozen=True)
class FrameClock:
    """Times of frames: frame k begins at ``first + k * step`` seconds and lasts ``step`` seconds."""

    step: float
    first: float = 0.0

    def frame(self, seconds: float, count: int) -> int:
        """The frame at a time, out of ``count`` frames; times outside give the first or last frame."""
        # A time on the border between two frames belongs to the later one, despite rounding.
        return min(max(math.floor((seconds - self.first) / self.step + 1e-6), 0), count - 1)

    def seconds(self, frame: float) -> float:
        """Start of a frame."""
        return self.first + frame * self.step


def centre_frames(frames: NDArray[np.floating], words: Sequence[Word], clock: FrameClock) -> SpokenWords:
    """Frame at the centre of each word (SeqSimInterp, arXiv 2505.19606), instead of the mean over the word.

    Args:
        frames: frames (T,D) of the utterance.
        words: words (W) of the utterance, at least one.
        clock: times of the frames.

    Raises:
        UserError: the frames are not (T,D), or a centre frame is zero or not finite.
    """
    if frames.ndim != 2 or not len(frames):
        raise UserError(f"frames are {frames.shape}; expected (T,D) with at least one frame")
    index = [clock.frame((word.start + word.end) / 2, len(frames)) for word in words]
    centres = frames[index].astype(np.float32)  # (W,D)
    norms = np.linalg.norm(centres, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        bad = int(np.flatnonzero(~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0))[0])
        raise UserError(
            f"frame {index[bad]}, the centre of {words[bad].text!r}, is zero or not finite; embed again"
        )
    return SpokenWords(list(words), centres / norms)


def write_words(path: Path, utterances: Iterable[tuple[str, Sequence[Word]]]) -> None:
    """Write words as a table with the columns ``COLUMNS``, seconds with three decimals."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, words in utterances:
            for word in words:
                # Recognisers of bytes may write NUL, which csv of Python 3.10 takes for its escape character.
                text = word.text.replace("\0", "\ufffd")
                writer.writerow((name, text, f"{word.start:.3f}", f"{word.end:.3f}"))


def read_words(path: Path) -> dict[str, list[Word]]:
    """Read a table of words, from :func:`write_words` or from another aligner in the same format.

    Returns:
        Words by utterance id, in the order of the table.

    Raises:
        UserError: there is no such file, the columns are wrong, or the times in a line are not numbers or
            decrease.
    """
    if not path.is_file():
        raise UserError(f"no table of words at {path}; fangyan interpret writes one (words.tsv)")
    utterances: dict[str, list[Word]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, delimiter="\t")
        header = tuple(next(reader, ()))
        if header != COLUMNS:
            raise UserError(f"{path}: columns must be {', '.join(COLUMNS)}; found {', '.join(header)}")
        for row in reader:
            try:
                name, text, *times = row
                start, end = map(float, times)
            except ValueError:
                raise UserError(f"{path}, line {reader.line_num}: no word with two times: {row}") from None
            if not (0 <= start < end < math.inf) or not text:
                raise UserError(
                    f"{path}, line {reader.line_num}: word {text!r} from {start} s to {end} s of {name}; it"
                    " needs a text and must end after it starts"
                )
            utterances.setdefault(name, []).append(Word(text, start, end))
    return utterances
