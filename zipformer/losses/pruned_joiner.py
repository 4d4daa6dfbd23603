"""The joiner inside the band fused with the pruned RNN-T loss, without all logits in memory.

The logits of all kept positions, (N, T, R, V), are the largest tensor in a training step of a transducer, and
a loss that starts from them stores them several times: as logits, as probabilities, as gradient. Here they
exist for only a few utterances at a time. The logits of an utterance give its lattice, and the sums over the
lattice give the occupations of its arcs, from which the gradient of the logits follows. So the forward pass
replaces the logits by their gradient in place, computes the gradients of the inputs from it, and continues
with the next utterances. The backward pass only scales these by the gradient of the loss, which is one number
for all utterances because the loss is their sum. Nothing is computed twice: the three matrix products
(logits, gradient of the hidden layer, gradient of the weight) are those of any linear layer.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from zipformer.losses.backend import lattice_sums
from zipformer.losses.rnnt import at_least_float32, check_shapes, emitted_symbols, gather_band, scatter_band

# Number of logits in a block: on a CPU few enough for the cache, on a GPU enough to keep it busy.
BLOCK_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}


class _Targets(NamedTuple):
    symbols: Tensor  # (N, U)
    ranges: Tensor  # (N, T, R)
    frame_lengths: Tensor  # (N,)
    symbol_lengths: Tensor  # (N,)


def pruned_joiner_loss(
    am: Tensor,
    lm: Tensor,
    weight: Tensor,
    bias: Tensor,
    symbols: Tensor,
    ranges: Tensor,
    frame_lengths: Tensor,
    symbol_lengths: Tensor,
    *,
    blank: int = 0,
    backend: str = "native",
    block_elements: int | None = None,
) -> Tensor:
    """Pruned RNN-T loss, summed over the batch, of the joiner ``tanh(am + lm) @ weight.T + bias``.

    Equal to `pruned_rnnt_loss` of the logits at the positions in ranges, but faster and with less memory.
    Matrix products are in the type of am, everything after them in at least float32. On a CPU, frames after
    the end of an utterance cost nothing, and in the backward pass neither do positions whose gradient is
    smaller than the rounding error of the gradient of their frame.

    Args:
        am: projected encoder frames (N, T, J).
        lm: projected predictor states (N, U+1, J), in the type of am.
        weight: weight of the output layer (V, J), in its own type; its gradient is summed in that type.
        bias: bias of the output layer (V,).
        symbols: symbol ids, (N, U) int64; entries after the end of an utterance may have any value, even -1.
        ranges: kept positions, (N, T, R) int64, from `prune_ranges`.
        frame_lengths: number of frames, (N,) int64, at least 1 (0 gives an infinite loss).
        symbol_lengths: number of symbols, (N,) int64.
        blank: id of the blank symbol.
        backend: implementation of the sums over the lattice, see `zipformer.losses.backend`.
        block_elements: number of logits in memory at a time, but at least those of one utterance; None = a
            value that suits the device. A larger number is slower on a CPU and faster on a GPU.
    Returns:
        Scalar loss; infinite if the band of an utterance has no alignment; the gradient of this utterance is
        then zero.
    Raises:
        ValueError: the shapes do not fit together, or the backend is not known.
    """
    (N, U), R, J = symbols.shape, ranges.shape[2], am.shape[-1]
    check_shapes(symbols, frame_lengths, symbol_lengths, am.shape[0], lm.shape[1] - 1)
    if am.dim() != 3 or lm.shape != (N, U + 1, J) or ranges.shape != (N, am.shape[1], R):
        raise ValueError(
            f"am is {tuple(am.shape)}, lm {tuple(lm.shape)} and ranges {tuple(ranges.shape)}; "
            "expected (N, T, J), (N, U+1, J) and (N, T, R)"
        )
    if weight.shape != (bias.shape[0], J):
        raise ValueError(
            f"weight is {tuple(weight.shape)} and bias {tuple(bias.shape)}; expected (V, {J}) and (V,)"
        )
    if block_elements is None:
        block_elements = BLOCK_ELEMENTS.get(am.device.type, BLOCK_ELEMENTS["cuda"])
    parameters = (am, lm, weight, bias)
    loss: Tensor
    with torch.autocast(am.device.type, enabled=False):
        loss = _PrunedJoinerLoss.apply(
            *parameters,
            _Targets(symbols.clamp(min=0), ranges, frame_lengths, symbol_lengths),
            blank,
            backend,
            block_elements,
            torch.is_grad_enabled() and any(parameter.requires_grad for parameter in parameters),
        )
    return loss


class _PrunedJoinerLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        am: Tensor,
        lm: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: _Targets,
        blank: int,
        backend: str,
        block_elements: int,
        with_gradient: bool,
    ) -> Tensor:
        U, T, R = targets.symbols.shape[1], *targets.ranges.shape[1:]
        sums = lattice_sums(backend, am.device)
        projection, offset = weight.to(am.dtype), bias.to(am.dtype)
        loss = at_least_float32(am.new_zeros(()))
        grads = tuple(torch.zeros_like(x) for x in (am, lm, weight, bias)) if with_gradient else ()
        for batch, frames in _blocks(targets.frame_lengths, T, block_elements // (R * weight.shape[0])):
            symbols, ranges, frame_lengths, symbol_lengths = (target[batch] for target in targets)
            ranges = ranges[:, :frames]
            hidden = gather_band(lm[batch], ranges).add_(am[batch, :frames].unsqueeze(2)).tanh_()
            log_probs = F.linear(hidden, projection, offset).log_softmax(dim=3, dtype=loss.dtype)
            emitted = emitted_symbols(symbols, ranges, blank)
            total, by_symbol, by_blank = sums.band_occupation(
                log_probs.gather(3, emitted.unsqueeze(3)).squeeze(3),
                log_probs[:, :, :, blank],
                ranges[:, :, 0],
                frame_lengths,
                symbol_lengths,
                U,
            )
            loss -= total.sum()
            if with_gradient:
                by_symbol, by_blank = by_symbol.to(log_probs.dtype), by_blank.to(log_probs.dtype)
                sum_grad = _backpropagate(
                    log_probs, by_symbol, by_blank, emitted, blank, hidden, projection, *grads[2:]
                )
                grads[0][batch, :frames] = sum_grad.sum(dim=2)
                grads[1][batch] = scatter_band(sum_grad, ranges, U + 1)
        ctx.save_for_backward(*grads)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_grad: Tensor) -> tuple[Tensor | None, ...]:
        grads = (grad * loss_grad.to(grad.dtype) for grad in ctx.saved_tensors)
        return *grads, None, None, None, None, None


def _backpropagate(
    log_probs: Tensor,
    by_symbol: Tensor,
    by_blank: Tensor,
    emitted: Tensor,
    blank: int,
    hidden: Tensor,
    projection: Tensor,
    weight_grad: Tensor,
    bias_grad: Tensor,
) -> Tensor:
    """Gradient of the loss of a block by am + lm, (n, T, R, J); adds the gradients of the output layer.

    Args:
        log_probs: log-probabilities (n, T, R, V), overwritten.
        by_symbol, by_blank: occupations (n, T, R).
        emitted: emitted symbols (n, T, R).
        hidden: tanh(am + lm), (n, T, R, J).
        projection: weight (V, J) in the type of hidden.
        weight_grad: gradient of the weight (V, J), added to.
        bias_grad: gradient of the bias (V,), added to.
    """
    shape = hidden.shape
    log_probs, hidden = log_probs.flatten(0, 2), hidden.flatten(0, 2)
    by_symbol, by_blank, emitted = by_symbol.flatten(), by_blank.flatten(), emitted.flatten()
    by_arc = by_symbol + by_blank
    kept: Tensor | None = None
    if hidden.is_cpu:  # on another device, counting them would wait for it
        # The occupations of a frame sum to at least 1, and the probabilities in their gradients are rounded
        # to eps: this error is larger than everything that is left out here. (NaNs are kept.)
        kept = (~(by_arc < torch.finfo(by_arc.dtype).eps / 8)).nonzero().squeeze(1)
        if kept.shape[0] < by_arc.shape[0]:
            log_probs, hidden, emitted, by_arc, by_symbol, by_blank = (
                rows[kept] for rows in (log_probs, hidden, emitted, by_arc, by_symbol, by_blank)
            )
    logits_grad = log_probs.exp_().mul_(by_arc.unsqueeze(1))
    logits_grad.scatter_add_(1, emitted.unsqueeze(1), -by_symbol.unsqueeze(1))
    logits_grad[:, blank] -= by_blank
    bias_grad += logits_grad.sum(dim=0)
    logits_grad = logits_grad.to(hidden.dtype)
    if weight_grad.dtype == hidden.dtype:
        weight_grad.addmm_(logits_grad.t(), hidden)
    else:
        weight_grad += logits_grad.t() @ hidden
    sum_grad = logits_grad @ projection
    sum_grad.addcmul_(sum_grad, hidden.square(), value=-1)  # the derivative of tanh is 1 - tanh^2
    if kept is not None and kept.shape[0] < shape[:3].numel():
        sum_grad = sum_grad.new_zeros(shape[:3].numel(), shape[3]).index_copy_(0, kept, sum_grad)
    return sum_grad.view(shape)


def _blocks(frame_lengths: Tensor, T: int, block_frames: int) -> Iterator[tuple[slice, int]]:
    """Blocks of consecutive utterances with at most block_frames frames, including padding, or one utterance.

    Yields the slice of the batch and the length of the longest utterance. Lengths on a GPU are not read:
    there every utterance counts as T frames.
    """
    lengths = frame_lengths.tolist() if frame_lengths.is_cpu else [T] * frame_lengths.shape[0]
    first, frames = 0, 1
    for n, length in enumerate(lengths):
        longest = max(frames, length)
        if n > first and longest * (n + 1 - first) > block_frames:
            yield slice(first, n), frames
            first, longest = n, max(1, length)
        frames = longest
    yield slice(first, len(lengths)), frames
