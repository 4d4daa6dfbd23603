"""Tables that describe utterances, one row each."""

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from data_prep.errors import PreparationError

REQUIRED = ("path", "text", "dialect")
_ERRORS_SHOWN = 10


@dataclass
class Columns:
    """Names of the columns of a table.

    ``path``, ``text`` and ``dialect`` must be there. The others are used if they are there; but one that was
    given another name than the default must be there too. ``ipa`` and ``romanisation`` hold pronunciations:
    syllables with their tones, a space between them, one for each character of the text.
    """

    path: str = "path"  # audio file, from the folder of the table
    text: str = "text"  # transcript
    dialect: str = "dialect"  # label of the dialect
    id: str = "id"  # of the utterance
    site: str = "site"  # place where it is spoken
    speaker: str = "speaker"  # of the utterance
    sentence_id: str = "sentence_id"  # the same for parallel sentences
    split: str = "split"  # train, valid or test
    translation: str = "translation"  # of the sentence
    ipa: str = "ipa"  # pronunciation in IPA, a syllable for each character
    romanisation: str = "romanisation"  # pronunciation, a syllable for each character


@dataclass(frozen=True)
class Row:
    """One row: its values by the field names of ``Columns``, and where it stands (``table.tsv:17``)."""

    values: Mapping[str, str]
    origin: str

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    def get(self, name: str) -> str | None:
        """Value of an optional column; None where the column or the value is missing."""
        return self.values.get(name) or None


def read_table(
    path: Path, columns: Columns, delimiter: str = "\t", keep: Mapping[str, list[str]] | None = None
) -> list[Row]:
    """Read a table.

    Args:
        path: file in UTF-8 (a byte order mark is fine) with a header line. Quotation marks are ordinary
            characters.
        columns: names of its columns.
        delimiter: between the values of a line.
        keep: by column name (as in the file), the values of the rows to keep. Other rows are left out.

    Raises:
        PreparationError: the file is missing, is not UTF-8, lacks columns, or has lines with too many or too
            few values.
    """
    if not path.is_file():
        raise PreparationError(f"the table {path} does not exist; set corpus.tsv to your table")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise PreparationError(
            f"{path}:{line}: not UTF-8 ({error.reason}); save the table as UTF-8 text"
        ) from error
    reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    header = [name.strip() for name in next(reader, [])]
    used = _used_columns(path, header, columns, delimiter)
    wanted = {name: set(values) for name, values in (keep or {}).items()}
    if unknown := sorted(set(wanted) - set(header)):
        raise PreparationError(f"{path}: corpus.keep names the columns {unknown}; the table has {header}")

    rows, faults = [], []
    for number, values in enumerate(reader, start=2):
        if not values:
            continue
        if len(values) != len(header):
            faults.append(f"{path}:{number}: {len(values)} values instead of {len(header)}")
            continue
        record = dict(zip(header, (value.strip() for value in values), strict=True))
        if all(record[name] in accepted for name, accepted in wanted.items()):
            row = Row({name: record[column] for name, column in used.items()}, f"{path.name}:{number}")
            if not row["path"]:
                faults.append(f"{path}:{number}: no audio path in column {columns.path!r}")
            rows.append(row)
    if faults:
        shown = "\n  ".join(faults[:_ERRORS_SHOWN])
        more = f"\n  and {len(faults) - _ERRORS_SHOWN} more" if len(faults) > _ERRORS_SHOWN else ""
        raise PreparationError(f"lines of the table that cannot be used; correct them:\n  {shown}{more}")
    if not rows:
        raise PreparationError(f"{path}: no row is left" + (f" by corpus.keep={dict(keep)}" if keep else ""))
    return rows


def _used_columns(path: Path, header: list[str], columns: Columns, delimiter: str) -> dict[str, str]:
    """Field name -> column name, for the columns that are there."""
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise PreparationError(f"{path}:1: the columns {twice} are there more than once")
    names: dict[str, str] = asdict(columns)
    needed = [name for name in names if name in REQUIRED or names[name] != name]
    missing = [f"{names[name]!r} (corpus.columns.{name})" for name in needed if names[name] not in header]
    if missing:
        raise PreparationError(
            f"{path}:1: the table has no column {', '.join(missing)}. Its columns, separated by "
            f"{delimiter!r}, are {header}. Name the right ones, e.g. corpus.columns.text=transcript"
        )
    return {name: column for name, column in names.items() if column in header}
