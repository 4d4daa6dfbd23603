"""A process that is killed before the first, the second, ... of its changes of files, for tests.

    for point in kill_points():
        ...  # prepare a fresh folder, for example one named by point.number
        with point:
            write_something()
        ...  # what is there now is what a killed process leaves

The last round is not killed. Python announces every change of a file to its audit hooks; the hook here lets
none pass any more once the point is reached, so that clean-up code cannot do what a dead process could not.
"""

import os
import sys
from collections.abc import Iterator
from types import TracebackType

CHANGES = {
    *("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"),
    "shutil.rmtree",
}


class Killed(BaseException):
    """Nothing may catch it."""


class KillPoint:
    """Context in which only the first ``number`` changes of files are made."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.left = number
        self.killed = False

    def __enter__(self) -> "KillPoint":
        _active.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        _active.remove(self)
        return kind is Killed

    def change(self) -> None:
        self.killed = self.killed or self.left == 0
        if self.killed:
            raise Killed
        self.left -= 1


def kill_points() -> Iterator[KillPoint]:
    """One point for every change that the block makes, and a last one that it never reaches."""
    if not _installed:
        sys.addaudithook(_hook)  # cannot be removed again
        _installed.append(True)
    number = 0
    while True:
        point = KillPoint(number)
        yield point
        if not point.killed:
            return
        number += 1


_active: list[KillPoint] = []
_installed: list[bool] = []


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if not _active:
        return
    if event == "open":
        flags = arguments[2]
        if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
    elif event not in CHANGES:
        return
    _active[-1].change()
