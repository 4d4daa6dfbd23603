"""Dynamic time warping: the cheapest monotone path through a matrix of costs."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

_DIAGONAL, _DOWN, _RIGHT = 0, 1, 2


def warp(cost: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Path with the least sum of costs from the first to the last cell of a matrix (Sakoe & Chiba 1978).

    A step leads to the next row, the next column, or both. Of steps with equal costs, the diagonal one is
    preferred, then the one from the row above.

    Args:
        cost: finite costs (S,T), with at least one row and one column.

    Returns:
        Rows (L,) and columns (L,) of the cells of the path, max(S,T) <= L < S + T.

    Raises:
        ValueError: the matrix is empty, not two-dimensional, or has a value that is not finite.
    """
    if cost.ndim != 2 or 0 in cost.shape:
        raise ValueError(f"costs are {cost.shape}; a path needs a matrix of at least one row and column")
    if not np.isfinite(cost).all():
        raise ValueError("the costs hold values that are not finite")
    path = _cheapest_path(np.ascontiguousarray(cost, dtype=np.float64))
    return path[:, 0], path[:, 1]


@njit(nogil=True, cache=True)
def _cheapest_path(cost: NDArray[np.float64]) -> NDArray[np.int64]:
    S, T = cost.shape
    step = np.empty((S, T), np.int8)
    previous = np.full(T + 1, np.inf)  # least sums in the row above; column 0 is infinite
    current = np.full(T + 1, np.inf)
    previous[0] = 0.0
    for s in range(S):
        current[0] = np.inf
        for t in range(T):
            best, move = previous[t], _DIAGONAL
            if previous[t + 1] < best:
                best, move = previous[t + 1], _DOWN
            if current[t] < best:
                best, move = current[t], _RIGHT
            current[t + 1] = best + cost[s, t]
            step[s, t] = move
        previous, current = current, previous
    path = np.empty((S + T - 1, 2), np.int64)
    s, t, length = S - 1, T - 1, 0
    while True:
        path[length, 0], path[length, 1] = s, t
        length += 1
        if s == 0 and t == 0:
            break
        move = step[s, t]
        if move != _RIGHT:
            s -= 1
        if move != _DOWN:
            t -= 1
    return path[:length][::-1].copy()
