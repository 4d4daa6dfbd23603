"""Reading of the lists of public corpora: line by line, so that a list of many gigabytes needs no memory.

Every record knows its origin (``text:17``), which the reports of the checks name. What cannot be read ends in
a ``UserError`` with the file, the line and the remedy.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zipformer.errors import UserError

_BLOCK = 1 << 20  # characters


@dataclass(frozen=True)
class Line:
    """One line of a list.

    Attributes:
        origin: name of the file and number of the line, from 1.
        text: the line without its end.
    """

    origin: str
    text: str


@dataclass(frozen=True)
class Fields:
    """One record of a table or of a JSON file.

    Attributes:
        origin: name of the file and number of the line, from 1.
        values: values by column or key.
    """

    origin: str
    values: Mapping[str, Any]

    def __getitem__(self, name: str) -> str:
        """Value as text; empty where the record has none."""
        value = self.values.get(name)
        return "" if value is None else str(value).strip()

    def number(self, name: str) -> float | None:
        """Value as a number; None where the record has none.

        Raises:
            UserError: the value is no number.
        """
        return number(self[name], f"{self.origin}: {name}") if self[name] else None


def corpus_root(root: str, *parts: str) -> Path:
    """Folder of a corpus, which must hold some files or folders.

    Raises:
        UserError: the folder or one of the parts is missing. The message says what must lie there.
    """
    folder = Path(root).absolute()
    if not folder.is_dir():
        what = f"with {parts[0]}" if parts else "of the unpacked corpus"
        raise UserError(f"corpus.root={root}: there is no such folder; set corpus.root to the folder {what}")
    for part in parts:
        if not (folder / part).exists():
            raise UserError(
                f"{folder / part} does not exist; set corpus.root to the folder that holds {part}, or unpack "
                "the corpus completely"
            )
    return folder


def read_lines(path: Path, fallback: str | None = None) -> Iterator[Line]:
    """Lines of a text file in UTF-8 that are not empty.

    A byte order mark and carriage returns at the ends of lines are removed.

    Args:
        path: the list.
        fallback: encoding of lines that are not UTF-8, for corpora that mix encodings.

    Raises:
        UserError: there is no such file, or a line is not text of these encodings.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; unpack the corpus completely, or correct corpus.root")
    with path.open("rb") as stream:
        for count, data in enumerate(stream, start=1):
            text = _decoded(path, count, data, fallback)
            if text := text.removeprefix("\ufeff").rstrip("\r\n"):
                yield Line(f"{path.name}:{count}", text)


def _decoded(path: Path, count: int, data: bytes, fallback: str | None) -> str:
    for encoding in ("utf-8", fallback):
        if encoding:
            try:
                return data.decode(encoding)
            except UnicodeDecodeError:
                continue
    names = f"UTF-8 nor {fallback}" if fallback else "UTF-8"
    raise UserError(
        f"{path}:{count}: {'neither' if fallback else 'not'} {names}; copy the file again, or convert it "
        "(iconv -f gb18030 -t UTF-8 OLD > NEW)"
    )


def read_pairs(path: Path) -> Iterator[tuple[str, str, str]]:
    """Origin, key and value of each line ``key value`` (space or tab); the value may be empty."""
    for line in read_lines(path):
        key, _, value = line.text.replace("\t", " ", 1).partition(" ")
        yield line.origin, key, value.strip()


def joined(first: Path, others: Sequence[Path]) -> Iterator[tuple[str, str, str, list[str]]]:
    """Lines of several lists ``key value`` by key, in the order of the first list.

    Lists in the same order are read side by side. What is skipped in a list is kept until it is asked for, so
    another order costs memory, but loses nothing.

    Yields:
        Origin, key and value of the first list, and the values of the others (empty where a list lacks
        the key).
    """
    streams = [read_pairs(path) for path in others]
    skipped: list[dict[str, str]] = [{} for _ in others]
    for origin, key, value in read_pairs(first):
        yield origin, key, value, [_find(key, *one) for one in zip(streams, skipped, strict=True)]


def _find(key: str, stream: Iterator[tuple[str, str, str]], skipped: dict[str, str]) -> str:
    if key in skipped:
        return skipped.pop(key)
    for _, other, value in stream:
        if other == key:
            return value
        skipped[other] = value
    return ""


def read_fields(
    path: Path,
    needed: Sequence[str],
    delimiter: str = "\t",
    *,
    header: Sequence[str] | None = None,
    quoted: bool = False,
) -> Iterator[Fields]:
    """Records of a table with a header.

    Args:
        path: the table.
        needed: columns that it must have. Values of other columns may be missing at the end of a line.
        delimiter: between the values of a line.
        header: names of the columns of a table without a header.
        quoted: True if quotation marks enclose values, as in CSV; else they are ordinary characters.

    Raises:
        UserError: a column or a needed value is missing.
    """
    names = list(header or [])
    for line in read_lines(path):
        if quoted:
            values = next(csv.reader([line.text], delimiter=delimiter))
        else:
            values = line.text.split(delimiter)
        if not names:
            names = [value.strip() for value in values]
            if missing := [name for name in needed if name not in names]:
                raise UserError(
                    f"{path}:1: no column {', '.join(missing)}; the columns are {', '.join(names)}. Is this "
                    "the table of the corpus, as it was published?"
                )
            continue
        found = dict(zip(names, values, strict=False))
        if missing := [name for name in needed if name not in found]:
            raise UserError(
                f"{path}:{line.origin.rpartition(':')[2]}: {len(values)} values, no {', '.join(missing)}; "
                "copy the table again, or remove the line"
            )
        yield Fields(line.origin, found)


def read_json_lines(path: Path) -> Iterator[Fields]:
    """Records of a file with one JSON object a line.

    Raises:
        UserError: a line is not a JSON object.
    """
    for line in read_lines(path):
        try:
            found = json.loads(line.text)
        except json.JSONDecodeError as error:
            raise UserError(_damaged(path, int(line.origin.rpartition(":")[2]), error.msg)) from error
        if not isinstance(found, dict):
            raise UserError(_damaged(path, int(line.origin.rpartition(":")[2]), "not an object"))
        yield Fields(line.origin, found)


def read_json_object(path: Path) -> Fields:
    """The object of a small JSON file, such as the description of one utterance beside its audio.

    Raises:
        UserError: there is no such file, or it is damaged, in another encoding, or no object.
    """
    lines = [line.text for line in read_lines(path)]
    try:
        found = json.loads("\n".join(lines))
    except json.JSONDecodeError as error:
        raise UserError(_damaged(path, error.lineno, error.msg)) from error
    if not isinstance(found, dict):
        raise UserError(_damaged(path, 1, "not an object"))
    return Fields(f"{path.name}:1", found)


def read_json_array(path: Path, key: str | None = None) -> Iterator[Fields]:
    """Elements of an array of objects, one at a time.

    Args:
        path: a JSON file of any size.
        key: key of the array in the file's object; None if the file is the array itself.

    Raises:
        UserError: the file is damaged or cut off, or has no such array.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; unpack the corpus completely, or correct corpus.root")
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8-sig") as stream:
        text = _Window(path, stream)
        text.skip_to("[" if key is None else f'"{key}"')
        if key is not None:
            text.skip_to("[")
        while (next_character := text.peek(" \t\r\n,")) != "]":
            if next_character != "{":
                raise UserError(_damaged(path, text.line, "an object must follow"))
            yield Fields(f"{path.name}:{text.line}", text.decode(decoder))


class _Window:
    """The part of a text file that is being read."""

    def __init__(self, path: Path, stream: Iterable[str]) -> None:
        self.path = path
        self.line = 1
        self._stream = stream
        self._text = ""
        self._at = 0

    def _more(self, blocks: int = 1) -> bool:
        try:
            added = self._stream.read(blocks * _BLOCK)  # type: ignore[attr-defined]
        except UnicodeDecodeError as error:
            raise UserError(_damaged(self.path, self.line, f"not UTF-8 ({error.reason})")) from error
        self._text = self._text[self._at :] + added
        self._at = 0
        return bool(added)

    def _advance(self, to: int) -> None:
        self.line += self._text.count("\n", self._at, to)
        self._at = to

    def skip_to(self, marker: str) -> None:
        """Go to the end of the next occurrence of a string."""
        while (found := self._text.find(marker, self._at)) < 0:
            self._advance(max(self._at, len(self._text) - len(marker)))
            if not self._more():
                raise UserError(_damaged(self.path, self.line, f"no {marker}"))
        self._advance(found + len(marker))

    def peek(self, ignored: str) -> str:
        """The next character that is not ignored."""
        while True:
            at = self._at
            while at < len(self._text) and self._text[at] in ignored:
                at += 1
            self._advance(at)
            if at < len(self._text):
                return self._text[at]
            if not self._more():
                raise UserError(_damaged(self.path, self.line, "the file ends within the array"))

    def decode(self, decoder: json.JSONDecoder) -> dict[str, Any]:
        """The object that begins here."""
        blocks = 1
        while True:
            try:
                found, end = decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._more(blocks):
                    raise UserError(_damaged(self.path, self.line, error.msg)) from error
                blocks *= 2  # an object of n characters is tried log n times
                continue
            self._advance(end)
            return dict(found)


def _damaged(path: Path, line: int, reason: str) -> str:
    return f"{path}:{line}: damaged or cut off JSON ({reason}); copy or download the file again"


def number(value: str, what: str) -> float:
    """A number in a list.

    Raises:
        UserError: it is none.
    """
    try:
        return float(value)
    except ValueError as error:
        raise UserError(f"{what} is {value!r}, which is no number; copy the list again") from error
