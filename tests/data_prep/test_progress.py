"""Lines of progress where there is no terminal."""

import io
import logging
import threading

import pytest
from rich.console import Console

from data_prep.progress import progress

PLAIN = Console(file=io.StringIO(), force_terminal=False)


class Lines(logging.Handler):
    """Collects log lines, and says when there is a new one."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.new = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.new.set()

    def next(self) -> str:
        self.new.clear()
        assert self.new.wait(60)
        return self.lines[-1]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    logger, handler = logging.getLogger("data_prep.progress"), Lines()
    monkeypatch.setattr(logger, "handlers", [handler])
    logger.setLevel(logging.INFO)
    return handler


def test_lines_come_also_while_nothing_is_finished(lines: Lines) -> None:
    with progress("decode", 40, "recordings", done=10, console=PLAIN, interval=0.01) as advance:
        assert lines.next().startswith("decode: 10 of 40 recordings, 0:0")
        assert "left" not in lines.lines[-1]
        advance(20)
        lines.next()
        assert "decode: 30 of 40 recordings" in lines.next()
        assert lines.lines[-1].endswith(" left")
    count = len(lines.lines)
    assert not any(thread.name.startswith("progress") for thread in threading.enumerate())
    assert len(lines.lines) == count


def test_a_short_job_says_nothing(lines: Lines) -> None:
    with progress("decode", 2, "recordings", console=PLAIN) as advance:
        advance(2)
    assert lines.lines == []


def test_an_error_ends_the_lines(lines: Lines) -> None:
    with pytest.raises(ValueError, match="broken"), progress("x", 1, "y", console=PLAIN, interval=0.01):
        raise ValueError("broken")
    assert not any(thread.name.startswith("progress") for thread in threading.enumerate())


def test_a_terminal_has_a_bar(lines: Lines) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    with progress("decode", 2, "recordings", console=terminal, interval=0.001) as advance:
        advance(2)
    assert "2/2" in terminal.file.getvalue()  # type: ignore[attr-defined]
    assert lines.lines == []
