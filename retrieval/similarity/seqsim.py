"""SeqSim: similarity of two sequences of speech embeddings, without alignment in time.

SeqSim is BERTScore with frames instead of word pieces (Towards Comprehensive Semantic Speech
Embeddings for Chinese Dialects, arXiv 2601.07274, eq. 1-3). For X (S,D) and Y (T,D), with c_ij the cosine
of x_i and y_j::

    P = 1/S sum_i max_j c_ij        R = 1/T sum_j max_i c_ij        SeqSim = 2 P R / (P + R)

A small example: X = [(1,0), (0,1)] and Y = [(1,0)]. Cosines are [1, 0], so P = (1 + 0)/2, R = 1 and SeqSim
= 2/3.

Utterances are packed: their frames are adjacent without padding, so that all cosines are one matrix product.
It is computed tile by tile, and only the maxima of each tile are kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import isqrt
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from retrieval.similarity.segment_maxima import add_tile
from zipformer.errors import UserError

# The cosines of a tile are read after the matrix product has written them. On a CPU they should then still be
# in the cache; on a GPU a tile must be large enough to use the whole device.
CPU_TILE_BYTES = 1 << 23
CUDA_TILE_BYTES = 1 << 28


@dataclass(frozen=True)
class Packed:
    """Utterances with their frames in one array, one utterance after the other.

    Attributes:
        frames: frames (F,D) in float32 or float64, each of length 1 (0 for a frame of zeros), on any device.
            On a CUDA device also float16, see :meth:`half`.
        offsets: first frame of each utterance, and the end (N+1,), int64 on the CPU: utterance n has the
            frames from offsets[n] to offsets[n + 1] - 1.
    """

    frames: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """Number of frames of each utterance, (N,) int64 on the CPU."""
        return self.offsets.diff()

    def half(self) -> "Packed":
        """Frames in float16, for the fused kernel on a CUDA device: faster, cosines with errors up to 1e-4.

        Raises:
            UserError: the frames are not on a CUDA device, or Triton is not installed.
        """
        if not (self.frames.is_cuda and find_spec("triton")):
            raise UserError(
                f"SeqSim in half precision needs a CUDA device and Triton, found {self.frames.device}:"
                " set half_precision=false"
            )
        return Packed(self.frames.half(), self.offsets)

    def part(self, start: int, stop: int) -> "Packed":
        """Utterances from ``start`` to ``stop`` - 1, as a view."""
        offsets = self.offsets[start : stop + 1]
        return Packed(self.frames[offsets[0] : offsets[-1]], offsets - offsets[0])

    def select(self, utterances: Sequence[int] | Tensor) -> "Packed":
        """A copy of the given utterances, in the given order."""
        index = torch.as_tensor(utterances, dtype=torch.int64)
        lengths = self.lengths[index]
        offsets = _offsets(lengths)
        # Old position of each copied frame: its new position plus the shift of its utterance.
        moved = (self.offsets[index] - offsets[:-1]).repeat_interleave(lengths)
        frames = torch.arange(int(offsets[-1])) + moved
        return Packed(self.frames[frames.to(self.frames.device)], offsets)


class PrecisionRecall(NamedTuple):
    """P and R of eq. 1 and 2, both (N,M): row n compares x_n with every y_m."""

    precision: Tensor
    recall: Tensor


def pack(utterances: Sequence[Tensor]) -> Packed:
    """Pack utterances (T,D), at least one, all on one device and of one floating type.

    Raises:
        UserError: an utterance has no frames, or a frame is not finite.
    """
    lengths = torch.tensor([len(frames) for frames in utterances])
    if not bool(lengths.all()):
        raise UserError(
            f"utterance {int(lengths.argmin())} has no frames: leave out utterances without frames"
        )
    frames = torch.cat(list(utterances))
    offsets = _offsets(lengths)
    finite = frames.isfinite().all(dim=1).cpu()  # (F,)
    if not bool(finite.all()):
        frame = int(finite.int().argmin())
        n = int(torch.searchsorted(offsets, frame, right=True)) - 1
        raise UserError(
            f"utterance {n} has a value that is not finite in frame {frame - int(offsets[n])}:"
            " embed that utterance again"
        )
    return Packed(_normalise(frames), offsets)


def seqsim(
    x: Tensor, x_lengths: Tensor, y: Tensor, y_lengths: Tensor, *, tile_bytes: int | None = None
) -> Tensor:
    """SeqSim of every utterance of one batch with every utterance of another batch.

    The score is symmetric: ``seqsim(x, ., y, .) == seqsim(y, ., x, .).T``. It lies in [-1, 1] and is 1 for
    equal utterances. If P and R differ in sign, eq. 3 is unbounded (an utterance of one frame that is similar
    to one frame of the other and opposite to the rest could score higher than an equal utterance); SeqSim is
    then 0, the limit from either side. It has no gradient.

    Args:
        x: embeddings (N,S,D) of any floating type, padded at the end with any values.
        x_lengths: number of frames without padding (N,), each in 1..S.
        y: embeddings (M,T,D) on the same device.
        y_lengths: number of frames without padding (M,), each in 1..T.
        tile_bytes: largest memory for cosines of frames at a time; it affects the speed, not the result. By
            default a size that fits into the cache of a CPU, 256 MiB on a GPU.

    Returns:
        Scores (N,M) in float32 (float64 if an input is float64).

    Raises:
        ValueError: shapes do not match, a length is out of range, or a frame is not finite.
    """
    return _f_score(precision_and_recall(x, x_lengths, y, y_lengths, tile_bytes=tile_bytes))


def seqsim_packed(x: Packed, y: Packed | None = None, *, tile_bytes: int | None = None) -> Tensor:
    """SeqSim of all utterances of x with all of y, or of all pairs of x if y is None.

    Without y every tile is used in both directions, which saves half of the matrix product.

    Args:
        x: the N utterances of one side.
        y: the M utterances of the other side, with the same device, type and D; None for x itself.
        tile_bytes: largest memory for cosines of frames, see :func:`seqsim`.

    Returns:
        Scores (N,M), or (N,N), in the type of the frames, at least float32.
    """
    return _f_score(precision_and_recall_packed(x, y, tile_bytes=tile_bytes))


def precision_and_recall(
    x: Tensor, x_lengths: Tensor, y: Tensor, y_lengths: Tensor, *, tile_bytes: int | None = None
) -> PrecisionRecall:
    """P and R of SeqSim (eq. 1 and 2); arguments and errors as in :func:`seqsim`."""
    if x.ndim != 3 or y.ndim != 3 or x.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"x must be (N,S,D) and y (M,T,D) with one D; found {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if x.device != y.device:
        raise ValueError(f"x is on {x.device} and y on {y.device}; move one to the other's device")
    dtype = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
    packed_x, packed_y = _unpad(x, x_lengths, dtype, "x"), _unpad(y, y_lengths, dtype, "y")
    return precision_and_recall_packed(packed_x, packed_y, tile_bytes=tile_bytes)


@torch.no_grad()
def precision_and_recall_packed(
    x: Packed, y: Packed | None = None, *, tile_bytes: int | None = None
) -> PrecisionRecall:
    """P and R of SeqSim (eq. 1 and 2); arguments as in :func:`seqsim_packed`."""
    if x.frames.dtype == torch.float16:
        from retrieval.similarity.seqsim_cuda import (
            packed_precision_and_recall,  # Triton is only in CUDA builds
        )

        other = (None, None) if y is None else (y.frames, y.lengths)
        return PrecisionRecall(*packed_precision_and_recall(x.frames, x.lengths, *other))
    on_cpu = x.frames.device.type == "cpu"
    if tile_bytes is None:
        tile_bytes = CPU_TILE_BYTES if on_cpu else CUDA_TILE_BYTES
    tile_elements = max(1, tile_bytes // x.frames.dtype.itemsize)
    return (_compare_segments if on_cpu else _compare_padded)(x, y, tile_elements)


def _f_score(scores: PrecisionRecall) -> Tensor:
    """Eq. 3 if P and R have the same sign; else 0."""
    product = scores.precision * scores.recall
    of_one_sign = product > 0
    total = torch.where(of_one_sign, scores.precision + scores.recall, 1.0)
    return torch.where(of_one_sign, 2 * product / total, 0.0)


def _normalise(frames: Tensor) -> Tensor:
    """Frames scaled to unit length, in at least float32."""
    return F.normalize(frames.to(torch.promote_types(frames.dtype, torch.float32)), dim=1)


def _offsets(lengths: Tensor) -> Tensor:
    return F.pad(lengths.cumsum(0), (1, 0))


def _unpad(frames: Tensor, lengths: Tensor, dtype: torch.dtype, name: str) -> Packed:
    """Check a padded batch and pack it."""
    N, T, _ = frames.shape
    if lengths.shape != (N,):
        raise ValueError(
            f"{name}_lengths must be ({N},) for {name} {tuple(frames.shape)}; found {tuple(lengths.shape)}"
        )
    lengths = lengths.cpu()
    wrong = ((lengths < 1) | (lengths > T)).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(
            f"{name}_lengths must be in 1..{T}; found {int(lengths[wrong[0]])} at index {wrong[0]}"
            f" ({len(wrong)} of {N} wrong): leave out utterances without frames"
        )
    inside = (torch.arange(T) < lengths[:, None]).to(frames.device)  # (N,T)
    finite = frames.isfinite().all(dim=2) | ~inside
    if not bool(finite.all()):
        row, frame = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"{name}[{row}] has a value that is not finite in frame {frame}: embed that utterance again"
        )
    return Packed(_normalise(frames[inside].to(dtype)), _offsets(lengths))


def _compare_segments(x: Packed, y: Packed | None, tile_elements: int) -> PrecisionRecall:
    """P and R on a CPU: for each tile, a matrix product and the maxima of its segments.

    Columns are whole utterances of y; rows are slices of frames that need not end with an utterance, so that
    even one very long pair fits into the tile. Without y, rows end with the block of the columns.
    """
    columns = x if y is None else y
    precision = x.frames.new_empty(len(x), len(columns))
    recall = torch.empty_like(precision)
    threads = torch.get_num_threads()
    tile = x.frames.new_empty(min(tile_elements, len(x.frames) * len(columns.frames)))
    for m0, m1 in _blocks(columns.offsets.tolist(), isqrt(tile_elements)):
        block = columns.part(m0, m1)
        width = len(block.frames)
        if width > len(tile):  # one utterance longer than the tile: compute its cosines row by row
            tile = x.frames.new_empty(width)
        height = len(tile) // width
        column_best = x.frames.new_empty(width)
        rows = len(x.frames) if y is not None else int(x.offsets[m1])
        for start in range(0, rows, height):
            part = x.frames[start : min(start + height, rows)]
            cosines = tile[: len(part) * width].view(len(part), width)
            torch.mm(part, block.frames.T, out=cosines)
            add_tile(
                cosines.numpy(),
                start,
                x.offsets.numpy(),
                block.offsets.numpy(),
                column_best.numpy(),
                precision[:, m0:m1].numpy(),
                recall[:, m0:m1].numpy(),
                threads,
            )
    if y is None:  # P of (x_n, x_m) equals R of (x_m, x_n)
        upper_precision, upper_recall = precision.triu(), recall.triu()
        precision = upper_precision + upper_recall.triu(1).T
        recall = upper_recall + upper_precision.triu(1).T
    return PrecisionRecall(precision, recall)


def _blocks(offsets: list[int], frames: int) -> list[tuple[int, int]]:
    """Divide packed utterances into runs of one utterance or at most ``frames`` frames."""
    blocks, start = [], 0
    for n in range(1, len(offsets)):
        if n == len(offsets) - 1 or offsets[n + 1] - offsets[start] > frames:
            blocks.append((start, n))
            start = n
    return blocks


class _Batch(NamedTuple):
    """Utterances of similar length, padded by repeating the last frame, which changes no maximum.

    Frames (n,T,D), weights (n,T) with 1/length on real frames and 0 on padding, and numbers of the utterances
    (n,).
    """

    frames: Tensor
    weights: Tensor
    numbers: Tensor


def _batches(packed: Packed, frames: int) -> Iterator[_Batch]:
    """Utterances sorted by length, in batches of one utterance or at most ``frames`` padded frames."""
    device = packed.frames.device
    order = packed.lengths.argsort(stable=True)
    lengths = packed.lengths[order]
    start = 0
    for stop in range(1, len(order) + 1):
        if stop == len(order) or (stop + 1 - start) * int(lengths[stop]) > frames:
            numbers, counts = order[start:stop], lengths[start:stop, None]
            position = torch.arange(int(counts[-1]))
            index = packed.offsets[numbers, None] + torch.minimum(position, counts - 1)  # (n,T)
            weights = (position < counts).to(packed.frames.dtype) / counts
            yield _Batch(packed.frames[index.to(device)], weights.to(device), numbers.to(device))
            start = stop


def _compare_padded(x: Packed, y: Packed | None, tile_elements: int) -> PrecisionRecall:
    """P and R in plain PyTorch, on any device."""
    precision = x.frames.new_empty(len(x), len(x if y is None else y))
    recall = torch.empty_like(precision)
    # In nearly square tiles (as many frames of x as of y), the matrix product does the most work per byte.
    side = isqrt(tile_elements)
    x_batches = list(_batches(x, side))
    for number, columns in enumerate(x_batches if y is None else _batches(y, side)):
        for rows in x_batches if y is not None else x_batches[: number + 1]:
            place = rows.numbers[:, None], columns.numbers
            precision[place], recall[place] = tile = _tile(rows, columns, tile_elements)
            if y is None:
                precision.T[place], recall.T[place] = tile[1], tile[0]
    return PrecisionRecall(precision, recall)


def _tile(x: _Batch, y: _Batch, tile_elements: int) -> PrecisionRecall:
    """P and R (n,m) of x (n,S,D) and y (m,T,D).

    Frames of x are processed in slices, so that even one very long pair fits into the tile.
    """
    (n, S, D), (m, T, _) = x.frames.shape, y.frames.shape
    y_columns = y.frames.reshape(m * T, D).T
    precision = x.weights.new_zeros(n, m)
    column_best = x.weights.new_full((n, m, T), -torch.inf)
    step = max(1, tile_elements // (n * m * T))
    for s in range(0, S, step):
        rows = x.frames[:, s : s + step].reshape(-1, D)
        cosines = (rows @ y_columns).view(n, -1, m, T)
        precision += torch.einsum("nsm,ns->nm", cosines.amax(dim=3), x.weights[:, s : s + step])
        column_best = torch.maximum(column_best, cosines.amax(dim=1))
    return PrecisionRecall(precision, torch.einsum("nmt,mt->nm", column_best, y.weights))
