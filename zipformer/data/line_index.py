"""Where the lines of a long manifest are, so that reading can start at any of them.

A file compressed by gzip can only be read from its start, unless something holds the 32 KiB of text before a
place in the middle: the decompressor needs them. The library ``indexed_gzip`` keeps such places, one in every
8 MiB of text. Beside them lies which line is the first to start in every MiB.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from indexed_gzip import IndexedGzipFile

from zipformer.data.manifest import lines_of, read_lines

_STEP_BYTES = 1 << 20  # of text between two lines whose place is known
_SPAN_BYTES = 8 << 20  # of text between two places to decompress from, each of which takes 32 KiB
# indexed_gzip starts each read at the place before it: reading far more at once than a span costs little.
_STREAM_BYTES = 32 << 20
_STEPS_FILE = "steps.npy"
_PLACES_FILE = "places.gzidx"


class LineIndex:
    """The lines of a manifest, from any of them on.

    Attributes:
        manifest: JSON lines, compressed by gzip if the name ends in ``.gz``.
        numbers: number of the first line that starts in each step, counted from 0.
        offsets: where that line starts in the text, in bytes.
        places: file of ``indexed_gzip``; None where the manifest is not compressed, or not indexed.
    """

    def __init__(self, manifest: Path, folder: Path | None = None) -> None:
        """Open the index of a manifest; without a folder, every reading starts with the first line.

        Args:
            folder: folder that :func:`write_line_index` has filled.
        """
        self.manifest = manifest
        self.numbers, self.offsets = [0], [0]
        self.places: Path | None = None
        if folder is not None:
            self.numbers, self.offsets = np.load(folder / _STEPS_FILE).tolist()
            self.places = folder / _PLACES_FILE if manifest.suffix == ".gz" else None

    def lines_from(self, number: int) -> Iterator[bytes]:
        """The line of this number, counted from 0, and all after it."""
        step = self._step(number)
        if step == 0:
            yield from islice(read_lines(self.manifest), number, None)
            return
        with self._open() as file:
            file.seek(self.offsets[step])
            yield from islice(lines_of(file, _STREAM_BYTES), number - self.numbers[step], None)

    def lines_at(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """The lines of some numbers, which ascend."""
        if len(self.numbers) == 1:
            lines, ahead = read_lines(self.manifest), 0
            for number in numbers:
                yield next(islice(lines, number - ahead, None))
                ahead = number + 1
            return
        with self._open() as file:
            # One read for each span: every read decompresses from the place at the start of the span.
            for _, group in groupby(numbers, key=lambda n: self.offsets[self._step(n)] // _SPAN_BYTES):
                wanted = list(group)
                first, after = self._step(wanted[0]), self._step(wanted[-1]) + 1
                file.seek(self.offsets[first])
                end = self.offsets[after] if after < len(self.offsets) else None
                text = file.read(-1 if end is None else end - self.offsets[first]).split(b"\n")
                yield from (text[number - self.numbers[first]] for number in wanted)

    def _step(self, number: int) -> int:
        return bisect_right(self.numbers, number) - 1

    def _open(self) -> BinaryIO:
        if self.manifest.suffix != ".gz":
            return self.manifest.open("rb")
        file = _open_gzip(self.manifest)
        file.import_index(str(self.places))
        return cast(BinaryIO, file)


def write_line_index(manifest: Path, folder: Path) -> list[str]:
    """Find where the lines of a manifest are, in one pass that decompresses it.

    Returns:
        names of the files written into the folder.
    """
    compressed = manifest.suffix == ".gz"
    numbers, offsets = [0], [0]
    lines = position = 0
    file: Any = _open_gzip(manifest) if compressed else manifest.open("rb")
    with file:
        while block := file.read(_STREAM_BYTES):
            for begin in range(0, len(block), _STEP_BYTES):
                part = block[begin : begin + _STEP_BYTES]
                end = part.find(b"\n")
                if position and end >= 0:
                    numbers.append(lines + 1)
                    offsets.append(position + end + 1)
                lines += part.count(b"\n")
                position += len(part)
        if compressed:
            file.export_index(str(folder / _PLACES_FILE))
    np.save(folder / _STEPS_FILE, np.array([numbers, offsets]))
    return [_STEPS_FILE, *([_PLACES_FILE] if compressed else [])]


def _open_gzip(path: Path) -> IndexedGzipFile:
    # The buffer is small because all reads are large: those go around it.
    return IndexedGzipFile(str(path), spacing=_SPAN_BYTES, buffer_size=1 << 16, drop_handles=False)
