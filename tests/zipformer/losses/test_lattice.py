"""Lattice sums against every alignment written out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.rnnt import lattice_sum, path_sum

from zipformer.losses.lattice import band_occupation, full_occupation


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(0, 5), st.integers(0, 99))
def test_all_alignments_written_out(frames: int, symbols: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    label = torch.randn(1, symbols, frames, generator=random, dtype=torch.float64)
    blank = torch.randn(1, symbols + 1, frames, generator=random, dtype=torch.float64)
    total, label_occupation, blank_occupation = full_occupation(
        label, blank, torch.tensor([frames]), torch.tensor([symbols])
    )
    label.requires_grad_()
    blank.requires_grad_()
    expected = path_sum(label[0], blank[0])
    torch.testing.assert_close(total[0], expected)
    torch.testing.assert_close(lattice_sum(label[0], blank[0]), expected)
    expected.backward()
    torch.testing.assert_close(blank_occupation, blank.grad)
    if symbols:
        torch.testing.assert_close(label_occupation, label.grad)


@pytest.mark.parametrize(
    "starts", [[0, 0, 0, 0, 0, 0, 0, 2], [0, 1, 1, 1, 1, 1, 1, 2], [0, 2, 2, 2, 2, 2, 2, 2]]
)
def test_a_band_that_lingers_longer_than_it_is_wide(starts: list[int]) -> None:
    """Slots of the cyclic layout are used again while the band stands still."""
    T, R, U = 8, 3, 4
    random = torch.Generator().manual_seed(0)
    label = torch.randn(1, T, R, generator=random, dtype=torch.float64)
    blank = torch.randn(1, T, R, generator=random, dtype=torch.float64)
    lower = torch.tensor([starts])
    total, label_occupation, blank_occupation = band_occupation(
        label, blank, lower, torch.tensor([T]), torch.tensor([U]), U
    )
    full_label = torch.full((U, T), -torch.inf, dtype=torch.float64)
    full_blank = torch.full((U + 1, T), -torch.inf, dtype=torch.float64)
    for t, start in enumerate(starts):
        for k in range(R):
            full_blank[start + k, t] = blank[0, t, k]
            if k + 1 < R:
                full_label[start + k, t] = label[0, t, k]
    expected = full_occupation(full_label[None], full_blank[None], torch.tensor([T]), torch.tensor([U]))
    torch.testing.assert_close(total, expected.log_probability)
    torch.testing.assert_close(total[0], path_sum(full_label, full_blank))
    for t, start in enumerate(starts):
        in_band = slice(start, start + R)
        torch.testing.assert_close(blank_occupation[0, t], expected.blank[0, in_band, t])
        torch.testing.assert_close(label_occupation[0, t, : R - 1], expected.label[0, in_band, t][: R - 1])
    assert not label_occupation[:, :, -1].any()


def test_float32_scores_are_summed_in_float64() -> None:
    """A thousand frames: summed in float32, the occupations of a frame would add up to 1 only to 1e-3."""
    T, U = 1000, 20
    label, blank = torch.full((1, U, T), -4.1), torch.full((1, U + 1, T), -0.3)
    total, _, blank_occupation = full_occupation(label, blank, torch.tensor([T]), torch.tensor([U]))
    torch.testing.assert_close(
        blank_occupation.sum(1), torch.ones(1, T, dtype=torch.float64), rtol=1e-9, atol=0
    )
    # All C(T - 1 + U, U) alignments have the same score.
    count = torch.lgamma(torch.tensor([T + U, U + 1, T], dtype=torch.float64))
    expected = U * label[0, 0, 0].double() + T * blank[0, 0, 0].double() + count[0] - count[1] - count[2]
    assert total.item() == pytest.approx(expected.item(), rel=1e-12)
