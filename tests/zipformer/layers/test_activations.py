import math
from typing import Any

import pytest
import torch
from torch import Tensor

from zipformer.layers.activations import SwooshL, SwooshR, swoosh_l, swoosh_r

PARTS = [(swoosh_l, 4.0, 0.035), (swoosh_r, 1.0, 0.313261687)]


@pytest.mark.parametrize(("swoosh", "offset", "shift"), PARTS)
def test_formula_also_far_from_zero(swoosh: Any, offset: float, shift: float) -> None:
    for value in (-1e4, -90.0, -5.0, 0.0, 0.5, offset, 30.0, 200.0, 1e4):
        z = value - offset
        expected = max(z, 0.0) + math.log1p(math.exp(-abs(z))) - 0.08 * value - shift
        assert swoosh(torch.tensor(value)).item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("swoosh", "offset", "shift"), PARTS)
def test_gradient(swoosh: Any, offset: float, shift: float) -> None:
    x = (8 * torch.randn(4, 7, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(swoosh, x)
    # softplus changes to its asymptote at 20 + offset
    far = torch.tensor([-60.0, 23.9, 24.1, 90.0], requires_grad=True)
    swoosh(far).sum().backward()
    assert far.grad is not None
    assert torch.allclose(far.grad, torch.sigmoid(far.detach() - offset) - 0.08, atol=1e-6)


@pytest.mark.parametrize(
    ("module", "swoosh", "offset"), [(SwooshL(), swoosh_l, 4.0), (SwooshR(), swoosh_r, 1.0)]
)
def test_half_precision_is_computed_in_float32(module: Any, swoosh: Any, offset: float) -> None:
    x = torch.randn(1000).bfloat16()
    y = module(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, swoosh(x.float()).bfloat16())


@pytest.mark.parametrize("name", ["swoosh_l", "swoosh_r"])
def test_golden(modules: dict[str, Any], name: str) -> None:
    swoosh = {"swoosh_l": swoosh_l, "swoosh_r": swoosh_r}[name]
    values: tuple[Tensor, Tensor] = modules[name]
    x = values[0].clone().requires_grad_()
    y = swoosh(x)
    torch.testing.assert_close(y, values[1], rtol=1e-4, atol=1e-6)
    y.sum().backward()
    torch.testing.assert_close(x.grad, modules[f"{name}_deriv"], rtol=1e-3, atol=1e-6)
