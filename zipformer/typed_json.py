"""JSON of results and of model directories as typed values.

A file that is missing is None or an empty list; a malformed one is an error that names its place.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from zipformer.errors import UserError

Row = TypeVar("Row")

# JSON values that a field of a row may have, by the field's type
ACCEPTED: dict[Any, tuple[type, ...]] = {
    int: (int,),
    int | None: (int, type(None)),
    float: (int, float),
    float | None: (int, float, type(None)),
    str: (str,),
    str | None: (str, type(None)),
}


class MalformedResultError(UserError):
    """A result file that does not hold what it should; names the file, the place and the remedy."""

    def __init__(self, path: Path, what: str, maker: str) -> None:
        super().__init__(f"{path}: {what}. Make the file again with fangyan {maker}, or delete it")


def read_json(path: Path, maker: str) -> dict[str, Any] | None:
    """A JSON object, or None where there is no file."""
    return json_object(path, path.read_text(encoding="utf-8"), maker) if path.is_file() else None


def names_or_none(content: Mapping[str, Any], key: str, path: Path, maker: str) -> list[str] | None:
    """A list of names; None where it is not recorded.

    Raises:
        MalformedResultError: a field that is not a list of names.
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
    """A dataclass from a mapping that has its fields with their types (more are ignored).

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
    """Dataclasses from a list of mappings, as :func:`read_row`; ``place`` names the list."""
    return [read_row(row_type, row, path, f"{place}, row {n}", maker) for n, row in enumerate(values, 1)]
