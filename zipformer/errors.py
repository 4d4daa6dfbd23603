"""The error that every command turns into one message; any other exception keeps its traceback."""

from collections.abc import Sequence


class UserError(ValueError):
    """The settings, the data or the machine prevent the work; the message says what to change.

    There are subclasses only where code must distinguish kinds of errors.
    """


def listed(title: str, faults: Sequence[str], shown: int = 10) -> str:
    """A message with the first faults, one on each line, and the number of the others."""
    more = len(faults) - shown
    lines = [f"{title}:", *faults[:shown], *([f"and {more} more"] if more > 0 else [])]
    return "\n  ".join(lines)
