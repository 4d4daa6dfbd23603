"""Reads tables that describe utterances, one in each row."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from data_prep.delimited import read_records, seeming_delimiter
from zipformer.errors import UserError, listed

REQUIRED = ("path", "text", "dialect")


@dataclass
class Columns:
    """Names of the columns of a table.

    ``path``, ``text`` and ``dialect`` are required. The others are optional, unless their name was set to
    something else than the default. Upper and lower case are distinguished only where a table has both.
    ``ipa`` and ``romanisation`` hold pronunciations: one syllable with its tone for each character of the
    text, separated by spaces.
    """

    path: str = "path"  # audio file, relative to the folder of the table
    text: str = "text"  # transcript
    dialect: str = "dialect"  # label of the dialect
    id: str = "id"  # id of the utterance
    site: str = "site"  # place where the dialect is spoken
    speaker: str = "speaker"  # speaker of the utterance
    sentence_id: str = "sentence_id"  # number or id, equal for parallel sentences
    split: str = "split"  # train, valid or test
    translation: str = "translation"  # translation of the sentence
    ipa: str = "ipa"  # pronunciation in IPA, a syllable for each character
    romanisation: str = "romanisation"  # pronunciation, a syllable for each character


@dataclass(frozen=True)
class Row:
    """One row: values by the field names of ``Columns``, and file and line of the row (``table.tsv:17``)."""

    values: Mapping[str, str]
    origin: str

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    def get(self, name: str) -> str | None:
        """Value of an optional column; None where the column or the value is missing."""
        return self.values.get(name) or None


def read_table(
    path: Path,
    columns: Columns,
    delimiter: str = "\t",
    keep: Mapping[str, list[str]] | None = None,
    *,
    quoted: bool | None = None,
    encoding: str = "utf-8",
) -> list[Row]:
    """Read a table.

    Args:
        path: text file with a header line, may be compressed with gzip.
        columns: names of the columns.
        delimiter: character between the values of a line.
        keep: values of the rows to keep, by column name (as in the file). Other rows are left out.
        quoted: True if quotation marks may enclose values, as in CSV; None: True unless the delimiter is a
            tab.
        encoding: encoding of a file without a byte order mark.

    Raises:
        UserError: the file is missing, is not text in this encoding, lacks columns, or has lines with
            too many or too few values.
    """
    if not path.exists():
        raise UserError(f"the table {path} does not exist; set corpus.tsv to your table")
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the file of the table in it: set corpus.tsv to your table")
    delimiter = delimiter.replace("\\t", "\t")  # shells and Hydra pass a tab as \t
    quoted = delimiter != "\t" if quoted is None else quoted
    header, records, faults = read_records(
        path, delimiter, quoted=quoted, encoding=encoding, settings="corpus"
    )
    used = _used_columns(path, header, columns, delimiter)
    wanted = {_column(name, header): set(values) for name, values in (keep or {}).items()}
    if unknown := sorted(set(wanted) - set(header)):
        raise UserError(f"{path}: corpus.keep names the columns {unknown}; the table has {header}")

    rows = []
    for record in records:
        values = dict(zip(header, record.values, strict=True))
        if all(values[name] in accepted for name, accepted in wanted.items()):
            row = Row({name: values[column] for name, column in used.items()}, f"{path.name}:{record.line}")
            if not row["path"]:
                faults.append(f"{path}:{record.line}: no audio path in column {used['path']!r}")
            rows.append(row)
    if faults:
        raise UserError(listed("lines of the table that cannot be used; correct them", faults))
    if not rows:
        raise UserError(f"{path}: no row is left" + (f" by corpus.keep={dict(keep)}" if keep else ""))
    return rows


def _used_columns(path: Path, header: list[str], columns: Columns, delimiter: str) -> dict[str, str]:
    """Column name by field name, for the columns that the table has."""
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise UserError(
            f"{path}:1: the columns {twice} are there more than once; rename or remove all but one of each"
        )
    names: dict[str, str] = asdict(columns)
    found = {name: _column(column, header) for name, column in names.items()}
    needed = [name for name in names if name in REQUIRED or names[name] != name]
    missing = [f"{names[name]!r} (corpus.columns.{name})" for name in needed if found[name] not in header]
    if missing:
        raise UserError(
            f"{path}:1: the table has no column {', '.join(missing)}. Its columns, separated by "
            f"{delimiter!r}, are {header}. {_advice(header, delimiter, [names[name] for name in REQUIRED])}"
        )
    return {name: column for name, column in found.items() if column in header}


def _column(name: str, header: list[str]) -> str:
    """The column of this name, or else the only column whose name differs from it only in case."""
    if name in header:
        return name
    alike = [column for column in header if column.casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 else name


def _advice(header: list[str], delimiter: str, wanted: list[str]) -> str:
    if seeming := seeming_delimiter(header, delimiter, wanted):
        value = "\\t" if seeming == "\t" else seeming
        return f"They seem to be separated by {seeming!r}: set 'corpus.delimiter=\"{value}\"'"
    if any(name.startswith('"') and name.endswith('"') for name in header):
        return "Quotation marks seem to enclose the values: set corpus.quoted=true"
    if len(header) == 1:
        return (
            "If something else stands between the values, set it, e.g. 'corpus.delimiter=\",\"'; spaces must "
            "be replaced by tabs"
        )
    return "Name the right ones, e.g. corpus.columns.text=transcript"
