"""Compiled maxima of a tile of frame similarities, for SeqSim on a CPU.

A tile holds the cosines of consecutive frames of some utterances (rows) with all frames of others (columns),
without padding. One pass over it, while it is in the cache, gives the best column of every row and segment
(the terms of P, eq. 1 of arXiv 2601.07274) and the best row of every column (the terms of R, eq. 2).
"""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

# Below every cosine, rounding included. An infinity would forbid the compiler to assume finite numbers.
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
    """Take the maxima of one tile; the tiles of a block of columns come from the first row to the last.

    Args:
        tile: (r, C) finite cosines, in row-major order.
        first_row: number of the first row among all rows.
        row_offsets: (N+1,) first row of each utterance in rows, and the end.
        column_offsets: (M+1,) first column of each utterance in columns, and the end, C.
        column_best: (C,) best of each column so far within the utterance that the last tile broke off; any
            values before the first tile.
        precision: (N, M) receives P of every utterance whose last row is here, and a sum while rows are
            missing.
        recall: (N, M) receives R of every utterance whose last row is here.
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
            # Slices and two loops, of which the compiler makes better code than of one with offsets.
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
