"""The joiner's loss block by block against the same from all its logits at once."""

import math
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zipformer.losses.pruned_joiner import pruned_joiner_loss
from zipformer.losses.rnnt import gather_band, prune_ranges, pruned_rnnt_loss

J, V = 6, 9
sizes = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 7)), min_size=1, max_size=5)


class Problem(NamedTuple):
    am: Tensor
    lm: Tensor
    weight: Tensor
    bias: Tensor
    symbols: Tensor
    ranges: Tensor
    frame_lengths: Tensor
    symbol_lengths: Tensor

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        return self[:4]


def make_problem(
    utterances: list[tuple[int, int]], *, prune_range: int = 3, seed: int = 0, spread: float = 1.0
) -> Problem:
    """Random inputs for utterances of (frames, symbols), float64; unused symbols are -1.

    A larger spread makes alignments sharper: most arcs are then not used at all.
    """
    random = torch.Generator().manual_seed(seed)
    frame_lengths, symbol_lengths = (torch.tensor(column) for column in zip(*utterances, strict=True))
    N, T, U = len(utterances), int(frame_lengths.max()), int(symbol_lengths.max())
    shapes = ((N, T, J), (N, U + 1, J), (V, J), (V,))
    leaves = [torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]
    leaves[2] *= spread
    symbols = torch.randint(1, V, (N, U), generator=random)
    symbols[torch.arange(U) >= symbol_lengths.unsqueeze(1)] = -1
    occupations = torch.rand(N, U, T + 1, generator=random), torch.rand(N, U + 1, T, generator=random)
    ranges = prune_ranges(*occupations, frame_lengths, symbol_lengths, prune_range)
    return Problem(
        *(leaf.requires_grad_() for leaf in leaves), symbols, ranges, frame_lengths, symbol_lengths
    )


def at_once(problem: Problem, blank: int = 0) -> Tensor:
    """Loss (N,) of all logits."""
    am, lm, weight, bias, symbols, ranges, *lengths = problem
    logits = F.linear(torch.tanh(am.unsqueeze(2) + gather_band(lm, ranges)), weight, bias)
    return pruned_rnnt_loss(logits, symbols, ranges, *lengths, blank=blank)


@settings(max_examples=80, deadline=None)
@given(
    sizes,
    st.sampled_from([0, 4]),
    st.integers(2, 5),
    st.sampled_from([1, 200, 10**6]),
    st.sampled_from(["native", "plain"]),
    st.sampled_from([1.0, 30.0]),
    st.integers(0, 99),
)
def test_loss_and_gradients(
    utterances: list[tuple[int, int]],
    blank: int,
    prune_range: int,
    block_elements: int,
    backend: str,
    spread: float,
    seed: int,
) -> None:
    problem = make_problem(utterances, prune_range=prune_range, seed=seed, spread=spread)
    loss = pruned_joiner_loss(*problem, blank=blank, backend=backend, block_elements=block_elements)
    expected = at_once(problem, blank).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    if expected.isfinite():
        actual_grads = torch.autograd.grad(3 * loss, problem.leaves)
        expected_grads = torch.autograd.grad(3 * expected, problem.leaves)
        torch.testing.assert_close(actual_grads, expected_grads, rtol=1e-8, atol=1e-10)


def test_gradients_numerically() -> None:
    problem = make_problem([(4, 2), (3, 1)], prune_range=2)
    assert torch.autograd.gradcheck(
        lambda *leaves: pruned_joiner_loss(*leaves, *problem[4:], block_elements=1), problem.leaves
    )


def test_what_is_left_out_in_float32_is_less_than_its_rounding() -> None:
    """Sharp alignments, in which most positions of a frame are improbable but not impossible."""
    problem = make_problem([(60, 12), (47, 9)], prune_range=5, spread=8.0)
    single = Problem(*(leaf.detach().float().requires_grad_() for leaf in problem.leaves), *problem[4:])
    grads = torch.autograd.grad(pruned_joiner_loss(*single), single.leaves)
    for actual, expected in zip(
        grads, torch.autograd.grad(at_once(problem).sum(), problem.leaves), strict=True
    ):
        assert (actual - expected).norm() < 1e-5 * expected.norm()


def test_an_utterance_without_an_alignment_gives_an_infinite_loss_and_no_gradient() -> None:
    problem = make_problem([(3, 3), (3, 3)], prune_range=2)
    ranges = torch.tensor([[[0, 1], [1, 2], [2, 3]], [[0, 1], [0, 1], [0, 1]]])
    loss = pruned_joiner_loss(*problem._replace(ranges=ranges))
    assert loss == math.inf
    am_grad, lm_grad, *_ = torch.autograd.grad(loss, problem.leaves)
    for grad in (am_grad, lm_grad):
        assert grad[0].any()
        assert not grad[1].any()


def test_not_a_number_reaches_the_loss_and_the_gradient() -> None:
    problem = make_problem([(5, 2), (4, 2)])
    with torch.no_grad():
        problem.am[1, 2, 3] = math.nan
    loss = pruned_joiner_loss(*problem)
    assert loss.isnan()
    am_grad, *_ = torch.autograd.grad(loss, problem.leaves)
    assert am_grad[0].isfinite().all()
    assert am_grad[1, :4].isnan().any()


def test_no_gradient_is_computed_where_none_is_asked_for() -> None:
    problem = make_problem([(7, 3), (5, 2)])
    loss = pruned_joiner_loss(*problem)
    assert loss.requires_grad
    with torch.no_grad():
        assert pruned_joiner_loss(*problem) == loss
    frozen = Problem(*(leaf.detach() for leaf in problem.leaves), *problem[4:])
    assert not pruned_joiner_loss(*frozen).requires_grad
    only_lm = frozen._replace(lm=problem.lm)
    (lm_grad,) = torch.autograd.grad(pruned_joiner_loss(*only_lm), only_lm.lm)
    torch.testing.assert_close(lm_grad, torch.autograd.grad(loss, problem.lm)[0])


def test_half_precision_multiplies_in_half_and_sums_in_float32() -> None:
    problem = make_problem([(30, 8), (22, 5)])
    half = Problem(
        *(leaf.detach().bfloat16().requires_grad_() for leaf in problem[:2]),
        *(leaf.detach().float().requires_grad_() for leaf in problem[2:4]),
        *problem[4:],
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = pruned_joiner_loss(*half)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), at_once(problem).sum(), rtol=1e-2, atol=0)
    expected_grads = torch.autograd.grad(at_once(problem).sum(), problem.leaves)
    for leaf, grad, expected in zip(
        half.leaves, torch.autograd.grad(loss, half.leaves), expected_grads, strict=True
    ):
        assert grad.dtype == leaf.dtype
        assert (grad - expected).norm() < 2e-2 * expected.norm()


class _LargestTensor(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(result) if isinstance(x, Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return result


def test_no_tensor_is_larger_than_the_logits_of_an_utterance() -> None:
    problem = make_problem([(40, 8)] * 3)
    T, R = problem.ranges.shape[1:]
    with _LargestTensor() as largest:
        pruned_joiner_loss(*problem, block_elements=1).backward()
    assert largest.elements == T * R * V


def test_shapes_that_do_not_fit_are_named() -> None:
    problem = make_problem([(5, 2)])
    for wrong, message in [
        ({"am": problem.am[:, :4]}, r"am is \(1, 4, 6\), lm \(1, 3, 6\) and ranges \(1, 5, 3\)"),
        ({"lm": problem.lm[:, :, :5]}, r"lm \(1, 3, 5\)"),
        ({"lm": problem.lm[:, :2]}, r"symbols are \(1, 2\)"),
        ({"bias": problem.bias[:8]}, r"weight is \(9, 6\) and bias \(8,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            pruned_joiner_loss(*problem._replace(**wrong))
    with pytest.raises(ValueError, match="no backend 'fast'"):
        pruned_joiner_loss(*problem, backend="fast")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("block_elements", [1, 10**6])
def test_cuda_gives_the_same_without_waiting_for_the_device(block_elements: int) -> None:
    problem = make_problem([(40, 8), (31, 5), (12, 3)])
    there = Problem(*(x.detach().cuda().requires_grad_(x.requires_grad) for x in problem))
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = pruned_joiner_loss(*there, block_elements=block_elements)
        grads = torch.autograd.grad(loss, there.leaves)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = at_once(problem).sum()
    torch.testing.assert_close(loss.cpu(), expected)
    for grad, expected_grad in zip(grads, torch.autograd.grad(expected, problem.leaves), strict=True):
        torch.testing.assert_close(grad.cpu(), expected_grad)
