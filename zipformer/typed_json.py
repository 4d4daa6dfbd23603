"""Reads JSON of results and of model directories as typed values.

A missing file gives None or an empty list; a malformed file is an error that names the place.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from zipformer.errors import UserError

Row = TypeVar("Row")

# Types of JSON values for a field of a row, by the type of the field
ACCEPTED: dict[Any, tuple[type, ...]] = {
    int: (int,),
    int | None: (int, type(None)),
    float: (int, float),
    float | None: (int, float, type(None)),
    str: (str,),
    str | None: (str, type(None)),
}


class MalformedResultError(UserError):
    """A malformed result file; the message names the file, the place and the remedy."""

    def __init__(self, path: Path, what: str, maker: str) -> None:
        super().__init__(f"{path}: {what}. Make the file again with fangyan {maker}, or delete it")


def read_json(path: Path, maker: str) -> dict[str, Any] | None:
    """Read a JSON object; None if there is no file."""
    return json_object(path, path.read_text(encoding="utf-8"), maker) if path.is_file() else None


def names_or_none(content: Mapping[str, Any], key: str, path: Path, maker: str) -> list[str] | None:
    """A list of names; None if not recorded.

    Raises:
        MalformedResultError: the field is not a list of names.
    """
    names = content.get(key)
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise MalformedResultError(path, f"{key} must be a list of names, found {names!r}", maker)
    return names


def json_object(path: Path, text: str, maker: str, place: str = "") -> dict[str, Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise MalformedResultError(path, f"{place}not JSON ({error})", maker) from error
    if not isinstance(content, dict):
        raise MalformedResultError(path, f"{place}not a JSON object", maker)
    return content


def json_lines(path: Path, maker: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith("\n") and line.strip():
                yield number, json_object(path, line, maker, f"line {number}: ")


def require(
    content: Mapping[str, Any], shape: Mapping[str, type], path: Path, maker: str, place: str = ""
) -> None:
    for key, kind in shape.items():
        accepted = (int, float) if kind is float else kind
        if not isinstance(content.get(key), accepted):
            found = "nothing" if key not in content else repr(content[key])[:80]
            raise MalformedResultError(path, f"{place}{key} must be {kind.__name__}, found {found}", maker)


def read_row(row_type: type[Row], values: object, path: Path, place: str, maker: str) -> Row:
    """Make a dataclass from a mapping with its fields and types (further keys are ignored).

    Fields with a default may be missing.
    """
    if not isinstance(values, dict):
        raise MalformedResultError(path, f"{place} is not an object", maker)
    names: Sequence[Any] = fields(row_type)  # type: ignore[arg-type]
    for field in names:
        if field.name not in values:
            if field.default is not MISSING:
                continue
            raise MalformedResultError(path, f"{place} has no {field.name}", maker)
        accepted = ACCEPTED[field.type]
        if not isinstance(values[field.name], accepted):
            raise MalformedResultError(
                path, f"{place}: {field.name} must be {field.type}, found {values[field.name]!r}", maker
            )
    return row_type(**{field.name: values[field.name] for field in names if field.name in values})


def read_rows(row_type: type[Row], values: Iterable[object], path: Path, place: str, maker: str) -> list[Row]:
    """Make dataclasses from a list of mappings, like :func:`read_row`; ``place`` names the list."""
    return [read_row(row_type, row, path, f"{place}, row {n}", maker) for n, row in enumerate(values, 1)]
