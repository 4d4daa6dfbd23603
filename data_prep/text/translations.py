"""Translations of utterances, written by the same rules as their transcripts."""

from collections.abc import Callable, Mapping
from typing import Any


def with_normalised_translation(
    custom: Mapping[str, Any], normaliser: Callable[[str], str]
) -> dict[str, Any]:
    """The fields ``custom`` of a supervision, with its translation normalised.

    A model that translates is trained on it and its hypotheses, which have no punctuation, are scored against
    it. ``raw_translation`` keeps what the corpus has, where that is something else.

    Args:
        custom: fields of the supervision; a ``raw_translation`` among them is what is normalised.
        normaliser: the one that normalises the transcripts.

    Returns:
        The fields; no ``translation`` where nothing is left of it.
    """
    raw = custom.get("raw_translation") or custom.get("translation")
    if not raw:
        return dict(custom)
    fields = {name: value for name, value in custom.items() if name not in ("translation", "raw_translation")}
    if normal := normaliser(str(raw)):
        fields["translation"] = normal
    return fields if normal == raw else fields | {"raw_translation": raw}
