"""Dynamic time warping of packed utterances, compiled.

For X (S,D) and Y (T,D) with the cosine distance d_ij = 1 - cos(x_i, y_j), a path leads from (1,1) to (S,T) in
steps (1,0), (0,1) and (1,1). Its cost is the sum of w d_ij over its points, where w is 2 after a diagonal
step and at the start, and 1 after the others. With these weights (the symmetric form of Sakoe & Chiba, IEEE
Transactions on Acoustics, Speech, and Signal Processing 26(1), 1978) every path has the same length S + T,
so that the cheapest path divided by its length is the least mean distance of all paths, and short paths are
not favoured.

A small example: X = [(1,0), (0,1)] and Y = [(1,0)]. The only path has the points (1,1), d = 0, w = 2, and
(2,1), d = 1, w = 1; its mean distance is 1/3.
"""

import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor

from retrieval.similarity.seqsim import Packed

TILE = 1 << 22  # cosines that are computed at a time: 16 MiB in float32


@torch.no_grad()
def dtw_similarity(x: Packed, y: Packed, *, tile: int = TILE) -> Tensor:
    """1 minus the mean distance of the cheapest path, of every utterance of x with every one of y.

    Cosines are computed where the frames are, the paths on the CPU, with as many threads as torch has there.

    Args:
        x: N utterances.
        y: M utterances of the same device, type and D.
        tile: most cosines in memory at a time, or those of one utterance of x with all frames of y.

    Returns:
        Similarities (N,M) in the type of the frames, on the CPU, in [-1, 1].
    """
    result = torch.empty(len(x), len(y), dtype=x.frames.dtype)
    columns = y.frames.T.contiguous()
    rows = max(1, tile // columns.shape[1])
    start = 0
    while start < len(x):
        # The most utterances whose frames are at most so many rows, or one.
        fit = int(torch.searchsorted(x.offsets, int(x.offsets[start]) + rows, right=True)) - 1
        stop = max(start + 1, fit)
        part = x.part(start, stop)
        cosines = (part.frames @ columns).cpu().numpy()
        _warp(
            cosines,
            part.offsets.numpy(),
            y.offsets.numpy(),
            result[start:stop].numpy(),
            torch.get_num_threads(),
        )
        start = stop
    return result


@njit(parallel=True, nogil=True, cache=True)
def _warp(
    cosines: NDArray[np.floating],
    row_offsets: NDArray[np.int64],
    column_offsets: NDArray[np.int64],
    result: NDArray[np.floating],
    threads: int,
) -> None:
    """Similarities (N,M) of the utterances in the rows of the cosines with those in the columns."""
    N, M = result.shape
    for thread in prange(threads):
        for pair in range(N * M * thread // threads, N * M * (thread + 1) // threads):
            n, m = pair // M, pair % M
            result[n, m] = _mean_similarity(
                cosines[row_offsets[n] : row_offsets[n + 1], column_offsets[m] : column_offsets[m + 1]]
            )


@njit(nogil=True, cache=True)
def _mean_similarity(cosines: NDArray[np.floating]) -> float:
    """1 minus the least mean distance: where a point is worth w cos, the best value of a path over S + T."""
    S, T = cosines.shape
    above = np.empty(T)  # best value of a path to each point of the row above
    above[0] = 2.0 * cosines[0, 0]
    for j in range(1, T):
        above[j] = above[j - 1] + cosines[0, j]
    for i in range(1, S):
        diagonal = above[0]
        left = above[0] + cosines[i, 0]
        above[0] = left
        for j in range(1, T):
            here = cosines[i, j]
            straight = max(left, above[j]) + here
            left = max(straight, diagonal + 2.0 * here)
            diagonal = above[j]
            above[j] = left
    return above[T - 1] / (S + T)
