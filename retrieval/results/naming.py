"""Names of result folders in a model directory, and of result files that several studies read."""

import re
from enum import Enum
from pathlib import Path

from zipformer.errors import UserError

RECALL_FILE, RANKS_FILE, SITE_PAIRS_FILE = "recall.json", "ranks.npz", "site_pairs.csv"  # of a retrieval
COMPARISON_FILE, CONTROLS_FILE, LAYERS_FILE = "comparison.json", "controls.json", "layers.json"

PART = re.compile(r"[\w.+]+(-[\w.+]+)*", re.ASCII)


def result_folder(
    model_dir: Path,
    what: str,
    split: str,
    *,
    dataset: str,
    embedder: str = "zipformer",
    layer: int | None = None,
    score: str = "seqsim",
    correction: str = "none",
    challenge: str | None = None,
) -> Path:
    """``results/{dataset}/{what}-{split}{-embedder}{-layerNN}{-score}{-correction}{-challenge}``.

    Default values are left out of the name: ``results/mini/retrieval-test``, or with MFCCs and dynamic time
    warping ``results/mini/retrieval-test-mfcc-dtw``.

    Args:
        model_dir: model directory.
        what: kind of result: ``embeddings``, ``retrieval`` or ``controls``.
        split: name of the split.
        dataset: name of the corpus (:mod:`zipformer.data.dataset`).
        embedder: name of the embedder; this and the following names may be members of an enumeration.
        layer: layer of the embedder; None is the output.
        score: name of the score (:class:`retrieval.similarity.scores.ScoreKind`).
        correction: name of the correction (:class:`retrieval.embedding.corrections.Correction`).
        challenge: name of a challenge set.

    Raises:
        UserError: a name has characters other than letters, digits, ``_``, ``.``, ``+`` and single hyphens,
            or the layer is negative.
    """
    if layer is not None and layer < 0:
        raise UserError(f"layer={layer} is negative; layers are counted from 0")
    parts = [
        _plain(what),
        _plain(split),
        "" if _plain(embedder) == "zipformer" else _plain(embedder),
        "" if layer is None else f"layer{layer:02d}",
        "" if _plain(score) == "seqsim" else _plain(score),
        "" if _plain(correction) == "none" else _plain(correction),
        "" if challenge is None else _plain(challenge),
    ]
    return model_dir / "results" / dataset / "-".join(part for part in parts if part)


def _plain(name: str) -> str:
    value = str(name.value) if isinstance(name, Enum) else name
    if not PART.fullmatch(value):
        raise UserError(
            f"{value!r} cannot be part of the name of a folder: use letters, digits, _, ., + and hyphens"
        )
    return value
