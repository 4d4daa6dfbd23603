"""Reads TextGrid files of Praat, and computes the overlap of the utterances of a meeting."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.corpora.lists import read_lines
from zipformer.errors import UserError

_VALUE = re.compile(r'\s*(name|xmin|xmax|text)\s*=\s*(".*|[-+0-9.eE]+)\s*', re.DOTALL)
_TIER, _INTERVAL = re.compile(r"\s*item\s*\[\d+\]"), re.compile(r"\s*intervals\s*\[\d+\]")


@dataclass(frozen=True)
class Segment:
    """One labelled interval.

    Attributes:
        tier: name of the tier, which is that of the speaker.
        number: number of the interval in its tier, from 1; intervals without label count too.
        origin: name of the file and number of the line of the label, from 1.
        start, end: seconds.
        text: the label.
    """

    tier: str
    number: int
    origin: str
    start: float
    end: float
    text: str


def read_textgrid(path: Path) -> list[Segment]:
    """Intervals with a label, of all tiers, sorted by their start.

    The long form of the format is read, in UTF-8. A quotation mark inside a label is written twice, and a
    label may go over several lines.

    Raises:
        UserError: there is no such file, a value is missing, or the file ends within an interval.
    """
    reader = _Reader(path)
    last = 0
    held, first = "", 0  # a label of several lines, and its first line
    for line in read_lines(path):
        last = int(line.origin.rpartition(":")[2])
        text = f"{held}\n{line.text}" if held else line.text
        if text.count('"') % 2:  # the label goes on in the next line
            held, first = text, first or last
            continue
        reader.take(text, first or last)
        held, first = "", 0
    if held:
        raise UserError(_damaged(path, first, "a label without its closing quotation mark"))
    reader.finish(last)
    return sorted(reader.segments, key=lambda segment: (segment.start, segment.tier, segment.number))


class _Reader:
    """Reads line after line and collects the segments."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.segments: list[Segment] = []
        self._tiers = 0
        self._tier = ""
        self._number = 0
        self._times: dict[str, float] | None = None  # of the interval that is being read

    def take(self, text: str, line: int) -> None:
        if _INTERVAL.match(text):
            self._close(line)
            if not self._tiers:
                raise UserError(_damaged(self.path, line, "an interval before the first tier"))
            self._number += 1
            self._times = {}
        elif _TIER.match(text):
            self._close(line)
            self._tier, self._number, self._tiers = "", 0, self._tiers + 1
        elif match := _VALUE.fullmatch(text):
            self._value(match[1], match[2].rstrip(), line)

    def finish(self, line: int) -> None:
        self._close(line)
        if not self._tiers:
            raise UserError(_damaged(self.path, max(line, 1), "no tier: item [1]"))

    def _value(self, name: str, value: str, line: int) -> None:
        if name in ("name", "text") and not value.startswith('"'):
            raise UserError(_damaged(self.path, line, f"{name} without quotation marks"))
        if name == "name":
            self._tier = value[1:-1].replace('""', '"').strip()
        elif self._times is None:
            return  # times of the file or of the tier
        elif name == "text":
            self._label(value[1:-1].replace('""', '"').strip(), line)
        else:
            self._times[name] = self._seconds(value, line)

    def _seconds(self, value: str, line: int) -> float:
        try:
            return float(value)
        except ValueError as error:
            raise UserError(_damaged(self.path, line, f"{value} is no time")) from error

    def _label(self, text: str, line: int) -> None:
        times = self._times or {}
        if missing := [name for name in ("xmin", "xmax") if name not in times]:
            raise UserError(_damaged(self.path, line, f"no {' and '.join(missing)} before the text"))
        self._times = None
        if text:
            origin = f"{self.path.name}:{line}"
            self.segments.append(
                Segment(self._tier, self._number, origin, times["xmin"], times["xmax"], text)
            )

    def _close(self, line: int) -> None:
        """Check at the end of an interval that it has a label."""
        if self._times is not None:
            raise UserError(_damaged(self.path, line, "an interval without text"))


def _damaged(path: Path, line: int, reason: str) -> str:
    return f"{path}:{line}: damaged or cut off TextGrid ({reason}); copy or download the file again"


def overlapped(segments: Sequence[Segment]) -> list[float]:
    """Share of each segment during which somebody else speaks, from 0 to 1.

    Args:
        segments: segments sorted by their start, from ``read_textgrid``.
    """
    shares = []
    starts = [segment.start for segment in segments]
    longest = max((segment.end - segment.start for segment in segments), default=0.0)
    for one in segments:
        covered, until = 0.0, one.start
        for index in range(bisect_left(starts, one.start - longest), len(segments)):
            other = segments[index]
            if other.start >= one.end:
                break
            if other.tier != one.tier and other.end > until:
                begin, end = max(other.start, until), min(other.end, one.end)
                covered += max(0.0, end - begin)
                until = max(until, end)
        length = one.end - one.start
        shares.append(min(1.0, covered / length) if length > 0 else 0.0)
    return shares
