import gzip
import random
from pathlib import Path

import pytest

from zipformer.data import line_index
from zipformer.data.line_index import LineIndex, write_line_index


@pytest.fixture(autouse=True)
def short_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans as short as indexed_gzip allows: it needs more than the 32 KiB that it keeps of each."""
    monkeypatch.setattr(line_index, "_SPAN_BYTES", 100_000)
    monkeypatch.setattr(line_index, "_STEP_BYTES", 50_000)
    monkeypatch.setattr(line_index, "_STREAM_BYTES", 400_000)


def random_lines(count: int, seed: int = 0) -> list[bytes]:
    """Lines of very different lengths, some longer than a span, some empty."""
    draw = random.Random(seed)
    lengths = [draw.choice([0, 20, 300, 3000]) for _ in range(count)]
    lengths[count // 2] = 350_000
    return [b"%d " % n + draw.randbytes(length).replace(b"\n", b" ") for n, length in enumerate(lengths)]


def written(path: Path, content: bytes, kind: str) -> Path:
    if kind == "plain":
        path = path / "cuts.jsonl"
        path.write_bytes(content)
    else:
        path = path / "cuts.jsonl.gz"
        parts = (content[:700_000], content[700_000:]) if kind == "two members" else (content,)
        path.write_bytes(b"".join(map(gzip.compress, parts)))
    return path


@pytest.mark.parametrize("kind", ["plain", "one member", "two members"])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_every_line_is_found(tmp_path: Path, kind: str, end: bytes) -> None:
    lines = random_lines(1200)
    manifest = written(tmp_path, b"\n".join(lines) + end, kind)
    names = write_line_index(manifest, tmp_path)
    assert all((tmp_path / name).is_file() for name in names)
    index = LineIndex(manifest, tmp_path)
    assert len(index.numbers) > 8
    for number in [0, 1, 599, 600, 601, 1199, *index.numbers, *(n - 1 for n in index.numbers[1:])]:
        assert list(index.lines_from(number)) == lines[number:]
    assert list(index.lines_from(1200)) == []
    assert list(index.lines_at(range(1200))) == lines
    for seed in range(5):
        numbers = sorted(random.Random(seed).sample(range(1200), 1 + 10 * seed))
        assert list(index.lines_at(numbers)) == [lines[number] for number in numbers]
    assert list(index.lines_at([])) == []


def test_without_an_index_reading_starts_with_the_first_line(tmp_path: Path) -> None:
    lines = random_lines(300)
    manifest = written(tmp_path, b"\n".join(lines), "one member")
    assert list(LineIndex(manifest).lines_from(250)) == lines[250:]
    assert list(LineIndex(manifest).lines_at([3, 4, 299])) == [lines[3], lines[4], lines[299]]


def test_reading_in_the_middle_decompresses_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = written(tmp_path, b"\n".join(random_lines(4000)), "one member")
    write_line_index(manifest, tmp_path)
    index = LineIndex(manifest, tmp_path)
    monkeypatch.setattr(line_index, "read_lines", lambda path: pytest.fail("read from the start"))
    reading = index._open()
    size = manifest.stat().st_size
    reading.seek(index.offsets[-2])
    reading.read(1000)
    assert reading.fileobj().tell() > 0.7 * size  # type: ignore[attr-defined]
    assert next(index.lines_from(index.numbers[-2])).startswith(b"%d " % index.numbers[-2])
