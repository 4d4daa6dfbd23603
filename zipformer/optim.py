"""ScaledAdam and the Eden schedule (Yao et al., "Zipformer", ICLR 2024, section 3.4;
https://arxiv.org/abs/2310.11230).

ScaledAdam is Adam whose steps are proportional to the size (root mean square) of each parameter tensor, and
that learns the size as well, as if a tensor were ``exp(log_size) * direction``. Both make it indifferent to
the scale of the parameters and of the loss.
"""

import logging
import math
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

Batch: TypeAlias = list[Tensor]

# The clipping threshold is first set before a whole period of gradient norms is known, and then with more
# leeway, because the norms still change quickly.
EARLY_CLIPPING_STEPS = (10, 20, 40)
EARLY_CLIPPING_LEEWAY = 2.0
LARGEST_SIZE_STEP = 0.1
NOTABLE_CLIPPING = 0.5  # clipping by more than this is logged

logger = logging.getLogger(__name__)


class ScaledAdam(Optimizer):
    """Adam with steps relative to the size of each tensor.

    Parameters of the same shape are stacked and updated together. With g the gradient, x a tensor of more
    than one element and r its root mean square::

        v = beta2 v + (1 - beta2) g^2
        delta = -lr max(r, param_min_rms) g / (sqrt(v / (1 - beta2^t)) + eps)
        m = beta1 m + (1 - beta1) (delta + s x)
        x = x + m

    where s, which is 0 except at every size_update_period-th step, is an Adam step on log r (its gradient is
    sum(x g)) with learning rate lr * scalar_lr_scale. A tensor of one element takes ordinary Adam steps with
    lr * scalar_lr_scale.

    Gradients are clipped by their size relative to the parameters, sqrt(sum (r g)^2), to clipping_scale times
    its median over the last clipping_update_period steps. A step whose gradients are not all finite changes
    nothing at all; it is counted in `skipped_steps`.

    Args:
        params: parameters, named parameters, or groups of them, as for any torch optimiser.
        lr: learning rate, much larger than Adam's as it is relative; Eden changes it.
        clipping_scale: multiple of the median gradient size that is let through; None does not clip.
        betas: decay of the momentum and of the mean square of the gradients.
        scalar_lr_scale: learning rate of sizes and of single numbers, relative to lr.
        eps: added to the root mean square of the gradients.
        param_min_rms: tensors smaller than this are treated as if they had this size, and do not shrink any
            further.
        param_max_rms: sizes do not grow beyond this.
        scalar_max: single numbers are held within [-scalar_max, scalar_max].
        size_update_period: steps between updates of the sizes.
        clipping_update_period: steps between updates of the clipping threshold.
    Raises:
        ValueError: a setting out of its range, or no parameters.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 3e-2,
        clipping_scale: float | None = None,
        betas: tuple[float, float] = (0.9, 0.98),
        scalar_lr_scale: float = 0.1,
        eps: float = 1e-8,
        param_min_rms: float = 1e-5,
        param_max_rms: float = 3.0,
        scalar_max: float = 10.0,
        size_update_period: int = 4,
        clipping_update_period: int = 100,
    ) -> None:
        if lr <= 0:
            raise ValueError(f"lr is {lr}; it must be positive")
        if not (0 <= betas[0] < 1 and 0 < betas[1] < 1):
            raise ValueError(f"betas are {betas}; both must be in [0, 1)")
        if size_update_period < 1 or clipping_update_period < 1:
            raise ValueError(
                f"size_update_period is {size_update_period} and clipping_update_period "
                f"{clipping_update_period}; both must be at least 1"
            )
        self._batches: list[list[Batch]] = []
        super().__init__(
            params,
            {
                "lr": lr,
                "clipping_scale": clipping_scale,
                "betas": betas,
                "scalar_lr_scale": scalar_lr_scale,
                "eps": eps,
                "param_min_rms": param_min_rms,
                "param_max_rms": param_max_rms,
                "scalar_max": scalar_max,
                "size_update_period": size_update_period,
                "clipping_update_period": clipping_update_period,
            },
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self._batches.append(_by_shape(self.param_groups[-1]["params"]))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._batches = [_by_shape(group["params"]) for group in self.param_groups]

    @property
    def skipped_steps(self) -> int:
        """Number of steps so far whose gradients were not finite."""
        return sum(self._group_state(group)["skipped"] for group in self.param_groups)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the parameters; a parameter without a gradient counts as having a gradient of zero.

        Reads one number, the gradient norm, from the device.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        work = []
        for group, batches in zip(self.param_groups, self._batches, strict=True):
            gradients = [_stack_gradients(batch) for batch in batches]
            norms = self._relative_norms(group, batches, gradients)
            work.append((group, batches, gradients, norms, torch.linalg.vector_norm(norms).item()))
        if not all(math.isfinite(norm) for *_, norm in work):
            self._group_state(self.param_groups[0])["skipped"] += 1
            return loss
        for group, batches, gradients, norms, norm in work:
            clip = self._clip_factor(group, norm)
            if clip < NOTABLE_CLIPPING:
                _log_clipping(clip, norms, batches, group)
            for batch, gradient in zip(batches, gradients, strict=True):
                if clip < 1.0:
                    gradient.mul_(clip)
                self._update(group, batch, gradient)
            self._group_state(group)["step"] += 1
        return loss

    def _group_state(self, group: dict[str, Any]) -> dict[str, Any]:
        """What is counted once a group, kept in the state of its first parameter."""
        state = cast(dict[str, Any], self.state[group["params"][0]])
        if "step" not in state:
            state.update(step=0, skipped=0, norms=[], threshold=math.inf)
        return state

    def _batch_state(self, group: dict[str, Any], batch: Batch) -> dict[str, Tensor]:
        """Moments of a batch of B tensors of K elements, kept in the state of its first parameter."""
        state = cast(dict[str, Tensor], self.state[batch[0]])
        if "exp_avg_sq" not in state:
            p = _stack(batch)  # (B, K)
            state["exp_avg_sq"] = torch.zeros_like(p)
            state["delta"] = torch.zeros_like(p)
            if not _is_scalar(batch):
                state["rms"] = _rms(p)  # (B, 1)
                state["size_grads"] = p.new_zeros(group["size_update_period"], len(batch), 1)
                state["size_exp_avg_sq"] = p.new_zeros(len(batch), 1)
        return state

    def _relative_norms(self, group: dict[str, Any], batches: list[Batch], gradients: list[Tensor]) -> Tensor:
        """Norm of each gradient relative to the size of its parameter; one vector, batch after batch."""
        norms = []
        for batch, gradient in zip(batches, gradients, strict=True):
            norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)  # (B, 1)
            if _is_scalar(batch):
                norms.append(norm.mul_(group["scalar_lr_scale"]))
            else:
                norms.append(norm.mul_(self._batch_state(group, batch)["rms"]))
        return torch.cat(norms).squeeze(1)

    def _clip_factor(self, group: dict[str, Any], norm: float) -> float:
        """Factor that brings a gradient norm down to the threshold; keeps the record of norms."""
        scale, period = group["clipping_scale"], group["clipping_update_period"]
        state = self._group_state(group)
        step, norms = state["step"], state["norms"]
        if scale is None or step == 0:
            return 1.0
        norms.append(norm)
        del norms[:-period]
        early = step in EARLY_CLIPPING_STEPS and step < period
        if early or step % period == 0:
            median = sorted(norms)[len(norms) // 4 * 2]
            state["threshold"] = scale * median * (EARLY_CLIPPING_LEEWAY if early else 1.0)
        return min(1.0, state["threshold"] / (norm + 1e-20))

    def _update(self, group: dict[str, Any], batch: Batch, gradient: Tensor) -> None:
        """One step of a batch of equally shaped parameters; overwrites the gradient (B, K)."""
        state = self._batch_state(group, batch)
        step = self._group_state(group)["step"]
        beta1, beta2 = group["betas"]
        exp_avg_sq, delta = state["exp_avg_sq"], state["delta"]
        p = _stack(batch)  # (B, K)
        work = torch.mul(p, gradient)

        exp_avg_sq.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        bias_correction = 1 - beta2 ** (step + 1)
        if bias_correction >= 0.99:
            bias_correction = 1.0

        size_step = None
        if _is_scalar(batch):
            gradient.mul_(group["lr"] * group["scalar_lr_scale"])
        else:
            period = group["size_update_period"]
            state["size_grads"][step % period] = work.sum(dim=1, keepdim=True)
            if step % period == period - 1:
                state["rms"].copy_(_rms(p))
                if step > 0:
                    size_step = self._size_step(group, state, updates=(step + 1) // period)
            gradient.mul_(group["lr"] * state["rms"].clamp(min=group["param_min_rms"]))

        # g / (sqrt(v / c) + eps) = sqrt(c) g / (sqrt(v) + sqrt(c) eps), which saves a pass over v.
        root = math.sqrt(bias_correction)
        denominator = torch.sqrt(exp_avg_sq, out=work).add_(root * group["eps"])
        delta.mul_(beta1).addcdiv_(gradient, denominator, value=-(1 - beta1) * root)
        if size_step is not None:
            delta.addcmul_(p, size_step, value=1 - beta1)
        p.add_(delta)
        if _is_scalar(batch):
            p.clamp_(min=-group["scalar_max"], max=group["scalar_max"])
        torch._foreach_copy_(batch, list(p.view(len(batch), *batch[0].shape).unbind(0)))

    def _size_step(self, group: dict[str, Any], state: dict[str, Tensor], updates: int) -> Tensor:
        """Change of log r of each tensor, (B, 1), from the size gradients since the last update."""
        beta2 = group["betas"][1] ** group["size_update_period"]
        grads, rms = state["size_grads"], state["rms"]
        exp_avg_sq = state["size_exp_avg_sq"].mul_(beta2).add_(grads.square().mean(dim=0), alpha=1 - beta2)
        rate = group["lr"] * group["scalar_lr_scale"] * math.sqrt(1 - beta2**updates)
        step = -rate * grads.sum(dim=0) / (exp_avg_sq.sqrt() + group["eps"])
        step.masked_fill_(rms < group["param_min_rms"], 0.0)
        step.clamp_(min=-LARGEST_SIZE_STEP, max=LARGEST_SIZE_STEP)
        return torch.minimum(step, (group["param_max_rms"] - rms) / rms)


class Eden:
    """Learning rate that falls with the square root of both batches and epochs, after a short linear warm-up.

        lr = base_lr * (1 + (batch / lr_batches)^2)^(-1/4) * (1 + (epoch / lr_epochs)^2)^(-1/4) * warmup

    where warmup goes from warmup_start to 1 over warmup_batches. The base_lr of a group is its ``lr`` at
    construction.

    Args:
        optimizer: whose groups' ``lr`` is set.
        lr_batches: batches after which the rate begins to fall noticeably.
        lr_epochs: epochs after which it does.
        warmup_batches: length of the warm-up; 0 for none.
        warmup_start: factor at batch 0, in [0, 1].
    Raises:
        ValueError: a setting out of its range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_batches: float,
        lr_epochs: float,
        warmup_batches: float = 500.0,
        warmup_start: float = 0.5,
    ) -> None:
        if lr_batches <= 0 or lr_epochs <= 0:
            raise ValueError(f"lr_batches is {lr_batches} and lr_epochs {lr_epochs}; both must be positive")
        if not 0.0 <= warmup_start <= 1.0:
            raise ValueError(f"warmup_start is {warmup_start}; it must be in [0, 1]")
        self.optimizer = optimizer
        self.lr_batches = lr_batches
        self.lr_epochs = lr_epochs
        self.warmup_batches = warmup_batches
        self.warmup_start = warmup_start
        self.batch = 0
        self.epoch = 0.0
        self.base_lrs: list[float] = [
            group.setdefault("base_lr", group["lr"]) for group in optimizer.param_groups
        ]
        self._set_rates()

    def step_batch(self, batch: int | None = None) -> None:
        """Go on to the next batch, or to the given one, counted from the start of training."""
        self.batch = self.batch + 1 if batch is None else batch
        self._set_rates()

    def step_epoch(self, epoch: float | None = None) -> None:
        """Go on to the next epoch, or to the given one (from 0); fractions of epochs may be given."""
        self.epoch = self.epoch + 1 if epoch is None else epoch
        self._set_rates()

    def get_last_lr(self) -> list[float]:
        """Learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, float]:
        """Where the schedule is. Base rates are left out, so that training can go on with another one."""
        return {"batch": self.batch, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where a schedule was saved and set the learning rates accordingly."""
        self.batch, self.epoch = state["batch"], state["epoch"]
        self._set_rates()

    def _set_rates(self) -> None:
        factor = (1 + (self.batch / self.lr_batches) ** 2) ** -0.25
        factor *= (1 + (self.epoch / self.lr_epochs) ** 2) ** -0.25
        if self.batch < self.warmup_batches:
            factor *= self.warmup_start + (1 - self.warmup_start) * self.batch / self.warmup_batches
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base_lr * factor


def _by_shape(parameters: list[Tensor]) -> list[Batch]:
    batches: dict[tuple[torch.dtype, torch.Size], Batch] = {}
    for p in parameters:
        batches.setdefault((p.dtype, p.shape), []).append(p)
    return list(batches.values())


def _is_scalar(batch: Batch) -> bool:
    return batch[0].numel() == 1


def _stack(tensors: Batch) -> Tensor:
    """B tensors of K elements as (B, K)."""
    return torch.stack(tensors).view(len(tensors), -1)


def _stack_gradients(batch: Batch) -> Tensor:
    return _stack([torch.zeros_like(p) if p.grad is None else p.grad for p in batch])


def _rms(p: Tensor) -> Tensor:
    """Root mean square of the rows of (B, K), as (B, 1)."""
    return torch.linalg.vector_norm(p, dim=1, keepdim=True).div_(math.sqrt(p.shape[1]))


def _log_clipping(clip: float, norms: Tensor, batches: list[Batch], group: dict[str, Any]) -> None:
    """Say which parameter the large gradient comes from."""
    largest = int(norms.argmax())
    share = float(norms[largest] ** 2 / norms.square().sum())
    parameter = [p for batch in batches for p in batch][largest]
    name = f"of shape {tuple(parameter.shape)}"
    if "param_names" in group:
        name = next(n for n, p in zip(group["param_names"], group["params"], strict=True) if p is parameter)
    logger.info("gradients scaled by %.3g; parameter %s makes up %.0f %%", clip, name, 100 * share)
