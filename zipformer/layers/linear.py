"""Linear layers with scaled initial values, and a linear layer fused with the activation before it."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zipformer.device import has_kernels
from zipformer.layers.blocks import BLOCK
from zipformer.layers.dropout import shared_dropout_mask
from zipformer.layers.schedule import ScheduleLike, current
from zipformer.layers.swoosh import SWOOSH_L, SWOOSH_R, Swoosh

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def scale_initial(layer: Layer, initial_scale: float) -> Layer:
    """Scale the initial weights of a layer by ``initial_scale``, and draw the bias from +-0.1 times it."""
    with torch.no_grad():
        layer.weight.mul_(initial_scale)
        if layer.bias is not None:
            layer.bias.uniform_(-0.1 * initial_scale, 0.1 * initial_scale)
    return layer


def scaled_linear(
    in_channels: int, out_channels: int, bias: bool = True, initial_scale: float = 1.0
) -> nn.Linear:
    """A linear layer whose initial output is ``initial_scale`` times as large as usual."""
    return scale_initial(nn.Linear(in_channels, out_channels, bias=bias), initial_scale)


class _ActivationDropoutLinearFunction(torch.autograd.Function):
    """y = (swoosh(x) * mask) W^T + b; all tensors of one dtype, mask (N, 1, C) or None."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, swoosh: Swoosh
    ) -> Tensor:
        hidden = _activate(x, mask, swoosh)
        # Recomputing the activation halves the memory until backward. Exponentials are slow on a CPU: there
        # the activation is stored if it is small.
        kept = hidden if x.is_cpu and hidden.numel() <= BLOCK else None
        ctx.save_for_backward(x, weight, mask, kept)
        ctx.swoosh = swoosh
        ctx.has_bias = bias is not None
        return F.linear(hidden, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mask, hidden = ctx.saved_tensors
        if hidden is None:
            hidden = _activate(x, mask, ctx.swoosh)
        grad = grads[0].reshape(-1, weight.shape[0])  # (frames, out)
        weight_grad = grad.t() @ hidden.reshape(-1, weight.shape[1])
        bias_grad = grad.sum(dim=0) if ctx.has_bias else None
        hidden_grad = (grad @ weight).view(x.shape)
        if mask is not None:
            hidden_grad.mul_(mask)
        return ctx.swoosh.gradient(x, hidden_grad), weight_grad, bias_grad, None, None


def _activate(x: Tensor, mask: Tensor | None, swoosh: Swoosh) -> Tensor:
    hidden = swoosh.value(x)
    return hidden if mask is None else hidden.mul_(mask)


class ActivationDropoutAndLinear(nn.Module):
    """Swoosh, dropout with a mask shared over time and a linear layer, fused to save memory.

    Args:
        in_channels: channels before and after the activation.
        out_channels: channels of the output.
        activation: name of the swoosh.
        bias: give the linear layer a bias.
        dropout: rate or schedule.
        initial_scale: scale of the initial output, see ``scaled_linear``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        activation: Literal["swoosh_l", "swoosh_r"],
        bias: bool = True,
        dropout: ScheduleLike = 0.0,
        initial_scale: float = 1.0,
    ) -> None:
        super().__init__()
        linear = scaled_linear(in_channels, out_channels, bias=bias, initial_scale=initial_scale)
        self.weight = linear.weight
        self.bias = linear.bias
        self.dropout = dropout
        self.swoosh = {"swoosh_l": SWOOSH_L, "swoosh_r": SWOOSH_R}[activation]

    def forward(self, x: Tensor) -> Tensor:
        """x (N, T, in_channels) -> (N, T, out_channels)."""
        rate = current(self.dropout) if self.training else 0.0
        mask = None if rate == 0.0 else shared_dropout_mask(x, rate, shared_dim=1)
        return activation_linear(x, self.weight, self.bias, self.swoosh, mask)


def activation_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, swoosh: Swoosh, mask: Tensor | None = None
) -> Tensor:
    """linear(swoosh(x) * mask); x (N, ..., in), weight (out, in), mask broadcasts with x."""
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
        mask = None if mask is None else mask.to(dtype)
    if has_kernels(x.device):
        from zipformer.layers import swoosh_cuda

        return swoosh_cuda.ActivationDropoutLinearFunction.apply(x, weight, bias, mask, swoosh)
    return _ActivationDropoutLinearFunction.apply(x, weight, bias, mask, swoosh)
