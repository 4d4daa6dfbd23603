"""Reads text files with a header and one record a line, as spreadsheets, databases and other toolkits write.

It reads everything that needs no guess: UTF-8 with or without byte order mark, UTF-16, gzip, line ends of any
system, empty columns at the end. For anything else, one message names the file, the line and the remedy.
"""

import codecs
import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zipformer.errors import UserError, listed

# First bytes of files that are not text, and the kind of file.
_OTHER_KINDS = (
    (b"PAR1", "a Parquet file"),
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ", "compressed with xz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"SQLite format 3", "an SQLite database"),
)
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CHINESE_ENCODINGS = ("gb18030", "big5hkscs")
_CHARACTERS_SHOWN = 30


@dataclass(frozen=True)
class Record:
    """The values of one line, and the line number in the file, from 1 (the header is line 1)."""

    line: int
    values: list[str]


def read_text(path: Path, encoding: str = "utf-8", setting: str | None = None) -> str:
    """The text of a file, with ``\\n`` at the end of each line.

    Args:
        path: text file, may be compressed with gzip.
        encoding: encoding of files that do not show it by a byte order mark or by the zero bytes of UTF-16.
        setting: name of the user's setting for the encoding, for the messages.

    Raises:
        UserError: there is no such file, or it is not text in this encoding.
    """
    data = _content(path)
    for start, kind in _OTHER_KINDS:
        if data.startswith(start):
            raise UserError(f"{path} is {kind}, not a table; save the table as text (TSV, UTF-8)")
    mark = next((name for start, name in _BYTE_ORDER_MARKS if data.startswith(start)), None)
    used = mark or _utf16_of(data) or encoding
    try:
        text = data.decode(used)
    except LookupError as error:
        message = f"{setting or 'encoding'} is {encoding!r}, which Python does not know"
        raise UserError(message) from error
    except UnicodeDecodeError as error:
        raise UserError(_not_decodable(path, data, used, error, setting)) from error
    text = text.removeprefix("\ufeff")
    # Lines of old Mac programs end in CR alone. A CR in a file with LF is handled where values are read.
    text = text.replace("\r\n", "\n") if "\n" in text else text.replace("\r", "\n")
    if (position := text.find("\0")) >= 0:
        raise UserError(
            f"{path}:{text.count(chr(10), 0, position) + 1}: a NUL character, which no text has: the file is "
            f"damaged or not a table; remove it (tr -d '\\000' < OLD > NEW), or export the table again"
        )
    return text


def read_records(
    path: Path,
    delimiter: str = "\t",
    *,
    quoted: bool = False,
    encoding: str = "utf-8",
    settings: str | None = None,
) -> tuple[list[str], Iterator[Record], list[str]]:
    """Read a table.

    Args:
        path: file of the table, see :func:`read_text`.
        delimiter: character between the values of a line.
        quoted: True if values may be in quotation marks as in CSV (RFC 4180); such a value may contain
            delimiters and line breaks. Otherwise quotation marks are ordinary characters.
        encoding: see :func:`read_text`.
        settings: prefix of the names of the settings ``delimiter``, ``quoted`` and ``encoding`` in messages,
            such as ``corpus``; None if the user cannot choose them.

    Returns:
        The header, the records (without empty lines), and a list to which reading the records adds a message
        for each line that cannot be used. Values are stripped of spaces, and each record has as many as the
        header.

    Raises:
        UserError: the file cannot be read or is empty.
    """
    if not delimiter or (quoted and len(delimiter) != 1):
        raise UserError(
            f"{settings}.delimiter is {delimiter!r}; it must be one character, e.g. "
            f"'{settings}.delimiter=\",\"'"
        )
    text = read_text(path, encoding, f"{settings}.encoding" if settings else None)
    if not text.strip():
        raise UserError(f"{path} is empty; it must have a header and a line for each utterance")
    faults: list[str] = []
    if quoted:
        records = _quoted_records(path, text, delimiter, faults, settings)
    else:
        records = _plain_records(path, text, delimiter, faults)
    first = next(records, None)
    if first is None:
        raise UserError(listed("a table that cannot be used; correct it", faults))
    header = first.values
    while header and not header[-1]:
        header.pop()
    return header, _of_equal_length(path, header, records, faults, None if quoted else settings), faults


def seeming_delimiter(header: Sequence[str], delimiter: str, wanted: Sequence[str]) -> str | None:
    """The delimiter that would divide an undivided header into the wanted columns; None if none would."""
    line = delimiter.join(header)
    for candidate in ("\t", ",", ";", "|"):
        names = {name.strip().strip('"').casefold() for name in line.split(candidate)}
        if candidate != delimiter and names.issuperset(name.casefold() for name in wanted):
            return candidate
    return None


def _content(path: Path) -> bytes:
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the file of the table in it")
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if not path.is_file():
        raise UserError(f"{path} is not a file (a pipe or device); save the table as a file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); correct its permissions, or copy it"
        ) from error
    if data.startswith(b"\x1f\x8b"):
        try:
            return gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise UserError(
                f"{path} is a gzip file that is damaged or cut off ({error}); copy it again"
            ) from error
    return data


def _utf16_of(data: bytes) -> str | None:
    """Which UTF-16 a file without byte order mark has: every second byte of an ASCII header is zero."""
    start = data[:16]
    if len(start) >= 4 and len(start) % 2 == 0:
        if not any(start[1::2]) and all(start[::2]):
            return "utf-16-le"
        if not any(start[::2]) and all(start[1::2]):
            return "utf-16-be"
    return None


def _not_decodable(
    path: Path, data: bytes, encoding: str, error: UnicodeDecodeError, setting: str | None
) -> str:
    number = data.count(b"\n", 0, error.start) + 1
    begin = data.rfind(b"\n", 0, error.start) + 1
    line = data[begin : data.find(b"\n", error.start) % (len(data) + 1)]
    name = "UTF-8" if encoding.startswith("utf-8") else encoding
    message = f"{path}:{number}: not {name} ({error.reason}); save the table as UTF-8 text"
    likely = [(other, text) for other in _CHINESE_ENCODINGS if (text := _decoded(line, other)) is not None]
    if likely and name == "UTF-8":
        message += " (iconv -f ENCODING -t UTF-8 OLD > NEW)" + (f", or set {setting}" if setting else "")
        message += "; the encoding is " + ", ".join(
            f"{other} if the line should read {text.strip()[:_CHARACTERS_SHOWN]!r}" for other, text in likely
        )
    return message


def _decoded(line: bytes, encoding: str) -> str | None:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError:
        return None


def _plain_records(path: Path, text: str, delimiter: str, faults: list[str]) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            values = [value.strip() for value in line.split(delimiter)]
            if any("\r" in value for value in values):
                faults.append(
                    f"{path}:{number}: a carriage return (CR) within a value; replace it by a space, or "
                    "write one kind of line end in the whole file"
                )
                continue
            yield Record(number, values)


def _quoted_records(
    path: Path, text: str, delimiter: str, faults: list[str], settings: str | None
) -> Iterator[Record]:
    limit = csv.field_size_limit(len(text) + 1)  # of the whole process, so it is set back
    reader = csv.reader(
        (line + "\n" for line in text.split("\n")), delimiter=delimiter, strict=True, skipinitialspace=True
    )
    records, before = [], 0
    try:
        for values in reader:
            begin, before = before + 1, reader.line_num
            if any(value.strip() for value in values):
                records.append(Record(begin, [" ".join(value.split("\n")).strip() for value in values]))
    except csv.Error as error:
        faults.append(
            f"{path}:{before + 1}: quotation marks that do not match ({error}); write a quotation mark "
            f"within a quoted value twice, or set {settings}.quoted=false if they are ordinary characters"
        )
    finally:
        csv.field_size_limit(limit)
    return iter(records)


def _of_equal_length(
    path: Path, header: Sequence[str], records: Iterator[Record], faults: list[str], settings: str | None
) -> Iterator[Record]:
    for record in records:
        values = record.values
        while len(values) > len(header) and not values[-1]:
            values.pop()
        if len(values) == len(header):
            yield record
            continue
        fault = f"{path}:{record.line}: {len(values)} values instead of {len(header)}"
        if settings and any(value.startswith('"') for value in values):
            fault += f" (set {settings}.quoted=true if quotation marks enclose values)"
        faults.append(fault)
