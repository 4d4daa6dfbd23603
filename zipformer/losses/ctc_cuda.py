"""Kernels for the sums of the CTC loss on a CUDA device.

Let z be the symbols of an utterance with blanks before, between and after them: U' = 2U + 1 states, of which
the odd ones are symbols. With y(t, s) the log-probability of z_s at frame t,

    alpha(t, s) = logadd(alpha(t-1, s), alpha(t-1, s-1), skip(s) alpha(t-1, s-2)) + y(t, s)
    beta(t, s)  = logadd(beta'(t+1, s), beta'(t+1, s+1), skip(s+2) beta'(t+1, s+2)),  beta' = beta + y

where skip(s) is 1 for a symbol that differs from the symbol before it. Before the first frame alpha is 0 in
state 0, and after the last frame beta' is 0 in the last state; everywhere else both are -inf.

The first launch has a program for each utterance and direction and a lane for each state, and loops over the
frames. The second launch, in backward, computes the gradient of all frames at once: minus the probability
exp(alpha + beta - total) that a path is in state s at frame t, summed over the states of a symbol.

Additions are in float64, exponentials and logarithms in float32, for the reasons given in
`zipformer.losses.lattice_cuda`. Nothing here waits for the device.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from zipformer.losses.lattice_cuda import WARP, _log_add


class CtcFunction(torch.autograd.Function):
    """The loss, summed over the batch; arguments as in `zipformer.losses.ctc.ctc_loss`, on a CUDA device."""

    @staticmethod
    def forward(
        ctx: Any,
        log_probs: Tensor,
        symbols: Tensor,
        frame_lengths: Tensor,
        symbol_lengths: Tensor,
        blank: int,
    ) -> Tensor:
        N, T, _ = log_probs.shape
        states = 2 * symbols.shape[1] + 1
        sums = torch.empty(2, N, T, states, dtype=torch.float64, device=log_probs.device)
        total = torch.empty(N, dtype=torch.float64, device=log_probs.device)
        ctx.lanes = max(WARP, triton.next_power_of_2(states))
        ctx.blank = blank
        ctx.shape = log_probs.shape
        ctx.dtype = log_probs.dtype
        symbols = symbols.contiguous()
        if N:
            with torch.cuda.device_of(log_probs):
                sums_kernel[(N, 2)](
                    log_probs, symbols, frame_lengths, symbol_lengths, sums, total, T, states, blank,
                    *log_probs.stride(), EXP=_exp_type(log_probs.dtype), LANES=ctx.lanes,
                    num_warps=min(8, max(1, ctx.lanes // 128)),
                )  # fmt: skip
        ctx.save_for_backward(symbols, frame_lengths, symbol_lengths, sums, total)
        return -total.sum().to(log_probs.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        symbols, frame_lengths, symbol_lengths, sums, total = ctx.saved_tensors
        N, T, V = ctx.shape
        log_probs_grad = torch.zeros(N, T, V, dtype=ctx.dtype, device=total.device)
        if N:
            with torch.cuda.device_of(total):
                gradient_kernel[(N, T)](
                    symbols, frame_lengths, symbol_lengths, sums, total, grads[0].contiguous(),
                    log_probs_grad, sums.shape[3], V, ctx.blank, EXP=_exp_type(ctx.dtype), LANES=ctx.lanes,
                )  # fmt: skip
        return log_probs_grad, None, None, None, None


def _exp_type(dtype: torch.dtype) -> Any:
    return tl.float64 if dtype == torch.float64 else tl.float32


@triton.jit(do_not_specialize=["T", "states"])
def sums_kernel(
    log_probs, symbols, frame_lengths, symbol_lengths, sums, total, T, states, blank,
    stride_n, stride_t, stride_v, EXP: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Program (n, 0): alpha of utterance n, and its total. Program (n, 1): beta.

    sums is (2, N, T, states).
    """
    n = tl.program_id(0).to(tl.int64)
    direction = tl.program_id(1)
    frames = tl.load(frame_lengths + n).to(tl.int32)
    last = 2 * tl.load(symbol_lengths + n).to(tl.int32)
    state = tl.arange(0, LANES)
    exists = state <= last
    z = _symbol_of(symbols + n * (states // 2), state, last, blank)
    log_probs += n * stride_n + z * stride_v
    sums += (direction * tl.num_programs(0) + n) * T * states + state

    if direction == 0:
        before = tl.maximum(state - 1, 0)
        before_that = tl.maximum(state - 2, 0)
        skip = (state % 2 == 1) & (state >= 3) & (z != tl.gather(z, before_that, 0))
        alpha = tl.where(state == 0, 0.0, float("-inf")).to(tl.float64)
        for t in range(0, frames):
            y = tl.load(log_probs + t * stride_t, mask=exists, other=float("-inf")).to(tl.float64)
            one_on = tl.where(state >= 1, tl.gather(alpha, before, 0), float("-inf"))
            two_on = tl.where(skip, tl.gather(alpha, before_that, 0), float("-inf"))
            alpha = _log_add(_log_add(alpha, one_on, EXP), two_on, EXP) + y
            tl.store(sums + t * states, alpha, mask=exists)
        ends = tl.where(exists & (state >= last - 1), alpha, float("-inf"))
        high = tl.max(ends, axis=0)
        rest = tl.sum(tl.exp((ends - tl.maximum(high, -1e300)).to(EXP)), axis=0)
        tl.store(total + n, tl.where(high > float("-inf"), high + tl.log(rest).to(tl.float64), high))
    else:
        after = tl.minimum(state + 1, LANES - 1)
        after_that = tl.minimum(state + 2, LANES - 1)
        # From a symbol, skipping the blank, to the next symbol if it is different.
        skip = (state % 2 == 1) & (state + 2 <= last) & (z != tl.gather(z, after_that, 0))
        arriving = tl.where(state == last, 0.0, float("-inf")).to(tl.float64)  # beta'
        for step in range(0, frames):
            t = frames - 1 - step
            y = tl.load(log_probs + t * stride_t, mask=exists, other=float("-inf")).to(tl.float64)
            one_on = tl.where(state < last, tl.gather(arriving, after, 0), float("-inf"))
            two_on = tl.where(skip, tl.gather(arriving, after_that, 0), float("-inf"))
            beta = _log_add(_log_add(arriving, one_on, EXP), two_on, EXP)
            tl.store(sums + t * states, beta, mask=exists)
            arriving = beta + y


@triton.jit
def _symbol_of(symbols, state, last, blank):
    """z_s of the state of each lane."""
    is_symbol = (state % 2 == 1) & (state < last)
    return tl.load(symbols + state // 2, mask=is_symbol, other=blank).to(tl.int64)


@triton.jit(do_not_specialize=["states"])
def gradient_kernel(
    symbols, frame_lengths, symbol_lengths, sums, total, grad, log_probs_grad, states, V, blank,
    EXP: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Program (n, t): frame t of utterance n. The gradient is (N, T, V), contiguous, and initially zero."""
    n = tl.program_id(0).to(tl.int64)
    t = tl.program_id(1)
    T = tl.num_programs(1)
    frames = tl.load(frame_lengths + n).to(tl.int32)
    if t < frames:
        last = 2 * tl.load(symbol_lengths + n).to(tl.int32)
        state = tl.arange(0, LANES)
        exists = state <= last
        z = _symbol_of(symbols + n * (states // 2), state, last, blank)
        alphas = sums + (n * T + t) * states + state
        betas = alphas + tl.num_programs(0).to(tl.int64) * T * states
        alpha = tl.load(alphas, mask=exists, other=float("-inf"))
        beta = tl.load(betas, mask=exists, other=float("-inf"))
        # Without any path the total is -inf and the gradient NaN: such a step must not count.
        occupation = tl.exp((alpha + beta - tl.load(total + n)).to(EXP)) * -tl.load(grad)
        log_probs_grad += (n * T + t) * V
        is_blank = state % 2 == 0
        blanks = tl.sum(tl.where(exists & is_blank, occupation, 0.0), axis=0)
        tl.store(log_probs_grad + blank, blanks)
        # A symbol may occur more than once.
        tl.atomic_add(log_probs_grad + z, occupation, mask=exists & (state % 2 == 1))
