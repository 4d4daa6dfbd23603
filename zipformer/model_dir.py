"""A model directory: names of its files, and records about the training of the model."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from zipformer.data.tokenizer import TOKEN_TABLE_FILE, TOKENS_FILE
from zipformer.errors import UserError
from zipformer.typed_json import names_or_none, read_json

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
PROVENANCE_FILE = "provenance.json"
RECORD_FILE = "checkpoint.json"  # record of a checkpoint, which is a model directory too
METRICS_FILE = "metrics.jsonl"  # numbers of a training, in the experiment folder around its model
MODEL_FILES = (CONFIG_FILE, WEIGHTS_FILE, TOKENS_FILE, TOKEN_TABLE_FILE)  # files for recognition

logger = logging.getLogger(__name__)


def check_model_files(model_dir: Path) -> None:
    """Raise UserError if files of a model directory are missing, and name them."""
    missing = [name for name in MODEL_FILES if not (model_dir / name).is_file()]
    if missing:
        found = "is not there" if not model_dir.is_dir() else f"lacks {', '.join(missing)}"
        raise UserError(
            f"model directory {model_dir} {found}; fangyan average writes one, give it as model_dir=DIR"
        )


def trained_groups(model_dir: Path) -> list[str] | None:
    """``trained_dialects`` of ``provenance.json``; None if not recorded.

    Raises:
        MalformedResultError: the field is not a list of names.
    """
    path = model_dir / PROVENANCE_FILE
    content = read_json(path, "average")
    return None if content is None else names_or_none(content, "trained_dialects", path, "average")


def check_trained(names: Sequence[str] | None, dialects: Iterable[str], model_dir: Path) -> None:
    """Check the setting ``trained``: with a misspelt name, a trained dialect would count as held out.

    Args:
        names: value of the setting; None is not checked.
        dialects: dialect of each utterance in the retrieval.
        model_dir: model directory; its ``trained_dialects`` are valid names as well.

    Raises:
        UserError: a name is unknown.
        MalformedResultError: see :func:`trained_groups`.
    """
    if names is None:
        return
    known = set(dialects).union(trained_groups(model_dir) or [])
    if unknown := [name for name in names if name not in known]:
        raise UserError(
            f"trained names {', '.join(unknown)}: no dialect of the embeddings, and none that the model was"
            f" trained on; there are {', '.join(sorted(known))}"
        )


def trained_translation_field(model_dir: Path) -> str:
    """Field of the supervisions with the translations of the training, if recorded.

    Raises:
        MalformedResultError: ``provenance.json`` is damaged.
    """
    provenance: dict[str, Any] = read_json(model_dir / PROVENANCE_FILE, "average") or {}
    config = (provenance.get("training") or {}).get("config") or {}
    return str(config.get("translation_field") or "translation")


def dialects_of(source: Path) -> list[str]:
    """Dialect groups that a model directory or checkpoint was trained on, with those of its start weights.

    Empty, with a warning, if there is no record, for example in a model of icefall.

    Raises:
        MalformedResultError: the file with this record is damaged.
    """
    for name, keys, maker in (
        (PROVENANCE_FILE, ("trained_dialects",), "average"),
        (RECORD_FILE, ("trained_hours", "known_dialects"), "train"),
    ):
        content = read_json(source / name, maker)
        if content is not None:
            return sorted({dialect for key in keys for dialect in content.get(key, [])})
    logger.warning(
        "%s has no provenance.json that says on which dialects it was trained: those that this run is not "
        "trained on will count as held out",
        source,
    )
    return []
