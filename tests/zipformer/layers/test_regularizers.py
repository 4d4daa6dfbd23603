import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zipformer.layers.regularizers import (
    Balancer,
    BalancerLimits,
    Whiten,
    balancer_gradient,
    limit_param_value,
    penalize_abs_values_gt,
    proportion_to_mean,
    scale_grad,
    whiteness,
)
from zipformer.layers.schedule import Clock


def gradient_through(module: Any, x: Tensor, grad: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    module(x).backward(grad)
    assert x.grad is not None
    return x.grad


def balancer_loss(x: Tensor, limits: BalancerLimits) -> Tensor:
    """The loss of the closed form, to be differentiated automatically."""
    mean, mean_square = x.mean(dim=0), x.square().mean(dim=0)
    ratio = mean / (mean_square - mean.square()).sqrt()
    rms = mean_square.sqrt()
    off_mean = (ratio - ratio.clamp(limits.min_mean, limits.max_mean)).abs()
    off_rms = (rms.clamp(limits.min_rms, limits.max_rms) / rms).log().abs()
    return (off_mean + off_rms).sum()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), shift=st.floats(-3, 3), size=st.floats(0.05, 20))
def test_balancer_gradient_is_that_of_its_loss(seed: int, shift: float, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(30, 8, dtype=torch.float64, generator=generator)
    x = ((x + shift * torch.randn(8, dtype=torch.float64, generator=generator)) * size).requires_grad_()
    limits = BalancerLimits(min_mean=-0.3, max_mean=0.4, min_rms=0.5, max_rms=3.0)
    balancer_loss(x, limits).backward()
    assert x.grad is not None
    expected = x.grad / x.grad.square().mean(dim=0).sqrt().clamp(min=1e-20)
    offset, slope = balancer_gradient(x.detach(), limits)
    torch.testing.assert_close(offset + slope * x.detach(), expected, rtol=1e-7, atol=1e-9)


def test_balancer_survives_constant_and_zero_channels() -> None:
    x = torch.randn(50, 3)
    x[:, 0] = 0.0
    x[:, 1] = 70.0
    grad = torch.randn(50, 3)
    x_grad = gradient_through(Balancer(3, clock=Clock(), prob=1.0), x, grad)
    change = (x_grad - grad).abs() / grad.abs()
    assert torch.isfinite(change).all()
    assert (change < 0.05).all()


def test_balancer_moves_channels_into_their_range() -> None:
    balancer = Balancer(
        2, clock=Clock(), min_positive=0.3, max_positive=0.7, min_abs=0.5, max_abs=2.0, prob=1.0
    )
    x = torch.stack((torch.randn(2000) + 3.0, 0.1 * torch.randn(2000)), dim=1)
    change = gradient_through(balancer, x, torch.ones_like(x)) - 1.0
    assert change[:, 0].mean() > 0.01  # descending along it lowers the mean
    assert (change[:, 1] * x[:, 1]).mean() < -0.001  # and makes the small channel larger


def test_proportion_to_mean_inverts_the_normal_distribution_nearly() -> None:
    for mean in (-0.4, -0.1, 0.0, 0.2):
        proportion = 0.5 * (1.0 + math.erf(mean / math.sqrt(2.0)))
        # icefall's constant leaves out the sqrt(2)
        assert proportion_to_mean(proportion) * math.sqrt(2.0) == pytest.approx(mean, rel=0.13, abs=1e-9)
    assert proportion_to_mean(1.0) > 5.0
    assert proportion_to_mean(0.0) < -5.0


def whitening_metric(x: Tensor, num_groups: int) -> Tensor:
    """Mean diagonal of the squared covariance over the squared mean diagonal of the covariance."""
    x = x - x.mean(dim=0)
    covariances = [part.T @ part for part in x.chunk(num_groups, dim=1)]
    mean_diagonal = torch.cat([c.diagonal() for c in covariances]).mean()
    return torch.cat([(c @ c).diagonal() for c in covariances]).mean() / mean_diagonal**2


@pytest.mark.parametrize("num_groups", [1, 2, 4])
@pytest.mark.parametrize("limit", [1.0, 1000.0])
def test_whiten_gradient_is_that_of_the_metric(num_groups: int, limit: float) -> None:
    x = torch.randn(3, 40, 8) @ torch.randn(8, 8) + 2.0
    grad = torch.randn(3, 40, 8)
    leaf = x.double().flatten(0, 1).requires_grad_()
    metric = whitening_metric(leaf, num_groups)
    metric.backward()
    assert leaf.grad is not None
    penalty = leaf.grad * (0.05 * grad.norm() / leaf.grad.norm())
    expected = grad + (penalty.view(x.shape).float() if metric >= limit else 0.0)

    clock = Clock()
    whiten = Whiten(num_groups, clock=clock, limit=limit, prob=(1.0, 1.0), grad_scale=0.05)
    torch.testing.assert_close(gradient_through(whiten, x, grad), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whiteness(x.flatten(0, 1), num_groups).metric, metric.detach().float())


def test_whiten_looks_less_often_once_the_features_are_white() -> None:
    clock = Clock()
    whiten = Whiten(1, clock=clock, limit=1.5, prob=(0.0, 1.0))
    x = torch.randn(5000, 4, requires_grad=True)
    looked = whiten(x)
    assert looked is not x  # it starts in doubt
    looked.sum().backward()
    assert whiten(x) is x
    assert clock.state_dict()["flags"] == [False]


def test_whiten_survives_features_that_are_all_zero() -> None:
    whiten = Whiten(1, clock=Clock(), limit=5.0, prob=(1.0, 1.0))
    grad = torch.randn(10, 4)
    assert torch.equal(gradient_through(whiten, torch.zeros(10, 4), grad), grad)


def test_limit_param_value_turns_gradients_that_push_out() -> None:
    x = torch.tensor([-2.0, -2.0, 0.0, 0.0, 2.0, 2.0])
    grad = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])  # descent moves against the gradient
    clock = Clock()
    limited = gradient_through(lambda v: limit_param_value(v, -1.0, 1.0, clock=clock, prob=1.0), x, grad)
    assert limited.tolist() == [-1.0, -1.0, 1.0, -1.0, 1.0, 1.0]
    assert limit_param_value(x, -1.0, 1.0, clock=clock, prob=1.0, training=False) is x


def test_penalty_is_the_gradient_of_the_excess() -> None:
    x = 20.0 * torch.randn(100)
    grad = torch.randn(100)
    leaf = x.clone().requires_grad_()
    (0.3 * (leaf.abs() - 25.0).relu().sum() + (leaf * grad).sum()).backward()
    torch.testing.assert_close(
        gradient_through(lambda v: penalize_abs_values_gt(v, 25.0, 0.3), x, grad), leaf.grad
    )


def test_scale_grad() -> None:
    x, grad = torch.randn(5), torch.randn(5)
    torch.testing.assert_close(gradient_through(lambda v: scale_grad(v, 0.2), x, grad), 0.2 * grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_keep_their_dtype(dtype: torch.dtype) -> None:
    clock = Clock()
    x, grad = (3.0 * torch.randn(2, 50, 8)).to(dtype), torch.randn(2, 50, 8).to(dtype)
    for module in (
        Balancer(8, clock=clock, max_abs=0.5, prob=1.0),
        Whiten(2, clock=clock, limit=1.0, prob=(1.0, 1.0)),
    ):
        x_grad = gradient_through(module, x, grad)
        assert x_grad.dtype == dtype
        assert not torch.equal(x_grad, grad)


def test_nothing_acts_in_eval_mode_and_nothing_is_in_the_graph_when_not_drawn() -> None:
    clock = Clock()
    x = torch.randn(4, 5, 8, requires_grad=True)
    for module in (Balancer(8, clock=clock, prob=1.0), Whiten(1, clock=clock, limit=1.0, prob=(1.0, 1.0))):
        assert module(x) is not x
        assert module(x.detach()).grad_fn is None
        assert module.eval()(x) is x
    assert Balancer(8, clock=clock, prob=0.0)(x) is x


def test_balancer_names_the_shape_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"8 channels.*\(2, 3\)"):
        Balancer(8, clock=Clock(), prob=1.0)(torch.randn(2, 3, requires_grad=True))


def test_golden_balancer(modules: dict[str, Any]) -> None:
    golden = modules["balancer"]
    options = {name: value for name, value in golden["kw"].items() if name != "channel_dim"}
    balancer = Balancer(golden["x"].shape[-1], clock=Clock(), prob=1.0, **options)
    change = gradient_through(balancer, golden["x"], golden["g"]) - golden["g"]
    torch.testing.assert_close(change, golden["gx"] - golden["g"], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("num_groups", [1, 4])
def test_golden_whiten(modules: dict[str, Any], num_groups: int) -> None:
    golden = modules[f"whiten_{num_groups}"]
    x, grad = golden["x"], golden["g"]
    metric = whiteness(x.flatten(0, 1), num_groups).metric
    torch.testing.assert_close(metric, golden["metric"], rtol=1e-4, atol=0.0)
    whiten = Whiten(
        num_groups, clock=Clock(), limit=golden["limit"], prob=(1.0, 1.0), grad_scale=golden["grad_scale"]
    )
    change = gradient_through(whiten, x, grad) - grad
    torch.testing.assert_close(change, golden["gx"] - grad, rtol=1e-3, atol=1e-6)


def test_golden_limits(modules: dict[str, Any]) -> None:
    golden = modules["limit_param"]
    clock = Clock()
    x_grad = gradient_through(
        lambda v: limit_param_value(v, golden["min"], golden["max"], clock=clock, prob=1.0),
        golden["x"],
        golden["g"],
    )
    torch.testing.assert_close(x_grad, golden["gx"])
    golden = modules["penalize"]
    x_grad = gradient_through(lambda v: penalize_abs_values_gt(v, 25.0, 1e-4), golden["x"], golden["g"])
    torch.testing.assert_close(x_grad, golden["gx"])
