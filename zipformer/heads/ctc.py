"""CTC head: the log-probability of every token at every frame."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from zipformer.data.tokenizer import BLANK
from zipformer.heads.head import EncodedBatch, Head, HeadSizes, register_head
from zipformer.losses.ctc import ctc_loss


@dataclass
class CtcConfig:
    """The CTC head has no settings."""


@register_head("ctc", CtcConfig)
class CtcHead(Head):
    """A linear layer from frames to log-probabilities.

    Args:
        frame_dim: channels of the encoder frames.
        vocab_size: tokens, blank included.
    """

    setting: ClassVar[str] = "model.ctc=true"
    vocabulary_modules: ClassVar[tuple[str, ...]] = ("linear",)
    repeats_need_blank: ClassVar[bool] = True
    loss_names = ("ctc",)

    def __init__(self, frame_dim: int, vocab_size: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.1)
        self.linear = nn.Linear(frame_dim, vocab_size)

    @classmethod
    def build(cls, settings: CtcConfig, sizes: HeadSizes) -> "CtcHead":
        return cls(sizes.frame_dim, sizes.vocab_size)

    def forward(self, frames: Tensor) -> Tensor:
        """Log-probabilities (..., vocab_size) of frames (..., frame_dim)."""
        log_probs: Tensor = self.linear(self.dropout(frames)).log_softmax(dim=-1)
        return log_probs

    def losses(self, batch: EncodedBatch, wanted: Collection[str]) -> dict[str, Tensor]:
        if "ctc" not in wanted:
            return {}
        log_probs = self(batch.frames)
        with torch.autocast(batch.frames.device.type, enabled=False):
            loss = ctc_loss(
                log_probs.float(), batch.symbols, batch.lengths, batch.symbol_lengths, blank=BLANK
            )
        return {"ctc": loss}
