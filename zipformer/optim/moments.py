"""How ScaledAdam lays out parameters of equal shape, and one step of their moments."""

import math
from typing import Any, TypeAlias

import torch
from torch import Tensor

Batch: TypeAlias = list[Tensor]  # of one dtype and shape

# On a CPU: elements of a tensor that is worth operations of its own, and of a block that fits into a
# last-level cache with its gradient, moments and intermediate results.
_LARGE = 1 << 16
_BLOCK = 1 << 20


class Moments:
    """One step in time of the moments of ScaledAdam, and of the parameters that follow them.

    Args:
        betas, eps: settings of the group.
        step: finite steps before this one.
        clip: factor of the gradients.
        keep: (), whether the step counts; None: it does. Where it does not, nothing changes by a single bit:
            decays are 1, and what is added is 0.
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
        """Change p, exp_avg_sq and delta; all are (b, k) but rate and size_step, which are (b, 1)."""
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
    """The parameters, those of equal dtype and shape together."""
    batches: dict[tuple[torch.dtype, torch.Size], Batch] = {}
    for p in parameters:
        batches.setdefault((p.dtype, p.shape), []).append(p)
    return list(batches.values())


def is_scalar(batch: Batch) -> bool:
    """Whether the tensors are single numbers."""
    return batch[0].numel() == 1


def _stays_in_place(batch: Batch) -> bool:
    """Whether the tensors are worked on where they are, one by one, and not stacked.

    On a CPU memory is what limits the step: large tensors go through it in blocks that stay in the cache, and
    not through a copy. On a GPU, and for small tensors, the number of operations is.
    """
    return batch[0].is_cpu and batch[0].numel() >= _LARGE and all(p.is_contiguous() for p in batch)


def rows_of(batch: Batch) -> list[Tensor]:
    """B tensors of K elements: B views (1, K), or one copy (B, K)."""
    if _stays_in_place(batch):
        return [p.view(1, -1) for p in batch]
    return [torch.stack(batch).reshape(len(batch), -1)]


def gradient_rows(batch: Batch) -> list[Tensor]:
    """The gradients in the layout of ``rows_of``, zero where there is none; not to be changed."""
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in batch]
    if _stays_in_place(batch):
        return [gradient.reshape(1, -1) for gradient in gradients]
    return [torch.stack(gradients).reshape(len(batch), -1)]


def row_products(x: Tensor, y: Tensor) -> Tensor:
    """Scalar products of the rows of two (B, K), as (B, 1)."""
    if len(x) == 1:
        return torch.dot(x[0], y[0]).view(1, 1)
    return (x * y).sum(dim=1, keepdim=True)


def row_rms(p: Tensor) -> Tensor:
    """Root mean square of the rows of (B, K), as (B, 1)."""
    return torch.linalg.vector_norm(p, dim=1, keepdim=True).div_(math.sqrt(p.shape[1]))


def put_back(rows: list[Tensor], batch: Batch) -> None:
    """Bring changed ``rows_of(batch)`` into the tensors of the batch, unless they are the same memory."""
    if rows[0].data_ptr() != batch[0].data_ptr():
        torch._foreach_copy_(batch, list(rows[0].view(len(batch), *batch[0].shape).unbind(0)))
