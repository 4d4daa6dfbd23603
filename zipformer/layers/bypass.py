"""Learnt mixture of the input and the output of a layer (Yao et al. 2023, "Zipformer", section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zipformer.layers.dropout import sequence_dropout
from zipformer.layers.regularizers import limit_param_value
from zipformer.layers.schedule import Clock, Schedule, ScheduleLike, current


class Bypass(nn.Module):
    """out = x_orig + (x - x_orig) * scale, with a scale for each channel.

    Early in training the scale is kept near 1 and whole layers are skipped at random, so that no layer
    depends on every other one.

    Args:
        dim: channels.
        clock: the model's clock.
        skip_rate: share of the sequences for which the layer is skipped while training; may be set
            afterwards.
        scale_min: lower bound of the scale, enforced through its gradient; None: 0.9 falling to 0.2 in 20000
            reference batches.
        scale_max: upper bound of the scale.
    """

    def __init__(
        self,
        dim: int,
        *,
        clock: Clock,
        skip_rate: ScheduleLike = 0.0,
        scale_min: ScheduleLike | None = None,
        scale_max: ScheduleLike = 1.0,
    ) -> None:
        super().__init__()
        self.bypass_scale = nn.Parameter(torch.full((dim,), 0.5))
        self.clock = clock
        self.skip_rate = skip_rate
        self.scale_min = Schedule(clock, (0.0, 0.9), (20000.0, 0.2)) if scale_min is None else scale_min
        self.scale_max = scale_max

    def forward(self, x_orig: Tensor, x: Tensor) -> Tensor:
        """x_orig, x (N, T, C): input and output of the bypassed layers -> (N, T, C)."""
        scale: Tensor = self.bypass_scale
        if self.training:
            low, high = current(self.scale_min), current(self.scale_max)
            scale = limit_param_value(scale, low, high, clock=self.clock)
            # (N, 1, C) where sequences are skipped
            scale = sequence_dropout(scale.expand(x.shape[0], 1, -1), current(self.skip_rate))
        dtype = torch.promote_types(x_orig.dtype, x.dtype)
        return torch.lerp(x_orig.to(dtype), x.to(dtype), scale.to(dtype))
