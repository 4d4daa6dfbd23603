"""What turns features into embeddings: any speech encoder, or MFCCs as the control without a model."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dct
from torch import Tensor


class EmbedderKind(str, Enum):
    """Embedders that can be chosen by name."""

    zipformer = "zipformer"
    mfcc = "mfcc"

    def folder(self, model_dir: Path, what: str, split: str) -> Path:
        """Where results of this embedder lie: ``results/{what}-{split}``, with ``-mfcc`` for the control."""
        suffix = "" if self is EmbedderKind.zipformer else f"-{self.value}"
        return model_dir / "results" / f"{what}-{split}{suffix}"


class Embedder(Protocol):
    """Maps padded features (N,T,F) with lengths (N,) to one array (T',D) an utterance, without padding.

    ``dimension`` is D, ``minimum_frames`` the shortest utterance that it can embed. What an utterance is
    mapped to must not depend on the others in its batch.
    """

    name: str
    dimension: int
    minimum_frames: int

    def embed(self, features: Tensor, lengths: Tensor) -> list[NDArray[np.float32]]:
        """Embeddings of a batch, in its order."""
        ...


class EncoderEmbedder:
    """The frames of a speech encoder.

    Args:
        encode: ``(features (N,T,F), lengths (N,)) -> (frames (N,T',D), lengths (N,))``, for example
            ``AsrModel.encode``; it is called without gradients.
        dimension: D.
        minimum_frames: of features for one frame of the encoder.
        device: where ``encode`` computes.
        name: for the description of the embeddings.
    """

    def __init__(
        self,
        encode: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        *,
        dimension: int,
        minimum_frames: int = 1,
        device: torch.device | str = "cpu",
        name: str = "encoder",
    ) -> None:
        self.encode = encode
        self.dimension = dimension
        self.minimum_frames = minimum_frames
        self.device = torch.device(device)
        self.name = name

    @torch.inference_mode()
    def embed(self, features: Tensor, lengths: Tensor) -> list[NDArray[np.float32]]:
        """See :class:`Embedder`."""
        frames, frame_lengths = self.encode(features.to(self.device), lengths.to(self.device))
        array = frames.float().cpu().numpy()
        return [row[:length] for row, length in zip(array, frame_lengths.tolist(), strict=True)]


@dataclass
class MfccConfig:
    """MFCCs from stored log mel energies: the discrete cosine transform of each frame.

    ``coefficients`` counts c0 (the loudness), whose mean the normalisation removes. ``delta_window`` is the
    number of frames on each side over which the slope is fitted; a larger one is smoother. Of the frames
    (100/s) every ``stride``-th is kept: time and disk fall with it, SeqSim with its square.
    """

    coefficients: int = 13
    delta_window: int = 2
    stride: int = 2

    def __post_init__(self) -> None:
        for name in ("coefficients", "delta_window", "stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"mfcc.{name} must be at least 1, found {getattr(self, name)}")


class MfccEmbedder:
    """MFCC, first and second differences, each normalised to mean 0 and variance 1 over the utterance.

    It knows sounds and no words: what it retrieves is retrieved by acoustic likeness alone.
    """

    name = "mfcc"
    minimum_frames = 1

    def __init__(self, config: MfccConfig | None = None) -> None:
        self.config = config or MfccConfig()
        self.dimension = 3 * self.config.coefficients

    def embed(self, features: Tensor, lengths: Tensor) -> list[NDArray[np.float32]]:
        """See :class:`Embedder`; the features are log mel energies (N,T,bins).

        Raises:
            ValueError: fewer mel bins than coefficients.
        """
        if features.shape[2] < self.config.coefficients:
            raise ValueError(
                f"{features.shape[2]} mel bins give no {self.config.coefficients} cepstral coefficients:"
                " lower mfcc.coefficients"
            )
        arrays = features.double().cpu().numpy()
        return [self._one(array[:length]) for array, length in zip(arrays, lengths.tolist(), strict=True)]

    def _one(self, log_mel: NDArray[np.float64]) -> NDArray[np.float32]:
        cepstra = dct(log_mel, type=2, norm="ortho", axis=1)[:, : self.config.coefficients]  # (T,C)
        delta = slopes(cepstra, self.config.delta_window)
        stacked = np.concatenate([cepstra, delta, slopes(delta, self.config.delta_window)], axis=1)  # (T,3C)
        centred = stacked - stacked.mean(axis=0)
        # A constant coefficient (an utterance of one frame, digital silence) carries nothing; it stays 0.
        scale = np.maximum(stacked.std(axis=0), 1e-8)
        return (centred / scale)[:: self.config.stride].astype(np.float32)


def slopes(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Slope (T,C) of the straight line fitted to ``window`` frames on each side; the ends are repeated."""
    T = len(values)
    padded = np.pad(values, ((window, window), (0, 0)), mode="edge")
    result = np.zeros_like(values)
    for k in range(1, window + 1):
        result += k * (padded[window + k : window + k + T] - padded[window - k : window - k + T])
    return result / (2 * sum(k * k for k in range(1, window + 1)))
