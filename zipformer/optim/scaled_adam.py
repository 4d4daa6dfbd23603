"""ScaledAdam (Yao et al., "Zipformer", ICLR 2024, section 3.4; https://arxiv.org/abs/2310.11230).

ScaledAdam is Adam with steps proportional to the size (root mean square) of each parameter tensor. It also
learns the size, as if a tensor were ``exp(log_size) * direction``. Both make it invariant to the scale of the
parameters and of the loss.
"""

import logging
import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from zipformer.device import HostCopy, on_host
from zipformer.errors import UserError
from zipformer.optim.moments import (
    Batch,
    Moments,
    by_shape,
    gradient_rows,
    is_scalar,
    put_back,
    row_products,
    row_rms,
    rows_of,
)

# The first clipping threshold is set before a whole period of gradient norms is known, and with more
# tolerance, because the norms still change quickly.
EARLY_CLIPPING_STEPS = (10, 20, 40)
EARLY_CLIPPING_LEEWAY = 2.0
LARGEST_SIZE_STEP = 0.1
NOTABLE_CLIPPING = 0.5  # clipping by more than this is logged

logger = logging.getLogger(__name__)


class ScaledAdam(Optimizer):
    """Adam with steps relative to the size of each tensor.

    Parameters of the same shape are updated together, as described in :mod:`zipformer.optim.moments`. With g
    the gradient, x a tensor of more than one element and r its root mean square::

        v = beta2 v + (1 - beta2) g^2
        delta = -lr max(r, param_min_rms) g / (sqrt(v / (1 - beta2^t)) + eps)
        m = beta1 m + (1 - beta1) (delta + s x)
        x = x + m

    where s, which is 0 except at every size_update_period-th step, is an Adam step on log r (its gradient is
    sum(x g)) with learning rate lr * scalar_lr_scale. A tensor of one element takes ordinary Adam steps with
    lr * scalar_lr_scale.

    Gradients are clipped by their size relative to the parameters, sqrt(sum (r g)^2), to clipping_scale times
    its median over the last clipping_update_period steps. A step with gradients that are not all finite
    changes nothing; it is counted in `skipped_steps`. The host never waits for a GPU: the GPU decides whether
    a step counts, and the host reads the decision, to count and log it, while it queues the next step.

    Args:
        params: parameters, named parameters, or groups of them, as for any torch optimiser.
        lr: learning rate, much larger than that of Adam because it is relative; Eden changes it.
        clipping_scale: clipping threshold as a multiple of the median gradient size; None does not clip.
        betas: decay of the momentum and of the mean square of the gradients.
        scalar_lr_scale: learning rate of sizes and of single numbers, relative to lr.
        eps: number added to the root mean square of the gradients.
        param_min_rms: smallest size; smaller tensors are treated as if they had this size, and do not shrink
            further.
        param_max_rms: largest size; tensors do not grow beyond it.
        scalar_max: single numbers stay within [-scalar_max, scalar_max].
        size_update_period: steps between updates of the sizes.
        clipping_update_period: steps between updates of the clipping threshold.
    Raises:
        ValueError: a setting is out of range, or there are no parameters.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
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
            raise UserError(f"lr is {lr}; it must be positive")
        if not (0 <= betas[0] < 1 and 0 < betas[1] < 1):
            raise ValueError(f"betas are {betas}; both must be in [0, 1)")
        if size_update_period < 1 or clipping_update_period < 1:
            raise ValueError(
                f"size_update_period is {size_update_period} and clipping_update_period "
                f"{clipping_update_period}; both must be at least 1"
            )
        self._batches: list[list[Batch]] = []
        self._outcome: HostCopy | None = None  # of the last step, until it is counted
        self._verdicts: list[bool] = []
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
        self._batches.append(by_shape(self.param_groups[-1]["params"]))

    def __getstate__(self) -> dict[str, Any]:
        self._settle()
        return super().__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._batches = [by_shape(group["params"]) for group in self.param_groups]
        self._outcome, self._verdicts = None, []

    def state_dict(self) -> dict[str, Any]:
        self._settle()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._outcome, self._verdicts = None, []

    def resume(self, state_dict: dict[str, Any]) -> None:
        """Restore moments and records of a saved state, but keep the settings of this optimiser.

        Raises:
            UserError: a setting that determines the shape of the records is different.
        """
        own = [
            {name: value for name, value in group.items() if name not in ("params", "param_names")}
            for group in self.param_groups
        ]
        self.load_state_dict(state_dict)
        for group, settings in zip(self.param_groups, own, strict=True):
            for name in ("size_update_period", "clipping_update_period"):
                if group[name] != settings[name]:
                    raise UserError(f"{name} was {group[name]} and cannot become {settings[name]}")
            if group["clipping_scale"] and settings["clipping_scale"]:
                # Until the next update, the threshold is a multiple of the scale.
                state = self._group_state(group)
                state["threshold"] = state["threshold"] * (
                    settings["clipping_scale"] / group["clipping_scale"]
                )
            group.update(settings)

    @property
    def skipped_steps(self) -> int:
        """Number of steps so far with gradients that were not finite. Waits for the last step."""
        self._settle()
        return sum(self._group_state(group)["skipped"] for group in self.param_groups)

    def take_verdicts(self, *, wait: bool = False) -> list[bool]:
        """Whether the gradients of each step since the last call were finite, in order.

        Args:
            wait: include the last step even if it is still running on a GPU; without it, the next call
                reports that step.
        """
        if wait:
            self._settle()
        verdicts, self._verdicts = self._verdicts, []
        return verdicts

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the parameters; a parameter without a gradient counts as having a gradient of zero.

        From a GPU, only the outcome of the previous step is read.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._settle()
        work = []
        for group, batches in zip(self.param_groups, self._batches, strict=True):
            gradients = [gradient_rows(batch) for batch in batches]
            norms = self._relative_norms(group, batches, gradients)
            work.append((group, batches, gradients, norms, torch.linalg.vector_norm(norms)))
        finite = torch.stack([norm for *_, norm in work]).isfinite().all()
        keep = None if on_host(finite) else finite
        if keep is None and not finite:
            self._verdicts.append(False)
            self._group_state(self.param_groups[0])["skipped"] += 1
            return loss
        outcome = [finite]
        for group, batches, gradients, norms, norm in work:
            clip = self._clip_factor(group, norm, keep)
            outcome += [clip, norms.square().max() / norm.square(), norms.argmax()]
            factor = clip if keep is not None else clip.item()
            for batch, rows in zip(batches, gradients, strict=True):
                self._update(group, batch, rows, factor, keep)
        self._outcome = HostCopy(torch.stack([value.double() for value in outcome]))
        if keep is None:
            self._settle()
        return loss

    def _settle(self) -> None:
        """Count the last step, whose outcome is now known, and log notable clipping."""
        if self._outcome is None:
            return
        finite, *clipping = self._outcome.read()
        self._outcome = None
        self._verdicts.append(bool(finite))
        if not finite:
            self._group_state(self.param_groups[0])["skipped"] += 1
            return
        for i, (group, batches) in enumerate(zip(self.param_groups, self._batches, strict=True)):
            self._group_state(group)["step"] += 1
            clip, share, largest = clipping[3 * i : 3 * i + 3]
            if clip < NOTABLE_CLIPPING:
                parameter = [p for batch in batches for p in batch][int(largest)]
                logger.info(
                    "gradients scaled by %.3g; parameter %s makes up %.0f %%",
                    clip,
                    _name(parameter, group),
                    100 * share,
                )

    def _group_state(self, group: dict[str, Any]) -> dict[str, Any]:
        """State of a group, stored in the state of its first parameter."""
        state = cast(dict[str, Any], self.state[group["params"][0]])
        if "step" not in state:
            norms = _no_norms(group)
            state.update(step=0, skipped=0, norms=norms, threshold=norms.new_tensor(math.inf))
        return state

    def _batch_state(self, group: dict[str, Any], batch: Batch) -> dict[str, Tensor]:
        """Moments of a batch of B tensors of K elements, stored in the state of its first parameter."""
        state = cast(dict[str, Tensor], self.state[batch[0]])
        if "exp_avg_sq" not in state:
            p = batch[0]
            state["exp_avg_sq"] = p.new_zeros(len(batch), p.numel())
            state["delta"] = torch.zeros_like(state["exp_avg_sq"])
            if not is_scalar(batch):
                state["rms"] = torch.cat([row_rms(rows) for rows in rows_of(batch)])  # (B, 1)
                state["size_grads"] = p.new_zeros(group["size_update_period"], len(batch), 1)
                state["size_exp_avg_sq"] = p.new_zeros(len(batch), 1)
        return state

    def _relative_norms(
        self, group: dict[str, Any], batches: list[Batch], gradients: list[list[Tensor]]
    ) -> Tensor:
        """Norm of each gradient relative to the size of its parameter; one vector over all batches."""
        norms = []
        for batch, rows in zip(batches, gradients, strict=True):
            norm = torch.cat([torch.linalg.vector_norm(row, dim=1, keepdim=True) for row in rows])  # (B, 1)
            if is_scalar(batch):
                norms.append(norm.mul_(group["scalar_lr_scale"]))
            else:
                norms.append(norm.mul_(self._batch_state(group, batch)["rms"]))
        return torch.cat(norms).squeeze(1)

    def _clip_factor(self, group: dict[str, Any], norm: Tensor, keep: Tensor | None) -> Tensor:
        """Factor that reduces a gradient norm to the threshold; also records the norm."""
        scale, period = group["clipping_scale"], group["clipping_update_period"]
        state = self._group_state(group)
        step, norms, threshold = state["step"], state["norms"], state["threshold"]
        if step == 0:
            return torch.ones_like(norm)
        _assign(norms[(step - 1) % period], norm, keep)  # also for a later run that clips
        if scale is None:
            return torch.ones_like(norm)
        early = step in EARLY_CLIPPING_STEPS and step < period
        if early or step % period == 0:
            recorded = norms[:step].sort().values
            median = recorded[len(recorded) // 4 * 2]
            _assign(threshold, scale * median * (EARLY_CLIPPING_LEEWAY if early else 1.0), keep)
        return (threshold / (norm + 1e-20)).clamp(max=1.0)

    def _update(
        self,
        group: dict[str, Any],
        batch: Batch,
        gradients: list[Tensor],
        clip: Tensor | float,
        keep: Tensor | None,
    ) -> None:
        """One step of a batch of B equally shaped parameters.

        Args:
            group, batch: group and batch to update.
            gradients: gradients in the layout of ``rows_of(batch)``.
            clip: clipping factor of the gradients.
            keep: bool scalar, whether the step counts; None: it does.
        """
        state = self._batch_state(group, batch)
        step = self._group_state(group)["step"]
        rows = rows_of(batch)
        size_step = None
        if is_scalar(batch):
            rate = rows[0].new_full((len(batch), 1), group["lr"] * group["scalar_lr_scale"])
        else:
            phase, last = step % group["size_update_period"], group["size_update_period"] - 1
            products = torch.cat([row_products(*pair) for pair in zip(rows, gradients, strict=True)])
            _assign(state["size_grads"][phase], products * clip, keep)  # (B, 1)
            if phase == last:
                _assign(state["rms"], torch.cat([row_rms(p) for p in rows]), keep)
                if step > 0:
                    size_step = self._size_step(group, state, (step + 1) // (last + 1), keep)
            rate = group["lr"] * state["rms"].clamp(min=group["param_min_rms"])  # (B, 1)

        moments = Moments(group["betas"], step, group["eps"], clip, keep)
        begin = 0
        for p, gradient in zip(rows, gradients, strict=True):
            part = slice(begin, begin + len(p))
            begin += len(p)
            moments.advance(
                p,
                gradient,
                state["exp_avg_sq"][part],
                state["delta"][part],
                rate[part],
                None if size_step is None else size_step[part],
            )
        if is_scalar(batch):
            rows[0].clamp_(min=-group["scalar_max"], max=group["scalar_max"])
        put_back(rows, batch)

    def _size_step(
        self, group: dict[str, Any], state: dict[str, Tensor], updates: int, keep: Tensor | None
    ) -> Tensor:
        """Change of log r of each tensor, (B, 1), from the size gradients since the last update."""
        beta2 = group["betas"][1] ** group["size_update_period"]
        grads, rms, exp_avg_sq = state["size_grads"], state["rms"], state["size_exp_avg_sq"]
        _assign(exp_avg_sq, exp_avg_sq * beta2 + grads.square().mean(dim=0) * (1 - beta2), keep)
        rate = group["lr"] * group["scalar_lr_scale"] * math.sqrt(1 - beta2**updates)
        step = -rate * grads.sum(dim=0) / (exp_avg_sq.sqrt() + group["eps"])
        step.masked_fill_(rms < group["param_min_rms"], 0.0)
        step.clamp_(min=-LARGEST_SIZE_STEP, max=LARGEST_SIZE_STEP)
        step = torch.minimum(step, (group["param_max_rms"] - rms) / rms)
        return step if keep is None else torch.where(keep, step, 0.0)


def _assign(target: Tensor, value: Tensor, keep: Tensor | None) -> None:
    """Overwrite the target, unless the bool scalar ``keep`` is False."""
    target.copy_(value if keep is None else torch.where(keep, value, target))


def _no_norms(group: dict[str, Any]) -> Tensor:
    """Buffer for the norms of a clipping period; the norm of step t >= 1 is at (t - 1) % period."""
    return cast(Tensor, group["params"][0].new_zeros(group["clipping_update_period"]))


def _name(parameter: Tensor, group: dict[str, Any]) -> str:
    if "param_names" not in group:
        return f"of shape {tuple(parameter.shape)}"
    return next(n for n, p in zip(group["param_names"], group["params"], strict=True) if p is parameter)
