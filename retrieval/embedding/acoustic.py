"""Embeddings without a model: acoustic features, or the duration alone.

They are the controls of a retrieval. FBANK and MFCC retrieve by acoustic similarity, the duration by length
alone; only the recall of an encoder beyond theirs can be due to meaning.
"""

from dataclasses import dataclass
from math import log, pi

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from torch import Tensor

from retrieval.embedding.embedder import Embedder
from zipformer.errors import UserError

DURATION_RATIO = 100.0  # ratio of two durations whose cosine is -1


@dataclass
class FbankConfig:
    """Settings of the embedder ``fbank``: stored log mel energies.

    With ``normalise`` each mel bin gets mean 0 and variance 1 over the utterance; without, loudness and the
    spectral colour of voice and channel affect every cosine. Every ``stride``-th of the frames (100/s) is
    kept: disk space falls with the stride, the time of SeqSim and of dynamic time warping with its square.
    Stride 4 gives 25 frames a second, the rate of the encoder.
    """

    normalise: bool = True  # each mel bin to mean 0 and variance 1 over the utterance
    stride: int = 4  # keep one frame of this many, from 100 per second; 4 = 25 per second

    def __post_init__(self) -> None:
        _at_least_one("fbank", stride=self.stride)


@dataclass
class MfccConfig:
    """Settings of the embedder ``mfcc``: discrete cosine transform of stored log mel energies.

    ``coefficients`` includes c0 (the loudness); normalisation removes its mean. ``delta_window`` is the
    number of frames on each side for fitting the slope; a larger window gives smoother slopes. Every
    ``stride``-th of the frames (100/s) is kept, as in :class:`FbankConfig`.
    """

    coefficients: int = 13  # number of coefficients, including c0, the loudness
    delta_window: int = 2  # frames on each side over which the slope is fitted
    stride: int = 2  # keep one frame of this many, from 100 per second; 2 = 50 per second

    def __post_init__(self) -> None:
        _at_least_one(
            "mfcc", coefficients=self.coefficients, delta_window=self.delta_window, stride=self.stride
        )


class FbankEmbedder(Embedder):
    """Log mel energies, optionally normalised over the utterance."""

    name = "fbank"

    def __init__(self, config: FbankConfig | None = None, *, dimension: int = 80) -> None:
        self.config = config or FbankConfig()
        self.dimension = dimension

    def embed(self, batch: Tensor, lengths: Tensor) -> list[NDArray[np.float32]]:
        """See :class:`Embedder`; ``batch`` holds log mel energies (N,T,bins)."""
        arrays = batch.double().cpu().numpy()
        return [self._one(array[:length]) for array, length in zip(arrays, lengths.tolist(), strict=True)]

    def _one(self, log_mel: NDArray[np.float64]) -> NDArray[np.float32]:
        frames = normalised(log_mel) if self.config.normalise else log_mel
        return frames[:: self.config.stride].astype(np.float32)


class MfccEmbedder(Embedder):
    """MFCC, first and second differences, each normalised to mean 0 and variance 1 over the utterance.

    It represents sounds and no words: it retrieves by acoustic similarity alone.
    """

    name = "mfcc"

    def __init__(self, config: MfccConfig | None = None) -> None:
        self.config = config or MfccConfig()
        self.dimension = 3 * self.config.coefficients

    def embed(self, batch: Tensor, lengths: Tensor) -> list[NDArray[np.float32]]:
        """See :class:`Embedder`; ``batch`` holds log mel energies (N,T,bins).

        Raises:
            UserError: there are fewer mel bins than coefficients.
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
    """One frame that encodes the duration of the utterance and nothing else.

    An utterance of d seconds is the point (cos a, sin a) with a = pi log(d) / log(100). The cosine of two
    utterances falls with the difference of their log durations, from 1 for equal durations to -1 if one is a
    hundred times as long as the other. With one frame for each utterance, all scores are this cosine.
    Retrieval treats scores within 1e-6 as equal, and so durations that differ by less than 0.2 %.
    """

    name = "duration"
    dimension = 2

    def embed(self, batch: Tensor, lengths: Tensor) -> list[NDArray[np.float32]]:
        """See :class:`Embedder`; uses only the lengths."""
        angles = pi * np.log(lengths.cpu().numpy() / 100) / log(DURATION_RATIO)
        points = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
        return list(points[:, None])  # N of (1,2)


def normalised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale the columns of (T,C) to mean 0 and variance 1 over time.

    A constant column (an utterance of one frame, digital silence) becomes 0.
    """
    centred = values - values.mean(axis=0)
    spread = values.std(axis=0)
    varies = spread > 1e-9 * np.abs(values).max(axis=0)  # smaller spreads are rounding errors of the mean
    return np.where(varies, centred / np.where(varies, spread, 1.0), 0.0)


def slopes(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Slope (T,C) of a line fitted to ``window`` frames on each side; end frames are repeated."""
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
