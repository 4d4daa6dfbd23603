"""Attention with relative positions (Yao et al. 2023, "Zipformer", sections 2.2 and 2.3).

The weights are computed once for each layer and used three times: twice on projected values and once, head 0
only, in the nonlinear attention. They are stored as (H, N, T, T), heads first: then one head of all
utterances is one contiguous block, and so is the batch of matrices for a product.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zipformer.errors import UserError
from zipformer.layers.linear import scaled_linear
from zipformer.layers.regularizers import Balancer, Whiten, excess_sign
from zipformer.layers.schedule import Clock, Schedule, current

# Score of a masked position. Finite, so that a frame whose sources are all masked (in the padding) gets
# uniform weights instead of NaN.
MASKED_SCORE = -1000.0
# Scores beyond this get a small penalty: softmax is almost one-hot there and would stop learning.
SCORE_LIMIT = 25.0
SCORE_PENALTY = 1.0e-4


def relative_positions(
    dim: int, num_frames: int, left_context: int = 0, device: torch.device | None = None
) -> Tensor:
    """Fourier features of all offsets source - target, compressed so that distant offsets are similar.

    With c = sqrt(dim) an offset o becomes the angle
        a = atan(c * sign(o) * (ln(|o| + c) - ln c) / (dim / 2 pi)),
    and the features are cos(a), sin(a), cos(2a), sin(2a), ... with the last one replaced by the constant 1.

    Args:
        dim: number of features, even.
        num_frames: number T of targets, which are the last T sources.
        left_context: number of sources before the first target.

    Returns:
        (left_context + 2 T - 1, dim) float32, for offsets -(left_context + T - 1) to T - 1.
    """
    offsets = torch.arange(-(left_context + num_frames - 1), num_frames, device=device, dtype=torch.float32)
    c = math.sqrt(dim)
    compressed = c * offsets.sign() * ((offsets.abs() + c).log() - math.log(c))
    angles = torch.atan(compressed / (dim / (2.0 * math.pi)))
    multiples = angles[:, None] * torch.arange(1, dim // 2 + 1, device=device)  # (offsets, dim / 2)
    table = torch.stack((multiples.cos(), multiples.sin()), dim=2).flatten(1)  # (offsets, dim)
    table[:, -1] = 1.0
    return table


class RelPositionEncoding(nn.Module):
    """Table of relative positions for a stack of layers, with dropout.

    Args:
        dim: number of features, even.
        dropout: rate while training.
    """

    def __init__(self, dim: int, *, dropout: float = 0.15) -> None:
        super().__init__()
        if dim % 2:
            raise UserError(f"the number of position features must be even, got {dim}")
        self.dim = dim
        self.dropout = dropout

    def forward(self, num_frames: int, device: torch.device, left_context: int = 0) -> Tensor:
        """Position table (1, left_context + 2 num_frames - 1, dim), see ``relative_positions``."""
        table = relative_positions(self.dim, num_frames, left_context, device)
        return F.dropout(table, self.dropout, self.training)[None]


def _offset_to_source(scores: Tensor) -> Tensor:
    """View scores (B, T, 2T - 1) by offset as (B, T, T) by source: out[b, i, j] = in[b, i, T - 1 - i + j].

    From one row to the next the window moves one column to the left, so a smaller row stride gives the view
    without a copy.
    """
    batch, frames, _ = scores.shape
    batch_stride, row_stride, _ = scores.stride()
    first = scores.storage_offset() + frames - 1
    return scores.as_strided((batch, frames, frames), (batch_stride, row_stride - 1, 1), first)


class _AttentionWeightsFunction(torch.autograd.Function):
    """softmax(q k^T + by_source(p e)) with masking, which saves the weights and no other (T, T) tensor.

    q, k (H N, T, d); p (H, N T, d_p) and e (H, d_p, 2T - 1), used only with ``use_positions``; mask
    broadcasts with (H, N, T, T). The result is (H, N, T, T).
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        p: Tensor,
        e: Tensor,
        mask: Tensor | None,
        use_positions: bool,
        penalise: bool,
    ) -> Tensor:
        frames = q.shape[1]
        if use_positions:
            by_offset = torch.bmm(p, e).view(-1, frames, 2 * frames - 1)  # (H N, T, 2T - 1)
            scores = torch.baddbmm(_offset_to_source(by_offset), q, k.transpose(1, 2))
        else:
            scores = torch.bmm(q, k.transpose(1, 2))
        scores = scores.view(e.shape[0], -1, frames, frames)  # (H, N, T, T)
        excess = excess_sign(scores, SCORE_LIMIT) if penalise else None
        if mask is not None:
            scores.masked_fill_(mask, MASKED_SCORE)
        wide = torch.promote_types(q.dtype, torch.float32)
        weights = torch.softmax(scores, dim=-1, dtype=wide).to(q.dtype)
        ctx.save_for_backward(q, k, p, e, mask, excess, weights)
        ctx.use_positions = use_positions
        return weights

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, p, e, mask, excess, weights = ctx.saved_tensors
        frames = q.shape[1]
        grad = torch._softmax_backward_data(grads[0], weights, -1, weights.dtype)  # (H, N, T, T)
        if mask is not None and mask.shape[-2] > 1:
            # Masked positions have a weight, and so a gradient, only in rows that are masked completely. A
            # mask of padding alone leaves at least one source in every row.
            grad.masked_fill_(mask, 0.0)
        if excess is not None:
            grad.add_(excess, alpha=SCORE_PENALTY)
        grad = grad.view(-1, frames, frames)  # (H N, T, T)
        q_grad = torch.bmm(grad, k)
        k_grad = torch.bmm(grad.transpose(1, 2), q)
        if not ctx.use_positions:
            # Zero, not None: training in several processes waits for a gradient of every parameter.
            return q_grad, k_grad, None, torch.zeros_like(e), None, None, None
        by_offset = grad.new_zeros(grad.shape[0], frames, 2 * frames - 1)
        _offset_to_source(by_offset).copy_(grad)
        by_offset = by_offset.view(p.shape[0], -1, 2 * frames - 1)  # (H, N T, 2T - 1)
        p_grad = torch.bmm(by_offset, e.transpose(1, 2))
        e_grad = torch.bmm(p.transpose(1, 2), by_offset)
        return q_grad, k_grad, p_grad, e_grad, None, None, None


def _split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(N, T, H * d) -> (H * N, T, d), contiguous."""
    N, T, _ = x.shape
    return x.view(N, T, num_heads, -1).permute(2, 0, 1, 3).reshape(num_heads * N, T, -1)


class RelPositionAttentionWeights(nn.Module):
    """Multi-head attention weights from queries, keys and relative positions, without 1 / sqrt(d).

    Args:
        dim: channels of the input.
        clock: the model's clock.
        pos_dim: features of the position table.
        num_heads: number H of heads.
        query_head_dim: size of queries and keys, per head.
        pos_head_dim: size of the queries for the positions, per head.
    """

    def __init__(
        self,
        dim: int,
        *,
        clock: Clock,
        pos_dim: int,
        num_heads: int,
        query_head_dim: int,
        pos_head_dim: int,
    ) -> None:
        super().__init__()
        self.clock = clock
        self.num_heads = num_heads
        query_dim, pos_query_dim = num_heads * query_head_dim, num_heads * pos_head_dim
        self.sizes = (query_dim, query_dim, pos_query_dim)
        # The initial scale replaces the 1 / sqrt(d) of the usual attention, shared by queries and keys.
        self.in_proj = scaled_linear(dim, sum(self.sizes), initial_scale=query_head_dim**-0.25)
        self.linear_pos = scaled_linear(pos_dim, pos_query_dim, bias=False, initial_scale=0.05)
        self.balance_keys = Balancer(
            query_dim, clock=clock, min_positive=0.4, max_positive=0.6, min_abs=0.0, max_abs=100.0, prob=0.025
        )
        self.whiten_keys = Whiten(
            num_heads,
            clock=clock,
            limit=Schedule(clock, (0.0, 3.0), (20000.0, 6.0), default=3.0),
            grad_scale=0.025,
        )
        self.pos_skip_rate = Schedule(clock, (0.0, 0.5), (4000.0, 0.0))

    def forward(
        self, x: Tensor, pos_emb: Tensor, padding_mask: Tensor | None = None, attn_mask: Tensor | None = None
    ) -> Tensor:
        """Attention weights of the sources (last axis) for every target.

        Args:
            x: input (N, T, C).
            pos_emb: position table (1, 2T - 1, pos_dim).
            padding_mask: bool (N, T), True where a source is padding.
            attn_mask: bool (T, T) or (N, T, T) as [target, source], True where attention is not allowed.

        Returns:
            (H, N, T, T), rows sum to 1.
        """
        N, T, _ = x.shape
        q, k, p = self.in_proj(x).split(self.sizes, dim=2)
        k = self.whiten_keys(self.balance_keys(k))
        q, k = _split_heads(q, self.num_heads), _split_heads(k, self.num_heads)
        p = _split_heads(p, self.num_heads).view(self.num_heads, N * T, -1)
        e = self.linear_pos(pos_emb[0]).view(2 * T - 1, self.num_heads, -1).permute(1, 2, 0).contiguous()
        use_positions = not (self.training and self.clock.chance(current(self.pos_skip_rate)))
        mask = None if padding_mask is None else padding_mask[:, None]  # (N, 1, T)
        if attn_mask is not None:
            mask = attn_mask if mask is None else attn_mask | mask
        penalise = self.training and self.clock.chance(0.1)
        return _AttentionWeightsFunction.apply(q, k, p, e.to(q.dtype), mask, use_positions, penalise)


def uniform_attention(weights: Tensor) -> Tensor:
    """Replace attention weights (..., T, T) by equal weights over the sources that are not masked."""
    allowed = (weights > 0.0).to(weights.dtype)
    return allowed / allowed.sum(dim=-1, keepdim=True)


class SelfAttention(nn.Module):
    """Weighted sums of projected values, with weights computed elsewhere.

    Args:
        dim: channels of input and output.
        clock: the model's clock.
        num_heads: number H of heads.
        value_head_dim: size of values, per head.
    """

    def __init__(self, dim: int, *, clock: Clock, num_heads: int, value_head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj = nn.Linear(dim, num_heads * value_head_dim)
        self.out_proj = scaled_linear(num_heads * value_head_dim, dim, initial_scale=0.05)
        self.whiten = Whiten(1, clock=clock, limit=Schedule(clock, (0.0, 7.5), (20000.0, 22.5), default=7.5))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """x (N, T, C), weights (H, N, T, T) -> (N, T, C)."""
        N, T, _ = x.shape
        values = _split_heads(self.in_proj(x), self.num_heads)  # (H N, T, d)
        sums = torch.bmm(weights.flatten(0, 1), values).view(self.num_heads, N, T, -1)
        return self.whiten(self.out_proj(sums.permute(1, 2, 0, 3).reshape(N, T, -1)))


class NonlinAttention(nn.Module):
    """A gated convolution module with attention weights instead of the convolution.

    Args:
        dim: channels of input and output.
        clock: the model's clock.
        hidden_dim: hidden channels; None: 3/4 of ``dim``.
    """

    def __init__(self, dim: int, *, clock: Clock, hidden_dim: int | None = None) -> None:
        super().__init__()
        hidden_dim = 3 * dim // 4 if hidden_dim is None else hidden_dim
        self.in_proj = nn.Linear(dim, 3 * hidden_dim)
        self.balancer = Balancer(
            hidden_dim,
            clock=clock,
            min_positive=Schedule(clock, (0.0, 0.25), (20000.0, 0.05)),
            max_positive=Schedule(clock, (0.0, 0.75), (20000.0, 0.95)),
            min_abs=0.5,
            max_abs=5.0,
        )
        self.out_proj = scaled_linear(hidden_dim, dim, initial_scale=0.05)
        self.whiten1 = Whiten(1, clock=clock, limit=Schedule(clock, (0.0, 5.0), (20000.0, 10.0), default=5.0))
        self.whiten2 = Whiten(1, clock=clock, limit=Schedule(clock, (0.0, 5.0), (20000.0, 15.0), default=5.0))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """x (N, T, C), weights (1, N, T, T) of one head -> (N, T, C)."""
        gate, values, output_gate = self.in_proj(x).chunk(3, dim=2)
        values = self.whiten1(values) * torch.tanh(self.balancer(gate))
        return self.whiten2(self.out_proj(torch.bmm(weights[0], values) * output_gate))
