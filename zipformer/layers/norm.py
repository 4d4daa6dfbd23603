"""BiasNorm (Yao et al. 2023, "Zipformer", section 2.4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zipformer.device import has_kernels
from zipformer.layers.regularizers import limit_param_value
from zipformer.layers.schedule import Clock
from zipformer.layers.swoosh import HALF_PRECISION


class _BiasNormFunction(torch.autograd.Function):
    """y = x * r * exp(s), with r = 1 / rms(x - b) per frame. Saves x and one number for each frame.

    With e = x - b, C channels and d = sum_c(grad * x) per frame:
        grad_x = r exp(s) grad - (d r^3 exp(s) / C) e
        grad_b = sum over frames of (d r^3 exp(s) / C) e
        grad_s = sum over frames of d r exp(s)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
        wide = x.float() if x.dtype in HALF_PRECISION else x
        norm = torch.linalg.vector_norm(wide - bias, dim=-1, keepdim=True)  # (..., 1)
        inverse_rms = x.shape[-1] ** 0.5 / norm
        ctx.save_for_backward(x, bias, log_scale, inverse_rms)
        # Under autocast the parameters are float32, and so is the output, the residual stream.
        return (wide * (inverse_rms * log_scale.exp())).to(torch.promote_types(x.dtype, bias.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, bias, log_scale, inverse_rms = ctx.saved_tensors
        grad = grads[0].to(inverse_rms.dtype)
        num_channels = x.shape[-1]
        scale = inverse_rms * log_scale.exp()  # (..., 1)
        dot = (grad * x).sum(dim=-1, keepdim=True)  # (..., 1)
        coefficient = dot * scale * inverse_rms.square() / num_channels
        centred = x - bias
        x_grad = (grad * scale).addcmul_(centred, coefficient, value=-1.0)
        bias_grad = coefficient.reshape(1, -1) @ centred.reshape(-1, num_channels)  # (1, C)
        return x_grad.to(x.dtype), bias_grad.reshape(-1), (dot * scale).sum()


class BiasNorm(nn.Module):
    """Scales every frame to rms exp(log_scale), with the rms around a learnt bias.

    Unlike LayerNorm it keeps some information about the length of the vectors without using up a channel for
    it.

    Args:
        num_channels: size of the last axis.
        clock: the model's clock.
    """

    def __init__(self, num_channels: int, *, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.log_scale = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.empty(num_channels).normal_(std=1e-4))

    def forward(self, x: Tensor) -> Tensor:
        log_scale = limit_param_value(self.log_scale, -1.5, 1.5, clock=self.clock, training=self.training)
        if has_kernels(x.device):
            from zipformer.layers import norm_cuda

            return norm_cuda.BiasNormFunction.apply(x, self.bias, log_scale)
        return _BiasNormFunction.apply(x, self.bias, log_scale)
