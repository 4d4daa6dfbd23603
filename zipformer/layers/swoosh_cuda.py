"""SwooshL and SwooshR on a CUDA device, with one kernel for forward and one for backward.

Values are those of the plain functions of `zipformer.layers.activations` and `zipformer.layers.linear`,
computed in float32 (float64 for float64 tensors) and rounded once. Only the input is stored for backward, in
its dtype:

    value(x)           = (log(1 + exp(x - offset)) - 0.08 x - shift) * mask
    gradient(x, grad)  = (sigmoid(x - offset) - 0.08) * mask * grad

The backward kernel also computes the value again if a linear layer needs it for the gradient of its weight.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from zipformer.layers.swoosh import SLOPE, Swoosh

ELEMENTS = 2048  # elements of a program


class SwooshFunction(torch.autograd.Function):
    """swoosh(x) for x of any shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, swoosh: Swoosh) -> Tensor:
        ctx.save_for_backward(x)
        ctx.swoosh = swoosh
        return value(x, swoosh)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradient(x, grads[0], ctx.swoosh), None


class ActivationDropoutLinearFunction(torch.autograd.Function):
    """(swoosh(x) * mask) W^T + b; all tensors of one dtype, mask (N, 1, ..., 1, C) or None."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, swoosh: Swoosh
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mask)
        ctx.swoosh = swoosh
        ctx.has_bias = bias is not None
        return F.linear(value(x, swoosh, mask), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mask = ctx.saved_tensors
        grad = grads[0].reshape(-1, weight.shape[0])  # (frames, out)
        hidden_grad = (grad @ weight).view(x.shape)
        x_grad, hidden = gradient_and_value(x, hidden_grad, ctx.swoosh, mask)
        weight_grad = grad.t() @ hidden.reshape(-1, weight.shape[1])
        bias_grad = grad.sum(dim=0) if ctx.has_bias else None
        return x_grad, weight_grad, bias_grad, None, None


def value(x: Tensor, swoosh: Swoosh, mask: Tensor | None = None) -> Tensor:
    """swoosh(x) * mask in the dtype of x; x (N, ..., C), mask (N, 1, ..., 1, C) or None."""
    x, y = _with_output(x, mask)
    _launch(value_kernel, x, mask, (y,), swoosh)
    return y


def gradient(x: Tensor, grad: Tensor, swoosh: Swoosh, mask: Tensor | None = None) -> Tensor:
    """Gradient by x, where ``grad`` is the gradient by ``value(x, swoosh, mask)``."""
    x, x_grad = _with_output(x, mask)
    _launch(gradient_kernel, x, mask, (_in_layout_of(x, grad), x_grad, None), swoosh)
    return x_grad


def gradient_and_value(
    x: Tensor, grad: Tensor, swoosh: Swoosh, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``gradient`` and ``value`` in one kernel."""
    x, x_grad = _with_output(x, mask)
    y = torch.empty_like(x)
    _launch(gradient_kernel, x, mask, (_in_layout_of(x, grad), x_grad, y), swoosh)
    return x_grad, y


def _with_output(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """x and a new tensor of the same layout: without gaps, and contiguous if there is a mask.

    x is copied only if its layout is different.
    """
    y = torch.empty_like(x)
    # The new tensor has the strides of x only if these leave no gaps.
    if y.stride() != x.stride() or (mask is not None and not x.is_contiguous()):
        x = x.contiguous()
        y = torch.empty_like(x)
    return x, y


def _in_layout_of(x: Tensor, grad: Tensor) -> Tensor:
    return grad if grad.stride() == x.stride() else torch.empty_like(x).copy_(grad)


def _launch(
    kernel: Any, x: Tensor, mask: Tensor | None, tensors: tuple[Tensor | None, ...], swoosh: Swoosh
) -> None:
    if x.numel() == 0:
        return
    if mask is None:
        # All elements in the order of memory, as one row.
        rows, channels, rows_a_mask = 1, x.numel(), 1
    else:
        N, C = x.shape[0], x.shape[-1]
        if mask.numel() != N * C:
            raise ValueError(
                f"x is {tuple(x.shape)} and the mask {tuple(mask.shape)}; expected (N, ..., C) and "
                "(N, 1, ..., 1, C)"
            )
        rows, channels, rows_a_mask = x.numel() // C, C, x.numel() // (N * C)
        mask = mask.contiguous()
    block_channels = min(ELEMENTS, triton.next_power_of_2(channels))
    block_rows = min(ELEMENTS // block_channels, triton.next_power_of_2(rows))
    grid = (triton.cdiv(rows, block_rows) * triton.cdiv(channels, block_channels),)
    with torch.cuda.device_of(x):
        kernel[grid](
            x,
            mask,
            *tensors,
            rows,
            channels,
            rows_a_mask,
            OFFSET=swoosh.offset,
            SHIFT=swoosh.shift,
            SLOPE=SLOPE,
            TYPE=tl.float64 if x.dtype == torch.float64 else tl.float32,
            BLOCK_ROWS=block_rows,
            BLOCK_CHANNELS=block_channels,
        )


_SIZES = ["rows", "rows_a_mask"]


@triton.jit(do_not_specialize=_SIZES)
def value_kernel(
    x, mask, y, rows, channels, rows_a_mask,
    OFFSET: tl.constexpr, SHIFT: tl.constexpr, SLOPE: tl.constexpr, TYPE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """y = swoosh(x) * mask of a block of (rows, channels)."""
    row, channel, here = _block(rows, channels, BLOCK_ROWS, BLOCK_CHANNELS)
    place = row * channels + channel
    values = tl.load(x + place, mask=here, other=0.0).to(TYPE)
    result = _swoosh(values, OFFSET, SHIFT, SLOPE)
    if mask is not None:
        result *= tl.load(mask + row // rows_a_mask * channels + channel, mask=here, other=0.0).to(TYPE)
    tl.store(y + place, result, mask=here)


@triton.jit(do_not_specialize=_SIZES)
def gradient_kernel(
    x, mask, grad, x_grad, y, rows, channels, rows_a_mask,
    OFFSET: tl.constexpr, SHIFT: tl.constexpr, SLOPE: tl.constexpr, TYPE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """x_grad of a block of (rows, channels), and y = swoosh(x) * mask if there is a y."""
    row, channel, here = _block(rows, channels, BLOCK_ROWS, BLOCK_CHANNELS)
    place = row * channels + channel
    values = tl.load(x + place, mask=here, other=0.0).to(TYPE)
    factor = 1.0 / (1.0 + tl.exp(OFFSET - values)) - SLOPE
    if mask is not None:
        kept = tl.load(mask + row // rows_a_mask * channels + channel, mask=here, other=0.0).to(TYPE)
        factor *= kept
    tl.store(x_grad + place, factor * tl.load(grad + place, mask=here, other=0.0).to(TYPE), mask=here)
    if y is not None:
        result = _swoosh(values, OFFSET, SHIFT, SLOPE)
        if mask is not None:
            result *= kept
        tl.store(y + place, result, mask=here)


@triton.jit
def _block(rows, channels, BLOCK_ROWS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr):
    """Rows (BLOCK_ROWS, 1) and channels (1, BLOCK_CHANNELS) of this program, and a mask of existing ones."""
    column_blocks = tl.cdiv(channels, BLOCK_CHANNELS)
    program = tl.program_id(0).to(tl.int64)
    row = (program // column_blocks * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS))[:, None]
    channel = (program % column_blocks * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS))[None, :]
    return row, channel, (row < rows) & (channel < channels)


@triton.jit
def _swoosh(x, OFFSET: tl.constexpr, SHIFT: tl.constexpr, SLOPE: tl.constexpr):
    z = x - OFFSET
    softplus = tl.maximum(z, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(z)))
    return softplus - SLOPE * x - SHIFT
