"""Embeddings without a model: what speech sounds like, or only how long it lasts.

They are the controls of a retrieval. FBANK and MFCC retrieve by acoustic likeness, the duration by length
alone; only what an encoder retrieves beyond them can be meaning.
"""

from dataclasses import dataclass
from math import log, pi

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from torch import Tensor

from retrieval.embedding.embedder import Embedder
from zipformer.errors import UserError

DURATION_RATIO = 100.0  # of the two durations whose cosine is -1


@dataclass
class FbankConfig:
    """Stored log mel energies as they are.

    With ``normalise`` each mel bin gets mean 0 and variance 1 over the utterance; without, the loudness and
    the colour of voice and channel are in every cosine. Of the frames (100/s) every ``stride``-th is kept:
    disk falls with it, the time of SeqSim and of dynamic time warping with its square. 4 makes the 25 a
    second of the encoder.
    """

    normalise: bool = True  # each mel bin to mean 0 and variance 1 over the utterance
    stride: int = 4  # keep every so-many-th frame of 100 per second; 4 = 25 per second

    def __post_init__(self) -> None:
        _at_least_one("fbank", stride=self.stride)


@dataclass
class MfccConfig:
    """MFCCs from stored log mel energies: the discrete cosine transform of each frame.

    ``coefficients`` counts c0 (the loudness), whose mean the normalisation removes. ``delta_window`` is the
    number of frames on each side over which the slope is fitted; a larger one is smoother. Of the frames
    (100/s) every ``stride``-th is kept, as in :class:`FbankConfig`.
    """

    coefficients: int = 13  # with c0, the loudness
    delta_window: int = 2  # frames on each side over which the slope is fitted
    stride: int = 2  # keep every so-many-th frame of 100 per second; 2 = 50 per second

    def __post_init__(self) -> None:
        _at_least_one(
            "mfcc", coefficients=self.coefficients, delta_window=self.delta_window, stride=self.stride
        )


class FbankEmbedder(Embedder):
    """Log mel energies, normalised over the utterance where configured."""

    name = "fbank"

    def __init__(self, config: FbankConfig | None = None, *, dimension: int = 80) -> None:
        self.config = config or FbankConfig()
        self.dimension = dimension

    def embed(self, batch: Tensor, lengths: Tensor) -> list[NDArray[np.float32]]:
        """See :class:`Embedder`; the batch are log mel energies (N,T,bins)."""
        arrays = batch.double().cpu().numpy()
        return [self._one(array[:length]) for array, length in zip(arrays, lengths.tolist(), strict=True)]

    def _one(self, log_mel: NDArray[np.float64]) -> NDArray[np.float32]:
        frames = normalised(log_mel) if self.config.normalise else log_mel
        return frames[:: self.config.stride].astype(np.float32)


class MfccEmbedder(Embedder):
    """MFCC, first and second differences, each normalised to mean 0 and variance 1 over the utterance.

    It knows sounds and no words: what it retrieves is retrieved by acoustic likeness alone.
    """

    name = "mfcc"

    def __init__(self, config: MfccConfig | None = None) -> None:
        self.config = config or MfccConfig()
        self.dimension = 3 * self.config.coefficients

    def embed(self, batch: Tensor, lengths: Tensor) -> list[NDArray[np.float32]]:
        """See :class:`Embedder`; the batch are log mel energies (N,T,bins).

        Raises:
            UserError: fewer mel bins than coefficients.
        """
        if batch.shape[2] < self.config.coefficients:
            raise UserError(
                f"{batch.shape[2]} mel bins give no {self.config.coefficients} cepstral coefficients:"
                " lower mfcc.coefficients"
            )
        arrays = batch.double().cpu().numpy()
        return [self._one(array[:length]) for array, length in zip(arrays, lengths.tolist(), strict=True)]

    def _one(self, log_mel: NDArray[np.float64]) -> NDArray[np.float32]:
        cepstra = dct(log_mel, type=2, norm="ortho", axis=1)[:, : self.config.coefficients]  # (T,C)
        delta = slopes(cepstra, self.config.delta_window)
        stacked = np.concatenate([cepstra, delta, slopes(delta, self.config.delta_window)], axis=1)  # (T,3C)
        return normalised(stacked)[:: self.config.stride].astype(np.float32)


class DurationEmbedder(Embedder):
    """One frame that says how long the utterance lasts, and nothing else.

    An utterance of d seconds is the point (cos a, sin a) with a = pi log(d) / log(100). The cosine of two
    of them falls with the difference of their log durations, from 1 for equal ones to -1 where one is a
    hundred times the other. With one frame an utterance, all scores are this cosine. Retrieval takes scores
    within 1e-6 as equal: durations that differ by less than 0.2 %.
    """

    name = "duration"
    dimension = 2

    def embed(self, batch: Tensor, lengths: Tensor) -> list[NDArray[np.float32]]:
        """See :class:`Embedder`; only the lengths are looked at."""
        angles = pi * np.log(lengths.cpu().numpy() / 100) / log(DURATION_RATIO)
        points = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
        return list(points[:, None])  # N of (1,2)


def normalised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns of (T,C) with mean 0 and variance 1 over time.

    A constant column (an utterance of one frame, digital silence) carries nothing; it becomes 0.
    """
    centred = values - values.mean(axis=0)
    spread = values.std(axis=0)
    varies = spread > 1e-9 * np.abs(values).max(axis=0)  # less is the rounding of the mean
    return np.where(varies, centred / np.where(varies, spread, 1.0), 0.0)


def slopes(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Slope (T,C) of the straight line fitted to ``window`` frames on each side; the ends are repeated."""
    T = len(values)
    padded = np.pad(values, ((window, window), (0, 0)), mode="edge")
    result = np.zeros_like(values)
    for k in range(1, window + 1):
        result += k * (padded[window + k : window + k + T] - padded[window - k : window - k + T])
    return result / (2 * sum(k * k for k in range(1, window + 1)))


def _at_least_one(section: str, **values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise UserError(f"{section}.{name} must be at least 1, found {value}")
