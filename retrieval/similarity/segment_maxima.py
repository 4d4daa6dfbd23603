"""Compiled maxima of a tile of frame similarities, for SeqSim on a CPU.

A tile contains the cosines of consecutive frames of some utterances (rows) with all frames of others
(columns), without padding. One pass over it, while it is in the cache, finds the maximum of every row in each
segment (the terms of P, eq. 1 of arXiv 2601.07274) and the maximum of every column (the terms of R, eq. 2).
"""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

# Below every cosine, even with rounding. With an infinity, the compiler could not assume finite numbers.
BELOW_ALL = -2.0


@njit(parallel=True, nogil=True, cache=True)
def add_tile(
    tile: NDArray[np.floating],
    first_row: int,
    row_offsets: NDArray[np.int64],
    column_offsets: NDArray[np.int64],
    column_best: NDArray[np.floating],
    precision: NDArray[np.floating],
    recall: NDArray[np.floating],
    threads: int,
) -> None:
    """Add the maxima of one tile; the tiles of a block of columns must come from the first row to the last.

    Args:
        tile: (r, C) finite cosines, in row-major order.
        first_row: number of the first row among all rows.
        row_offsets: first row of each utterance in rows, and the end (N+1,).
        column_offsets: first column of each utterance in columns, and the end, C (M+1,).
        column_best: maximum so far of each column (C,), within the utterance at the end of the previous tile;
            any values before the first tile.
        precision: array (N, M) that receives P of every utterance whose last row is in this tile, and a
            partial sum before.
        recall: array (N, M) that receives R of every utterance whose last row is in this tile.
        threads: number of threads that share the segments of columns.
    """
    M = len(column_offsets) - 1
    for thread in prange(threads):
        m0, m1 = M * thread // threads, M * (thread + 1) // threads
        _add_segments(tile, first_row, row_offsets, column_offsets, column_best, precision, recall, m0, m1)


@njit(nogil=True, cache=True, fastmath=True)
def _add_segments(
    tile: NDArray[np.floating],
    first_row: int,
    row_offsets: NDArray[np.int64],
    column_offsets: NDArray[np.int64],
    column_best: NDArray[np.floating],
    precision: NDArray[np.floating],
    recall: NDArray[np.floating],
    m0: int,
    m1: int,
) -> None:
    """:func:`add_tile` for the segments from m0 to m1."""
    n = np.searchsorted(row_offsets, first_row, side="right") - 1
    for i in range(len(tile)):
        if first_row + i == row_offsets[n]:
            column_best[column_offsets[m0] : column_offsets[m1]] = BELOW_ALL
            precision[n, m0:m1] = 0.0
        for m in range(m0, m1):
            # With slices and two loops the compiler makes better code than with one loop and offsets.
            row = tile[i, column_offsets[m] : column_offsets[m + 1]]
            columns = column_best[column_offsets[m] : column_offsets[m + 1]]
            for c in range(len(row)):
                columns[c] = row[c] if row[c] > columns[c] else columns[c]
            best = row[0]
            for c in range(len(row)):
                best = row[c] if row[c] > best else best
            precision[n, m] += best
        if first_row + i + 1 == row_offsets[n + 1]:
            for m in range(m0, m1):
                precision[n, m] /= row_offsets[n + 1] - row_offsets[n]
                recall[n, m] = column_best[column_offsets[m] : column_offsets[m + 1]].mean()
            n += 1
