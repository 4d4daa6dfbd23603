"""Pruned RNN-T: a cheap loss over the full lattice, a band derived from it, and the exact loss in the band.

Kuang et al., "Pruned RNN-T for fast, memory-efficient ASR training" (Interspeech 2022),
https://arxiv.org/abs/2206.13236.

    loss, occupations = smoothed_rnnt_loss(am, lm, symbols, frame_lengths, symbol_lengths, lm_scale=0.25, ...)
    ranges = prune_ranges(*occupations, frame_lengths, symbol_lengths, prune_range=5)  # (N, T, R)
    logits = joiner(encoder_frames.unsqueeze(2), gather_band(predictor_rows, ranges))  # (N, T, R, V)
    pruned = pruned_rnnt_loss(logits, symbols, ranges, frame_lengths, symbol_lengths)

In training `zipformer.losses.pruned_joiner` replaces the last two lines: the same loss, without all logits in
memory.

Every loss is a negative log-probability, one number for each utterance. Gradients do not pass through the
recursion: they follow from the arc occupations that `zipformer.losses.lattice` computes with it. There are no
second derivatives.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from zipformer.errors import UserError
from zipformer.losses.backend import lattice_sums
from zipformer.losses.lattice import band_occupation

Occupations = tuple[Tensor, Tensor]


def smoothed_rnnt_loss(
    am: Tensor,
    lm: Tensor,
    symbols: Tensor,
    frame_lengths: Tensor,
    symbol_lengths: Tensor,
    *,
    blank: int = 0,
    lm_scale: float,
    am_scale: float,
    backend: str = "native",
) -> tuple[Tensor, Occupations]:
    """RNN-T loss of the trivial joiner ``am + lm``, smoothed with the predictor alone and the encoder alone.

    The score of every arc is (1 - lm_scale - am_scale) * log softmax(am + lm) + lm_scale * log softmax(lm) +
    am_scale * log softmax(am + log q), where q is softmax(lm) averaged over all rows of the batch. No tensor
    of size N x T x U x V is made: the normaliser of am + lm is a product of matrices.

    Args:
        am: scores from the encoder (N, T, V).
        lm: scores from the predictor (N, U+1, V).
        symbols: symbol ids, (N, U) int64; entries after the end of an utterance may have any value, even -1.
        frame_lengths: number of frames, (N,) int64, at least 1 (0 gives an infinite loss).
        symbol_lengths: number of symbols, (N,) int64.
        blank: id of the blank symbol.
        lm_scale: weight of the predictor alone; with larger values the predictor learns the order of symbols
            sooner.
        am_scale: weight of the encoder alone. If it is not 0, the loss depends on the padding, because q
            includes the padded rows.
        backend: implementation of the sums over the lattice, see `zipformer.losses.backend`.
    Returns:
        loss (N,) and, without gradient, the occupations: the probability that an alignment emits symbol u at
        frame t, (N, U, T+1) with zeros in the last frame, and that it goes on from frame t after u symbols,
        (N, U+1, T).
    Raises:
        ValueError: the shapes do not fit together, or the backend is not known.
    """
    check_shapes(symbols, frame_lengths, symbol_lengths, am.shape[0], lm.shape[1] - 1)
    if am.dim() != 3 or lm.dim() != 3 or am.shape[0] != lm.shape[0] or am.shape[2] != lm.shape[2]:
        raise ValueError(
            f"am is {tuple(am.shape)} and lm is {tuple(lm.shape)}; expected (N, T, V) and (N, U+1, V)"
        )
    with torch.autocast(am.device.type, enabled=False):
        loss, symbol_occupation, blank_occupation = _SmoothedLoss.apply(
            at_least_float32(am),
            at_least_float32(lm),
            symbols.clamp(min=0),
            frame_lengths,
            symbol_lengths,
            blank,
            lm_scale,
            am_scale,
            backend,
        )
    return loss, (F.pad(symbol_occupation, (0, 1)), blank_occupation)


def prune_ranges(
    symbol_occupation: Tensor,
    blank_occupation: Tensor,
    frame_lengths: Tensor,
    symbol_lengths: Tensor,
    prune_range: int,
) -> Tensor:
    """Choose the R consecutive symbol positions to keep at every frame.

    The score of a window that starts at position s is the probability that an alignment leaves frame t from
    inside the window, minus the probability that it emits symbol s - 1 there. The best windows are then moved
    so that the first starts at 0, the last includes position U, and each starts 0 to R - 1 positions after
    the previous one. For six symbols, seven frames, R = 3::

        [[0, 1, 2], [0, 1, 2], [1, 2, 3], [1, 2, 3], [3, 4, 5], [4, 5, 6], [4, 5, 6]]

    Args:
        symbol_occupation: occupations of label arcs (N, U, T+1), see `smoothed_rnnt_loss`.
        blank_occupation: occupations of blank arcs (N, U+1, T).
        frame_lengths: number of frames, (N,) int64.
        symbol_lengths: number of symbols, (N,) int64.
        prune_range: number R of positions, at least 2. Time and memory of the pruned loss grow with it; paths
            outside are ignored. It is lowered to U + 1, and raised if the T frames of the batch are too few
            for U symbols in steps of R - 1. (An utterance with far fewer frames than others in its batch, and
            more than R - 1 symbols per frame, has no path.)
    Returns:
        Kept positions, (N, T, R) int64.
        Raises:
            ValueError: prune_range is below 2, or the shapes of the occupations do not fit together.
    """
    N, U1, T = blank_occupation.shape
    U = U1 - 1
    if symbol_occupation.shape != (N, U, T + 1):
        raise ValueError(
            f"symbol_occupation is {tuple(symbol_occupation.shape)}; with blank_occupation {(N, U1, T)} "
            f"it must be {(N, U, T + 1)}"
        )
    if prune_range < 2:
        raise UserError(
            f"prune_range is {prune_range}; a band of fewer than 2 positions cannot emit a symbol"
        )
    R = min(max(prune_range, (U - 1) // T + 2), U + 1)
    device = blank_occupation.device
    frame = torch.arange(T, device=device)

    windows = U + 2 - R
    score = blank_occupation[:, :windows].clone()
    for k in range(1, R):
        score += blank_occupation[:, k : k + windows]
    score[:, 1:] -= symbol_occupation[:, : windows - 1, :T]
    starts = score.argmax(dim=1)  # (N, T)

    last_start = torch.clamp(symbol_lengths - R + 1, min=0).unsqueeze(1)
    starts = torch.where(frame < (frame_lengths - 1).unsqueeze(1), starts, last_start)
    starts = _lower_to_monotone(starts)
    # That starts rise by at most R - 1 a frame says that (R - 1) t - starts[t] does not fall. Clamped at 0,
    # it also has the first band start at 0.
    ceiling = (R - 1) * frame
    starts = ceiling - _lower_to_monotone(ceiling - starts).clamp(min=0)
    return starts.unsqueeze(2) + torch.arange(R, device=device)


def gather_band(rows: Tensor, ranges: Tensor) -> Tensor:
    """Rows of the predictor at the kept positions of each frame.

    Args:
        rows: (N, U+1, D).
        ranges: (N, T, R) int64 from `prune_ranges`.
    Returns:
        (N, T, R, D).
    """
    N, U1, D = rows.shape
    first_row = torch.arange(N, device=rows.device).view(N, 1, 1) * U1
    # An embedding look-up, because its backward pass sums repeated rows fastest.
    return F.embedding(ranges + first_row, rows.reshape(N * U1, D))


def scatter_band(band: Tensor, ranges: Tensor, positions: int) -> Tensor:
    """Sum over the band of the rows of each position: the backward pass of `gather_band`.

    Args:
        band: (N, T, R, D).
        ranges: (N, T, R) int64 from `prune_ranges`.
        positions: U + 1.
    Returns:
        (N, U+1, D).
    """
    N, _, _, D = band.shape
    first_row = torch.arange(N, device=band.device).view(N, 1, 1) * positions
    rows = band.new_zeros(N * positions, D, dtype=at_least_float32(band[:0]).dtype)
    rows.index_add_(0, (ranges + first_row).flatten(), band.flatten(0, 2).to(rows.dtype))
    return rows.view(N, positions, D).to(band.dtype)


def pruned_rnnt_loss(
    logits: Tensor,
    symbols: Tensor,
    ranges: Tensor,
    frame_lengths: Tensor,
    symbol_lengths: Tensor,
    *,
    blank: int = 0,
) -> Tensor:
    """RNN-T loss over the alignments inside the band.

    Args:
        logits: (N, T, R, V) unnormalised scores of the joiner at the positions in ranges.
        symbols: (N, U) int64; entries beyond an utterance's length may be anything, -1 too.
        ranges: (N, T, R) int64 from `prune_ranges`. With R = U + 1 this is the plain RNN-T loss.
        frame_lengths: (N,) int64, at least 1 (0 gives an infinite loss).
        symbol_lengths: (N,) int64.
        blank: id of the blank symbol.
    Returns:
        Loss (N,); infinite, with zero gradient, if the band has no alignment.
    Raises:
        ValueError: the shapes do not fit together.
    """
    check_shapes(symbols, frame_lengths, symbol_lengths, logits.shape[0], symbols.shape[1])
    if logits.dim() != 4 or logits.shape[:3] != ranges.shape:
        raise ValueError(
            f"logits are {tuple(logits.shape)} and ranges {tuple(ranges.shape)}; "
            "expected (N, T, R, V) and (N, T, R)"
        )
    if ranges.shape[2] > symbols.shape[1] + 1:
        raise ValueError(f"ranges keep {ranges.shape[2]} positions, symbols have only {symbols.shape[1] + 1}")
    loss: Tensor
    with torch.autocast(logits.device.type, enabled=False):
        loss = _PrunedLoss.apply(
            at_least_float32(logits), symbols.clamp(min=0), ranges, frame_lengths, symbol_lengths, blank
        )
    return loss


class _SmoothedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        am: Tensor,
        lm: Tensor,
        symbols: Tensor,
        frame_lengths: Tensor,
        symbol_lengths: Tensor,
        blank: int,
        lm_scale: float,
        am_scale: float,
        backend: str,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (N, T, _), U = am.shape, symbols.shape[1]
        am_probs, am_normaliser = _softmax(am)
        lm_probs, lm_normaliser = _softmax(lm)
        # Keeps logarithms finite if am and lm have no probable token in common, and their gradients in the
        # range of floats.
        tiny = 1e6 * torch.finfo(am.dtype).tiny
        joint = torch.bmm(lm_probs, am_probs.transpose(1, 2)).add_(tiny)  # (N, U+1, T)

        # Log-probabilities under am alone and lm alone; am + lm is their sum less log joint.
        frame_index = symbols.unsqueeze(1).expand(N, T, U)
        am_symbol = (am.gather(2, frame_index) - am_normaliser.unsqueeze(2)).transpose(1, 2)  # (N, U, T)
        am_blank = (am[:, :, blank] - am_normaliser).unsqueeze(1)  # (N, 1, T)
        lm_symbol = lm[:, :U].gather(2, symbols.unsqueeze(2)) - lm_normaliser[:, :U].unsqueeze(2)  # (N, U, 1)
        lm_blank = (lm[:, :, blank] - lm_normaliser).unsqueeze(2)  # (N, U+1, 1)

        log_joint = joint.log()
        both = 1.0 - lm_scale - am_scale
        symbol_score = (both + am_scale) * am_symbol + (both + lm_scale) * lm_symbol - both * log_joint[:, :U]
        blank_score = (both + am_scale) * am_blank + (both + lm_scale) * lm_blank - both * log_joint
        unigram = am_unigram = None
        if am_scale != 0.0:
            unigram = lm_probs.mean(dim=(0, 1)).add_(tiny)  # (V,)
            am_unigram = am_probs.matmul(unigram).unsqueeze(1)  # (N, 1, T)
            symbol_score += am_scale * (unigram.log()[symbols].unsqueeze(2) - am_unigram.log())
            blank_score += am_scale * (unigram[blank].log() - am_unigram.log())

        total, symbol_occupation, blank_occupation = lattice_sums(backend, am.device).full_occupation(
            symbol_score, blank_score, frame_lengths, symbol_lengths
        )
        symbol_occupation, blank_occupation = symbol_occupation.to(am.dtype), blank_occupation.to(am.dtype)
        ctx.save_for_backward(
            am_probs, lm_probs, joint, symbols, symbol_occupation, blank_occupation, unigram, am_unigram
        )
        ctx.blank, ctx.lm_scale, ctx.am_scale = blank, lm_scale, am_scale
        ctx.mark_non_differentiable(symbol_occupation, blank_occupation)
        return -total.to(am.dtype), symbol_occupation, blank_occupation

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        am_probs, lm_probs, joint, symbols, symbol_occupation, blank_occupation, unigram, am_unigram = (
            ctx.saved_tensors
        )
        blank, lm_scale, am_scale = ctx.blank, ctx.lm_scale, ctx.am_scale
        (N, T, _), U = am_probs.shape, symbols.shape[1]
        both = 1.0 - lm_scale - am_scale

        with torch.autocast(am_probs.device.type, enabled=False):
            # Gradients by the scores of label arcs, of blank arcs, and of both together, for the normalisers.
            scale = -loss_grad.view(N, 1, 1)
            by_symbol = symbol_occupation * scale  # (N, U, T)
            by_blank = blank_occupation * scale  # (N, U+1, T)
            by_arc = by_blank.clone()
            by_arc[:, :U] += by_symbol

            by_joint = by_arc * (-both) / joint
            am_grad = torch.bmm(by_joint.transpose(1, 2), lm_probs)
            lm_grad = torch.bmm(by_joint, am_probs)
            lm_grad.sub_(lm_scale * by_arc.sum(dim=2, keepdim=True))
            if am_scale != 0.0:
                by_unigram = am_scale * by_arc.sum(dim=1) / am_unigram.squeeze(1)  # (N, T)
                am_grad.sub_(by_unigram.unsqueeze(2) * unigram)
                unigram_grad = -torch.einsum("nt,ntv->v", by_unigram, am_probs)
                unigram_grad.index_add_(
                    0,
                    symbols.reshape(-1),
                    am_scale * by_symbol.sum(dim=2).view(-1) / unigram[symbols].view(-1),
                )
                unigram_grad[blank] += am_scale * by_blank.sum() / unigram[blank]
                unigram_grad /= N * (U + 1)
                lm_grad += unigram_grad - lm_probs.matmul(unigram_grad).unsqueeze(2)
            am_grad.mul_(am_probs)
            lm_grad.mul_(lm_probs)

            am_weight, lm_weight = both + am_scale, both + lm_scale
            am_grad.scatter_add_(
                2, symbols.unsqueeze(1).expand(N, T, U), am_weight * by_symbol.transpose(1, 2)
            )
            am_grad[:, :, blank] += am_weight * by_blank.sum(dim=1)
            lm_grad[:, :U].scatter_add_(
                2, symbols.unsqueeze(2), lm_weight * by_symbol.sum(dim=2, keepdim=True)
            )
            lm_grad[:, :, blank] += lm_weight * by_blank.sum(dim=2)
        return am_grad, lm_grad, None, None, None, None, None, None, None


class _PrunedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        symbols: Tensor,
        ranges: Tensor,
        frame_lengths: Tensor,
        symbol_lengths: Tensor,
        blank: int,
    ) -> Tensor:
        U = symbols.shape[1]
        probs, normaliser = _softmax(logits)
        emitted = emitted_symbols(symbols, ranges, blank).unsqueeze(3)
        symbol_score = logits.gather(3, emitted).squeeze(3) - normaliser
        blank_score = logits[:, :, :, blank] - normaliser
        total, symbol_occupation, blank_occupation = band_occupation(
            symbol_score, blank_score, ranges[:, :, 0], frame_lengths, symbol_lengths, U
        )
        # Probabilities are saved instead of logits: the gradient is a multiple of them, without a second exp.
        ctx.save_for_backward(
            probs, emitted, symbol_occupation.to(logits.dtype), blank_occupation.to(logits.dtype)
        )
        ctx.blank = blank
        return -total.to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_grad: Tensor) -> tuple[Tensor | None, ...]:
        probs, emitted, symbol_occupation, blank_occupation = ctx.saved_tensors
        scale = loss_grad.view(-1, 1, 1)
        by_symbol = symbol_occupation * scale  # (N, T, R)
        by_blank = blank_occupation * scale
        grad = probs * (by_symbol + by_blank).unsqueeze(3)
        grad.scatter_add_(3, emitted, -by_symbol.unsqueeze(3))
        grad[:, :, :, ctx.blank] -= by_blank
        return grad, None, None, None, None, None


def _softmax(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over the last axis and its log-normaliser, with one exp for each element.

    The normaliser is computed from the largest element, whose probability is at least 1/V, so its logarithm
    is accurate.
    """
    probs = scores.softmax(dim=-1)
    return probs, scores.amax(dim=-1) - probs.amax(dim=-1).log_()


def emitted_symbols(symbols: Tensor, ranges: Tensor, blank: int) -> Tensor:
    """Symbol that each kept position emits next, (N, T, R); blank after the last symbol."""
    return F.pad(symbols, (0, 1), value=blank).gather(1, ranges.flatten(1)).view(ranges.shape)


def _lower_to_monotone(x: Tensor) -> Tensor:
    """The largest non-decreasing sequence (along the last axis) that never exceeds x."""
    return x.flip(-1).cummin(dim=-1).values.flip(-1)


def at_least_float32(x: Tensor) -> Tensor:
    """x itself, or a half-precision x as float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def check_shapes(symbols: Tensor, frame_lengths: Tensor, symbol_lengths: Tensor, N: int, U: int) -> None:
    """Raise ValueError unless symbols are (N, U) and the lengths (N,)."""
    if symbols.shape != (N, U) or frame_lengths.shape != (N,) or symbol_lengths.shape != (N,):
        raise ValueError(
            f"symbols are {tuple(symbols.shape)}, frame_lengths {tuple(frame_lengths.shape)}, symbol_lengths "
            f"{tuple(symbol_lengths.shape)}; expected {(N, U)}, {(N,)}, {(N,)}"
        )
