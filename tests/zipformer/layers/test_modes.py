"""Properties that all building blocks share."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from zipformer.encoder.frontend import ConvFrontend
from zipformer.layers import (
    ConvolutionModule,
    FeedForward,
    NonlinAttention,
    RelPositionAttentionWeights,
    SelfAttention,
    relative_positions,
)
from zipformer.layers.regularizers import Balancer, Whiten
from zipformer.layers.schedule import Clock

Case = tuple[Callable[[Clock], nn.Module], Callable[[nn.Module, Tensor], Tensor]]
ATTENTION = torch.eye(10).expand(2, 3, 10, 10).contiguous()
CASES: dict[str, Case] = {
    "feed_forward": (lambda clock: FeedForward(8, 16, clock=clock), lambda m, x: m(x)),
    "convolution": (lambda clock: ConvolutionModule(8, 5, clock=clock), lambda m, x: m(x)),
    "causal": (lambda clock: ConvolutionModule(8, 5, clock=clock, causal=True), lambda m, x: m(x, None, 4)),
    "self_attention": (
        lambda clock: SelfAttention(8, clock=clock, num_heads=2, value_head_dim=4),
        lambda m, x: m(x, ATTENTION.to(x.dtype)),
    ),
    "nonlin_attention": (
        lambda clock: NonlinAttention(8, clock=clock),
        lambda m, x: m(x, ATTENTION[:1].to(x.dtype)),
    ),
    "attention_weights": (
        lambda clock: RelPositionAttentionWeights(
            8, clock=clock, pos_dim=6, num_heads=2, query_head_dim=4, pos_head_dim=2
        ),
        lambda m, x: m(x, relative_positions(6, 10)[None]),
    ),
    "frontend": (
        lambda clock: ConvFrontend(8, 8, clock=clock, channels=(2, 3, 4)),
        lambda m, x: m(x, torch.tensor([10, 10, 10]))[0],
    ),
}


class AlwaysClock(Clock):
    """Every regulariser acts."""

    def chance(self, probability: float) -> bool:
        return True


def loosen(module: nn.Module) -> nn.Module:
    """Make every regulariser of the module find something to correct."""
    for part in module.modules():
        if isinstance(part, Balancer):
            part.min_abs, part.max_abs = 50.0, 60.0
        if isinstance(part, Whiten):
            part.limit = 1.0
    return module


def gradients(module: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> list[Tensor]:
    torch.manual_seed(3)
    x = torch.randn(3, 10, 8, requires_grad=True)
    y = call(module, x)
    return list(torch.autograd.grad(y, [x, *module.parameters()], torch.randn(y.shape)))


@pytest.mark.parametrize("name", CASES)
def test_no_regulariser_changes_gradients_in_eval_mode(name: str) -> None:
    build, call = CASES[name]
    torch.manual_seed(1)
    strict = loosen(build(AlwaysClock(batch=0.0)))
    relaxed = build(Clock())
    relaxed.load_state_dict(strict.state_dict())
    in_training = gradients(strict, call)
    in_eval = gradients(strict.eval(), call)
    for gradient, correct in zip(in_eval, gradients(relaxed.eval(), call), strict=True):
        assert torch.equal(gradient, correct)
    assert any(not torch.equal(a, b) for a, b in zip(in_training, in_eval, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_autocast_trains_float32_parameters(name: str) -> None:
    build, call = CASES[name]
    module = build(AlwaysClock(batch=0.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = call(module, torch.randn(3, 10, 8, requires_grad=True))
    y.float().square().sum().backward()
    for parameter in module.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert torch.isfinite(parameter.grad).all()
    module.eval()
    x = torch.randn(3, 10, 8)
    exact = call(module, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (call(module, x).float() - exact).norm() < 0.03 * exact.norm()
