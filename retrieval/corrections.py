"""Corrections of embeddings that point into a narrow cone, fitted on a store."""

from collections.abc import Callable
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from retrieval.embeddings import EmbeddingStore

Transform = Callable[[NDArray[np.floating]], NDArray[np.floating]]  # (T,D) -> (T,D')


class Correction(str, Enum):
    """Corrections that can be chosen by name."""

    none = "none"
    center = "center"  # type: ignore[assignment]  # hides a method of str


def fit_correction(kind: Correction, store: EmbeddingStore) -> Transform:
    """What maps the frames (T,D) of an utterance of the store to corrected ones (T,D')."""
    if kind is Correction.none:
        return lambda frames: frames
    mean = store.mean_frame()
    return lambda frames: (frames - mean).astype(np.promote_types(frames.dtype, np.float32))
