"""The error that preparation reports to its user."""

from collections.abc import Sequence


class PreparationError(Exception):
    """The settings or the corpus prevent preparation; the message says how and what to do."""


def listed(title: str, faults: Sequence[str], shown: int = 10) -> str:
    """A message that names the first faults, one a line, and counts the rest."""
    more = len(faults) - shown
    lines = [f"{title}:", *faults[:shown], *([f"and {more} more"] if more > 0 else [])]
    return "\n  ".join(lines)
