"""P and R of SeqSim for all pairs of utterances on a CUDA device, in one kernel.

Contract: :func:`packed_precision_and_recall` takes the frames of many utterances one after the other, with
their lengths, and returns P and R (eq. 1 and 2 of `retrieval.similarity.seqsim`) of every pair. Cosines are
products of float16 (or bfloat16) unit vectors, summed in float32; they are never stored in memory, not even
for one pair. The caller has checked that the lengths are at least 1 and the frames finite, and that Triton is
installed.

Utterances are sorted by length and grouped G at a time, and their frames are interleaved: row i G + g of a
group is frame i of its g-th utterance. A tile of cosines has 128 rows of a group of x (8 utterances) and 128
columns of a group of y (16 utterances). The kernel needs its maxima over the frames of an utterance, that is
over rows that lie 8 apart, or columns that lie 16 apart. In the register layout of the matrix units, one
thread owns all such columns, and pairs of such rows, so the maxima of a tile need no communication between
threads. Padding costs little, because the utterances of a group have nearly the same length: a group is
filled up to whole tiles by repeating last frames, which changes no maximum.

A program processes one pair of groups after the other. For every tile of y it loops over the tiles of x with
the maximum of every column in registers; the maximum of every row is kept in memory (``best_columns``) for
the next tile of y.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

TILE = 128  # rows and columns of a tile of cosines
X_GROUP, Y_GROUP = 8, 16  # utterances in the rows and in the columns of a tile
DEPTH = 64  # channels in each step of the matrix product
NUM_WARPS, NUM_STAGES = 8, 3
# Two programs share a multiprocessor, so that one multiplies while the other takes maxima or waits for data.
# This limits a thread to a 512th of the 65,536 registers and a program to half of the 227 KiB of shared
# memory.
PROGRAMS_A_MULTIPROCESSOR, MAX_REGISTERS = 2, 128
BAND = 16  # groups of x in the caches together with a group of y


def packed_precision_and_recall(
    x: Tensor,
    x_lengths: Tensor,
    y: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    dtype: torch.dtype = torch.float16,
    num_programs: int | None = None,
) -> tuple[Tensor, Tensor]:
    """P and R of every utterance of x with every utterance of y.

    Args:
        x: frames (S,D) of N utterances, one utterance after the other, of any floating type and any scale.
        x_lengths: number of frames of each utterance (N,), at least 1, with sum S.
        y: frames (T,D) of M utterances; None: those of x. Then every pair is computed once and used in both
            directions.
        y_lengths: number of frames of each utterance of y (M,).
        dtype: number type of the unit vectors. With D = 768, the error of a cosine is below 1e-4 in float16
            and below 1e-3 in bfloat16.
        num_programs: number of programs that share the pairs; None = two on each multiprocessor.

    Returns:
        P and R, both (N,M) in float32.

    Raises:
        ValueError: x and y differ in D, or the sum of the lengths is not the number of frames.
    """
    x_side = _pack(x, x_lengths, X_GROUP, dtype)
    symmetric = y is None
    if y is None or y_lengths is None:
        y, y_lengths = x, x_lengths
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x is {tuple(x.shape)} and y {tuple(y.shape)}; both need the same D")
    y_side = _pack(y, y_lengths, Y_GROUP, dtype)
    precision = torch.zeros(len(x_side.lengths), len(y_side.lengths), device=x.device)  # in order of length
    recall = torch.zeros_like(precision)
    pairs = _pairs(x_side, y_side, symmetric).to(x.device)
    if len(pairs):
        if num_programs is None:
            processors = torch.cuda.get_device_properties(x.device).multi_processor_count
            num_programs = PROGRAMS_A_MULTIPROCESSOR * processors
        num_programs = min(num_programs, len(pairs))
        best_columns = torch.empty(num_programs, x_side.most_tiles, TILE, Y_GROUP, device=x.device)
        with torch.cuda.device_of(x):
            maxima_kernel[(num_programs,)](
                x_side.rows, x_side.first_tile, x_side.lengths,
                y_side.rows, y_side.first_tile, y_side.lengths,
                pairs, len(pairs), best_columns, x_side.most_tiles, precision, recall, len(y_side.lengths),
                x_side.rows.shape[1],
                X_GROUP=X_GROUP, Y_GROUP=Y_GROUP, TILE=TILE, DEPTH=DEPTH,
                num_warps=NUM_WARPS, num_stages=NUM_STAGES, maxnreg=MAX_REGISTERS,
            )  # fmt: skip
    N, M = len(x_side.rank), len(y_side.rank)
    precision = precision[:N, :M] / x_side.lengths[:N, None].clamp(min=1)
    recall = recall[:N, :M] / y_side.lengths[:M].clamp(min=1)
    if symmetric:
        # In order of length, pairs (n, m) with n <= m are computed: P of (m, n) is R of (n, m).
        computed = torch.ones(N, M, dtype=torch.bool, device=x.device).triu()
        precision = torch.where(computed, precision, recall.T)
        recall = precision.T
    return precision[x_side.rank[:, None], y_side.rank], recall[x_side.rank[:, None], y_side.rank]


class _Side(NamedTuple):
    """Unit vectors of one side in interleaved groups."""

    rows: Tensor  # (tiles * TILE, D), D filled up with zeros to a multiple of DEPTH
    first_tile: Tensor  # (groups + 1,) int32, first tile of each group
    lengths: Tensor  # (groups * G,) int32, in increasing order, then zeros where the last group is not full
    rank: Tensor  # (N,) position of each utterance in that order
    most_tiles: int  # largest number of tiles of a group


def _pack(frames: Tensor, lengths: Tensor, group: int, dtype: torch.dtype) -> _Side:
    device, N = frames.device, len(lengths)
    lengths = lengths.to("cpu", torch.int64)  # the schedule of the tiles is made on the host
    if frames.ndim != 2 or lengths.ndim != 1 or int(lengths.sum()) != len(frames):
        raise ValueError(
            f"lengths {tuple(lengths.shape)} add up to {int(lengths.sum())}, the frames are "
            f"{tuple(frames.shape)}; expected (N,) and (sum of the lengths, D)"
        )
    order = torch.argsort(lengths, stable=True)
    offset = lengths.cumsum(0)[order] - lengths[order]  # (N,) first frame of each utterance
    ordered = lengths[order]
    groups = -(-N // group)
    # An incomplete group repeats the last utterance, with length 0 for the repetitions.
    member = torch.arange(groups * group).clamp(max=max(0, N - 1)).view(groups, group)
    frames_a_tile = TILE // group
    tiles = -(-ordered[member[:, -1]] // frames_a_tile)  # (groups,)
    first_tile = F.pad(tiles.cumsum(0), (1, 0))
    of_group = torch.repeat_interleave(torch.arange(groups), tiles)  # (tiles in all,)
    first_frame = (torch.arange(len(of_group)) - first_tile[of_group]) * frames_a_tile
    frame = first_frame[:, None, None] + torch.arange(frames_a_tile)[:, None]
    utterance = member[of_group][:, None]  # (tiles, 1, G)
    source = (offset[utterance] + torch.minimum(frame, ordered[utterance] - 1)).view(-1)

    units = F.normalize(frames.float(), dim=1).to(dtype)
    units = F.pad(units, (0, -units.shape[1] % DEPTH))
    return _Side(
        units[source.to(device)],
        first_tile.to(device, torch.int32),
        F.pad(ordered, (0, groups * group - N)).to(device, torch.int32),
        torch.argsort(order).to(device),
        int(tiles.max()) if groups else 0,
    )


def _pairs(x: _Side, y: _Side, symmetric: bool) -> Tensor:
    """Pairs of groups (P, 2) int32: longest first, and adjacent pairs share frames in the caches."""
    x_groups, y_groups = len(x.first_tile) - 1, len(y.first_tile) - 1
    pair = torch.cartesian_prod(torch.arange(x_groups), torch.arange(y_groups))
    if symmetric:
        # At least one utterance of the group of x is not later in the order than one of the group of y.
        pair = pair[pair[:, 0] * X_GROUP < (pair[:, 1] + 1) * Y_GROUP]
    of_x, of_y = pair.unbind(1)
    place = (of_x // BAND * y_groups + of_y) * BAND + of_x % BAND
    return pair[torch.argsort(place, descending=True)].int()


@triton.jit
def maxima_kernel(
    x, x_first_tile, x_lengths, y, y_first_tile, y_lengths, pairs, num_pairs, best_columns, most_tiles,
    precision, recall, out_columns, channels,
    X_GROUP: tl.constexpr, Y_GROUP: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Sums of maxima for every num_programs-th pair of groups.

    x and y are (tiles * TILE, channels) half precision, channels a multiple of DEPTH; best_columns is
    scratch, (num_programs, most_tiles, TILE, Y_GROUP) float32; precision and recall are (., out_columns)
    float32.
    """
    X_FRAMES: tl.constexpr = TILE // X_GROUP
    Y_FRAMES: tl.constexpr = TILE // Y_GROUP
    line = tl.arange(0, TILE)
    depth = tl.arange(0, DEPTH)
    of_x = tl.arange(0, X_GROUP)
    of_y = tl.arange(0, Y_GROUP)
    row_place = line[:, None] * Y_GROUP + of_y[None, :]
    best_columns += tl.program_id(0).to(tl.int64) * most_tiles * TILE * Y_GROUP

    for pair in range(tl.program_id(0), num_pairs, tl.num_programs(0)):
        x_group = tl.load(pairs + 2 * pair)
        y_group = tl.load(pairs + 2 * pair + 1)
        x_begin = tl.load(x_first_tile + x_group)
        x_tiles = tl.load(x_first_tile + x_group + 1) - x_begin
        y_begin = tl.load(y_first_tile + y_group)
        y_tiles = tl.load(y_first_tile + y_group + 1) - y_begin
        x_length = tl.load(x_lengths + x_group * X_GROUP + of_x)
        y_length = tl.load(y_lengths + y_group * Y_GROUP + of_y)

        recall_sum = tl.zeros((X_GROUP, Y_GROUP), tl.float32)
        for y_tile in range(0, y_tiles):
            # All threads of the program have written to best_columns.
            tl.debug_barrier()
            y_rows = y + ((y_begin + y_tile).to(tl.int64) * TILE + line) * channels  # (TILE,)
            # The two rows that a thread owns are already reduced to one.
            best_rows = tl.full((X_FRAMES // 2, X_GROUP, TILE), float("-inf"), tl.float32)
            for x_tile in range(0, x_tiles):
                x_rows = x + ((x_begin + x_tile).to(tl.int64) * TILE + line) * channels
                cosines = tl.zeros((TILE, TILE), tl.float32)
                for channel in range(0, channels, DEPTH):
                    x_part = tl.load(x_rows[:, None] + (channel + depth)[None, :])
                    y_part = tl.load(y_rows[None, :] + (channel + depth)[:, None])
                    cosines = tl.dot(x_part, y_part, cosines)
                by_frame = tl.reshape(cosines, (X_FRAMES // 2, 2, X_GROUP, TILE))
                best_rows = tl.maximum(best_rows, tl.max(by_frame, axis=1))
                best = tl.max(tl.reshape(cosines, (TILE, Y_FRAMES, Y_GROUP)), axis=1)
                place = best_columns + x_tile * TILE * Y_GROUP + row_place
                before = tl.load(place, mask=(row_place >= 0) & (y_tile > 0), other=float("-inf"))
                tl.store(place, tl.maximum(best, before))
            best_row = tl.reshape(tl.max(best_rows, axis=0), (X_GROUP, Y_FRAMES, Y_GROUP))
            frame = y_tile * Y_FRAMES + tl.arange(0, Y_FRAMES)
            counts = frame[None, :, None] < y_length[None, None, :]
            recall_sum += tl.sum(tl.where(counts, best_row, 0.0), axis=1)

        tl.debug_barrier()
        precision_sum = tl.zeros((X_GROUP, Y_GROUP), tl.float32)
        for x_tile in range(0, x_tiles):
            best = tl.load(best_columns + x_tile * TILE * Y_GROUP + row_place)
            frame = x_tile * X_FRAMES + tl.arange(0, X_FRAMES)
            counts = frame[:, None, None] < x_length[None, :, None]
            precision_sum += tl.sum(
                tl.where(counts, tl.reshape(best, (X_FRAMES, X_GROUP, Y_GROUP)), 0.0), axis=0
            )
        out_row = (x_group * X_GROUP + of_x).to(tl.int64)
        out = out_row[:, None] * out_columns + (y_group * Y_GROUP + of_y)[None, :]
        tl.store(precision + out, precision_sum)
        tl.store(recall + out, recall_sum)
