"""Corrections of embeddings that lie in a narrow cone, fitted on a store.

Frames of a speech encoder share a large common component and a few directions of large variance. These
dominate the cosine, and the differences between two words hardly matter. Three corrections remove the common
component:

- ``center`` subtracts the mean frame.
- ``whiten`` also scales all principal directions to variance 1, so that the cosine becomes that of
Mahalanobis.
- ``all_but_the_top`` subtracts the mean and removes the D/100 strongest principal directions, at least one
  (Mu & Viswanath, All-but-the-Top: Simple and Effective Postprocessing for Word Representations, ICLR 2018).

They are fitted on the frames that are compared, without labels. The protocol of YuBao retrieval has no
correction: a result with a correction is about another embedding, and the name of its folder contains the
correction.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from retrieval.embedding.store import EmbeddingStore
from zipformer.errors import UserError

Transform = Callable[[NDArray[np.floating]], NDArray[np.floating]]  # (T,D) -> (T,D')
BLOCK = 1 << 14  # number of frames read at a time
DIMENSIONS_FOR_ONE = 100  # all_but_the_top removes one direction for this many dimensions


class Correction(str, Enum):
    """Corrections that can be chosen by name."""

    none = "none"
    center = "center"  # type: ignore[assignment]  # hides a method of str
    whiten = "whiten"
    all_but_the_top = "all_but_the_top"


@dataclass(frozen=True)
class Spectrum:
    """Mean and covariance of the frames of a store; the covariance as principal directions.

    Attributes:
        mean: mean frame (D,).
        variances: eigenvalues (D,) of the covariance, the largest first.
        directions: unit eigenvectors in the columns (D,D), in the same order.
        rank: number of directions whose variance is larger than rounding errors.
    """

    mean: NDArray[np.float64]
    variances: NDArray[np.float64]
    directions: NDArray[np.float64]
    rank: int


def fit_correction(kind: Correction, store: EmbeddingStore) -> Transform:
    """Function that maps the frames (T,D) of an utterance of the store to corrected frames (T,D').

    D' is D, except for ``whiten``, which leaves out directions in which the frames of the store do not vary.

    Args:
        kind: name of the correction; ``none`` changes nothing.
        store: embeddings; read once (``center``) or twice, a block of frames at a time.

    Raises:
        UserError: the frames of the store vary too little: ``whiten`` or ``all_but_the_top`` would leave
            nothing.
    """
    if kind is Correction.none:
        return lambda frames: frames
    if kind is Correction.center:
        return _affine(store.mean_frame(), None)
    spectrum = principal_directions(store)
    if spectrum.rank == 0:
        raise UserError(f"all frames of {store.directory} are the same: {kind.value} leaves nothing of them")
    if kind is Correction.whiten:
        kept = slice(0, spectrum.rank)
        return _affine(spectrum.mean, spectrum.directions[:, kept] / np.sqrt(spectrum.variances[kept]))
    removed = max(1, round(len(spectrum.mean) / DIMENSIONS_FOR_ONE))
    if removed >= spectrum.rank:
        raise UserError(
            f"frames of {store.directory} vary in {spectrum.rank} directions; all_but_the_top would remove"
            f" {removed} and leave nothing"
        )
    top = spectrum.directions[:, :removed]
    return _affine(spectrum.mean, np.eye(len(spectrum.mean)) - top @ top.T)


def principal_directions(store: EmbeddingStore, *, block: int = BLOCK) -> Spectrum:
    """Principal directions of all frames of a store, in float64.

    Memory holds ``block`` frames and the covariance (D,D), for a store of any size. The mean is computed
    first and subtracted before products are summed, so that a large mean costs no precision.
    """
    mean = store.mean_frame()
    products = np.zeros((len(mean), len(mean)))
    for start in range(0, len(store.frames), block):
        centred = store.frames[start : start + block].astype(np.float64) - mean
        products += centred.T @ centred
    variances, directions = np.linalg.eigh(products / len(store.frames))
    # Rounding errors of the stored frames, and of the eigenvalues.
    size = variances[-1] + float((mean**2).max())
    noise = size * max(np.finfo(store.frames.dtype).eps ** 2, len(mean) * np.finfo(np.float64).eps)
    rank = int((variances > noise).sum())
    return Spectrum(mean, variances[::-1], directions[:, ::-1], rank)


def _affine(mean: NDArray[np.float64], matrix: NDArray[np.float64] | None) -> Transform:
    """Subtract the mean, then multiply, in float64; the result is float32, or float64 if the frames are."""

    def transform(frames: NDArray[np.floating]) -> NDArray[np.floating]:
        centred = frames.astype(np.float64) - mean
        product = centred if matrix is None else centred @ matrix
        return product.astype(np.promote_types(frames.dtype, np.float32))

    return transform
