from typing import Any

import pytest
import torch

from zipformer.layers.bypass import Bypass
from zipformer.layers.dropout import SharedDropout, sequence_dropout, sequence_mask
from zipformer.layers.norm import BiasNorm
from zipformer.layers.schedule import Clock


def test_bias_norm_formula_and_gradients() -> None:
    norm = BiasNorm(6, clock=Clock()).double().eval()
    norm.bias.data.normal_()
    x = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    expected = x * (x - norm.bias).square().mean(dim=-1, keepdim=True) ** -0.5 * norm.log_scale.exp()
    torch.testing.assert_close(norm(x), expected)

    def function(x: torch.Tensor, bias: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
        parameters = {"bias": bias, "log_scale": log_scale}
        return torch.func.functional_call(norm, parameters, (x,))

    inputs = (x, norm.bias.detach().requires_grad_(), norm.log_scale.detach().requires_grad_())
    assert torch.autograd.gradcheck(function, inputs)


def test_bias_norm_log_scale_is_kept_in_its_range() -> None:
    norm = BiasNorm(4, clock=Clock(seed=1))
    norm.log_scale.data.fill_(2.0)
    signs = set()
    for _ in range(30):
        norm.log_scale.grad = None
        # A loss that wants a larger scale: its gradient is negative, unless it is turned.
        norm(torch.randn(5, 4)).abs().sum().neg().backward()
        assert norm.log_scale.grad is not None
        signs.add(norm.log_scale.grad.sign().item())
    assert signs == {-1.0, 1.0}


def test_golden_bias_norm(modules: dict[str, Any]) -> None:
    golden = modules["biasnorm"]
    norm = BiasNorm(golden["x"].shape[-1], clock=Clock()).eval()
    norm.load_state_dict({"bias": golden["bias"], "log_scale": golden["log_scale"]})
    x = golden["x"].clone().requires_grad_()
    y = norm(x)
    torch.testing.assert_close(y, golden["y"], rtol=1e-4, atol=1e-6)
    y.backward(golden["g"])
    torch.testing.assert_close(x.grad, golden["gx"], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(norm.bias.grad, golden["gb"], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(norm.log_scale.grad, golden["gs"], rtol=1e-3, atol=1e-6)


def test_sequence_dropout_drops_whole_sequences_without_scaling() -> None:
    x = torch.randn(4000, 2, 3)
    y = sequence_dropout(x, 0.3)
    kept = (y == x).flatten(1).all(dim=1)
    dropped = (y == 0).flatten(1).all(dim=1)
    assert (kept ^ dropped).all()
    assert dropped.float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert sequence_dropout(x, 0.0) is x
    mask = sequence_mask(x.bfloat16(), 0.5)
    assert mask is not None
    assert mask.shape == (4000, 1, 1)
    assert mask.dtype == torch.bfloat16


def test_shared_dropout_mask_is_constant_over_time() -> None:
    dropout = SharedDropout(0.25)
    y = dropout(torch.ones(50, 7, 40))
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert y.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert y.mean().item() == pytest.approx(1.0, abs=0.1)
    x = torch.randn(2, 3, 4)
    assert dropout.eval()(x) is x


def test_bypass_interpolates() -> None:
    bypass = Bypass(3, clock=Clock()).eval()
    bypass.bypass_scale.data = torch.tensor([0.0, 0.25, 1.0])
    x_orig, x = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    expected = x_orig + (x - x_orig) * bypass.bypass_scale
    torch.testing.assert_close(bypass(x_orig, x), expected)


def test_bypass_skips_sequences_in_training_only() -> None:
    bypass = Bypass(3, clock=Clock(batch=0.0), skip_rate=0.4)
    x_orig, x = torch.zeros(3000, 2, 3), torch.ones(3000, 2, 3)
    y = bypass(x_orig, x)
    assert set(y.unique().tolist()) == {0.0, 0.5}
    assert (y[:, 0, 0] == 0.0).float().mean().item() == pytest.approx(0.4, abs=0.03)
    assert (bypass.eval()(x_orig, x) == 0.5).all()


def test_bypass_scale_is_pulled_up_early_in_training() -> None:
    clock = Clock(batch=0.0, seed=2)
    bypass = Bypass(3, clock=clock)

    def gradient_signs() -> set[float]:
        signs = set()
        for _ in range(30):
            bypass.bypass_scale.grad = None
            bypass(
                torch.zeros(1, 1, 3), torch.ones(1, 1, 3)
            ).sum().backward()  # descent would lower the scale
            assert bypass.bypass_scale.grad is not None
            signs |= set(bypass.bypass_scale.grad.sign().tolist())
        return signs

    assert gradient_signs() == {-1.0, 1.0}  # 0.5 is below 0.9
    clock.batch = 20000.0
    assert gradient_signs() == {1.0}  # and above 0.2
