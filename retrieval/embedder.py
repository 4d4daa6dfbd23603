"""What turns speech into embeddings: the interface, and the encoder of a model directory behind it.

Other embedders: features without a model (:mod:`retrieval.acoustic`), encoders of the Hugging Face Hub
(:mod:`retrieval.huggingface`).
"""

from collections.abc import Callable
from enum import Enum
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class EmbedderKind(str, Enum):
    """Embedders that can be chosen by name.

    ``zipformer`` is the encoder of the model directory and ``random`` the same before any training; ``fbank``,
    ``mfcc`` and ``duration`` need no model; ``huggingface`` is any speech encoder that ``transformers`` reads.
    """

    zipformer = "zipformer"
    random = "random"
    fbank = "fbank"
    mfcc = "mfcc"
    duration = "duration"
    huggingface = "huggingface"


class Source(str, Enum):
    """What an embedder is given of an utterance: stored features (T,F), or samples (T,) in -1..1."""

    features = "features"
    audio = "audio"


class Embedder(Protocol):
    """Maps a padded batch with lengths (N,) to one array (T',D) an utterance, without padding.

    What an utterance is mapped to must not depend on the others in its batch.

    Attributes:
        name: for the description of the embeddings.
        source: what the batch holds: features (N,T,F), 100 frames a second, or samples (N,T).
        sampling_rate: of the samples; without meaning for features.
        dimension: D.
        minimum_frames: the shortest utterance that it can embed, in 10 ms.
        maximum_frames: the longest, in 10 ms; None = any.
    """

    name: str
    source: Source
    sampling_rate: int
    dimension: int
    minimum_frames: int
    maximum_frames: int | None

    def embed(self, batch: Tensor, lengths: Tensor) -> list[NDArray[np.float32]]:
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

    source = Source.features
    sampling_rate = 0
    maximum_frames = None

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
    def embed(self, batch: Tensor, lengths: Tensor) -> list[NDArray[np.float32]]:
        """See :class:`Embedder`."""
        frames, frame_lengths = self.encode(batch.to(self.device), lengths.to(self.device))
        array = frames.float().cpu().numpy()
        return [row[:length] for row, length in zip(array, frame_lengths.tolist(), strict=True)]
