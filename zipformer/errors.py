"""The error that every command turns into one message; any other exception keeps its traceback."""

from collections.abc import Sequence


class UserError(ValueError):
    """The settings, the data or the machine prevent the work; the message says what to change.

    Classes below it exist only where some code has to tell one kind from another.
    """


def listed(title: str, faults: Sequence[str], shown: int = 10) -> str:
    """A message that names the first faults, one a line, and counts the rest."""
    more = len(faults) - shown
    lines = [f"{title}:", *faults[:shown], *([f"and {more} more"] if more > 0 else [])]
    return "\n  ".join(lines)
