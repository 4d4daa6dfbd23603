"""BiasNorm on a CUDA device, with one kernel for forward and one for backward.

Values and formulas are those of the plain function of `zipformer.layers.norm`: sums in float32 (float64 if a
tensor is float64), output in the wider of the types of x and bias. The gradients of the parameters are sums
over all frames: each program sums its own share of the frames, and a small sum over the programs follows, so
that results do not depend on the order of the programs.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

ELEMENTS = 2048  # elements of a program in forward, of one round of a program in backward
# Number of programs: enough to fill a large GPU twice, few enough to sum over.
MAX_PROGRAMS = 512


class BiasNormFunction(torch.autograd.Function):
    """y = x * exp(log_scale) / rms(x - bias), rms over the last axis. Saves x and one number per frame."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
        C = x.shape[-1]
        x = x.contiguous()
        rows = x.numel() // C
        y = torch.empty_like(x, dtype=torch.promote_types(x.dtype, bias.dtype))
        inverse_rms = torch.empty(rows, dtype=_sum_dtype(x, bias), device=x.device)
        ctx.save_for_backward(x, bias, log_scale, inverse_rms)
        if rows:
            block_rows, block_channels, num_warps = _blocks(C)
            with torch.cuda.device_of(x):
                norm_kernel[(triton.cdiv(rows, block_rows),)](
                    x, bias, log_scale, y, inverse_rms, rows, C,
                    TYPE=_triton_type(inverse_rms),
                    BLOCK_ROWS=block_rows, BLOCK_CHANNELS=block_channels, num_warps=num_warps,
                )  # fmt: skip
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, bias, log_scale, inverse_rms = ctx.saved_tensors
        grad = grads[0].contiguous()
        rows, C = len(inverse_rms), x.shape[-1]
        block_rows, block_channels, num_warps = _blocks(C)
        programs = min(MAX_PROGRAMS, triton.cdiv(rows, block_rows))
        x_grad = torch.empty_like(x)
        # Parts of the gradients of bias and log_scale, one row for each program.
        parts = torch.empty(programs, C + 1, dtype=inverse_rms.dtype, device=x.device)
        if rows:
            with torch.cuda.device_of(x):
                gradient_kernel[(programs,)](
                    x, bias, log_scale, inverse_rms, grad, x_grad, parts, rows, C,
                    TYPE=_triton_type(inverse_rms),
                    BLOCK_ROWS=block_rows, BLOCK_CHANNELS=block_channels, num_warps=num_warps,
                )  # fmt: skip
        sums = parts.sum(dim=0)
        return x_grad, sums[:C].to(bias.dtype), sums[C].to(log_scale.dtype)


def _sum_dtype(x: Tensor, bias: Tensor) -> torch.dtype:
    return torch.float64 if torch.float64 in (x.dtype, bias.dtype) else torch.float32


def _triton_type(x: Tensor) -> tl.dtype:
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def _blocks(channels: int) -> tuple[int, int, int]:
    """Numbers of rows and channels of a block, and number of warps."""
    block_channels = triton.next_power_of_2(channels)
    return max(1, ELEMENTS // block_channels), block_channels, 4 if block_channels <= ELEMENTS else 8


@triton.jit(do_not_specialize=["rows"])
def norm_kernel(
    x, bias, log_scale, y, inverse_rms, rows, channels,
    TYPE: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """A program normalises BLOCK_ROWS rows of x (rows, channels)."""
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    channel = tl.arange(0, BLOCK_CHANNELS)
    here = (row < rows)[:, None] & (channel < channels)[None, :]
    place = row.to(tl.int64)[:, None] * channels + channel[None, :]
    values = tl.load(x + place, mask=here, other=0.0).to(TYPE)
    centre = tl.load(bias + channel, mask=channel < channels, other=0.0).to(TYPE)
    centred = tl.where(here, values - centre[None, :], 0.0)
    inverse = tl.sqrt(channels / tl.sum(centred * centred, axis=1))
    tl.store(inverse_rms + row, inverse, mask=row < rows)
    scale = inverse * tl.exp(tl.load(log_scale).to(TYPE))
    tl.store(y + place, values * scale[:, None], mask=here)


@triton.jit(do_not_specialize=["rows"])
def gradient_kernel(
    x, bias, log_scale, inverse_rms, grad, x_grad, parts, rows, channels,
    TYPE: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """Each program takes every num_programs-th block of rows; parts is (num_programs, channels + 1)."""
    channel = tl.arange(0, BLOCK_CHANNELS)
    centre = tl.load(bias + channel, mask=channel < channels, other=0.0).to(TYPE)
    factor = tl.exp(tl.load(log_scale).to(TYPE))
    bias_part = tl.zeros((BLOCK_CHANNELS,), TYPE)
    scale_part = tl.zeros((BLOCK_ROWS,), TYPE)
    for block in range(tl.program_id(0), tl.cdiv(rows, BLOCK_ROWS), tl.num_programs(0)):
        row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        here = (row < rows)[:, None] & (channel < channels)[None, :]
        place = row.to(tl.int64)[:, None] * channels + channel[None, :]
        values = tl.load(x + place, mask=here, other=0.0).to(TYPE)
        grads = tl.load(grad + place, mask=here, other=0.0).to(TYPE)
        inverse = tl.load(inverse_rms + row, mask=row < rows, other=0.0)
        scale = inverse * factor
        by_scale = tl.sum(grads * values, axis=1) * scale
        coefficient = by_scale * inverse * inverse / channels
        pull = tl.where(here, (values - centre[None, :]) * coefficient[:, None], 0.0)
        tl.store(x_grad + place, grads * scale[:, None] - pull, mask=here)
        bias_part += tl.sum(pull, axis=0)
        scale_part += by_scale
    parts += tl.program_id(0).to(tl.int64) * (channels + 1)
    tl.store(parts + channel, bias_part, mask=channel < channels)
    tl.store(parts + channels, tl.sum(scale_part, axis=0))
