"""Sums over the transducer lattice, computed by anti-diagonals.

A node is a pair (frame t, number u of symbols emitted so far). From it a *label* arc emits symbol u and leads
to (t, u+1), and a *blank* arc leads to (t+1, u). A path runs from (0, 0) to (T-1, U) and leaves through the
blank arc of this last node:

    alpha(0, 0) = 0
    alpha(t, u) = logadd(alpha(t, u-1) + label(t, u-1), alpha(t-1, u) + blank(t-1, u))
    log-probability = alpha(T-1, U) + blank(T-1, U)

All nodes with the same t + u depend only on nodes with t + u - 1, so the sums advance by whole
anti-diagonals, in T + U short steps. The node (t, u) sits in slot ``u mod C`` of its diagonal, where C is the
width of the lattice: U + 1 for the full lattice, R for a band that keeps R consecutive u of every frame. A
band whose lower edge never falls has at most R nodes on a diagonal, and they are neighbours in u, so no two
of them share a slot. In this layout a blank arc stays in its slot and a label arc moves one slot on,
cyclically in a band.

The sums from the end, beta, follow the same recursion when diagonals and slots are reversed, so they are
further columns of the same steps: a buffer of arcs is (D, 2, C, 2N), with index 0 of the second axis for
label arcs, stored in the slot where they arrive, and index 1 for blank arcs; columns 0..N-1 are the
utterances, columns N..2N-1 their reversals.

The arithmetic is in float64 whatever the input: the steps are so short that the wider type costs next to
nothing, and sums of hundreds of terms keep the accuracy of their input.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Occupation(NamedTuple):
    """Total log-probability of all alignments, and for each arc the probability that an alignment uses it.

    The occupations are the derivatives of the log-probability by the arc scores, in the layout of the scores.
    """

    log_probability: Tensor  # (N,)
    label: Tensor
    blank: Tensor


def full_occupation(
    label: Tensor, blank: Tensor, frame_lengths: Tensor, symbol_lengths: Tensor
) -> Occupation:
    """Sum over all alignments.

    Args:
        label: (N, U, T) log-probability of emitting symbol u at frame t.
        blank: (N, U+1, T) log-probability of going on to the next frame.
        frame_lengths: (N,) int64, at least 1 (0 gives -inf); scores of later frames have no influence.
        symbol_lengths: (N,) int64; scores of later symbols have no influence.
    Returns:
        log-probability (N,), occupations (N, U, T) and (N, U+1, T), all float64.
    """
    N, C, T = blank.shape
    arcs = blank.new_full((T + C - 1, 2, C, 2 * N), -math.inf, dtype=torch.float64)
    _rows(arcs[:, 0, 1:, :N], T).copy_(label)
    _rows(arcs[:, 1, :, :N], T).copy_(blank)
    # In reverse, blank arcs start from diagonal 0, where the last arc of the longest alignment leaves, and
    # label arcs from diagonal 1.
    _rows(arcs[1:, 0, 1:, N:], T).copy_(label.flip(1, 2))
    _rows(arcs[:, 1, :, N:], T).copy_(blank.flip(1, 2))

    last_frame = (frame_lengths - 1).clamp(min=0)
    exit_score = blank[torch.arange(N, device=blank.device), symbol_lengths, last_frame].double()
    exit_score = exit_score.masked_fill(frame_lengths < 1, -math.inf)
    total = _forward_backward(arcs, last_frame + symbol_lengths, symbol_lengths, exit_score, cyclic=False)
    return Occupation(total, _rows(arcs[:, 0, 1:, :N], T), _rows(arcs[:, 1, :, :N], T))


def band_occupation(
    label: Tensor,
    blank: Tensor,
    starts: Tensor,
    frame_lengths: Tensor,
    symbol_lengths: Tensor,
    max_symbols: int,
) -> Occupation:
    """Sum over the alignments inside a band: at frame t only the nodes with starts[t] <= u < starts[t] + R.

    Args:
        label: (N, T, R) log-probability of emitting symbol starts[t] + k at frame t.
        blank: (N, T, R) log-probability of going on to the next frame after starts[t] + k symbols.
        starts: (N, T) int64, non-decreasing along the frames, at most max_symbols + 1 - R.
        frame_lengths: (N,) int64, at least 1 (0 gives -inf).
        symbol_lengths: (N,) int64.
        max_symbols: U, the longest symbol sequence of the batch.
    Returns:
        log-probability (N,), occupations (N, T, R), all float64. Where the band holds no path from (0, 0) to
        the last node the log-probability is -inf and the occupations are zero.
    """
    N, T, R = blank.shape
    D = T + max_symbols
    device = blank.device
    batch = torch.arange(N, device=device)
    column = batch.view(N, 1, 1)
    symbol = starts.unsqueeze(2) + torch.arange(R, device=device)  # (N, T, R)
    diagonal = symbol + torch.arange(T, device=device).view(1, T, 1)
    slot = symbol % R

    # Emitting at the upper edge leaves the band and must not use the slot of the node that enters below. A
    # blank below the lower edge of the next frame leaves the band too, to a slot without outgoing arcs.
    label_scores = label.double().masked_fill(symbol == symbol[:, :, -1:], -math.inf)
    blank_scores = blank.double()

    arcs = blank_scores.new_full((D, 2, R, 2 * N), -math.inf)
    flat = arcs.view(-1)
    label_index = ((2 * diagonal * R + (slot + 1) % R) * 2 * N + column).view(-1)
    blank_index = (((2 * diagonal + 1) * R + slot) * 2 * N + column).view(-1)
    reverse_label_index = ((2 * (D - 1 - diagonal) * R + R - 1 - slot) * 2 * N + N + column).view(-1)
    for index, score in (
        (label_index, label_scores),
        (blank_index, blank_scores),
        (reverse_label_index, label_scores),
        (reverse_label_index + R * 2 * N, blank_scores),
    ):
        flat.scatter_(0, index, score.reshape(-1))

    last_frame = (frame_lengths - 1).clamp(min=0)
    place = symbol_lengths - starts[batch, last_frame]  # the exit node's place in the band of the last frame
    outside = (place < 0) | (place >= R) | (frame_lengths < 1)
    exit_score = blank_scores[batch, last_frame, place.clamp(0, R - 1)].masked_fill(outside, -math.inf)
    total = _forward_backward(
        arcs, last_frame + symbol_lengths, symbol_lengths % R, exit_score, cyclic=max_symbols >= R
    )
    return Occupation(total, flat[label_index].view(N, T, R), flat[blank_index].view(N, T, R))


def _rows(arcs: Tensor, T: int) -> Tensor:
    """View of one kind of a full lattice's arcs (D, C, N) as (N, C, T); (t, u) is on diagonal t + u."""
    by_diagonal, by_slot, by_utterance = arcs.stride()
    return arcs.as_strided(
        (arcs.shape[2], arcs.shape[1], T),
        (by_utterance, by_diagonal + by_slot, by_diagonal),
        arcs.storage_offset(),
    )


def _forward_backward(
    arcs: Tensor, exit_diagonal: Tensor, exit_slot: Tensor, exit_score: Tensor, *, cyclic: bool
) -> Tensor:
    """Replace the scores in columns 0..N-1 of the arcs by occupations; return the log-probabilities (N,).

    Args:
        arcs: scores of the arcs (D, 2, C, 2N), see the docstring of the module; overwritten.
        exit_diagonal, exit_slot: diagonal and slot of the last node of each utterance (N,).
        exit_score: score of the blank arc that leaves it (N,).
        cyclic: True if slot C - 1 is the left neighbour of slot 0; otherwise slot 0 has none.
    """
    D, _, C, columns = arcs.shape
    N = columns // 2
    device = arcs.device
    batch = torch.arange(N, device=device)
    step = torch.arange(D, device=device).unsqueeze(1)

    # After its exit arc an utterance stays in its slot, with score 0 and no other arcs: all end after D
    # steps.
    waits = step >= exit_diagonal  # (D, N)
    waiting = exit_score.expand(D, N).masked_fill(step > exit_diagonal, 0.0)
    both_waits = torch.cat([waits, waits.flip(0)], dim=1)
    both_waiting = torch.cat([waiting, waiting.flip(0)], dim=1)
    column = torch.arange(columns, device=device)
    into_exit = (step, 0, torch.cat([exit_slot, (C - exit_slot) % C]), column)
    at_exit = (step, 1, torch.cat([exit_slot, C - 1 - exit_slot]), column)
    arcs[into_exit] = arcs[into_exit].masked_fill(both_waits, -math.inf)
    arcs[at_exit] = torch.where(both_waits, both_waiting, arcs[at_exit])

    # Row 0 of the nodes of a diagonal is the left neighbour of slot 0. Overlapping windows of C rows then
    # give the left neighbours and the slots themselves as one tensor with the shape of the arcs of a
    # diagonal.
    nodes = arcs.new_full((D + 1, C + 1, columns), -math.inf)
    nodes[0, 1, :N] = 0.0
    nodes[0, C - exit_slot, batch + N] = 0.0
    if cyclic:
        nodes[0, 0] = nodes[0, C]
    sources = nodes.as_strided((D + 1, 2, C, columns), ((C + 1) * columns, columns, columns, 1)).unbind(0)
    targets = nodes[:, 1:].unbind(0)
    first, last = nodes[:, 0].unbind(0), nodes[:, C].unbind(0)
    labels, blanks = arcs[:, 0].unbind(0), arcs[:, 1].unbind(0)
    for d, diagonal in enumerate(arcs.unbind(0)):
        diagonal.add_(sources[d])
        torch.logaddexp(labels[d], blanks[d], out=targets[d + 1])
        if cyclic:
            first[d + 1].copy_(last[d + 1])

    total = nodes[D, exit_slot + 1, batch]
    # An arc's entry is now alpha of the node it leaves plus its score; beta of the node it reaches completes
    # the sum of the paths through it. Without any path all are -inf, and so must be their ratio to the total.
    beta = nodes[:-1, 1:, N:].flip(0, 1)
    beta.sub_(total.masked_fill(total == -math.inf, math.inf))
    occupation = arcs[:, :, :, :N].add_(beta.unsqueeze(1)).exp_()
    # Negligible, but in float32 they would be denormal numbers, which are very slow to multiply.
    torch.threshold_(occupation, 1e-30, 0.0)
    leaving = (step, 1, exit_slot, batch)
    arcs[leaving] = arcs[leaving].masked_fill(step > exit_diagonal, 0.0)
    return total
