"""Convolution module (Yao et al. 2023, "Zipformer", section 2.2) and its depthwise convolutions over time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zipformer.errors import UserError
from zipformer.layers.depthwise import depthwise_conv1d
from zipformer.layers.linear import ActivationDropoutAndLinear
from zipformer.layers.regularizers import Balancer, Whiten
from zipformer.layers.schedule import Clock, Schedule


class DepthwiseConv1d(nn.Conv1d):
    """Depthwise convolution over time of (N, T, C), same padding; parameters as of ``nn.Conv1d``.

    Args:
        channels: number C of channels.
        kernel_size: width of the kernel, odd.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__(channels, channels, kernel_size, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, C) -> (N, T, C)."""
        assert self.bias is not None
        return depthwise_conv1d(x, self.weight, self.bias)


class ChunkCausalDepthwiseConv1d(nn.Module):
    """Depthwise convolution over the past, and over the future up to the end of the chunk of the frame.

    It is the sum of a causal convolution of half the width and a convolution of full width inside each chunk,
    with zeros beyond the edges. The latter is multiplied by 1 + scales that depend on the distance to the
    edges of the chunk, near which it sees few frames.

    Args:
        channels: number C of channels.
        kernel_size: width K of the kernel, odd.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.causal_conv = nn.Conv1d(channels, channels, (kernel_size + 1) // 2, groups=channels)
        self.chunkwise_conv = DepthwiseConv1d(channels, kernel_size)
        # [0] is for frames counted from the left edge of the chunk, [1] for frames up to the right edge.
        self.chunkwise_conv_scale = nn.Parameter(torch.zeros(2, channels, kernel_size))
        assert self.causal_conv.bias is not None
        nn.init.uniform_(self.causal_conv.bias, -0.1, 0.1)

    def forward(self, x: Tensor, chunk_size: int = -1) -> Tensor:
        """x (N, T, C) -> (N, T, C); ``chunk_size`` is in frames, -1: x is one chunk."""
        N, T, C = x.shape
        if chunk_size < 0 or chunk_size > T:
            chunk_size = T
        assert self.causal_conv.bias is not None
        # The causal kernel is the left half of a same-padded kernel; the right half is zero.
        causal_kernel = F.pad(self.causal_conv.weight, (0, self.kernel_size // 2))
        causal = depthwise_conv1d(x, causal_kernel, self.causal_conv.bias)
        chunks = F.pad(x, (0, 0, 0, -T % chunk_size)).view(-1, chunk_size, C)
        within = self.chunkwise_conv(chunks) * self._edge_scale(chunk_size).to(x.dtype)
        return causal + within.reshape(N, -1, C)[:, :T]

    def _edge_scale(self, chunk_size: int) -> Tensor:
        """Factors for the frames of a chunk, (chunk_size, C)."""
        left, right = self.chunkwise_conv_scale.transpose(1, 2)  # (K, C) each
        missing = chunk_size - self.kernel_size  # negative padding crops
        return 1.0 + F.pad(left, (0, 0, 0, missing)) + F.pad(right, (0, 0, missing, 0))


class ConvolutionModule(nn.Module):
    """Gated linear unit, depthwise convolution over time, SwooshR, linear.

    Args:
        dim: channels of input and output.
        kernel_size: width of the depthwise convolution in frames, odd.
        clock: the model's clock.
        causal: use ``ChunkCausalDepthwiseConv1d``.
    """

    def __init__(self, dim: int, kernel_size: int, *, clock: Clock, causal: bool = False) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise UserError(f"the kernel of the convolution module must have odd size, got {kernel_size}")
        self.causal = causal
        self.in_proj = nn.Linear(dim, 2 * dim)
        self.balancer1 = Balancer(
            dim,
            clock=clock,
            min_positive=Schedule(clock, (0.0, 0.05), (8000.0, 0.025)),
            max_positive=1.0,
            min_abs=1.5,
            max_abs=Schedule(clock, (0.0, 5.0), (8000.0, 10.0), default=1.0),
        )
        self.depthwise_conv: DepthwiseConv1d | ChunkCausalDepthwiseConv1d
        if causal:
            self.depthwise_conv = ChunkCausalDepthwiseConv1d(dim, kernel_size)
        else:
            self.depthwise_conv = DepthwiseConv1d(dim, kernel_size)
        self.balancer2 = Balancer(
            dim,
            clock=clock,
            min_positive=Schedule(clock, (0.0, 0.1), (8000.0, 0.05)),
            max_positive=1.0,
            min_abs=Schedule(clock, (0.0, 0.2), (20000.0, 0.5)),
            max_abs=10.0,
        )
        self.whiten = Whiten(1, clock=clock, limit=Schedule(clock, (0.0, 7.5), (20000.0, 15.0), default=7.5))
        self.out_proj = ActivationDropoutAndLinear(dim, dim, activation="swoosh_r", initial_scale=0.05)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None, chunk_size: int = -1) -> Tensor:
        """Convolve over time.

        Args:
            x: input (N, T, C).
            padding_mask: bool (N, T), True where a frame is padding; padding does not affect other frames.
            chunk_size: frames of a chunk, for a causal module; -1: one chunk.

        Returns:
            (N, T, C).

        Raises:
            UserError: a chunk size is given and the module is not causal.
        """
        values, gate = self.in_proj(x).chunk(2, dim=2)
        x = values * torch.sigmoid(self.balancer1(gate))
        if padding_mask is not None:
            # Multiplying is several times as fast as filling.
            x = x * padding_mask.logical_not().unsqueeze(2).to(x.dtype)
        if isinstance(self.depthwise_conv, ChunkCausalDepthwiseConv1d):
            x = self.depthwise_conv(x, chunk_size)
        elif chunk_size >= 0:
            raise UserError(f"chunk_size {chunk_size} needs a model with causal=True")
        else:
            x = self.depthwise_conv(x)
        return self.out_proj(self.whiten(self.balancer2(x)))
