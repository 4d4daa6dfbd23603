"""Depthwise convolution over time of (N, T, C) tensors, fast on a CPU in both directions.

The kernels of PyTorch are fast in channels-last layout, forward and for the gradient of the input (a
convolution with the reversed kernel), but slow for the gradient of the weight, which is computed here by
matrix products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def _time_blocks(x: Tensor, size: int, spare: int) -> Tensor:
    """x (N, T, C) as (C, spare + N * B, size): ``spare`` blocks of zeros, then B blocks for each utterance.

    The last block of each utterance is zero, which is enough to separate it from the next utterance.
    """
    N, T, C = x.shape
    per_utterance = -(-T // size) + 1
    blocks = x.new_zeros(C, spare + N * per_utterance, size)
    blocks[:, spare:].view(C, N, per_utterance * size)[:, :, :T] = x.permute(2, 0, 1)
    return blocks


def depthwise_weight_grad(x: Tensor, grad: Tensor, kernel_size: int) -> Tensor:
    """Weight gradient of ``depthwise_conv1d``: out[c, k] = sum_t grad[t, c] * x[t + k - K//2, c].

    Time is divided into blocks of at least K//2 + 1 frames. The products of a block of ``grad`` with the
    block of x before it, at the same position and after it are three matrix products; the required sums are
    diagonals of the result. This is about 1.5 times as much work as needed, at several times the speed.

    Args:
        x: input of the convolution (N, T, C).
        grad: gradient of the output (N, T, C).
        kernel_size: width K of the kernel, odd.

    Returns:
        (C, K).
    """
    half = kernel_size // 2
    size = max(half + 1, 16)
    grads = _time_blocks(grad, size, spare=0).transpose(1, 2)  # (C, size, R)
    blocks = _time_blocks(x, size, spare=1)  # (C, 1 + R, size)
    before = torch.bmm(grads, blocks[:, :-1])
    same = torch.bmm(grads, blocks[:, 1:])
    after = torch.bmm(grads[:, :, :-1], blocks[:, 2:])
    products = torch.cat((before, same, after), dim=2)  # (C, size, 3 size)
    # Frame i of a block of grad times frame j of x, counted from the start of the same block, is at
    # [i, size + j]; the products that belong to k have j = i + k - half.
    diagonals = products.as_strided(
        (x.shape[2], size, kernel_size), (3 * size * size, 3 * size + 1, 1), size - half
    )
    return diagonals.sum(dim=1)


def _channels_last_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of x as images (N, C, 1, T) in channels-last layout, which needs no copy."""
    images = x.transpose(1, 2).unsqueeze(2)
    padding = (0, weight.shape[2] // 2)
    y = F.conv2d(images, weight.unsqueeze(2), bias, padding=padding, groups=x.shape[2])
    return y.squeeze(2).transpose(1, 2)


class _DepthwiseFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _channels_last_conv(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        weight_grad = depthwise_weight_grad(x, grad, weight.shape[2]).unsqueeze(1)
        return _channels_last_conv(grad, weight.flip(2), None), weight_grad, grad.sum(dim=(0, 1))


def depthwise_conv1d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Same-padded depthwise convolution over time.

    Args:
        x: (N, T, C).
        weight: (C, 1, K) with odd K.
        bias: (C,).

    Returns:
        (N, T, C).
    """
    if x.is_cuda:
        y = F.conv1d(x.transpose(1, 2), weight, bias, padding=weight.shape[2] // 2, groups=x.shape[2])
        return y.transpose(1, 2)
    return _DepthwiseFunction.apply(x.contiguous(), weight.to(x.dtype), bias.to(x.dtype))
