"""Changes of the frame rate and of the number of channels between the stacks of the encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Downsample(nn.Module):
    """Replaces every ``factor`` frames by their weighted mean, with learnt weights softmax(bias).

    Args:
        factor: number of frames in a group.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.bias = nn.Parameter(torch.zeros(factor))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, T, C) -> (N, ceil(T / factor), C); the last frame is repeated to fill the last group."""
        N, T, C = x.shape
        missing = -T % self.factor
        if missing:
            x = torch.cat((x, x[:, -1:].expand(N, missing, C)), dim=1)
        groups = x.unflatten(1, (-1, self.factor))  # (N, T', factor, C)
        weights = self.bias.softmax(dim=0).to(x.dtype)
        return (groups * weights[:, None]).sum(dim=2)


class Upsample(nn.Module):
    """Repeats every frame ``factor`` times.

    Args:
        factor: number of copies of a frame.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, num_frames: int | None = None) -> Tensor:
        """x (N, T', C) -> (N, T' * factor, C), cropped to ``num_frames`` if given."""
        N, T, C = x.shape
        x = x[:, :, None].expand(N, T, self.factor, C).reshape(N, T * self.factor, C)
        return x[:, :num_frames]


def match_channels(x: Tensor, num_channels: int) -> Tensor:
    """x (..., C), cropped or padded with zeros to (..., num_channels)."""
    missing = num_channels - x.shape[-1]
    if missing == 0:
        return x
    return F.pad(x, (0, missing)) if missing > 0 else x[..., :num_channels]
