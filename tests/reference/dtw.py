"""Dynamic time warping by its definition: the recursion over prefixes, and a walk over all paths."""

from collections.abc import Iterator
from functools import cache

import numpy as np


def cosine_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """1 minus the cosine of all frames of x (S,D) with all of y (T,D), in float64."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    return 1 - x @ y.T / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(y, axis=1)


def dtw_distance(distances: np.ndarray) -> float:
    """Least cost of a path through distances (S,T), diagonal steps and the start twice, over S + T."""
    S, T = distances.shape

    @cache
    def cost(i: int, j: int) -> float:
        if i == 0 and j == 0:
            return 2 * distances[0, 0]
        options = []
        if i > 0:
            options.append(cost(i - 1, j) + distances[i, j])
        if j > 0:
            options.append(cost(i, j - 1) + distances[i, j])
        if i > 0 and j > 0:
            options.append(cost(i - 1, j - 1) + 2 * distances[i, j])
        return min(options)

    return cost(S - 1, T - 1) / (S + T)


def all_paths(S: int, T: int) -> Iterator[list[tuple[int, int, int]]]:
    """Every path from (0,0) to (S-1,T-1) as points with their weights."""

    def extend(path: list[tuple[int, int, int]]) -> Iterator[list[tuple[int, int, int]]]:
        i, j, _ = path[-1]
        if (i, j) == (S - 1, T - 1):
            yield path
        for di, dj, weight in ((1, 0, 1), (0, 1, 1), (1, 1, 2)):
            if i + di < S and j + dj < T:
                yield from extend([*path, (i + di, j + dj, weight)])

    yield from extend([(0, 0, 2)])
