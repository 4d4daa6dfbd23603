"""Reads Parquet tables of corpora, a few rows at a time, and writes the audio in them to files."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zipformer.errors import UserError
from zipformer.files import replacing

_ROWS = 64  # held in memory at a time


def read_parquet(table: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of a table.

    Args:
        table: file of the table.
        columns: columns to read, all of which must exist.

    Raises:
        UserError: a column is missing, the file is damaged, or pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError("pyarrow is missing: pip install 'fangyan[yubao]'") from error
    try:
        file = pyarrow.parquet.ParquetFile(table)
        if missing := [name for name in columns if name not in file.schema_arrow.names]:
            raise UserError(
                f"{table}: no column {', '.join(missing)}; the columns are {file.schema_arrow.names}"
            )
        for batch in file.iter_batches(_ROWS, columns=list(columns)):
            yield from batch.to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{table}: damaged or cut off ({error}); download it again") from error


def written_audio(value: bytes | Mapping[str, Any] | None, file: Path) -> Path:
    """Write an audio value to a file, unless an earlier run has done so; returns the file.

    Args:
        value: bytes of an audio file, or a structure with them under ``bytes``. Without bytes, the file is
            empty, and the checks report it.
        file: file to write.
    """
    if not file.is_file():
        content = value.get("bytes") if isinstance(value, Mapping) else value
        with replacing(file) as temporary:
            temporary.write_bytes(content or b"")
    return file
