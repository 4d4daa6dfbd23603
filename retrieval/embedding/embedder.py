"""What turns speech into embeddings: the interface, and the encoder of a model directory behind it.

Other embedders: features without a model (:mod:`retrieval.embedding.acoustic`), encoders of the Hugging Face
Hub (:mod:`retrieval.embedding.huggingface`), a small one for keywords
(:mod:`retrieval.embedding.speech_embedding`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class EmbedderKind(str, Enum):
    """Embedders that can be chosen by name.

    ``zipformer`` is the encoder of the model directory and ``random`` the same before any training;
    ``fbank``, ``mfcc`` and ``duration`` need no model; ``huggingface`` is a speech encoder that
    ``transformers`` reads, ``speech_embedding`` a small one whose weights come with a package.
    """

    zipformer = "zipformer"
    random = "random"
    fbank = "fbank"
    mfcc = "mfcc"
    duration = "duration"
    huggingface = "huggingface"
    speech_embedding = "speech_embedding"

    @property
    def has_layers(self) -> bool:
        """Whether a layer can be chosen."""
        return self in (EmbedderKind.zipformer, EmbedderKind.random, EmbedderKind.huggingface)


class Embedder(ABC):
    """Maps a padded batch with lengths (N,) to one array (T',D) an utterance, without padding.

    What an utterance is mapped to must not depend on the others in its batch.

    Attributes:
        name: name in the description of the embeddings.
        dimension: D.
        sampling_rate: sampling rate in Hz of an embedder that is given samples (N,T) in -1..1; None for one
            that is given stored features (N,T,F), 100 frames a second.
        minimum_frames: length of the shortest utterance that it can embed, in frames of 10 ms.
        margin: frames of silence that must follow the longest utterance of a batch of stored features.
        maximum_frames: length of the longest utterance that it can embed, in frames of 10 ms; None = any.
        commit: commit of a model on the Hugging Face Hub, since a branch may move; None for others.
    """

    name: str
    dimension: int
    sampling_rate: int | None = None
    minimum_frames: int = 1
    margin: int = 0
    maximum_frames: int | None = None
    commit: str | None = None

    @abstractmethod
    def embed(self, batch: Tensor, lengths: Tensor) -> list[NDArray[np.float32]]:
        """Embeddings of a batch, in its order."""


class EncoderEmbedder(Embedder):
    """The frames of a speech encoder.

    Args:
        encode: ``(features (N,T,F), lengths (N,)) -> (frames (N,T',D), lengths (N,))``, for example
            ``AsrModel.encode``; it is called without gradients.
        dimension: D.
        minimum_frames: smallest number of feature frames that give one frame of the encoder.
        margin: see :class:`Embedder`; ``AsrModel.margin``.
        device: device that ``encode`` computes on.
        name: name in the description of the embeddings.
    """

    def __init__(
        self,
        encode: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        *,
        dimension: int,
        minimum_frames: int = 1,
        margin: int = 0,
        device: torch.device | str = "cpu",
        name: str = "encoder",
    ) -> None:
        self.encode = encode
        self.dimension = dimension
        self.minimum_frames = minimum_frames
        self.margin = margin
        self.device = torch.device(device)
        self.name = name

    @torch.inference_mode()
    def embed(self, batch: Tensor, lengths: Tensor) -> list[NDArray[np.float32]]:
        """See :class:`Embedder`."""
        frames, frame_lengths = self.encode(batch.to(self.device), lengths.to(self.device))
        array = frames.float().cpu().numpy()
        return [row[:length] for row, length in zip(array, frame_lengths.tolist(), strict=True)]
