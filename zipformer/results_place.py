"""The directory for results of a model: that of the model, or another one if it is read-only."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zipformer.errors import UserError
from zipformer.files import StorageError, check_writable, place_errors

REMEDY = "free space there, or give another place for the results as results_dir=DIR"
_REMEDY_OF_READERS = (
    "free space there, or give results_dir=DIR to fangyan decode or fangyan embed, and that DIR as "
    "model_dir here"
)


def results_place(model_dir: Path, results_dir: str | None) -> Path:
    """The model directory that receives results: that of the model, or ``results_dir``.

    ``results_dir`` gets links to the files of the model and so becomes a model directory itself: give it as
    ``model_dir`` to the commands that read the results.

    Raises:
        UserError: there is no such model directory.
        StorageError: the directory cannot be written, or ``results_dir`` has another model.
    """
    if results_dir is None:
        check_writable(model_dir / "results", REMEDY)
        return model_dir
    if not model_dir.is_dir():
        raise UserError(f"model directory {model_dir} is not there")
    place = Path(results_dir)
    check_writable(place, REMEDY)
    place.mkdir(parents=True, exist_ok=True)
    for file in sorted(model_dir.resolve().iterdir()):
        link = place / file.name
        if not file.is_file() or link.resolve() == file:
            continue
        if link.exists() or link.is_symlink():
            raise StorageError(f"results_dir={place} belongs to another model: give an empty folder")
        os.symlink(file, link)
    return place


@contextmanager
def writable_results(model_dir: Path) -> Iterator[None]:
    """Context for a command that writes results into a model directory, which must be writable.

    Raises:
        StorageError: the directory is read-only or full; raised at once if this is known.
    """
    check_writable(model_dir / "results", _REMEDY_OF_READERS)
    with place_errors(model_dir / "results", _REMEDY_OF_READERS):
        yield
