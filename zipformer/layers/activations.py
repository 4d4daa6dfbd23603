"""SwooshL and SwooshR as functions and modules; the formulas are in :mod:`zipformer.layers.swoosh`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zipformer.device import has_kernels
from zipformer.layers.swoosh import SWOOSH_L, SWOOSH_R, Swoosh


class _SwooshFunction(torch.autograd.Function):
    """Saves one tensor for backward; automatic differentiation of the formula would save two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, swoosh: Swoosh) -> Tensor:
        ctx.save_for_backward(x)
        ctx.swoosh = swoosh
        return swoosh.value(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return ctx.swoosh.gradient(x, grads[0]), None


def swoosh_l(x: Tensor) -> Tensor:
    """SwooshL, for modules that are "off" by default, such as feed-forward; any shape."""
    return _apply(x, SWOOSH_L)


def swoosh_r(x: Tensor) -> Tensor:
    """SwooshR, for convolutions; any shape."""
    return _apply(x, SWOOSH_R)


def _apply(x: Tensor, swoosh: Swoosh) -> Tensor:
    if has_kernels(x.device):
        from zipformer.layers import swoosh_cuda

        return swoosh_cuda.SwooshFunction.apply(x, swoosh)
    return _SwooshFunction.apply(x, swoosh)


class SwooshL(nn.Module):
    """``swoosh_l`` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return swoosh_l(x)


class SwooshR(nn.Module):
    """``swoosh_r`` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return swoosh_r(x)
