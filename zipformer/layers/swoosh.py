"""SwooshL and SwooshR (Yao et al. 2023, "Zipformer", equations 3 and 4).

    SwooshL(x) = log(1 + exp(x - 4)) - 0.08 x - 0.035
    SwooshR(x) = log(1 + exp(x - 1)) - 0.08 x - 0.313261687

Both are computed from x - offset, because softplus and its derivative are single fused kernels.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from zipformer.layers.blocks import blockwise

SLOPE = 0.08
HALF_PRECISION = (torch.float16, torch.bfloat16)


class Swoosh(NamedTuple):
    """Constants of log(1 + exp(x - offset)) - 0.08 x - shift."""

    offset: float
    shift: float

    def value(self, x: Tensor) -> Tensor:
        """Value at x, in the dtype of x."""
        return blockwise(self._value, x)

    def gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        """Gradient by x: (sigmoid(x - offset) - 0.08) * grad."""
        return blockwise(self._gradient, x, grad)

    def _value(self, x: Tensor) -> Tensor:
        # In half precision the difference of the two terms of the formula would be lost.
        z = (x.float() if x.dtype in HALF_PRECISION else x) - self.offset
        # In place: on a CPU memory traffic limits this function, apart from the softplus.
        return F.softplus(z).add_(z, alpha=-SLOPE).sub_(SLOPE * self.offset + self.shift).to(x.dtype)

    def _gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        return torch.ops.aten.softplus_backward(grad, x - self.offset, 1.0, 20.0).add_(grad, alpha=-SLOPE)


SWOOSH_L = Swoosh(offset=4.0, shift=0.035)
SWOOSH_R = Swoosh(offset=1.0, shift=0.313261687)
