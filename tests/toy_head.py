"""A head of one file: how many characters an utterance has, from its mean frame."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zipformer.heads.head import EncodedBatch, Head, HeadSizes, register_head


@dataclass
class LengthConfig:
    hidden: int = 8
    weight: float = 0.5


@register_head("length", LengthConfig)
class LengthHead(Head):
    loss_names = ("length",)

    def __init__(self, config: LengthConfig, frame_dim: int) -> None:
        super().__init__()
        self.loss_weight = config.weight
        self.layers = nn.Sequential(
            nn.Linear(frame_dim, config.hidden), nn.Tanh(), nn.Linear(config.hidden, 1)
        )

    @classmethod
    def build(cls, settings: LengthConfig, sizes: HeadSizes) -> "LengthHead":
        return cls(settings, sizes.frame_dim)

    def losses(self, batch: EncodedBatch, wanted: Collection[str]) -> dict[str, Tensor]:
        if "length" not in wanted or not batch.supervisions:
            return {}
        mean = torch.stack(
            [frames[:length].mean(dim=0) for frames, length in zip(batch.frames, batch.lengths, strict=True)]
        )
        counts = torch.tensor([float(len(supervision.text or "")) for supervision in batch.supervisions])
        return {"length": (self.layers(mean).squeeze(1) - counts).square().sum()}
