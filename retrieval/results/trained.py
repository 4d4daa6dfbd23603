"""Dialect groups that the encoder of a model directory was trained on."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from retrieval.results.reading import names_or_none, read_json
from zipformer.errors import UserError


def trained_groups(model_dir: Path) -> list[str] | None:
    """``trained_dialects`` of ``provenance.json``; None where it is not recorded.

    Raises:
        MalformedResultError: a field that is not a list of names.
    """
    path = model_dir / "provenance.json"
    content = read_json(path, "average")
    return None if content is None else names_or_none(content, "trained_dialects", path, "average")


def check_trained(names: Sequence[str] | None, dialects: Iterable[str], model_dir: Path) -> None:
    """Check the setting ``trained``: a misspelt name would make its dialect held out.

    Args:
        names: value of the setting; None is not checked.
        dialects: dialect of each utterance that is retrieved.
        model_dir: model directory whose ``trained_dialects`` may be named as well.

    Raises:
        UserError: an unknown name.
        MalformedResultError: as of :func:`trained_groups`.
    """
    if names is None:
        return
    known = set(dialects).union(trained_groups(model_dir) or [])
    if unknown := [name for name in names if name not in known]:
        raise UserError(
            f"trained names {', '.join(unknown)}: no dialect of the embeddings, and none that the model was"
            f" trained on; there are {', '.join(sorted(known))}"
        )
