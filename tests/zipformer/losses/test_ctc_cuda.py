"""The kernels for CTC against PyTorch's loss."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
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

ctc_cuda = pytest.importorskip(
    "zipformer.losses.ctc_cuda", reason="Triton comes with the CUDA builds of PyTorch"
)

BLANK = 0


def draw(N: int, T: int, V: int, *, seed: int, dtype: torch.dtype) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(N, T, V, generator=random, dtype=torch.float64).log_softmax(2).to(dtype)


def check(log_probs: Tensor, symbols: list[list[int]], frame_lengths: list[int]) -> None:
    """Loss and gradient of a batch, which the loss multiplies by 0.3."""
    U = max(map(len, symbols))
    padded = torch.tensor([utterance + [1] * (U - len(utterance)) for utterance in symbols]).view(-1, U)
    lengths = torch.tensor(frame_lengths), torch.tensor([len(utterance) for utterance in symbols])

    exact = log_probs.double().requires_grad_()
    expected = F.ctc_loss(exact.transpose(0, 1), padded, *lengths, blank=BLANK, reduction="sum")
    (0.3 * expected).backward()
    # PyTorch's gradient is that of the scores before a log-softmax; ours is through one, too.
    leaf = log_probs.to(DEVICE).requires_grad_()
    found = ctc_cuda.CtcFunction.apply(leaf, padded.to(DEVICE), *(x.to(DEVICE) for x in lengths), BLANK)
    (0.3 * found).backward()
    assert found.dtype == log_probs.dtype
    tight = log_probs.dtype == torch.float64
    torch.testing.assert_close(found.double().cpu(), expected, rtol=1e-10 if tight else 1e-5, atol=1e-6)
    assert leaf.grad is not None
    assert exact.grad is not None
    before = through_log_softmax(leaf.grad.double().cpu(), exact.detach())
    torch.testing.assert_close(
        before, through_log_softmax(exact.grad, exact.detach()), rtol=0, atol=1e-9 if tight else 2e-5
    )


def through_log_softmax(grad: Tensor, log_probs: Tensor) -> Tensor:
    """Gradient of the scores that ``log_probs`` are the log-softmax of."""
    return grad - log_probs.exp() * grad.sum(dim=2, keepdim=True)


@runs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch(dtype: torch.dtype) -> None:
    log_probs = draw(4, 12, 6, seed=0, dtype=dtype)
    check(log_probs, [[3, 3, 5, 3], [1, 2], [4], [5, 5, 5]], [12, 5, 1, 9])


@runs_kernels
def test_no_symbols() -> None:
    check(draw(2, 5, 4, seed=1, dtype=torch.float32), [[], [2]], [5, 3])


@runs_kernels
@settings(max_examples=25, deadline=None)
@given(
    symbols=st.lists(st.integers(1, 3), max_size=20),
    spare=st.integers(0, 6),
    seed=st.integers(0, 99),
)
def test_any_transcript(symbols: list[int], spare: int, seed: int) -> None:
    repeats = sum(a == b for a, b in pairwise(symbols))
    frames = max(1, len(symbols) + repeats + spare)
    check(draw(2, frames + 2, 4, seed=seed, dtype=torch.float64), [symbols, [1]], [frames, frames + 2])


@runs_kernels
def test_too_few_frames() -> None:
    log_probs = draw(1, 3, 4, seed=2, dtype=torch.float32).to(DEVICE).requires_grad_()
    arguments = (torch.tensor(x, device=DEVICE) for x in ([[1, 1, 1]], [3], [3]))
    loss = ctc_cuda.CtcFunction.apply(log_probs, *arguments, BLANK)
    loss.backward()
    assert loss.item() == torch.inf
    assert log_probs.grad is not None
    assert log_probs.grad.isnan().any()


@on_gpu
def test_a_large_batch() -> None:
    log_probs = draw(8, 400, 3000, seed=3, dtype=torch.float32)
    random = torch.Generator().manual_seed(4)
    symbols = torch.randint(1, 3000, (8, 150), generator=random).tolist()
    check(log_probs, symbols, [400, 390, 380, 370, 360, 350, 340, 330])


@not_interpreted
def test_kernels_compile_for_a_gpu() -> None:
    with compiling_for_a_gpu() as compiled:
        log_probs = draw(1, 4, 5, seed=5, dtype=torch.float32).requires_grad_()
        arguments = (torch.tensor(x) for x in ([[1, 2]], [4], [2]))
        ctc_cuda.CtcFunction.apply(log_probs, *arguments, BLANK).backward()
    assert len(compiled) == 2
    assert all("cubin" in kernel.asm for kernel in compiled)


@not_interpreted
def test_in_the_interpreter() -> None:
    run_in_the_interpreter(__file__)
