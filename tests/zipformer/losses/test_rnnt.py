"""Pruned RNN-T against k2's numbers, brute force, torchaudio and its own invariants."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import rnnt as reference
from torch import Tensor

from zipformer.losses.rnnt import gather_band, prune_ranges, pruned_rnnt_loss, smoothed_rnnt_loss

GOLDEN_FILES = [("rnnt_f64.npz", 1e-8, 1e-8), ("rnnt_f32.npz", 1e-4, 1e-3)]


class Problem(NamedTuple):
    am: Tensor
    lm: Tensor
    symbols: Tensor
    frame_lengths: Tensor
    symbol_lengths: Tensor

    @property
    def targets(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.symbols, self.frame_lengths, self.symbol_lengths


def make_problem(
    frame_lengths: list[int], symbol_lengths: list[int], vocab: int = 7, blank: int = 0, seed: int = 0
) -> Problem:
    """Random scores; unused symbols are -1, unused scores as random as the others."""
    random = torch.Generator().manual_seed(seed)
    N, T, U = len(frame_lengths), max(frame_lengths), max(symbol_lengths)
    am = 3 * torch.randn(N, T, vocab, generator=random, dtype=torch.float64)
    lm = 3 * torch.randn(N, U + 1, vocab, generator=random, dtype=torch.float64)
    symbols = torch.randint(1, vocab, (N, U), generator=random)
    symbols = torch.where(symbols <= blank, symbols - 1, symbols)  # every id but blank
    lengths = torch.tensor(symbol_lengths)
    symbols[torch.arange(U) >= lengths.unsqueeze(1)] = -1
    return Problem(am.requires_grad_(), lm.requires_grad_(), symbols, torch.tensor(frame_lengths), lengths)


lengths = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 7)), min_size=1, max_size=3)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.detach() - expected).norm() / expected.norm())


@pytest.mark.parametrize(("file", "value_tolerance", "gradient_tolerance"), GOLDEN_FILES)
def test_k2_numbers(golden_dir: Path, file: str, value_tolerance: float, gradient_tolerance: float) -> None:
    golden = {name: torch.from_numpy(np.asarray(value)) for name, value in np.load(golden_dir / file).items()}
    am, lm = golden["am"].requires_grad_(), golden["lm"].requires_grad_()
    targets = golden["symbols"], golden["boundary"][:, 3], golden["boundary"][:, 2]

    loss, occupations = smoothed_rnnt_loss(
        am, lm, *targets, lm_scale=float(golden["lm_only_scale"]), am_scale=float(golden["am_only_scale"])
    )
    am_grad, lm_grad = torch.autograd.grad(loss.sum(), (am, lm))
    ranges = prune_ranges(*occupations, *targets[1:], int(golden["s_range"]))
    logits = torch.tanh(am.unsqueeze(2) + gather_band(lm, ranges))
    pruned = pruned_rnnt_loss(logits, targets[0], ranges, *targets[1:])
    pruned_am_grad, pruned_lm_grad = torch.autograd.grad(pruned.sum(), (am, lm))

    assert loss.dtype == pruned.dtype == am.dtype
    assert torch.equal(ranges, golden["ranges"])
    assert relative_error(loss, golden["smoothed_loss"]) < value_tolerance
    assert relative_error(pruned, golden["pruned_loss"]) < value_tolerance
    for actual, name in [
        (am_grad, "am_grad"),
        (lm_grad, "lm_grad"),
        (occupations[0], "px_grad"),
        (occupations[1], "py_grad"),
        (pruned_am_grad, "pruned_am_grad"),
        (pruned_lm_grad, "pruned_lm_grad"),
    ]:
        assert relative_error(actual, golden[name]) < gradient_tolerance, name


@settings(max_examples=25, deadline=None)
@given(
    lengths,
    st.integers(0, 6),
    st.sampled_from([(0.0, 0.0), (0.25, 0.0), (0.0, 0.1), (0.25, 0.1)]),
    st.integers(0, 99),
)
def test_smoothed_loss_and_gradient_by_definition(
    sizes: list[tuple[int, int]], blank: int, scales: tuple[float, float], seed: int
) -> None:
    problem = make_problem([t for t, _ in sizes], [u for _, u in sizes], blank=blank, seed=seed)
    options = {"lm_scale": scales[0], "am_scale": scales[1], "blank": blank}
    loss, (symbol_occupation, blank_occupation) = smoothed_rnnt_loss(*problem, **options)
    expected = reference.smoothed_loss(*problem, **options)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)

    weights = torch.arange(1.0, len(sizes) + 1, dtype=torch.float64)
    gradient = torch.autograd.grad((loss * weights).sum(), problem[:2])
    expected_gradient = torch.autograd.grad((expected * weights).sum(), problem[:2])
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-8, atol=1e-10)

    # Every alignment emits each symbol once and leaves each frame once, within the utterance's lengths.
    for n, (T, U) in enumerate(sizes):
        torch.testing.assert_close(symbol_occupation[n, :U, :T].sum(1), torch.ones(U).double())
        torch.testing.assert_close(blank_occupation[n, : U + 1, :T].sum(0), torch.ones(T).double())
        assert symbol_occupation[n].sum() == pytest.approx(U)
        assert blank_occupation[n].sum() == pytest.approx(T)


@settings(max_examples=40, deadline=None)
@given(lengths, st.integers(0, 6), st.integers(2, 5), st.integers(0, 99))
def test_pruned_loss_and_gradient_by_definition(
    sizes: list[tuple[int, int]], blank: int, prune_range: int, seed: int
) -> None:
    problem = make_problem([t for t, _ in sizes], [u for _, u in sizes], blank=blank, seed=seed)
    _, occupations = smoothed_rnnt_loss(*problem, lm_scale=0.25, am_scale=0.0, blank=blank)
    ranges = prune_ranges(*occupations, *problem[3:], prune_range)
    logits = torch.tanh(problem.am.unsqueeze(2) + gather_band(problem.lm, ranges)) * 5
    loss = pruned_rnnt_loss(logits, problem.symbols, ranges, *problem[3:], blank=blank)
    expected = reference.pruned_loss(logits, problem.symbols, ranges, *problem[3:], blank=blank)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)

    weights = torch.arange(1.0, len(sizes) + 1, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((loss * weights).sum(), logits, retain_graph=True)
    # A short utterance beside a long one may be left without a path: no gradient.
    (expected_gradient,) = torch.autograd.grad((expected * weights)[expected.isfinite()].sum(), logits)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-8, atol=1e-10)


@settings(max_examples=50, deadline=None)
@given(lengths, st.integers(2, 5), st.integers(0, 99))
def test_ranges_by_search_and_their_constraints(
    sizes: list[tuple[int, int]], prune_range: int, seed: int
) -> None:
    problem = make_problem([t for t, _ in sizes], [u for _, u in sizes], seed=seed)
    _, occupations = smoothed_rnnt_loss(*problem, lm_scale=0.25, am_scale=0.0)
    ranges = prune_ranges(*occupations, *problem[3:], prune_range)
    N, T, R = ranges.shape
    U = problem.symbols.shape[1]
    assert min(prune_range, U + 1) <= R <= U + 1
    assert T * (R - 1) >= U
    assert torch.equal(ranges, reference.ranges_by_search(*occupations, *problem[3:], R))

    starts = ranges[:, :, 0]
    assert torch.equal(ranges - starts.unsqueeze(2), torch.arange(R).expand(N, T, R))
    assert (starts[:, 0] == 0).all()
    steps = starts.diff(dim=1)
    assert ((steps >= 0) & (steps < R)).all()
    for n, (frames, symbols) in enumerate(sizes):
        if frames * (R - 1) >= symbols:
            assert symbols in ranges[n, frames - 1]


@settings(max_examples=50, deadline=None)
@given(lengths, st.integers(2, 5), st.integers(0, 99))
def test_ranges_of_any_occupations(sizes: list[tuple[int, int]], prune_range: int, seed: int) -> None:
    """Occupations that no lattice has, so that every part of the rule decides somewhere."""
    random = torch.Generator().manual_seed(seed)
    frame_lengths, symbol_lengths = (torch.tensor(column) for column in zip(*sizes, strict=True))
    N, T, U = len(sizes), int(frame_lengths.max()), int(symbol_lengths.max())
    occupations = torch.rand(N, U, T + 1, generator=random), torch.rand(N, U + 1, T, generator=random)
    ranges = prune_ranges(*occupations, frame_lengths, symbol_lengths, prune_range)
    expected = reference.ranges_by_search(*occupations, frame_lengths, symbol_lengths, ranges.shape[2])
    assert torch.equal(ranges, expected)


@pytest.mark.parametrize("frames", [1, 3, 20])
def test_the_range_is_raised_where_few_frames_must_pass_many_symbols(frames: int) -> None:
    problem = make_problem([frames], [12])
    _, occupations = smoothed_rnnt_loss(*problem, lm_scale=0.25, am_scale=0.0)
    ranges = prune_ranges(*occupations, *problem[3:], 2)
    assert ranges.shape[2] == {1: 13, 3: 5, 20: 2}[frames]
    logits = problem.am.unsqueeze(2) + gather_band(problem.lm, ranges)
    assert pruned_rnnt_loss(logits, problem.symbols, ranges, *problem[3:]).isfinite().all()


def test_an_unpruned_band_gives_torchaudio_loss_and_gradient() -> None:
    torchaudio = pytest.importorskip("torchaudio")
    problem = make_problem([30, 21, 8], [11, 6, 11], vocab=13)
    symbols = problem.symbols.clamp(min=0)
    am, lm = problem.am.detach().float(), problem.lm.detach().float()
    logits = (am.unsqueeze(2) + lm.unsqueeze(1)).tanh().mul(4).requires_grad_()
    ranges = torch.arange(12).expand(3, 30, 12)
    loss = pruned_rnnt_loss(logits, symbols, ranges, *problem[3:])
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    expected = torchaudio.functional.rnnt_loss(
        logits, symbols.int(), problem.frame_lengths.int(), problem.symbol_lengths.int(), 0, reduction="none"
    )
    (expected_gradient,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-3, atol=1e-5)


def test_unpruned_smoothed_and_banded_loss_agree() -> None:
    problem = make_problem([9, 5], [4, 3])
    simple, _ = smoothed_rnnt_loss(*problem, lm_scale=0.0, am_scale=0.0)
    ranges = torch.arange(5).expand(2, 9, 5)
    logits = problem.am.unsqueeze(2) + gather_band(problem.lm, ranges)
    torch.testing.assert_close(pruned_rnnt_loss(logits, problem.symbols, ranges, *problem[3:]), simple)


def test_gradients_numerically() -> None:
    problem = make_problem([4, 3], [2, 1], vocab=4)
    assert torch.autograd.gradcheck(
        lambda am, lm: smoothed_rnnt_loss(am, lm, *problem[2:], lm_scale=0.25, am_scale=0.1)[0], problem[:2]
    )
    _, occupations = smoothed_rnnt_loss(*problem, lm_scale=0.25, am_scale=0.1)
    ranges = prune_ranges(*occupations, *problem[3:], 2)
    assert torch.autograd.gradcheck(
        lambda am, lm: pruned_rnnt_loss(
            torch.tanh(am.unsqueeze(2) + gather_band(lm, ranges)), problem.symbols, ranges, *problem[3:]
        ),
        problem[:2],
    )


def test_padding_changes_nothing() -> None:
    """Each utterance alone, and all of them in a batch whose padding is random, give the same numbers."""
    sizes = [(12, 7), (6, 2), (9, 0), (3, 5)]
    batch = make_problem([t for t, _ in sizes], [u for _, u in sizes])
    loss, occupations = smoothed_rnnt_loss(*batch, lm_scale=0.25, am_scale=0.0)
    ranges = prune_ranges(*occupations, *batch[3:], 3)
    logits = torch.tanh(batch.am.unsqueeze(2) + gather_band(batch.lm, ranges))
    pruned = pruned_rnnt_loss(logits, batch.symbols, ranges, *batch[3:])
    am_grad, lm_grad = torch.autograd.grad(loss.sum() + pruned.sum(), batch[:2])
    for n, (T, U) in enumerate(sizes):
        alone = Problem(
            batch.am[n : n + 1, :T], batch.lm[n : n + 1, : U + 1], batch.symbols[n : n + 1, :U], *batch[3:]
        )
        targets = batch.frame_lengths[n : n + 1], batch.symbol_lengths[n : n + 1]
        one_loss, _ = smoothed_rnnt_loss(*alone[:3], *targets, lm_scale=0.25, am_scale=0.0)
        width = min(3, U + 1)
        band = ranges[n : n + 1, :T, :width]
        one_logits = torch.tanh(alone.am.unsqueeze(2) + gather_band(alone.lm, band))
        one_pruned = pruned_rnnt_loss(one_logits, alone.symbols, band, *targets)
        torch.testing.assert_close(loss[n : n + 1], one_loss)
        torch.testing.assert_close(pruned[n : n + 1], one_pruned)
        one_grad = torch.autograd.grad(one_loss.sum() + one_pruned.sum(), batch[:2])
        torch.testing.assert_close(am_grad[n], one_grad[0][n])
        torch.testing.assert_close(lm_grad[n], one_grad[1][n])
        assert not am_grad[n, T:].any()
        assert not lm_grad[n, U + 1 :].any()


def test_a_constant_added_to_all_scores_of_a_row_changes_nothing() -> None:
    problem = make_problem([7, 5], [3, 4])
    shifted = problem._replace(am=problem.am + 1000, lm=problem.lm - 500)
    loss, _ = smoothed_rnnt_loss(*problem, lm_scale=0.25, am_scale=0.1)
    torch.testing.assert_close(smoothed_rnnt_loss(*shifted, lm_scale=0.25, am_scale=0.1)[0], loss)


@pytest.mark.parametrize("frames", [1, 50])
def test_extreme_scores_stay_finite_in_float32(frames: int) -> None:
    """Scores so far apart that most softmax probabilities are 0 in float32."""
    problem = make_problem([frames], [10])
    am, lm = (200 * problem.am).detach().float(), (200 * problem.lm).detach().float()
    logits = (am.unsqueeze(2) + lm.unsqueeze(1)).requires_grad_()
    ranges = torch.arange(11).expand(1, frames, 11)
    loss = pruned_rnnt_loss(logits, problem.symbols, ranges, *problem[3:])
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    expected = reference.pruned_loss(logits.double(), problem.symbols, ranges, *problem[3:], blank=0)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    assert gradient.isfinite().all()

    am.requires_grad_()
    smoothed, _ = smoothed_rnnt_loss(am, lm, *problem[2:], lm_scale=0.25, am_scale=0.1)
    (gradient,) = torch.autograd.grad(smoothed.sum(), am)
    assert smoothed.isfinite().all()
    assert gradient.isfinite().all()


def test_encoder_and_predictor_that_exclude_each_other_have_a_finite_gradient() -> None:
    """All probability is on different tokens, so that softmax(am + lm) divides by what is 0 in float32."""
    am, lm = torch.full((1, 1, 7), -500.0), torch.full((1, 21, 7), -500.0)
    am[:, :, 4], lm[:, :, 3] = 0.0, 0.0
    scores = am.requires_grad_(), lm.requires_grad_()
    targets = torch.ones(1, 20, dtype=torch.int64), torch.tensor([1]), torch.tensor([20])
    loss, _ = smoothed_rnnt_loss(*scores, *targets, lm_scale=0.25, am_scale=0.0)
    assert loss.isfinite().all()
    for gradient in torch.autograd.grad(loss.sum(), scores):
        assert gradient.isfinite().all()


def test_a_band_without_a_path_gives_an_infinite_loss_and_no_gradient() -> None:
    logits = torch.randn(2, 3, 2, 5, requires_grad=True)
    symbols = torch.tensor([[1, 2, 3], [1, 2, 3]])
    ranges = torch.tensor([[[0, 1], [1, 2], [2, 3]], [[0, 1], [0, 1], [0, 1]]])
    loss = pruned_rnnt_loss(logits, symbols, ranges, torch.tensor([3, 3]), torch.tensor([3, 3]))
    assert loss[0].isfinite()
    assert loss[1] == math.inf
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad[0].any()
    assert not logits.grad[1].any()


def test_an_utterance_without_frames_gives_an_infinite_loss() -> None:
    problem = make_problem([5, 5], [2, 2])
    frame_lengths = torch.tensor([5, 0])
    loss, _ = smoothed_rnnt_loss(
        *problem[:3], frame_lengths, problem.symbol_lengths, lm_scale=0.0, am_scale=0.0
    )
    assert loss[0].isfinite()
    assert loss[1] == math.inf


def test_not_a_number_stays_in_its_utterance() -> None:
    problem = make_problem([5, 5], [2, 2])
    am = problem.am.detach().clone()
    am[1, 2, 3] = math.nan
    loss, occupations = smoothed_rnnt_loss(am, *problem[1:], lm_scale=0.25, am_scale=0.0)
    expected, _ = smoothed_rnnt_loss(*problem, lm_scale=0.25, am_scale=0.0)
    assert loss[1].isnan()
    assert loss[0] == expected[0]
    ranges = prune_ranges(*occupations, *problem[3:], 2)
    assert ranges.min() >= 0
    assert ranges.max() <= 2


def test_half_precision_scores_are_computed_in_float32() -> None:
    problem = make_problem([20], [6])
    am, lm = problem.am.detach().bfloat16().requires_grad_(), problem.lm.detach().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, occupations = smoothed_rnnt_loss(am, lm, *problem[2:], lm_scale=0.25, am_scale=0.0)
        loss.sum().backward()
    expected, expected_occupations = smoothed_rnnt_loss(
        am.float(), lm.float(), *problem[2:], lm_scale=0.25, am_scale=0.0
    )
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(occupations, expected_occupations)
    assert am.grad is not None
    assert am.grad.dtype == torch.bfloat16


def test_gather_band_takes_the_rows_that_the_ranges_name() -> None:
    rows = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    ranges = torch.randint(0, 4, (2, 5, 1)) + torch.arange(3)
    band = gather_band(rows, ranges)
    for n, t, k in np.ndindex(2, 5, 3):
        assert torch.equal(band[n, t, k], rows[n, ranges[n, t, k]])
    assert torch.autograd.gradcheck(lambda x: gather_band(x, ranges), rows)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_losses_and_ranges_on_cuda_are_the_same_without_waiting_for_the_device() -> None:
    problem = make_problem([30, 21, 8], [11, 6, 10], vocab=13)
    there = Problem(*(x.detach().cuda().requires_grad_(x.requires_grad) for x in problem))

    def run(given: Problem) -> list[Tensor]:
        loss, occupations = smoothed_rnnt_loss(*given, lm_scale=0.25, am_scale=0.1)
        ranges = prune_ranges(*occupations, *given[3:], 4)
        logits = torch.tanh(given.am.unsqueeze(2) + gather_band(given.lm, ranges))
        pruned = pruned_rnnt_loss(logits, given.symbols, ranges, *given[3:])
        return [loss, pruned, ranges, *torch.autograd.grad((loss + pruned).sum(), given[:2])]

    torch.cuda.set_sync_debug_mode("error")
    try:
        actual = run(there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close([x.cpu() for x in actual], run(problem))


def test_shapes_that_do_not_fit_are_named() -> None:
    problem = make_problem([5], [2])
    with pytest.raises(ValueError, match=r"symbols are \(1, 2\).*expected \(1, 3\)"):
        smoothed_rnnt_loss(problem.am, problem.am[:, :4], *problem[2:], lm_scale=0.0, am_scale=0.0)
    with pytest.raises(ValueError, match=r"am is \(1, 5, 6\)"):
        smoothed_rnnt_loss(problem.am[:, :, 1:], *problem[1:], lm_scale=0.0, am_scale=0.0)
    _, occupations = smoothed_rnnt_loss(*problem, lm_scale=0.0, am_scale=0.0)
    with pytest.raises(ValueError, match="prune_range is 1"):
        prune_ranges(*occupations, *problem[3:], 1)
    with pytest.raises(ValueError, match=r"symbol_occupation is \(1, 2, 5\)"):
        prune_ranges(occupations[0][:, :, :5], occupations[1], *problem[3:], 2)
    ranges = torch.arange(4).expand(1, 5, 4)
    with pytest.raises(ValueError, match="ranges keep 4 positions, symbols have only 3"):
        pruned_rnnt_loss(torch.randn(1, 5, 4, 7), problem.symbols, ranges, *problem[3:])
    with pytest.raises(ValueError, match=r"logits are \(1, 5, 3, 7\)"):
        pruned_rnnt_loss(torch.randn(1, 5, 3, 7), problem.symbols, ranges, *problem[3:])
