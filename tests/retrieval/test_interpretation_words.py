"""Words in time, their centre frames, and the table of words."""

from pathlib import Path

import numpy as np
import pytest

from retrieval.interpretation.words import FrameClock, Word, centre_frames, read_words, write_words
from zipformer.errors import UserError

WORDS = [Word("我", 0.035, 0.235), Word("好", 0.235, 0.275), Word("人", 0.3, 0.9)]
CLOCK = FrameClock(0.04, 0.035)


def test_centre_frames_by_hand() -> None:
    # Centres 0.135, 0.255 and 0.6 s; frame k lasts from 0.035 + 0.04 k: frames 2, 5 and 14.
    frames = np.diag(np.arange(1.0, 21.0)).astype(np.float32)
    spoken = centre_frames(frames, WORDS, CLOCK)
    np.testing.assert_array_equal(spoken.embeddings.argmax(axis=1), [2, 5, 14])
    np.testing.assert_allclose(np.linalg.norm(spoken.embeddings, axis=1), 1, rtol=1e-6)
    assert spoken.words == WORDS


def test_times_outside_take_the_nearest_frame() -> None:
    assert [CLOCK.frame(seconds, 10) for seconds in (0.0, 0.03, 5.0)] == [0, 0, 9]


@pytest.mark.parametrize("start", range(60))
def test_the_centre_of_frames_start_to_stop_is_between_them(start: int) -> None:
    for stop in range(start + 1, start + 12):
        centre = (CLOCK.seconds(start) + CLOCK.seconds(stop)) / 2
        assert CLOCK.frame(centre, 100) == (start + stop) // 2


def test_an_utterance_of_one_frame() -> None:
    spoken = centre_frames(np.array([[3.0, 4.0]]), WORDS, CLOCK)
    np.testing.assert_allclose(spoken.embeddings, [[0.6, 0.8]] * 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_frames_that_have_no_direction(value: float) -> None:
    frames = np.ones((20, 3))
    frames[5] = value
    with pytest.raises(ValueError, match="frame 5, the centre of '好'"):
        centre_frames(frames, WORDS, CLOCK)


def test_no_frames() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        centre_frames(np.zeros((0, 3)), WORDS, CLOCK)


def test_a_table_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "words.tsv"
    write_words(path, [("a", WORDS), ("b", WORDS[:1])])
    assert read_words(path) == {"a": WORDS, "b": WORDS[:1]}
    write_words(path, [("a", [Word("\0", 0.0, 1.0)])])  # what a recogniser of bytes may write
    assert read_words(path) == {"a": [Word("\ufffd", 0.0, 1.0)]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("word\tstart\n", "columns must be utterance_id, word, start, end"),
        ("utterance_id\tword\tstart\tend\na\t好\t0.1\n", "line 2"),
        ("utterance_id\tword\tstart\tend\na\t好\t0.1\tx\n", "line 2"),
        ("utterance_id\tword\tstart\tend\na\t好\t0.1\t0.2\na\t好\t0.3\t0.2\n", "line 3"),
        ("utterance_id\tword\tstart\tend\na\t\t0.1\t0.2\n", "needs a text"),
        ("utterance_id\tword\tstart\tend\na\t好\tnan\t0.2\n", "line 2"),
    ],
)
def test_bad_tables_name_the_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "words.tsv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_words(path)


def test_a_missing_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"fangyan interpret"):
        read_words(tmp_path / "words.tsv")
