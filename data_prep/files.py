"""Files that are either complete or not there (:mod:`zipformer.files`)."""

import os
from pathlib import Path

from zipformer.files import replacing, write_json

__all__ = ["files_below", "replacing", "write_json"]


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
