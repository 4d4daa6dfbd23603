"""Files that are either complete or not there."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to, and rename it to ``path`` when the block ends well.

    A process that is killed in the block leaves at most the temporary file, which the next run writes over.
    The temporary name keeps the suffixes of ``path``, because writers choose compression by them.
    """
    stem, dot, suffixes = path.name.partition(".")
    temporary = path.with_name(f"{stem}-part{dot}{suffixes}")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    yield temporary
    temporary.replace(path)


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, by name; folders that are links are searched too, each real folder once."""
    found: list[Path] = []
    seen: set[Path] = set()  # of a cycle of links, the first round
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = Path(parent).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        found += [path for path in (Path(parent, name) for name in names) if path.is_file()]
    return sorted(found)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, complete or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
