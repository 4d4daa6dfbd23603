"""The kernels for the transducer lattice against the plain functions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from triton_runs import (
    DEVICE,
    compiling_for_a_gpu,
    not_interpreted,
    on_gpu,
    run_in_the_interpreter,
    runs_kernels,
)

from zipformer.losses import lattice
from zipformer.losses.lattice import Occupation
from zipformer.losses.rnnt import prune_ranges

lattice_cuda = pytest.importorskip(
    "zipformer.losses.lattice_cuda", reason="Triton comes with the CUDA builds of PyTorch"
)

TOLERANCE = {torch.float32: {"rtol": 2e-5, "atol": 2e-6}, torch.float64: {"rtol": 1e-10, "atol": 1e-12}}


def assert_same(found: Occupation, expected: Occupation, dtype: torch.dtype) -> None:
    assert found.log_probability.dtype == torch.float64
    assert found.label.dtype == found.blank.dtype == dtype
    assert found.label.shape == expected.label.shape
    tolerance = TOLERANCE[dtype]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.cpu().double(), other.cpu(), **tolerance)


def check_full(label: Tensor, blank: Tensor, frame_lengths: list[int], symbol_lengths: list[int]) -> None:
    lengths = (torch.tensor(frame_lengths), torch.tensor(symbol_lengths))
    expected = lattice.full_occupation(label, blank, *lengths)
    found = lattice_cuda.full_occupation(*(x.to(DEVICE) for x in (label, blank, *lengths)))
    assert_same(found, expected, blank.dtype)


def check_band(
    label: Tensor,
    blank: Tensor,
    starts: Tensor,
    frame_lengths: list[int],
    symbol_lengths: list[int],
    max_symbols: int,
) -> Occupation:
    arguments = (label, blank, starts, torch.tensor(frame_lengths), torch.tensor(symbol_lengths))
    expected = lattice.band_occupation(*arguments, max_symbols)
    found: Occupation = lattice_cuda.band_occupation(*(x.to(DEVICE) for x in arguments), max_symbols)
    assert_same(found, expected, blank.dtype)
    return found


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@runs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("T", "U"), [(1, 0), (1, 1), (1, 4), (7, 0), (6, 5), (3, 9), (13, 33)])
def test_full_lattice(T: int, U: int, dtype: torch.dtype) -> None:
    label, blank = draw(2, U, T, seed=1, dtype=dtype), draw(2, U + 1, T, seed=2, dtype=dtype)
    check_full(label, blank, [T, (T + 1) // 2], [U, U // 2])


@runs_kernels
def test_full_lattice_of_scores_in_another_order_of_memory() -> None:
    label, blank = draw(3, 8, 5, seed=3).transpose(1, 2), draw(8, 3, 6, seed=4).permute(1, 2, 0)
    check_full(label, blank, [8, 5, 1], [5, 3, 0])


@runs_kernels
def test_what_comes_after_the_end_has_no_influence() -> None:
    label, blank = draw(2, 4, 6, seed=5), draw(2, 5, 6, seed=6)
    label[0, 2:] = label[0, :, 4:] = blank[0, 3:] = blank[0, :, 4:] = torch.nan
    lengths = (torch.tensor([4, 6], device=DEVICE), torch.tensor([2, 4], device=DEVICE))
    found = lattice_cuda.full_occupation(label.to(DEVICE), blank.to(DEVICE), *lengths)
    expected = lattice.full_occupation(
        label[:1, :2, :4], blank[:1, :3, :4], torch.tensor([4]), torch.tensor([2])
    )
    torch.testing.assert_close(found.log_probability[:1].cpu(), expected.log_probability)
    assert not found.label[0, 2:].any()
    assert not found.blank[0, :, 4:].any()


@runs_kernels
def test_an_utterance_without_frames_is_impossible() -> None:
    found = lattice_cuda.full_occupation(
        *(x.to(DEVICE) for x in (draw(2, 2, 3, seed=7), draw(2, 3, 3, seed=8))),
        torch.tensor([0, 3], device=DEVICE),
        torch.tensor([0, 2], device=DEVICE),
    )
    assert found.log_probability[0] == -torch.inf
    assert found.log_probability[1].isfinite()
    assert not found.label[0].any()
    assert not found.blank[0].any()


@runs_kernels
def test_impossible_arcs() -> None:
    label, blank = draw(1, 3, 4, seed=9), draw(1, 4, 4, seed=10)
    label[0, 0, 0] = blank[0, 2, 1] = -torch.inf
    check_full(label, blank, [4], [3])
    label[0, 1] = -torch.inf
    check_full(label, blank, [4], [3])


@runs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "starts",
    [
        [0, 0, 0, 0, 0, 0, 0, 2],
        [0, 1, 1, 1, 1, 1, 1, 2],
        [0, 2, 2, 2, 2, 2, 2, 2],
        [0, 0, 1, 1, 2, 2, 2, 2],
        [0, 0, 0, 0, 0, 0, 0, 0],  # the last node is outside
        [1, 1, 1, 1, 1, 1, 1, 2],  # the first node is outside
    ],
)
def test_bands_that_linger_and_jump(starts: list[int], dtype: torch.dtype) -> None:
    T, R, U = 8, 3, 4
    label, blank = draw(1, T, R, seed=11, dtype=dtype), draw(1, T, R, seed=12, dtype=dtype)
    found = check_band(label, blank, torch.tensor([starts]), [T], [U], U)
    assert (found.log_probability.isfinite()).all() == (starts[0] == 0 and starts[-1] == 2)


@runs_kernels
@settings(max_examples=40, deadline=None)
@given(
    R=st.integers(2, 6),
    lower_edge=st.lists(st.integers(0, 6), min_size=1, max_size=9).map(sorted),
    symbols_left=st.integers(0, 3),
    frames_left=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_any_band(R: int, lower_edge: list[int], symbols_left: int, frames_left: int, seed: int) -> None:
    """Also with jumps that no path survives, and with last nodes inside, above and below."""
    T, U = len(lower_edge), lower_edge[-1] + R - 1
    label, blank = draw(1, T, R, seed=seed), draw(1, T, R, seed=seed + 1)
    starts = torch.tensor([lower_edge])
    check_band(label, blank, starts, [max(0, T - frames_left)], [max(0, U - symbols_left)], U)


@runs_kernels
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("R", [2, 5, 8])
def test_bands_as_pruning_finds_them(R: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    T, U = 4 + seed, 1 + 2 * seed % 7
    frame_lengths = torch.tensor([T, max(1, T - 2), (T + 1) // 2])
    symbol_lengths = torch.tensor([U, U // 2, min(U, 1)])
    uniform = torch.rand(3, U + 1, T, generator=random), torch.rand(3, U, T + 1, generator=random)
    ranges = prune_ranges(uniform[1], uniform[0], frame_lengths, symbol_lengths, R)
    shape = ranges.shape
    check_band(
        draw(*shape, seed=seed + 100),
        draw(*shape, seed=seed + 200),
        ranges[:, :, 0],
        frame_lengths.tolist(),
        symbol_lengths.tolist(),
        U,
    )


@runs_kernels
def test_a_band_as_wide_as_the_lattice() -> None:
    T, U = 5, 3
    label, blank = draw(1, T, U + 1, seed=13), draw(1, T, U + 1, seed=14)
    found = check_band(label, blank, torch.zeros(1, T, dtype=torch.int64), [T], [U], U)
    full = lattice_cuda.full_occupation(
        label[:, :, :U].transpose(1, 2).to(DEVICE),
        blank.transpose(1, 2).to(DEVICE),
        torch.tensor([T], device=DEVICE),
        torch.tensor([U], device=DEVICE),
    )
    torch.testing.assert_close(found.log_probability, full.log_probability)
    torch.testing.assert_close(found.blank, full.blank.transpose(1, 2))


@runs_kernels
def test_an_empty_batch() -> None:
    found = lattice_cuda.full_occupation(
        *(torch.zeros(shape, device=DEVICE) for shape in ((0, 2, 3), (0, 3, 3))),
        *(torch.zeros(0, dtype=torch.int64, device=DEVICE) for _ in range(2)),
    )
    assert found.log_probability.shape == (0,)
    assert found.blank.shape == (0, 3, 3)


@runs_kernels
def test_long_sums_keep_the_accuracy_of_float32_scores() -> None:
    T, U = 300, 3
    label, blank = torch.full((1, U, T), -40.1), torch.full((1, U + 1, T), -9.3)
    expected = lattice.full_occupation(label, blank, torch.tensor([T]), torch.tensor([U]))
    found = lattice_cuda.full_occupation(
        label.to(DEVICE), blank.to(DEVICE), *(torch.tensor([x], device=DEVICE) for x in (T, U))
    )
    torch.testing.assert_close(found.log_probability.cpu(), expected.log_probability, rtol=1e-8, atol=0)
    ones = torch.ones(1, T)
    torch.testing.assert_close(found.blank.sum(1).cpu(), ones, rtol=1e-5, atol=0)


@on_gpu
@pytest.mark.parametrize(("N", "T", "U", "R"), [(4, 1000, 200, 5), (1, 4000, 512, 32)])
def test_sizes_of_training(N: int, T: int, U: int, R: int) -> None:
    label, blank = draw(N, U, T, seed=15) - 5, draw(N, U + 1, T, seed=16) - 1
    frame_lengths, symbol_lengths = [T - 3 * n for n in range(N)], [U - 2 * n for n in range(N)]
    check_full(label, blank, frame_lengths, symbol_lengths)
    starts = (torch.arange(T) * (U + 1 - R) // (T - 20)).clamp(max=U + 1 - R).expand(N, T)
    check_band(
        draw(N, T, R, seed=17) - 5, draw(N, T, R, seed=18) - 1, starts, frame_lengths, symbol_lengths, U
    )


@on_gpu
def test_nothing_waits_for_the_device() -> None:
    label, blank = draw(2, 3, 8, seed=19).to(DEVICE), draw(2, 4, 8, seed=20).to(DEVICE)
    lengths = torch.tensor([8, 6], device=DEVICE), torch.tensor([3, 2], device=DEVICE)
    lattice_cuda.full_occupation(label, blank, *lengths)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        lattice_cuda.full_occupation(label, blank, *lengths)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@not_interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("T", "U"), [(7, 1), (48, 40), (20, 200), (32, 600)])
def test_kernels_compile_for_a_gpu(T: int, U: int, dtype: torch.dtype) -> None:
    N, R = 2, min(U + 1, 5)
    lengths = torch.tensor([T, T]), torch.tensor([U, U])
    with compiling_for_a_gpu() as compiled:
        lattice_cuda.full_occupation(
            torch.zeros(N, U, T, dtype=dtype), torch.zeros(N, U + 1, T, dtype=dtype), *lengths
        )
        band = torch.zeros(2, N, T, R, dtype=dtype)
        lattice_cuda.band_occupation(*band, torch.zeros(N, T, dtype=torch.int64), *lengths, U)
    assert [kernel.name for kernel in compiled] == 2 * ["sums_kernel", "occupation_kernel"]


@not_interpreted
def test_in_the_interpreter() -> None:
    run_in_the_interpreter(__file__)
