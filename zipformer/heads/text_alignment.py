"""Text alignment: trains the mean encoder frame of an utterance to match the embedding of its sentence.

A frozen text encoder (:mod:`zipformer.heads.sentence_encoders`) is the teacher; the speech side learns to
agree with it by the sigmoid contrastive loss of SigLIP (Zhai et al., "Sigmoid loss for language image
pre-training", 2023). Every pair of an utterance i and a sentence m of the batch is a binary classification,
"does i say m?":

    x_i = W mean of the frames of i,    z_im = exp(s) cos(x_i, y_m) + b,
    loss = - sum over i and m of log sigmoid(z_im if i says m, else -z_im)

where y_m is the embedding of the teacher and W, s, b are learnt. There is no softmax over the batch, so the
pairs are independent. Nearly all pairs are negative; b starts at a low value, so that the first steps need
not learn this.

The sentences m are the *distinct* sentences of the batch. Thus two utterances of one sentence, for example in
two dialects, are trained to match the same point and never pushed apart.

With several processes, each uses the sentences of its own batch: the losses are summed, but no utterance is
compared with a sentence of another process. More processes give more pairs, not harder ones; a larger batch
in each process gives harder ones.
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
    """Settings of the text alignment head.

    Attributes:
        enabled: give the model this head.
        text_dim: dimension of the sentence embeddings; 0 = filled in from the text encoder.
        dropout: dropout rate of the mean frame.
        temperature: initial exp(s), the factor of the cosine.
        bias: initial b, in [-10, 10], the range in which the optimiser keeps single numbers.
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
        config: settings with ``text_dim`` at least 1.
        frame_dim: channels of the encoder frames.

    Raises:
        UserError: ``text_dim`` is 0.
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
        """Unit-length embeddings (N, text_dim) of utterances with frames (N, T, D) and lengths (N,)."""
        padding = torch.arange(frames.shape[1], device=frames.device) >= lengths[:, None]  # (N, T)
        with torch.autocast(frames.device.type, enabled=False):
            total = frames.float().masked_fill(padding.unsqueeze(-1), 0.0).sum(dim=1)  # (N, D)
            mean = total / lengths[:, None]
            return F.normalize(self.projection(self.dropout(mean)), dim=-1)

    def loss(self, frames: Tensor, lengths: Tensor, sentences: Tensor, spoken: Tensor) -> Tensor:
        """The loss in the docstring of this module, summed over the batch.

        Args:
            frames: encoder frames (N, T, D).
            lengths: number of valid frames (N,), each at least 1.
            sentences: embeddings of the distinct sentences of the batch (M, text_dim).
            spoken: index of the sentence of each utterance, (N,) int64.

        Returns:
            Scalar in nats, fp32: for each utterance the sum over all M sentences.
        """
        embedded = self.embed(frames, lengths)
        with torch.autocast(frames.device.type, enabled=False):
            cosines = embedded @ F.normalize(sentences.float(), dim=-1).T  # (N, M)
            logits = self.log_temperature.float().exp() * cosines + self.bias.float()
            says = spoken[:, None] == torch.arange(len(sentences), device=spoken.device)  # (N, M)
            return F.softplus(torch.where(says, -logits, logits)).sum()  # -log sigmoid(z) = softplus(-z)
