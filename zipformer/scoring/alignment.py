"""Minimum edit distance alignment of two transcripts, by characters."""

from dataclasses import dataclass

import kaldialign
from rich.cells import cell_len

GAP = ""  # stands in a pair for "no character here"; no character of a text equals it


def characters(text: str) -> list[str]:
    """Split a transcript into the units that are scored: its characters without white space.

    Texts are compared as they are; both sides are expected to have gone through the same normalisation.
    """
    return list("".join(text.split()))


@dataclass(frozen=True)
class ErrorCounts:
    """Edit operations from a reference to a hypothesis, and the length of the reference in characters."""

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
        """Character error rate in per cent, or None where the reference has no character to divide by."""
        if self.reference_characters == 0:
            return None
        return 100.0 * self.errors / self.reference_characters


@dataclass(frozen=True)
class Alignment:
    """Aligned (reference, hypothesis) characters; the missing side of a deletion or insertion is ``""``."""

    pairs: tuple[tuple[str, str], ...]

    @property
    def counts(self) -> ErrorCounts:
        deletions = sum(not hypothesis for _, hypothesis in self.pairs)
        insertions = sum(not reference for reference, _ in self.pairs)
        substitutions = sum(bool(left) and bool(right) and left != right for left, right in self.pairs)
        return ErrorCounts(substitutions, deletions, insertions, len(self.pairs) - insertions)

    def lines(self) -> tuple[str, str, str]:
        """Reference, hypothesis and marks (S, D, I) as three lines whose columns agree in a fixed-width font.

        A Chinese character takes two columns and a Latin letter one; a missing character is filled with
        asterisks of its partner's width.
        """
        reference_line, hypothesis_line, mark_line = "", "", ""
        for reference, hypothesis in self.pairs:
            # At least 1: a combining mark alone has width 0, and its error still needs a column.
            width = max(1, cell_len(reference), cell_len(hypothesis))
            reference_line += _cell(reference, width)
            hypothesis_line += _cell(hypothesis, width)
            mark_line += _mark(reference, hypothesis).ljust(width)
        return reference_line, hypothesis_line, mark_line.rstrip()


def align(reference: str, hypothesis: str) -> Alignment:
    """Align two transcripts with the fewest substitutions, deletions and insertions, each of cost 1."""
    pairs = kaldialign.align(characters(reference), characters(hypothesis), GAP)
    return Alignment(tuple(pairs))


def _cell(character: str, width: int) -> str:
    return character + " " * (width - cell_len(character)) if character else "*" * width


def _mark(reference: str, hypothesis: str) -> str:
    if reference == hypothesis:
        return ""
    if not hypothesis:
        return "D"
    return "S" if reference else "I"
