"""Dynamic time warping against all paths."""

from collections.abc import Iterator

import numpy as np
import pytest

from zipformer.alignment.warping import warp

Cell = tuple[int, int]


def paths(S: int, T: int, cell: Cell = (0, 0)) -> Iterator[list[Cell]]:
    """All monotone paths from a cell to the last one."""
    if cell == (S - 1, T - 1):
        yield [cell]
        return
    for step in ((1, 1), (1, 0), (0, 1)):
        following = cell[0] + step[0], cell[1] + step[1]
        if following[0] < S and following[1] < T:
            for rest in paths(S, T, following):
                yield [cell, *rest]


@pytest.mark.parametrize(("S", "T"), [(1, 1), (1, 5), (4, 1), (3, 4), (5, 3), (4, 5)])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_cheapest_of_all_paths(S: int, T: int, seed: int) -> None:
    cost = np.random.default_rng([S, T, seed]).normal(size=(S, T))
    best = min(paths(S, T), key=lambda path: sum(cost[cell] for cell in path))
    rows, columns = warp(cost)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == best


def test_ties_go_diagonally() -> None:
    rows, columns = warp(np.zeros((3, 3)))
    assert rows.tolist() == columns.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (np.zeros((0, 3)), "at least one row"),
        (np.zeros(3), "matrix"),
        (np.array([[0.0, np.nan]]), "not finite"),
    ],
)
def test_bad_costs(cost: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        warp(cost)
