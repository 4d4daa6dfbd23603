"""The interface of embedders, and the embedder for the encoder of a model directory.

Other embedders: features without a model (:mod:`retrieval.embedding.acoustic`), encoders of the Hugging Face
Hub (:mod:`retrieval.embedding.huggingface`), and a small encoder for keywords
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

    ``zipformer`` is the encoder of the model directory and ``random`` the same encoder before training;
    ``fbank``, ``mfcc`` and ``duration`` need no model; ``huggingface`` is a speech encoder for
    ``transformers``, ``speech_embedding`` a small encoder whose weights come with a package.
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
    """Maps a padded batch with lengths (N,) to one array (T',D) for each utterance, without padding.

    The embedding of an utterance must not depend on the other utterances in the batch.

    Attributes:
        name: name in the description of the embeddings.
        dimension: dimension D of the embeddings.
        sampling_rate: sampling rate in Hz if the embedder reads samples (N,T) in -1..1; None if it reads
            stored features (N,T,F), 100 frames a second.
        minimum_frames: length of the shortest utterance that it can embed, in frames of 10 ms.
        margin: frames of silence that must follow the longest utterance of a batch of stored features.
        maximum_frames: length of the longest utterance that it can embed, in frames of 10 ms; None = no
            limit.
        commit: commit of a model on the Hugging Face Hub, because a branch may change; None for other
            embedders.
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
        """Embeddings of a batch, in the order of the batch."""


class EncoderEmbedder(Embedder):
    """The frames of a speech encoder.

    Args:
        encode: ``(features (N,T,F), lengths (N,)) -> (frames (N,T',D), lengths (N,))``, for example
            ``AsrModel.encode``; it is called without gradients.
        dimension: dimension D of the frames.
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
