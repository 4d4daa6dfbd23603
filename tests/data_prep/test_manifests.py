import gzip
from itertools import pairwise
from pathlib import Path

import pytest

from data_prep import manifests
from data_prep.manifests import shuffle_lines


def write(path: Path, lines: list[str]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.writelines(line + "\n" for line in lines)
    return path


def read(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return stream.read().splitlines()


def shuffled(folder: Path, lines: list[str], name: str = "all.gz") -> list[str]:
    half = len(lines) // 2
    sources = [write(folder / "a.gz", lines[:half]), write(folder / "b.gz", lines[half:])]
    shuffle_lines(sources, len(lines), folder / name)
    return read(folder / name)


@pytest.mark.parametrize("bucket_lines", [7, 1000])
def test_every_line_once_and_neighbours_parted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket_lines: int
) -> None:
    monkeypatch.setattr(manifests, "BUCKET_LINES", bucket_lines)
    lines = [f"行 {index}" for index in range(200)]
    result = shuffled(tmp_path, lines)
    assert sorted(result) == sorted(lines)
    # In a random order, the mean distance of two lines that were neighbours is a third of the length.
    place = {line: index for index, line in enumerate(result)}
    steps = [abs(place[a] - place[b]) for a, b in pairwise(lines)]
    assert 50 < sum(steps) / len(steps) < 85


def test_same_order_again_and_nothing_left_behind(tmp_path: Path) -> None:
    lines = [str(index) for index in range(50)]
    assert shuffled(tmp_path, lines, "one.gz") == shuffled(tmp_path, lines, "two.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gz", "b.gz", "one.gz", "two.gz"]


def test_no_lines(tmp_path: Path) -> None:
    assert shuffled(tmp_path, []) == []
