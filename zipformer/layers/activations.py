"""SwooshL and SwooshR (Yao et al. 2023, "Zipformer", equations 3 and 4).

    SwooshL(x) = log(1 + exp(x - 4)) - 0.08 x - 0.035
    SwooshR(x) = log(1 + exp(x - 1)) - 0.08 x - 0.313261687

Both are computed from x - offset, because softplus and its derivative are single fused kernels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zipformer.device import has_kernels
from zipformer.layers.blocks import blockwise

SLOPE = 0.08
HALF_PRECISION = (torch.float16, torch.bfloat16)


class Swoosh(NamedTuple):
    """Constants of log(1 + exp(x - offset)) - 0.08 x - shift."""

    offset: float
    shift: float

    def value(self, x: Tensor) -> Tensor:
        """Value at x, in the dtype of x."""
        return blockwise(self._value, x)

    def gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        """Gradient with respect to x: (sigmoid(x - offset) - 0.08) * grad."""
        return blockwise(self._gradient, x, grad)

    def _value(self, x: Tensor) -> Tensor:
        # In half precision the two terms of the formula lose what is left of their difference.
        z = (x.float() if x.dtype in HALF_PRECISION else x) - self.offset
        # Written in place: on a CPU this function is bound by memory traffic, apart from the softplus.
        return F.softplus(z).add_(z, alpha=-SLOPE).sub_(SLOPE * self.offset + self.shift).to(x.dtype)

    def _gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        return torch.ops.aten.softplus_backward(grad, x - self.offset, 1.0, 20.0).add_(grad, alpha=-SLOPE)


SWOOSH_L = Swoosh(offset=4.0, shift=0.035)
SWOOSH_R = Swoosh(offset=1.0, shift=0.313261687)


class _SwooshFunction(torch.autograd.Function):
    """Saves one tensor, where automatic differentiation of the formula saves two."""

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
