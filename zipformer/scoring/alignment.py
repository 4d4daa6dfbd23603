"""Minimum edit distance alignment of two transcripts, by characters or by other units."""

from collections.abc import Sequence
from dataclasses import dataclass

import kaldialign
from rich.cells import cell_len

GAP = ""  # marks a missing unit in a pair; no unit of a text equals it


def characters(text: str) -> list[str]:
    """Split a transcript into the units that are scored by default: its characters without white space.

    Texts are compared unchanged; both sides should have the same normalisation.
    """
    return list("".join(text.split()))


@dataclass(frozen=True)
class ErrorCounts:
    """Edit operations from a reference to a hypothesis.

    Attributes:
        substitutions: number of units of the reference that were replaced.
        deletions: number of units of the reference without a partner.
        insertions: number of units of the hypothesis without a partner.
        reference_characters: length of the reference, in the units of the convention: characters by default.
    """

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference_characters: int = 0

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        return ErrorCounts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.reference_characters + other.reference_characters,
        )

    @property
    def rate(self) -> float | None:
        """Error rate in per cent; None if the reference has no unit."""
        if self.reference_characters == 0:
            return None
        return 100.0 * self.errors / self.reference_characters


@dataclass(frozen=True)
class Alignment:
    """Aligned (reference, hypothesis) units; the missing side of a deletion or insertion is ``""``."""

    pairs: tuple[tuple[str, str], ...]

    @property
    def counts(self) -> ErrorCounts:
        deletions = sum(not hypothesis for _, hypothesis in self.pairs)
        insertions = sum(not reference for reference, _ in self.pairs)
        substitutions = sum(bool(left) and bool(right) and left != right for left, right in self.pairs)
        return ErrorCounts(substitutions, deletions, insertions, len(self.pairs) - insertions)

    def lines(self) -> tuple[str, str, str]:
        """Reference, hypothesis and marks (S, D, I) as three lines, aligned in a fixed-width font.

        A Chinese character takes two columns and a Latin letter one; a missing unit is shown as asterisks
        with the width of its partner. If units have several letters, they are separated by spaces.
        """
        reference_line, hypothesis_line, mark_line = "", "", ""
        space = " " * any(len(unit) > 1 for pair in self.pairs for unit in pair)
        for reference, hypothesis in self.pairs:
            # At least 1: a combining mark alone has width 0, but its error needs a column.
            width = max(1, cell_len(reference), cell_len(hypothesis))
            reference_line += _cell(reference, width) + space
            hypothesis_line += _cell(hypothesis, width) + space
            mark_line += _mark(reference, hypothesis).ljust(width) + space
        return reference_line, hypothesis_line, mark_line.rstrip()


def align(reference: str, hypothesis: str) -> Alignment:
    """Align two transcripts by characters, as :func:`align_units` does."""
    return align_units(characters(reference), characters(hypothesis))


def align_units(reference: Sequence[str], hypothesis: Sequence[str]) -> Alignment:
    """Align two lists of units with the fewest substitutions, deletions and insertions, each of cost 1."""
    return Alignment(tuple(kaldialign.align(list(reference), list(hypothesis), GAP)))


def _cell(unit: str, width: int) -> str:
    return unit + " " * (width - cell_len(unit)) if unit else "*" * width


def _mark(reference: str, hypothesis: str) -> str:
    if reference == hypothesis:
        return ""
    if not hypothesis:
        return "D"
    return "S" if reference else "I"
