"""Layout of parameters of equal shape in ScaledAdam, and one step of their moments."""

import math
from typing import Any, TypeAlias

import torch
from torch import Tensor

Batch: TypeAlias = list[Tensor]  # of one dtype and shape

# On a CPU: number of elements from which a tensor gets operations of its own, and number of elements in a
# block that fits into a last-level cache with its gradient, moments and intermediate results.
_LARGE = 1 << 16
_BLOCK = 1 << 20


class Moments:
    """One step of the moments of ScaledAdam, and of the parameters.

    Args:
        betas, eps: settings of the group.
        step: number of finite steps before this one.
        clip: clipping factor of the gradients.
        keep: bool scalar, whether the step counts; None: it does. If it does not, nothing changes by a single
            bit: decays are 1, and additions are 0.
    """

    def __init__(
        self, betas: tuple[float, float], step: int, eps: float, clip: Tensor | float, keep: Tensor | None
    ) -> None:
        self.beta1, self.beta2 = betas
        self.eps = eps
        self.clip = clip
        self.keep = keep
        correction = 1 - self.beta2 ** (step + 1)
        self.root = 1.0 if correction >= 0.99 else math.sqrt(correction)
        self.decays: tuple[Any, ...] = betas
        if keep is not None:
            self.decays = tuple(1.0 + keep.double() * (beta - 1.0) for beta in betas)

    def advance(
        self,
        p: Tensor,
        gradient: Tensor,
        exp_avg_sq: Tensor,
        delta: Tensor,
        rate: Tensor,
        size_step: Tensor | None,
    ) -> None:
        """Update p, exp_avg_sq and delta; all are (b, k) except rate and size_step, which are (b, 1)."""
        size = _BLOCK if p.is_cpu else p.shape[1]
        pieces = zip(*(x.split(size, dim=1) for x in (p, gradient, exp_avg_sq, delta)), strict=True)
        for p_part, gradient_part, exp_avg_sq_part, delta_part in pieces:
            self._advance(p_part, gradient_part, exp_avg_sq_part, delta_part, rate, size_step)

    def _advance(
        self,
        p: Tensor,
        gradient: Tensor,
        exp_avg_sq: Tensor,
        delta: Tensor,
        rate: Tensor,
        size_step: Tensor | None,
    ) -> None:
        decay1, decay2 = self.decays
        if self.keep is not None:
            gradient = torch.where(self.keep, gradient * self.clip, 0.0)
        elif self.clip != 1.0:
            gradient = gradient * self.clip
        exp_avg_sq.mul_(decay2).addcmul_(gradient, gradient, value=1 - self.beta2)
        # g / (sqrt(v / c) + eps) = sqrt(c) g / (sqrt(v) + sqrt(c) eps), which saves a pass over v.
        denominator = exp_avg_sq.sqrt().add_(self.root * self.eps)
        delta.mul_(decay1).addcdiv_(gradient * rate, denominator, value=-(1 - self.beta1) * self.root)
        if size_step is not None:
            delta.addcmul_(p, size_step, value=1 - self.beta1)
        p.add_(delta if self.keep is None else torch.where(self.keep, delta, 0.0))


def by_shape(parameters: list[Tensor]) -> list[Batch]:
    """The parameters in batches of equal dtype and shape."""
    batches: dict[tuple[torch.dtype, torch.Size], Batch] = {}
    for p in parameters:
        batches.setdefault((p.dtype, p.shape), []).append(p)
    return list(batches.values())


def is_scalar(batch: Batch) -> bool:
    """Whether the tensors are single numbers."""
    return batch[0].numel() == 1


def _stays_in_place(batch: Batch) -> bool:
    """Whether the tensors are updated in place, one by one, and not stacked.

    On a CPU memory limits the speed of a step: large tensors are processed in blocks that fit into the cache,
    without a copy. On a GPU, and for small tensors, the number of operations limits the speed.
    """
    return batch[0].is_cpu and batch[0].numel() >= _LARGE and all(p.is_contiguous() for p in batch)


def rows_of(batch: Batch) -> list[Tensor]:
    """B tensors of K elements as B views (1, K), or as one copy (B, K)."""
    if _stays_in_place(batch):
        return [p.view(1, -1) for p in batch]
    return [torch.stack(batch).reshape(len(batch), -1)]


def gradient_rows(batch: Batch) -> list[Tensor]:
    """The gradients in the layout of ``rows_of``, zero if there is none; must not be changed."""
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in batch]
    if _stays_in_place(batch):
        return [gradient.reshape(1, -1) for gradient in gradients]
    return [torch.stack(gradients).reshape(len(batch), -1)]


def row_products(x: Tensor, y: Tensor) -> Tensor:
    """Scalar products of the rows of two tensors (B, K), as (B, 1)."""
    if len(x) == 1:
        return torch.dot(x[0], y[0]).view(1, 1)
    return (x * y).sum(dim=1, keepdim=True)


def row_rms(p: Tensor) -> Tensor:
    """Root mean square of the rows of (B, K), as (B, 1)."""
    return torch.linalg.vector_norm(p, dim=1, keepdim=True).div_(math.sqrt(p.shape[1]))


def put_back(rows: list[Tensor], batch: Batch) -> None:
    """Copy changed ``rows_of(batch)`` back into the tensors of the batch, unless they share memory."""
    if rows[0].data_ptr() != batch[0].data_ptr():
        torch._foreach_copy_(batch, list(rows[0].view(len(batch), *batch[0].shape).unbind(0)))
