"""Result folders that change as a whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def complete_files(directory: Path) -> Iterator[Path]:
    """A folder to write files into, which move to ``directory`` when all went well.

    After an error, ``directory`` is as it was. Other files that are in it stay.
    """
    partial = directory.with_name(directory.name + ".partial")
    if partial.exists():  # of a run that was killed
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        directory.mkdir(parents=True, exist_ok=True)
        for path in sorted(partial.iterdir()):
            path.replace(directory / path.name)
    finally:
        shutil.rmtree(partial)
