"""Dynamic time warping of packed utterances, compiled with Numba.

For X (S,D) and Y (T,D) with the cosine distance d_ij = 1 - cos(x_i, y_j), a path leads from (1,1) to (S,T) in
steps (1,0), (0,1) and (1,1). Its cost is the sum of w d_ij over its points, where w is 2 after a diagonal
step and at the start, and 1 after the others. With these weights (the symmetric form of Sakoe & Chiba, IEEE
Transactions on Acoustics, Speech, and Signal Processing 26(1), 1978) every path has the same length S + T,
so that the cheapest path divided by its length is the least mean distance of all paths, and short paths are
not favoured.

A small example: X = [(1,0), (0,1)] and Y = [(1,0)]. The only path has the points (1,1), d = 0, w = 2, and
(2,1), d = 1, w = 1; its mean distance is 1/3.

Each point depends on the one to its left, so that a single pair would use a processor badly. Therefore
``LANES`` utterances of y, of about the same length, are processed together with their frames interleaved:
each step computes the same point of all their paths, and the cosines are adjacent in memory. Points after the
end of a shorter utterance are computed but not used.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor

from retrieval.similarity.seqsim import Packed

LANES = 8  # utterances side by side: one AVX-512 register of float64; with more, more lanes are empty
TILE = 1 << 20  # cosines computed at a time: 4 MiB in float32, which fit into the cache


@dataclass(frozen=True)
class _Interleaved:
    """M utterances in groups of LANES, from the longest to the shortest.

    Attributes:
        columns: frames (D,C), ordered by group, then position in the utterance, then lane.
        starts: first column of each group, and the end (G+1,).
        order: number of the utterance in each lane (M,); the last group may have empty lanes.
        lengths: number of frames of these utterances (M,).
    """

    columns: Tensor
    starts: NDArray[np.int64]
    order: NDArray[np.int64]
    lengths: NDArray[np.int64]


@torch.no_grad()
def dtw_similarity(x: Packed, y: Packed, *, tile: int = TILE) -> Tensor:
    """1 minus the mean distance of the cheapest path, for every utterance of x with every utterance of y.

    Cosines are computed on the device of the frames, paths on the CPU with the number of threads of torch.

    Args:
        x: the N utterances of one side.
        y: the M utterances of the other side, with the same device, type and D.
        tile: largest number of cosines in memory at a time; one utterance of x with all frames of y may need
            more.

    Returns:
        Similarities (N,M) in the type of the frames, on the CPU, in [-1, 1].
    """
    result = torch.empty(len(x), len(y), dtype=x.frames.dtype)
    beside = _interleave(y)
    width = beside.columns.shape[1]
    rows = max(tile // width, int(x.lengths.max()))
    # One buffer for all tiles: allocating new memory for each takes longer than the products.
    products = torch.empty(min(rows, len(x.frames)), width, dtype=x.frames.dtype, device=x.frames.device)
    start = 0
    while start < len(x):
        # As many utterances as have at most this number of rows, but at least one.
        stop = int(torch.searchsorted(x.offsets, int(x.offsets[start]) + rows, right=True)) - 1
        part = x.part(start, stop)
        cosines = torch.mm(part.frames, beside.columns, out=products[: len(part.frames)])
        _warp(
            cosines.cpu().numpy(),
            part.offsets.numpy(),
            beside.starts,
            beside.order,
            beside.lengths,
            result[start:stop].numpy(),
            torch.get_num_threads(),
        )
        start = stop
    return result


def _interleave(y: Packed) -> _Interleaved:
    lengths, order = y.lengths.sort(descending=True, stable=True)
    places, starts = [], [0]
    for first in range(0, len(y), LANES):
        lanes = order[first : first + LANES]
        lanes = torch.cat([lanes, lanes[-1:].expand(LANES - len(lanes))])
        # (T,LANES); after the end of an utterance its last frame is repeated.
        place = torch.arange(int(lengths[first]))[:, None].minimum(y.lengths[lanes] - 1) + y.offsets[lanes]
        places.append(place.flatten())
        starts.append(starts[-1] + place.numel())
    frames = y.frames[torch.cat(places).to(y.frames.device)]
    return _Interleaved(frames.T.contiguous(), np.array(starts), order.numpy(), lengths.numpy())


@njit(parallel=True, nogil=True, cache=True)
def _warp(
    cosines: NDArray[np.floating],
    row_offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    order: NDArray[np.int64],
    lengths: NDArray[np.int64],
    result: NDArray[np.floating],
    threads: int,
) -> None:
    """Similarities (N,M) of the utterances in the rows of the cosines with the interleaved utterances."""
    N, M = result.shape
    G = len(starts) - 1
    for thread in prange(threads):
        best = np.empty((lengths[0], LANES))
        diagonal = np.empty(LANES)
        for pair in range(N * G * thread // threads, N * G * (thread + 1) // threads):
            n, group = pair // G, pair % G
            first, stop = row_offsets[n], row_offsets[n + 1]
            _best_values(cosines[first:stop], starts[group], starts[group + 1], best, diagonal)
            for m in range(LANES * group, min(LANES * (group + 1), M)):
                # 1 minus the least mean distance: the largest sum of w cos over a path, divided by S + T.
                result[n, order[m]] = best[lengths[m] - 1, m % LANES] / (stop - first + lengths[m])


@njit(nogil=True, cache=True)
def _best_values(
    cosines: NDArray[np.floating],
    start: int,
    stop: int,
    best: NDArray[np.float64],
    diagonal: NDArray[np.float64],
) -> None:
    """Write the best value of a path to each point of the last row into ``best``, (T,LANES).

    Args:
        cosines: cosines (S,C), columns interleaved.
        start, stop: columns of a group.
        best: buffer for at least T rows.
        diagonal: buffer for one row.
    """
    T = (stop - start) // LANES
    here = cosines[0, start:stop]
    for lane in range(LANES):
        best[0, lane] = 2.0 * here[lane]
    for j in range(1, T):
        for lane in range(LANES):
            best[j, lane] = best[j - 1, lane] + here[j * LANES + lane]
    for i in range(1, len(cosines)):
        here = cosines[i, start:stop]
        for lane in range(LANES):
            diagonal[lane] = best[0, lane]  # value in the row above and the column to the left
            best[0, lane] += here[lane]
        for j in range(1, T):
            for lane in range(LANES):
                cosine = np.float64(here[j * LANES + lane])
                above = best[j, lane]
                straight = max(best[j - 1, lane], above) + cosine
                best[j, lane] = max(straight, diagonal[lane] + 2.0 * cosine)
                diagonal[lane] = above
