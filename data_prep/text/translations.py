"""Normalises the translations of utterances by the same rules as their transcripts."""

from collections.abc import Callable, Mapping
from typing import Any


def with_normalised_translation(
    custom: Mapping[str, Any], normaliser: Callable[[str], str]
) -> dict[str, Any]:
    """Fields ``custom`` of a supervision with the translation normalised.

    A translating model is trained on it, and its hypotheses, which have no punctuation, are scored against
    it. ``raw_translation`` keeps the translation of the corpus if normalisation changes it.

    Args:
        custom: fields of the supervision; if there is a ``raw_translation``, it is the one to normalise.
        normaliser: normaliser of the transcripts.

    Returns:
        The fields; without ``translation`` if it is empty after normalisation.
    """
    raw = custom.get("raw_translation") or custom.get("translation")
    if not raw:
        return dict(custom)
    fields = {name: value for name, value in custom.items() if name not in ("translation", "raw_translation")}
    if normal := normaliser(str(raw)):
        fields["translation"] = normal
    return fields if normal == raw else fields | {"raw_translation": raw}
