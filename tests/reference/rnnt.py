"""RNN-T losses by their definitions, in float64 and without any cleverness."""

import itertools
import math

import torch
from torch import Tensor

IMPOSSIBLE = 1e6


def path_sum(label: Tensor, blank: Tensor) -> Tensor:
    """Log of the summed probability of all alignments, each written out as its sequence of arcs.

    Args:
        label: (U, T) score of emitting symbol u at frame t; blank: (U+1, T) of going on to the next frame.
    """
    U, T = label.shape
    scores = []
    # An alignment is known by the frames at which the symbols are emitted, in order.
    for frames in itertools.combinations_with_replacement(range(T), U):
        score = torch.zeros((), dtype=torch.float64)
        for u, t in enumerate(frames):
            score = score + label[u, t]
        for t in range(T):
            score = score + blank[sum(frame <= t for frame in frames), t]
        scores.append(score)
    return torch.stack(scores).logsumexp(0)


def lattice_sum(label: Tensor, blank: Tensor) -> Tensor:
    """The same by the recursion over nodes, differentiable."""
    U, T = label.shape
    alpha: dict[tuple[int, int], Tensor] = {}
    for t, u in itertools.product(range(T), range(U + 1)):
        arriving = [torch.zeros((), dtype=torch.float64)] if t == u == 0 else []
        if t > 0:
            arriving.append(alpha[t - 1, u] + blank[u, t - 1])
        if u > 0:
            arriving.append(alpha[t, u - 1] + label[u - 1, t])
        alpha[t, u] = torch.logsumexp(torch.stack(arriving), 0)
    return alpha[T - 1, U] + blank[U, T - 1]


def smoothed_loss(
    am: Tensor,
    lm: Tensor,
    symbols: Tensor,
    frame_lengths: Tensor,
    symbol_lengths: Tensor,
    *,
    blank: int,
    lm_scale: float,
    am_scale: float,
) -> Tensor:
    """Interpolated log-probabilities of every (frame, position, token), then the recursion; loss (N,)."""
    unigram = lm.softmax(-1).mean(dim=(0, 1)).log()
    both = (am.unsqueeze(2) + lm.unsqueeze(1)).log_softmax(-1)  # (N, T, U+1, V)
    lm_only = lm.log_softmax(-1).unsqueeze(1)
    am_only = (am + unigram).log_softmax(-1).unsqueeze(2)
    log_probs = (1 - lm_scale - am_scale) * both + lm_scale * lm_only + am_scale * am_only
    return full_loss(log_probs, symbols, frame_lengths, symbol_lengths, blank=blank)


def full_loss(
    log_probs: Tensor, symbols: Tensor, frame_lengths: Tensor, symbol_lengths: Tensor, *, blank: int
) -> Tensor:
    """Loss (N,) of token scores (N, T, U+1, V) that are taken as they are."""
    losses = []
    for n, (T, U) in enumerate(zip(frame_lengths.tolist(), symbol_lengths.tolist(), strict=True)):
        label = torch.stack([log_probs[n, :T, u, symbols[n, u]] for u in range(U)] or [torch.zeros(0, T)])
        label = label.reshape(U, T).double()
        losses.append(-lattice_sum(label, log_probs[n, :T, : U + 1, blank].T.double()))
    return torch.stack(losses)


def pruned_loss(
    logits: Tensor,
    symbols: Tensor,
    ranges: Tensor,
    frame_lengths: Tensor,
    symbol_lengths: Tensor,
    *,
    blank: int,
) -> Tensor:
    """Banded logits (N, T, R, V) put into the full lattice, everything outside impossible; loss (N,).

    Impossible is a score so low that its paths vanish; -inf would make gradients undefined.
    """
    N, T, R, V = logits.shape
    log_probs = torch.full((N, T, symbols.shape[1] + 1, V), -IMPOSSIBLE, dtype=logits.dtype)
    index = ranges.unsqueeze(3).expand(N, T, R, V)
    log_probs = log_probs.scatter(2, index, logits.log_softmax(-1))
    loss = full_loss(log_probs, symbols, frame_lengths, symbol_lengths, blank=blank)
    return torch.where(loss < IMPOSSIBLE, loss, math.inf)


def ranges_by_search(
    symbol_occupation: Tensor,
    blank_occupation: Tensor,
    frame_lengths: Tensor,
    symbol_lengths: Tensor,
    R: int,
) -> Tensor:
    """The rule for the kept positions, one frame after the other."""
    N, U1, T = blank_occupation.shape
    starts = torch.zeros(N, T, dtype=torch.int64)
    for n in range(N):
        best = []
        for t in range(T):
            if t >= frame_lengths[n] - 1:
                best.append(max(0, int(symbol_lengths[n]) - R + 1))
                continue
            scores = []
            for s in range(U1 - R + 1):
                arriving = float(symbol_occupation[n, s - 1, t]) if s > 0 else 0.0
                scores.append(float(blank_occupation[n, s : s + R, t].sum()) - arriving)
            best.append(scores.index(max(scores)))
        for t in range(T - 2, -1, -1):
            best[t] = min(best[t], best[t + 1])
        # Read backwards, no start may lie more than R - 1 below its successor, nor below what frame 0 allows.
        for t in range(T - 2, -1, -1):
            best[t] = max(best[t], best[t + 1] - (R - 1))
        for t in range(T):
            best[t] = min(best[t], (R - 1) * t)
        starts[n] = torch.tensor(best)
    return starts.unsqueeze(2) + torch.arange(R)
