from typing import Any

import pytest
import torch
from torch.nn import functional as F

from zipformer.layers.activations import swoosh_l, swoosh_r
from zipformer.layers.dropout import shared_dropout_mask
from zipformer.layers.feedforward import FeedForward
from zipformer.layers.linear import ActivationDropoutAndLinear, scaled_linear
from zipformer.layers.schedule import Clock


def test_scaled_linear_starts_smaller() -> None:
    torch.manual_seed(0)
    plain = torch.nn.Linear(200, 100)
    torch.manual_seed(0)
    scaled = scaled_linear(200, 100, initial_scale=0.05)
    torch.testing.assert_close(scaled.weight, plain.weight * 0.05)
    assert 0.004 < scaled.bias.abs().max().item() <= 0.005


@pytest.mark.parametrize("activation", ["swoosh_l", "swoosh_r"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_activation_dropout_and_linear_equals_its_parts(activation: Any, bias: bool, rate: float) -> None:
    layer = ActivationDropoutAndLinear(5, 3, activation=activation, bias=bias, dropout=rate).double()
    swoosh = {"swoosh_l": swoosh_l, "swoosh_r": swoosh_r}[activation]
    x = torch.randn(2, 7, 5, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(2, 7, 3, dtype=torch.float64)
    parameters = list(layer.parameters())

    torch.manual_seed(5)
    y = layer(x)
    torch.manual_seed(5)
    mask = shared_dropout_mask(x, rate, 1) if rate else torch.ones(())
    expected = F.linear(swoosh(x) * mask, layer.weight, layer.bias)
    torch.testing.assert_close(y, expected)
    gradients = torch.autograd.grad(y, [x, *parameters], grad)
    for gradient, correct in zip(
        gradients, torch.autograd.grad(expected, [x, *parameters], grad), strict=True
    ):
        torch.testing.assert_close(gradient, correct)

    if rate:
        assert not torch.equal(layer(x), layer(x))
    layer.eval()
    torch.testing.assert_close(layer(x), F.linear(swoosh(x), layer.weight, layer.bias))


def test_activation_dropout_and_linear_under_autocast() -> None:
    layer = ActivationDropoutAndLinear(64, 32, activation="swoosh_l")
    x = torch.randn(2, 9, 64, requires_grad=True)
    exact = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), exact, rtol=0.05, atol=0.02)
    grad = torch.randn_like(exact)
    gradients = torch.autograd.grad(y, [x, layer.weight, layer.bias], grad.bfloat16())
    for gradient, correct in zip(
        gradients, torch.autograd.grad(exact, [x, layer.weight, layer.bias], grad), strict=True
    ):
        assert gradient.dtype == torch.float32
        assert (gradient - correct).norm() < 0.02 * correct.norm()


def test_feed_forward_in_eval_mode() -> None:
    feed_forward = FeedForward(6, 10, clock=Clock(batch=0.0)).eval()
    x = torch.randn(2, 5, 6)
    hidden = swoosh_l(feed_forward.in_proj(x))
    expected = F.linear(hidden, feed_forward.out_proj.weight, feed_forward.out_proj.bias)
    torch.testing.assert_close(feed_forward(x), expected)
    assert set(feed_forward.state_dict()) == {
        "in_proj.weight",
        "in_proj.bias",
        "out_proj.weight",
        "out_proj.bias",
    }
