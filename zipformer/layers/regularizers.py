"""Regularisers that change only gradients, all from icefall's Zipformer recipe.

They are identities in the forward pass. The host decides in forward whether a regulariser acts on a batch;
otherwise the input is returned unchanged and autograd is not involved. In evaluation mode none of them acts.
Their gradients are in closed form, because automatic differentiation of the penalties costs several times as
much as the layer.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zipformer.device import on_host
from zipformer.layers.blocks import in_row_blocks
from zipformer.layers.schedule import Clock, Schedule, ScheduleLike, current

# Avoids division by zero; too small to affect a gradient.
TINY = 1.0e-20


class BalancerLimits(NamedTuple):
    """Bounds for a channel: mean / standard deviation, and root mean square."""

    min_mean: float
    max_mean: float
    min_rms: float
    max_rms: float


def balancer_gradient(x: Tensor, limits: BalancerLimits) -> tuple[Tensor, Tensor]:
    """Gradient of the balancer's loss with respect to x, scaled to rms 1 in every channel.

    Per channel, with m = mean / std and r = rms over frames, the loss is
        |m - clamp(m, min_mean, max_mean)| + |log(clamp(r, min_rms, max_rms) / r)|.
    Both terms depend only on the first two moments of x, so the gradient is linear, a + b x, where, up to a
    factor that the scaling removes,
        a + b mean = sign_m / std + sign_r * mean / r^2,    b = sign_r / r^2 - sign_m * mean / std^3
    where sign_m and sign_r are -1 below the range, +1 above it and 0 inside. Its mean square is
    (a + b mean)^2 + (b std)^2. For a constant channel b is 0.

    Args:
        x: activations (frames, C), float32.

    Returns:
        Coefficients a and b, each (C,).
    """
    sums = x.new_zeros(2, x.shape[1])
    for (part,) in in_row_blocks(x):
        sums[0] += part.sum(dim=0)
        sums[1] += part.square().sum(dim=0)
    mean, mean_square = sums / len(x)
    mean_square.clamp_(min=TINY)
    variance = (mean_square - mean.square()).clamp(min=TINY)
    deviation = variance.sqrt()
    ratio = mean / deviation
    rms = mean_square.sqrt()
    sign_mean = torch.sign(ratio - ratio.clamp(limits.min_mean, limits.max_mean))
    sign_rms = torch.sign(rms - rms.clamp(limits.min_rms, limits.max_rms))
    at_mean = sign_mean / deviation + sign_rms * mean / mean_square
    slope = (sign_rms / mean_square - sign_mean * ratio / variance) * (variance > TINY)
    size = torch.hypot(at_mean, slope * deviation).clamp(min=TINY)
    slope = slope / size
    return at_mean / size - slope * mean, slope


class _BalancerFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, limits: BalancerLimits, grad_scale: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.limits, ctx.grad_scale = limits, grad_scale
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        num_channels = x.shape[-1]
        x = x.float().reshape(-1, num_channels)
        grad = grads[0].float().reshape(-1, num_channels)
        offset, slope = balancer_gradient(x, ctx.limits)
        offset, slope = offset * ctx.grad_scale, slope * ctx.grad_scale
        x_grad = torch.empty_like(grad)
        for x_part, grad_part, x_grad_part in in_row_blocks(x, grad, x_grad):
            # The extra gradient is proportional to |grad| at every element.
            penalty = torch.addcmul(offset, x_part, slope)
            torch.addcmul(grad_part, penalty, grad_part.abs(), out=x_grad_part)
        return x_grad.view(grads[0].shape).to(grads[0].dtype), None, None


def proportion_to_mean(proportion: float) -> float:
    """Approximate mean / std of a normal variable that is positive with this probability."""
    x = 2.0 * proportion - 1.0
    # 1 / (sqrt(pi) ln 2) * atanh(x) is close to erfinv(x) in the middle; the 1e-10 keeps 0 and 1 finite.
    return 0.8139535143 * 0.5 * (math.log(1.0 + x + 1e-10) - math.log(1.0 - x + 1e-10))


# E|x| to rms for a zero-mean normal variable: sqrt(pi / 2).
ABS_TO_RMS = 1.25331413732


class Balancer(nn.Module):
    """Keeps the channels of an activation from having always one sign or being too small or too large.

    Args:
        num_channels: size of the last axis.
        clock: the model's clock.
        min_positive: lowest share of positive values in a channel.
        max_positive: highest share of positive values in a channel.
        min_abs: lowest mean absolute value of a channel.
        max_abs: highest mean absolute value of a channel.
        grad_scale: size of the extra gradient relative to the gradient.
        prob: probability of acting on a batch; by default it falls from 0.5 to 0.125 in the first 8000
            reference batches.
    """

    def __init__(
        self,
        num_channels: int,
        *,
        clock: Clock,
        min_positive: ScheduleLike = 0.05,
        max_positive: ScheduleLike = 0.95,
        min_abs: ScheduleLike = 0.2,
        max_abs: ScheduleLike = 100.0,
        grad_scale: ScheduleLike = 0.04,
        prob: ScheduleLike | None = None,
    ) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.clock = clock
        self.min_positive = min_positive
        self.max_positive = max_positive
        self.min_abs = min_abs
        self.max_abs = max_abs
        self.grad_scale = grad_scale
        self.prob = Schedule(clock, (0.0, 0.5), (8000.0, 0.125), default=0.4) if prob is None else prob

    def limits(self) -> BalancerLimits:
        """The current bounds."""
        return BalancerLimits(
            min_mean=proportion_to_mean(current(self.min_positive)),
            max_mean=proportion_to_mean(current(self.max_positive)),
            min_rms=ABS_TO_RMS * current(self.min_abs),
            max_rms=ABS_TO_RMS * current(self.max_abs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (..., C), unchanged."""
        if not (self.training and x.requires_grad and self.clock.chance(current(self.prob))):
            return x
        if x.shape[-1] != self.num_channels:
            raise ValueError(
                f"this balancer is for {self.num_channels} channels, got x of shape {tuple(x.shape)}"
            )
        return _BalancerFunction.apply(x, self.limits(), current(self.grad_scale))


class Whiteness(NamedTuple):
    """Statistics of a batch for the whitening penalty.

    With c channels in a group, centred frames e (frames, groups, c) and covariances S scaled to mean diagonal
    1, the metric is the mean diagonal of S S: 1 if all eigenvalues are equal, at most c. Its gradient with
    respect to the frames is, up to a positive factor, e D with D = S - metric * I.
    """

    metric: Tensor  # ()
    centred: Tensor  # (frames, C)
    covariance: Tensor  # (groups, c, c), S

    def direction(self) -> Tensor:
        """e D, (frames, C). Overwrites S."""
        self.covariance.diagonal(dim1=1, dim2=2).sub_(self.metric)
        # With the groups as one block-diagonal matrix, one product is enough, without rearranging the frames.
        return self.centred @ torch.block_diag(*self.covariance)


def whiteness(x: Tensor, num_groups: int) -> Whiteness:
    """Measure how far x (frames, C) float32 is from white."""
    num_frames, num_channels = x.shape
    centred = x - x.mean(dim=0)
    grouped = centred.view(num_frames, num_groups, num_channels // num_groups)
    covariance = torch.bmm(grouped.permute(1, 2, 0), grouped.transpose(0, 1))  # (groups, c, c)
    mean_variance = covariance.diagonal(dim1=1, dim2=2).sum() / num_channels
    covariance /= mean_variance + TINY
    metric = torch.linalg.vector_norm(covariance).square() / num_channels
    return Whiteness(metric, centred, covariance)


class _WhitenFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, module: Whiten, limit: float, grad_scale: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.module, ctx.limit, ctx.grad_scale = module, limit, grad_scale
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        num_channels = x.shape[-1]
        state = whiteness(x.reshape(-1, num_channels).float(), ctx.module.num_groups)
        violated = state.metric >= ctx.limit
        ctx.module.clock.answer(ctx.module.violated, violated)
        # On a GPU, reading the decision would wait for all its work: there the penalty is always added,
        # multiplied by 0 or 1.
        if on_host(x) and not violated:
            return grads[0], None, None, None
        grad = grads[0].reshape(-1, num_channels).float()
        penalty = state.direction()
        size = torch.linalg.vector_norm(grad) / (torch.linalg.vector_norm(penalty) + TINY)
        x_grad = penalty.mul_(violated * ctx.grad_scale * size).add_(grad)
        return x_grad.view(x.shape).to(grads[0].dtype), None, None, None


class Whiten(nn.Module):
    """Pushes the covariance of each group of channels towards the same multiple of the identity.

    Args:
        num_groups: number of groups of channels, each with its own covariance (e.g. attention heads).
        clock: the model's clock.
        limit: metric (see ``Whiteness``) above which it acts; 1 would require perfectly white features.
        prob: probabilities of checking a batch if the metric was below the limit at the last check, and if it
            was above.
        grad_scale: norm of the extra gradient relative to the gradient.
    """

    def __init__(
        self,
        num_groups: int,
        *,
        clock: Clock,
        limit: ScheduleLike,
        prob: tuple[float, float] = (0.025, 0.25),
        grad_scale: float = 0.01,
    ) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.clock = clock
        self.limit = limit
        self.prob = prob
        self.grad_scale = grad_scale
        # Stored in the clock and so in checkpoints: a resumed training then draws the same numbers.
        self.violated = clock.add_flag(True)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., C), unchanged."""
        if not (self.training and x.requires_grad):
            return x
        if not self.clock.chance(self.prob[self.clock.flag(self.violated)]):
            return x
        return _WhitenFunction.apply(x, self, current(self.limit), self.grad_scale)


class _LimitFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.low, ctx.high = low, high
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        grad = grads[0]
        grad = torch.where(x < ctx.low, -grad.abs(), grad)
        return torch.where(x > ctx.high, grad.abs(), grad), None, None


def limit_param_value(
    x: Tensor, low: float, high: float, *, clock: Clock, prob: float = 0.6, training: bool = True
) -> Tensor:
    """Return x with a gradient that never pushes an element further out of [low, high].

    Args:
        x: tensor, normally a parameter.
        low, high: ends of the range.
        clock: the model's clock.
        prob: share of the batches on which this acts.
        training: False returns x unchanged.
    """
    return _LimitFunction.apply(x, low, high) if training and clock.chance(prob) else x


class _ScaleGradFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.factor, None


def scale_grad(x: Tensor, factor: float) -> Tensor:
    """Return x with its gradient multiplied by ``factor``."""
    return _ScaleGradFunction.apply(x, factor)


def excess_sign(x: Tensor, limit: float) -> Tensor:
    """int8 sign of x where |x| > limit, 0 elsewhere: the gradient of sum(relu(|x| - limit))."""
    return (x > limit).to(torch.int8) - (x < -limit).to(torch.int8)


class _PenaltyFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, limit: float, penalty: float) -> Tensor:
        ctx.save_for_backward(excess_sign(x, limit))
        ctx.penalty = penalty
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (sign,) = ctx.saved_tensors
        return torch.add(grads[0], sign.to(grads[0].dtype), alpha=ctx.penalty), None, None


def penalize_abs_values_gt(x: Tensor, limit: float, penalty: float) -> Tensor:
    """Return x, and add ``penalty * sum(relu(|x| - limit))`` to the loss, through the gradient only."""
    return _PenaltyFunction.apply(x, limit, penalty)
