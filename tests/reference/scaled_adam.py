"""ScaledAdam for one tensor after the other, as its description reads; numpy, no stacking, no shortcuts."""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def trajectory(
    initial: list[Array],
    gradients: list[list[Array]],
    *,
    lr: float,
    clipping_scale: float | None,
    betas: tuple[float, float] = (0.9, 0.98),
    scalar_lr_scale: float = 0.1,
    eps: float = 1e-8,
    param_min_rms: float = 1e-5,
    param_max_rms: float = 3.0,
    scalar_max: float = 10.0,
    size_update_period: int = 4,
    clipping_update_period: int = 100,
) -> list[list[Array]]:
    """Parameters after each step, for given gradients of each step."""
    beta1, beta2 = betas
    params = [p.copy() for p in initial]
    v = [np.zeros_like(p) for p in params]
    m = [np.zeros_like(p) for p in params]
    rms = [_rms(p) for p in params]
    size_grads: list[list[float]] = [[] for _ in params]
    size_v = [0.0 for _ in params]
    norms: list[float] = []
    threshold = math.inf
    result = []
    for t, grads in enumerate(gradients):
        weight = [scalar_lr_scale if p.size == 1 else r for p, r in zip(params, rms, strict=True)]
        norm = math.sqrt(sum(float((w * g * w * g).sum()) for w, g in zip(weight, grads, strict=True)))
        clip = 1.0
        if clipping_scale is not None and t > 0:
            norms.append(norm)
            if t % clipping_update_period == 0:
                threshold = clipping_scale * _median(norms[-clipping_update_period:])
            elif t in (10, 20, 40) and t < clipping_update_period:
                threshold = 2 * clipping_scale * _median(norms[-t:])
            clip = min(1.0, threshold / norm) if norm else 1.0
        for i, p in enumerate(params):
            g = clip * grads[i]
            v[i] = beta2 * v[i] + (1 - beta2) * g**2
            correction = 1 - beta2 ** (t + 1)
            v_hat = v[i] / correction if correction < 0.99 else v[i]
            direction = -g / (np.sqrt(v_hat) + eps)
            if p.size == 1:
                delta = lr * scalar_lr_scale * direction
            else:
                size_grads[i].append(float((p * g).sum()))
                update_size = len(size_grads[i]) == size_update_period
                if update_size:
                    rms[i] = _rms(p)
                delta = lr * max(rms[i], param_min_rms) * direction
                if update_size:
                    if t > 0:
                        decay = beta2**size_update_period
                        size_v[i] = decay * size_v[i] + (1 - decay) * np.mean(np.square(size_grads[i]))
                        k = (t + 1) // size_update_period
                        step = -lr * scalar_lr_scale * math.sqrt(1 - decay**k) * sum(size_grads[i])
                        step = 0.0 if rms[i] < param_min_rms else step / (math.sqrt(size_v[i]) + eps)
                        step = min(0.1, max(-0.1, step))
                        if rms[i] > 0:
                            step = min(step, (param_max_rms - rms[i]) / rms[i])
                        delta = delta + step * p
                    size_grads[i] = []
            m[i] = beta1 * m[i] + (1 - beta1) * delta
            params[i] = p + m[i]
            if p.size == 1:
                params[i] = np.clip(params[i], -scalar_max, scalar_max)
        result.append([p.copy() for p in params])
    return result


def _rms(p: Array) -> float:
    return math.sqrt(float(np.mean(p**2)))


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 4 * 2]
