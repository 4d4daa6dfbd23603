"""Dropout of whole sequences, and dropout whose mask is shared along an axis."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zipformer.layers.schedule import ScheduleLike, current


def sequence_mask(x: Tensor, rate: float) -> Tensor | None:
    """Mask with one number for each sequence, 0 with probability ``rate``, else 1; None if the rate is 0.

    Kept sequences are not scaled up: the branches that use the mask are added to a residual, and a branch
    should not become smaller because it is sometimes left out.

    Args:
        x: (N, ...); the result has its dtype and device, and shape (N, 1, ..., 1).
        rate: probability of zero.
    """
    if rate == 0.0:
        return None
    shape = (x.shape[0],) + (1,) * (x.ndim - 1)
    return (torch.rand(shape, device=x.device) >= rate).to(x.dtype)


def sequence_dropout(x: Tensor, rate: float) -> Tensor:
    """x (N, ...) with whole sequences set to zero at the given rate; not scaled. For training only."""
    mask = sequence_mask(x, rate)
    return x if mask is None else x * mask


def shared_dropout_mask(x: Tensor, rate: float, shared_dim: int) -> Tensor:
    """Dropout mask for x that is constant along ``shared_dim``, with kept positions 1 / (1 - rate)."""
    shape = list(x.shape)
    shape[shared_dim] = 1
    return (torch.rand(shape, device=x.device) >= rate).to(x.dtype) * (1.0 / (1.0 - rate))


class SharedDropout(nn.Module):
    """Dropout with one mask for all positions of an axis, so that a channel is absent for a whole utterance.

    Args:
        p: dropout rate or schedule.
        shared_dim: the axis; 1 is time in (N, T, C).
    """

    def __init__(self, p: ScheduleLike, shared_dim: int = 1) -> None:
        super().__init__()
        self.p = p
        self.shared_dim = shared_dim

    def forward(self, x: Tensor) -> Tensor:
        rate = current(self.p) if self.training else 0.0
        return x if rate == 0.0 else x * shared_dropout_mask(x, rate, self.shared_dim)
