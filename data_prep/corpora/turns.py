"""Turns of conversations: lines ``[start,end]<TAB>speaker<TAB>gender<TAB>text``, as MagicData writes them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.corpora.lists import Line, read_lines
from zipformer.errors import UserError

_NOBODY = ("", "0", "G00000000")
_TIMES = re.compile(r"\[\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*\]")


@dataclass(frozen=True)
class Turn:
    """A turn of one speaker in a conversation.

    Attributes:
        origin: name of the file and number of the line, from 1.
        number: number of the turn in its file, from 1.
        start, end: seconds from the beginning of the recording.
        speaker: name of the speaker.
        gender: gender in the words of the corpus.
        text: raw transcript.
    """

    origin: str
    number: int
    start: float
    end: float
    speaker: str
    gender: str
    text: str


def read_turns(transcript: Path, fallback: str | None = None) -> Iterator[Turn]:
    """Turns of a transcript without the noise between them, whose speaker is 0 or G00000000.

    Args:
        transcript: the file.
        fallback: encoding of lines that are not UTF-8.

    Raises:
        UserError: there is no such file, or a line is not a turn.
    """
    for number, line in enumerate(read_lines(transcript, fallback=fallback), start=1):
        turn = _turn(transcript, number, line)
        if turn.speaker not in _NOBODY:
            yield turn


def _turn(transcript: Path, number: int, line: Line) -> Turn:
    values = line.text.split("\t", 3)
    if len(values) == 4 and (times := _TIMES.fullmatch(values[0].strip())):
        speaker, gender, text = values[1].strip(), values[2], values[3]
        return Turn(line.origin, number, float(times[1]), float(times[2]), speaker, gender, text)
    raise UserError(
        f"{transcript}:{line.origin.rpartition(':')[2]}: {line.text[:40]!r} is not '[start,end]', speaker, "
        "gender and text with tabs between them; correct or remove the line"
    )
