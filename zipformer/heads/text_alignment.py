"""Text alignment: the mean encoder frame of an utterance is drawn to the embedding of its sentence.

A frozen text encoder (:mod:`zipformer.heads.sentence_encoders`) is the teacher; the speech side learns to
agree with it by the sigmoid contrastive loss of SigLIP (Zhai et al., "Sigmoid loss for language image
pre-training", 2023). Every pair of an utterance i and a sentence m of the batch is one yes-or-no question,
"does i say m?":

    x_i = W mean of the frames of i,    z_im = exp(s) cos(x_i, y_m) + b,
    loss = - sum over i and m of log sigmoid(z_im if i says m, else -z_im)

with y_m the teacher's embedding and W, s, b learnt. There is no softmax over the batch, so each pair counts
by itself. Nearly all pairs are "no", and b starts so low that the first steps need not learn that alone.

The sentences m are the *different* ones of the batch. Two utterances of one sentence, in two dialects say,
are thus drawn to the same point and never pushed apart, which is what makes the loss one of meaning.

With several processes the sentences are those of the process's own batch: the questions of the processes add
up, but no utterance is held against a sentence of another process. More processes mean more questions, not
harder ones; a larger batch per process makes them harder.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zipformer.errors import UserError
from zipformer.heads.head import EncodedBatch, Head, HeadSizes, register_head


@dataclass
class TextAlignmentConfig:
    """The head that meets the text encoder.

    Attributes:
        enabled: have the head.
        text_dim: dimension of the sentence embeddings; 0 = to be filled in from the text encoder.
        dropout: probability with which values of the mean frame are dropped.
        temperature: exp(s) at the start, the factor of the cosine.
        bias: b at the start, in [-10, 10], where the optimiser keeps single numbers.
    """

    enabled: bool = False
    text_dim: int = 0
    dropout: float = 0.1
    temperature: float = 10.0
    bias: float = -10.0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise UserError(f"text_alignment.temperature={self.temperature} must be positive")
        if not 0 <= self.dropout < 1:
            raise UserError(f"text_alignment.dropout={self.dropout} is not in [0, 1)")
        if not -10 <= self.bias <= 10:
            raise UserError(f"text_alignment.bias={self.bias} is not in [-10, 10]")


@register_head("text_alignment", TextAlignmentConfig)
class TextAlignment(Head):
    """Projection of mean frames into the space of sentence embeddings, with the loss.

    Args:
        config: ``text_dim`` at least 1.
        frame_dim: channels of the encoder frames.

    Raises:
        UserError: the configuration has no dimension.
    """

    setting: ClassVar[str] = "model.text_alignment.enabled=true"
    loss_names = ("text_alignment",)

    def __init__(self, config: TextAlignmentConfig, frame_dim: int) -> None:
        super().__init__()
        if config.text_dim < 1:
            raise UserError(
                f"model.text_alignment.text_dim={config.text_dim}; set it to the dimension of the text "
                "encoder"
            )
        self.dropout = nn.Dropout(config.dropout)
        self.projection = nn.Linear(frame_dim, config.text_dim)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))
        self.bias = nn.Parameter(torch.tensor(config.bias))

    @classmethod
    def build(cls, settings: TextAlignmentConfig, sizes: HeadSizes) -> "TextAlignment":
        return cls(settings, sizes.frame_dim)

    def losses(self, batch: EncodedBatch, wanted: Collection[str]) -> dict[str, Tensor]:
        if "text_alignment" not in wanted or batch.sentences is None:
            return {}
        assert batch.spoken is not None
        return {"text_alignment": self.loss(batch.frames, batch.lengths, batch.sentences, batch.spoken)}

    def embed(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Embeddings (N, text_dim), of length 1, of utterances with frames (N, T, D) of lengths (N,)."""
        padding = torch.arange(frames.shape[1], device=frames.device) >= lengths[:, None]  # (N, T)
        with torch.autocast(frames.device.type, enabled=False):
            total = frames.float().masked_fill(padding.unsqueeze(-1), 0.0).sum(dim=1)  # (N, D)
            mean = total / lengths[:, None]
            return F.normalize(self.projection(self.dropout(mean)), dim=-1)

    def loss(self, frames: Tensor, lengths: Tensor, sentences: Tensor, spoken: Tensor) -> Tensor:
        """The loss of the module's description, summed over the batch.

        Args:
            frames: (N, T, D) encoder frames.
            lengths: (N,) valid frames, each at least 1.
            sentences: (M, text_dim) embeddings of the different sentences of the batch.
            spoken: (N,) int64, which of the sentences each utterance says.

        Returns:
            Scalar in nats, fp32: for each utterance the sum over all M sentences.
        """
        embedded = self.embed(frames, lengths)
        with torch.autocast(frames.device.type, enabled=False):
            cosines = embedded @ F.normalize(sentences.float(), dim=-1).T  # (N, M)
            logits = self.log_temperature.float().exp() * cosines + self.bias.float()
            says = spoken[:, None] == torch.arange(len(sentences), device=spoken.device)  # (N, M)
            return F.softplus(torch.where(says, -logits, logits)).sum()  # -log sigmoid(z) = softplus(-z)
