"""SeqSim: how similar two sequences of speech embeddings are, without aligning them in time.

SeqSim is BERTScore with frames in the place of word pieces (Towards Comprehensive Semantic Speech
Embeddings for Chinese Dialects, arXiv 2601.07274, eq. 1-3). For X (S,D) and Y (T,D), with c_ij the cosine
of x_i and y_j::

    P = 1/S sum_i max_j c_ij        R = 1/T sum_j max_i c_ij        SeqSim = 2 P R / (P + R)

A small example: X = [(1,0), (0,1)] and Y = [(1,0)]. Cosines are [1, 0], so P = (1 + 0)/2, R = 1 and SeqSim
= 2/3.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# The similarities of a tile are read twice after the matrix product has written them. On a CPU they should
# still be in the cache then; on a GPU a tile must be large enough to fill the device.
CPU_TILE_BYTES = 1 << 22
CUDA_TILE_BYTES = 1 << 28


class PrecisionRecall(NamedTuple):
    """P and R of eq. 1 and 2, both (N,M): row n compares x_n with every y_m."""

    precision: Tensor
    recall: Tensor


def seqsim(
    x: Tensor, x_lengths: Tensor, y: Tensor, y_lengths: Tensor, *, tile_bytes: int | None = None
) -> Tensor:
    """SeqSim of every utterance of one batch with every utterance of another.

    The score is symmetric: ``seqsim(x, ., y, .) == seqsim(y, ., x, .).T``. It is 1 for an utterance and
    itself and lies in [-1, 1] when P and R have one sign, as they have for any real embedding; for P + R =
    0 it is 0.

    Args:
        x: embeddings (N,S,D), any floating type, padded at the end with anything.
        x_lengths: true numbers of frames (N,), each in 1..S.
        y: embeddings (M,T,D) on the same device.
        y_lengths: true numbers of frames (M,), each in 1..T.
        tile_bytes: most memory for frame similarities at a time; a larger tile is no more exact, only
            faster or slower. Default: what fits the cache of a CPU core, 256 MiB on a GPU.

    Returns:
        Scores (N,M) in float32 (float64 if an input is float64).

    Raises:
        ValueError: shapes that do not match, a length outside its range, or a frame that is not finite.
    """
    precision, recall = precision_and_recall(x, x_lengths, y, y_lengths, tile_bytes=tile_bytes)
    total = precision + recall
    return torch.where(total == 0, 0.0, 2 * precision * recall / torch.where(total == 0, 1.0, total))


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
    if tile_bytes is None:
        tile_bytes = CPU_TILE_BYTES if x.device.type == "cpu" else CUDA_TILE_BYTES
    tile_elements = max(1, tile_bytes // dtype.itemsize)

    x_batch, y_batch = _prepare(x, x_lengths, dtype, "x"), _prepare(y, y_lengths, dtype, "y")
    precision = x_batch.frames.new_empty(len(x), len(y))
    recall = torch.empty_like(precision)
    # Nearly square tiles (equal numbers of frames of x and y) give the matrix product the most work per byte.
    side = int(tile_elements**0.5)
    for m0, m1 in _blocks(y_batch.lengths, side):
        y_block = y_batch.part(m0, m1)
        y_frames = y_block.frames.shape[0] * y_block.frames.shape[1]
        for n0, n1 in _blocks(x_batch.lengths, tile_elements // y_frames):
            tile = _tile(x_batch.part(n0, n1), y_block, tile_elements)
            precision[n0:n1, m0:m1], recall[n0:n1, m0:m1] = tile
    rows, columns = torch.argsort(x_batch.order)[:, None], torch.argsort(y_batch.order)
    return PrecisionRecall(precision[rows, columns], recall[rows, columns])


class _Batch(NamedTuple):
    """Normalised frames (N,T,D) sorted by length, the lengths, and where in the input each was (N,)."""

    frames: Tensor
    lengths: list[int]
    order: Tensor

    def part(self, start: int, stop: int) -> "_Batch":
        longest = self.lengths[stop - 1]
        return _Batch(self.frames[start:stop, :longest], self.lengths[start:stop], self.order[start:stop])


def _prepare(frames: Tensor, lengths: Tensor, dtype: torch.dtype, name: str) -> _Batch:
    """Check, sort by length (so that a tile holds little padding), pad with a real frame, normalise."""
    N, T, _ = frames.shape
    if lengths.shape != (N,):
        raise ValueError(
            f"{name}_lengths must be ({N},) for {name} {tuple(frames.shape)}; found {tuple(lengths.shape)}"
        )
    lengths = lengths.to(frames.device)
    wrong = ((lengths < 1) | (lengths > T)).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(
            f"{name}_lengths must be in 1..{T}; found {lengths[wrong[0]].item()} at index {wrong[0]}"
            f" ({len(wrong)} of {N} wrong): leave out utterances without frames"
        )
    order = torch.argsort(lengths, stable=True)
    sorted_lengths = lengths[order]
    # Padding by repeating the last frame changes no maximum, so the similarities need no mask.
    position = torch.minimum(torch.arange(T, device=frames.device), sorted_lengths[:, None] - 1)  # (N,T)
    frames = frames[order[:, None], position].to(dtype)  # (N,T,D)
    finite = frames.isfinite().all(dim=2)  # (N,T)
    if not bool(finite.all()):
        row, frame = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"{name}[{int(order[row])}] has a value that is not finite in frame {frame}:"
            " embed that utterance again"
        )
    return _Batch(F.normalize(frames, dim=2), sorted_lengths.tolist(), order)


def _blocks(lengths: list[int], frames: int) -> list[tuple[int, int]]:
    """Cut utterances sorted by length into runs of one utterance or at most ``frames`` padded frames."""
    blocks, start = [], 0
    for n in range(1, len(lengths) + 1):
        if n == len(lengths) or (n + 1 - start) * lengths[n] > frames:
            blocks.append((start, n))
            start = n
    return blocks


def _tile(x: _Batch, y: _Batch, tile_elements: int) -> tuple[Tensor, Tensor]:
    """P and R (n,m) of x (n,S,D) and y (m,T,D), which are padded by repetition.

    Frames of x come in slices, so that one very long pair also stays within the tile.
    """
    (n, S, D), (m, T, _) = x.frames.shape, y.frames.shape
    y_columns = y.frames.reshape(m * T, D).T
    x_weights = _mean_weights(x)  # (n,S)
    precision = x_weights.new_zeros(n, m)
    column_best = x_weights.new_full((n, m, T), -torch.inf)
    step = max(1, tile_elements // (n * m * T))
    for s in range(0, S, step):
        rows = x.frames[:, s : s + step].reshape(-1, D)
        cosines = (rows @ y_columns).view(n, -1, m, T)
        precision += torch.einsum("nsm,ns->nm", cosines.amax(dim=3), x_weights[:, s : s + step])
        column_best = torch.maximum(column_best, cosines.amax(dim=1))
    return precision, torch.einsum("nmt,mt->nm", column_best, _mean_weights(y))


def _mean_weights(batch: _Batch) -> Tensor:
    """(N,T): 1/length on real frames, 0 on padding; the weighted sum is the mean over real frames."""
    T = batch.frames.shape[1]
    count = torch.tensor(batch.lengths, device=batch.frames.device)[:, None]
    return (torch.arange(T, device=count.device) < count).to(batch.frames.dtype) / count
