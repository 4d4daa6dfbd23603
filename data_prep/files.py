"""Files that are either complete or not there."""

import json
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


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, complete or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
