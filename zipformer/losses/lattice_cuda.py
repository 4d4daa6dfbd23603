"""Sums over the transducer lattice on a CUDA device: the functions of `zipformer.losses.lattice` as kernels.

The first launch has a program for each utterance and direction. It walks the diagonals t + u = d, one slot
u mod C a lane, C the width of the lattice: a blank arc stays in its slot and a label arc moves one slot on
(see `zipformer.losses.lattice`, whose conventions hold here). With label(t, u) and blank(t, u) the scores of
the arcs that leave a node, and beta = 0 where the arc out of the last node (T-1, U) leads,

    alpha(t, u) = logadd(alpha(t, u-1) + label(t, u-1), alpha(t-1, u) + blank(t-1, u)),  alpha(0, 0) = 0
    beta(t, u)  = logadd(label(t, u) + beta(t, u+1),    blank(t, u) + beta(t+1, u))

Each lane stores its u. In a band, it replaces u by u + C (for beta, u - C) when u has left the band. The
lower edge of a band rises by at most one from a diagonal to the next. So on the diagonal where a lane
changes, its new node is not in the band yet and has no arcs there: nothing is lost.

The second launch computes the occupations, all nodes at once: exp(alpha + score + beta - total).

Additions are in float64: over thousands of diagonals sums become so large that in float32 their last bit
would be a thousandth. Exponentials and logarithms, whose results are small, are in float32, unless the scores
are float64. Nothing here waits for the device.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from zipformer.losses.lattice import Occupation

# Below any sum; subtracted instead of -inf.
LOWEST = tl.constexpr(-1e300)
# Smaller occupations count as zero, as in the plain version.
SMALLEST = tl.constexpr(1e-30)
WARP = 32
NODES_A_PROGRAM = 1024


def full_occupation(
    label: Tensor, blank: Tensor, frame_lengths: Tensor, symbol_lengths: Tensor
) -> Occupation:
    """Sum over all alignments.

    Args:
        label: (N, U, T) log-probability of emitting symbol u at frame t; any strides.
        blank: (N, U+1, T) log-probability of going on to the next frame; any strides.
        frame_lengths: (N,) integers, at least 1 (0 gives -inf); scores of later frames have no influence.
        symbol_lengths: (N,) integers; scores of later symbols have no influence.
    Returns:
        log-probability (N,) in float64, occupations (N, U, T) and (N, U+1, T) in float32 (float64 where the
        scores are).
    """
    return _occupation(label, blank, None, frame_lengths, symbol_lengths, label.shape[1])


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
        label: (N, T, R) log-probability of emitting symbol starts[t] + k at frame t; any strides.
        blank: (N, T, R) log-probability of going on to the next frame after starts[t] + k symbols.
        starts: (N, T) integers, non-decreasing along the frames, at most max_symbols + 1 - R; any strides.
        frame_lengths: (N,) integers, at least 1 (0 gives -inf).
        symbol_lengths: (N,) integers.
        max_symbols: U, the longest symbol sequence of the batch.
    Returns:
        log-probability (N,) in float64, occupations (N, T, R) in float32 (float64 where the scores are).
        Where the band holds no path from (0, 0) to the last node the log-probability is -inf and the
        occupations are zero.
    """
    occupation = _occupation(
        label.transpose(1, 2), blank.transpose(1, 2), starts, frame_lengths, symbol_lengths, max_symbols
    )
    return Occupation(
        occupation.log_probability, occupation.label.transpose(1, 2), occupation.blank.transpose(1, 2)
    )


def _occupation(
    label: Tensor,
    blank: Tensor,
    starts: Tensor | None,
    frame_lengths: Tensor,
    symbol_lengths: Tensor,
    max_symbols: int,
) -> Occupation:
    """Both launches; scores are (N, positions, T), where a position is u, or u - starts[t] in a band."""
    N, width, T = blank.shape
    diagonals = T + max_symbols
    dtype = torch.float64 if blank.dtype == torch.float64 else torch.float32
    sums = torch.empty(2, N, diagonals + 1, width, dtype=torch.float64, device=blank.device)
    total = torch.empty(N, dtype=torch.float64, device=blank.device)
    # Lanes that are adjacent in memory: frames of the full lattice, positions of a band.
    if starts is None:
        label_occupation, blank_occupation = (
            torch.empty(N, scores.shape[1], T, dtype=dtype, device=scores.device) for scores in (label, blank)
        )
    else:
        label_occupation, blank_occupation = (
            torch.empty(N, T, width, dtype=dtype, device=blank.device).transpose(1, 2) for _ in range(2)
        )
    if N == 0 or T == 0:
        return Occupation(total.fill_(-torch.inf), label_occupation, blank_occupation)

    starts_strides = (0, 0) if starts is None else starts.stride()
    inputs = (label, blank, starts, frame_lengths, symbol_lengths, sums, total)
    sizes = (width, diagonals + 1, *label.stride(), *blank.stride(), *starts_strides)
    exp_type = tl.float64 if dtype == torch.float64 else tl.float32
    lanes = max(WARP, triton.next_power_of_2(width))
    positions = min(WARP if starts is not None else 8, triton.next_power_of_2(width))
    frames = NODES_A_PROGRAM // positions
    with torch.cuda.device_of(blank):
        sums_kernel[(N, 2)](
            *inputs, *sizes, EXP=exp_type, LANES=lanes, num_warps=min(8, max(1, lanes // 128))
        )
        occupation_kernel[(N, triton.cdiv(T, frames), triton.cdiv(width, positions))](
            *inputs,
            label_occupation,
            blank_occupation,
            *sizes,
            T,
            *label_occupation.stride(),
            *blank_occupation.stride(),
            EXP=exp_type,
            FRAMES=frames,
            POSITIONS=positions,
        )
    return Occupation(total, label_occupation, blank_occupation)


# The sizes of batches vary. Only a stride of 1 is worth a separate compilation.
_SIZES = ["width", "rows", "label_n", "blank_n", "starts_n", "T", "label_out_n", "blank_out_n"]
_STRIDES = [
    *("label_position", "label_frame", "blank_position", "blank_frame", "starts_frame"),
    *("label_out_position", "label_out_frame", "blank_out_position", "blank_out_frame"),
]


@triton.jit(do_not_specialize=_SIZES[:5], do_not_specialize_on_alignment=_STRIDES[:5])
def sums_kernel(
    label, blank, starts, frame_lengths, symbol_lengths, sums, total, width, rows,
    label_n, label_position, label_frame, blank_n, blank_position, blank_frame, starts_n, starts_frame,
    EXP: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Program (n, 0): alpha of utterance n, and its total. Program (n, 1): beta.

    sums is (2, N, rows, width), a row for each diagonal and one for where the last arc leads.
    """
    n = tl.program_id(0).to(tl.int64)
    direction = tl.program_id(1)
    frames = tl.load(frame_lengths + n).to(tl.int32)
    symbols = tl.load(symbol_lengths + n).to(tl.int32)
    label += n * label_n
    blank += n * blank_n
    if starts is not None:
        starts += n * starts_n
    strides = (label_position, label_frame, blank_position, blank_frame, starts_frame)
    lattice = (label, blank, starts, frames, symbols, width, strides)
    sums += (direction * tl.num_programs(0) + n) * rows * width
    # Without a frame there is no node, and one step ends the loop.
    steps = tl.maximum(frames, 1) + symbols
    slot = tl.arange(0, LANES)
    exists = slot < width

    # The arcs of a diagonal are loaded while the one before it is summed.
    if direction == 0:
        left = (slot + width - 1) % width
        symbol = slot
        alpha = tl.where(slot == 0, 0.0, float("-inf")).to(tl.float64)
        label_score, blank_score, start, inside = _arcs(lattice, 0, symbol, exists)
        for diagonal in range(0, steps):
            symbol = tl.where(inside & (symbol < start), symbol + width, symbol)
            next_label, next_blank, start, inside = _arcs(lattice, diagonal + 1, symbol, exists)
            tl.store(sums + diagonal * width + slot, alpha, mask=exists)
            arriving = tl.gather(alpha + label_score, left, 0)
            alpha = _log_add(arriving, alpha + blank_score, EXP)
            label_score = next_label
            blank_score = next_blank
        # Only the node that the last arc leads to remains.
        tl.store(total + n, tl.max(alpha, axis=0))
    else:
        right = (slot + 1) % width
        last = symbols % width
        symbol = symbols - (last + width - slot) % width
        beta = tl.where(slot == last, 0.0, float("-inf")).to(tl.float64)
        tl.store(sums + steps * width + slot, beta, mask=exists)
        label_score, blank_score, start, inside = _arcs(lattice, steps - 1, symbol, exists)
        for step in range(0, steps):
            diagonal = steps - 1 - step
            symbol = tl.where(inside & (symbol >= start + width), symbol - width, symbol)
            next_label, next_blank, start, inside = _arcs(lattice, diagonal - 1, symbol, exists)
            beta = _log_add(label_score + tl.gather(beta, right, 0), blank_score + beta, EXP)
            tl.store(sums + diagonal * width + slot, beta, mask=exists)
            label_score = next_label
            blank_score = next_blank


@triton.jit
def _arcs(lattice, diagonal, symbol, exists):
    """Scores of the arcs that leave the nodes of a diagonal, -inf for lanes without such an arc.

    Returns:
        label scores, blank scores, start of the band at each lane's frame, whether the lane has a frame.
    """
    label, blank, starts, frames, symbols, width, strides = lattice
    label_position, label_frame, blank_position, blank_frame, starts_frame = strides
    frame = diagonal - symbol
    inside = exists & (frame >= 0) & (frame < frames) & (symbol >= 0) & (symbol <= symbols)
    start = tl.zeros_like(symbol)
    if starts is not None:
        start = tl.load(starts + frame * starts_frame, mask=inside, other=0).to(tl.int32)
    position = symbol - start
    has_blank = inside & (position >= 0) & (position < width)
    # A label from the upper edge of the band leaves it.
    has_label = has_blank & (symbol < symbols) & (position < width - 1)
    label_score = tl.load(
        label + position * label_position + frame * label_frame, mask=has_label, other=float("-inf")
    )
    blank_score = tl.load(
        blank + position * blank_position + frame * blank_frame, mask=has_blank, other=float("-inf")
    )
    return label_score.to(tl.float64), blank_score.to(tl.float64), start, inside


@triton.jit
def _log_add(x, y, EXP: tl.constexpr):
    """log(exp(x) + exp(y)) of float64; only the small difference from the larger one is in type EXP."""
    high = tl.maximum(x, y)
    gap = (tl.minimum(x, y) - tl.maximum(high, LOWEST)).to(EXP)
    return high + tl.log(1.0 + tl.exp(gap)).to(tl.float64)


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=_STRIDES)
def occupation_kernel(
    label, blank, starts, frame_lengths, symbol_lengths, sums, total, label_out, blank_out, width, rows,
    label_n, label_position, label_frame, blank_n, blank_position, blank_frame, starts_n, starts_frame,
    T, label_out_n, label_out_position, label_out_frame, blank_out_n, blank_out_position, blank_out_frame,
    EXP: tl.constexpr, FRAMES: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    """Program (n, i, j): utterance n, the i-th FRAMES frames and the j-th POSITIONS positions."""
    n = tl.program_id(0).to(tl.int64)
    frame = (tl.program_id(1) * FRAMES + tl.arange(0, FRAMES))[None, :]
    position = (tl.program_id(2) * POSITIONS + tl.arange(0, POSITIONS))[:, None]
    frames = tl.load(frame_lengths + n).to(tl.int32)
    symbols = tl.load(symbol_lengths + n).to(tl.int32)
    start = tl.zeros_like(frame)
    if starts is not None:
        starts += n * starts_n
        start = tl.load(starts + frame * starts_frame, mask=frame < frames, other=0).to(tl.int32)
    symbol = start + position  # (POSITIONS, FRAMES)
    has_blank = (frame < frames) & (position < width) & (symbol <= symbols)
    has_label = has_blank & (symbol < symbols) & (position < width - 1)

    slot = symbol % width
    diagonal = frame + symbol
    alphas = sums + n * rows * width
    betas = alphas + tl.num_programs(0) * rows.to(tl.int64) * width + (diagonal + 1) * width
    total_here = tl.load(total + n)
    # Without any path all are -inf, and so must be their ratio to the total.
    total_here = tl.where(total_here > float("-inf"), total_here, float("inf"))
    alpha = tl.load(alphas + diagonal * width + slot, mask=has_blank, other=float("-inf")) - total_here

    label += n * label_n + position * label_position + frame * label_frame
    blank += n * blank_n + position * blank_position + frame * blank_frame
    label_score = tl.load(label, mask=has_label, other=float("-inf")).to(tl.float64)
    blank_score = tl.load(blank, mask=has_blank, other=float("-inf")).to(tl.float64)
    after_label = tl.load(betas + (slot + 1) % width, mask=has_label, other=float("-inf"))
    after_blank = tl.load(betas + slot, mask=has_blank, other=float("-inf"))
    by_label = tl.exp((alpha + label_score + after_label).to(EXP))
    by_blank = tl.exp((alpha + blank_score + after_blank).to(EXP))

    label_out += n * label_out_n + position * label_out_position + frame * label_out_frame
    blank_out += n * blank_out_n + position * blank_out_position + frame * blank_out_frame
    # The full lattice has one row fewer for labels than for blanks; a band has as many, the last with zeros.
    label_positions = width
    if starts is None:
        label_positions = width - 1
    tl.store(
        label_out,
        tl.where(by_label > SMALLEST, by_label, 0.0),
        mask=(frame < T) & (position < label_positions),
    )
    tl.store(blank_out, tl.where(by_blank > SMALLEST, by_blank, 0.0), mask=(frame < T) & (position < width))
