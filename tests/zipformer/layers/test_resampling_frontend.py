import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from zipformer.encoder.frontend import ConvFrontend
from zipformer.layers.activations import swoosh_l, swoosh_r
from zipformer.layers.resampling import Downsample, Upsample, match_channels
from zipformer.layers.schedule import Clock


@given(T=st.integers(1, 20), factor=st.sampled_from([1, 2, 3, 8]))
def test_downsample_is_a_weighted_mean_of_each_group(T: int, factor: int) -> None:
    downsample = Downsample(factor).double()
    downsample.bias.data = torch.linspace(-1.0, 2.0, factor, dtype=torch.float64)
    weights = downsample.bias.exp() / downsample.bias.exp().sum()
    x = torch.randn(2, T, 3, dtype=torch.float64)
    y = downsample(x)
    assert y.shape == (2, -(-T // factor), 3)
    for group in range(y.shape[1]):
        frames = [min(group * factor + i, T - 1) for i in range(factor)]
        expected = sum(weights[i] * x[:, frame] for i, frame in enumerate(frames))
        torch.testing.assert_close(y[:, group], expected)


def test_upsample_repeats_frames() -> None:
    x = torch.randn(2, 3, 4)
    y = Upsample(4)(x, num_frames=10)
    assert y.shape == (2, 10, 4)
    for t in range(10):
        assert torch.equal(y[:, t], x[:, t // 4])
    assert Upsample(4)(x).shape == (2, 12, 4)


def test_match_channels() -> None:
    x = torch.randn(2, 3, 4)
    assert match_channels(x, 4) is x
    assert torch.equal(match_channels(x, 2), x[..., :2])
    assert torch.equal(match_channels(x, 6), torch.cat((x, torch.zeros(2, 3, 2)), dim=2))


def reference_frontend(frontend: ConvFrontend, features: torch.Tensor) -> torch.Tensor:
    """The same in eval mode with ordinary (N, C, T, F) convolutions."""
    conv, convnext = frontend.conv, frontend.convnext
    x = swoosh_r(F.conv2d(features[:, None], conv["0"].weight, conv["0"].bias, padding=(0, 1)))
    x = swoosh_r(F.conv2d(x, conv["4"].weight, conv["4"].bias, stride=2))
    x = swoosh_r(F.conv2d(x, conv["7"].weight, conv["7"].bias, stride=(1, 2)))
    hidden = convnext.pointwise_conv1(convnext.depthwise_conv(x))
    x = x + convnext.pointwise_conv2(swoosh_l(hidden))
    x = frontend.out(x.transpose(1, 2).flatten(2))
    norm = frontend.out_norm
    return x * (x - norm.bias).square().mean(dim=2, keepdim=True) ** -0.5 * norm.log_scale.exp()


def test_frontend_values_gradients_and_lengths() -> None:
    frontend = ConvFrontend(80, 12, clock=Clock(), channels=(2, 3, 5)).double().eval()
    features = torch.randn(2, 31, 80, dtype=torch.float64)
    lengths = torch.tensor([31, 20])
    x, x_lengths = frontend(features, lengths)
    assert x.shape == (2, 12, 12)
    assert x_lengths.tolist() == [12, 6]
    expected = reference_frontend(frontend, features)
    torch.testing.assert_close(x, expected)
    grad = torch.randn_like(x)
    parameters = list(frontend.parameters())
    gradients = torch.autograd.grad(x, parameters, grad)
    for gradient, correct in zip(gradients, torch.autograd.grad(expected, parameters, grad), strict=True):
        torch.testing.assert_close(gradient, correct)


def test_frontend_parameters_have_the_known_names_and_shapes() -> None:
    shapes = {name: tuple(p.shape) for name, p in ConvFrontend(80, 192, clock=Clock()).named_parameters()}
    assert shapes == {
        "conv.0.weight": (8, 1, 3, 3),
        "conv.0.bias": (8,),
        "conv.4.weight": (32, 8, 3, 3),
        "conv.4.bias": (32,),
        "conv.7.weight": (128, 32, 3, 3),
        "conv.7.bias": (128,),
        "convnext.depthwise_conv.weight": (128, 1, 7, 7),
        "convnext.depthwise_conv.bias": (128,),
        "convnext.pointwise_conv1.weight": (384, 128, 1, 1),
        "convnext.pointwise_conv1.bias": (384,),
        "convnext.pointwise_conv2.weight": (128, 384, 1, 1),
        "convnext.pointwise_conv2.bias": (128,),
        "out.weight": (192, 2432),
        "out.bias": (192,),
        "out_norm.log_scale": (),
        "out_norm.bias": (192,),
    }


class NeverClock(Clock):
    """No regulariser acts."""

    def chance(self, probability: float) -> bool:
        return False


def test_first_convolution_gets_a_fifth_of_its_gradient_in_training() -> None:
    frontend = ConvFrontend(20, 6, clock=NeverClock(batch=0.0), channels=(2, 2, 2), dropout=0.0)
    frontend.convnext.skip_rate = 0.0
    features, lengths = torch.randn(2, 15, 20), torch.tensor([15, 15])
    gradients = []
    for training in (True, False):
        frontend.train(training).zero_grad(set_to_none=True)
        frontend(features, lengths)[0].sin().sum().backward()
        gradients.append({name: p.grad for name, p in frontend.named_parameters()})
    for name, gradient in gradients[1].items():
        factor = 0.2 if name.startswith("conv.0.") else 1.0
        torch.testing.assert_close(gradients[0][name], factor * gradient)


def test_frontend_regularisers_act_in_training_only() -> None:
    frontend = ConvFrontend(20, 6, clock=Clock(batch=0.0), channels=(2, 2, 4))
    features, lengths = torch.randn(2, 15, 20), torch.tensor([15, 15])
    assert not torch.equal(frontend(features, lengths)[0], frontend(features, lengths)[0])
    frontend.eval()
    assert torch.equal(frontend(features, lengths)[0], frontend(features, lengths)[0])


def test_frontend_refuses_what_is_too_short() -> None:
    frontend = ConvFrontend(20, 6, clock=Clock(), channels=(2, 2, 2))
    assert frontend(torch.randn(1, 9, 20), torch.tensor([9]))[0].shape == (1, 1, 6)
    with pytest.raises(ValueError, match="at least 9 feature frames, got 8"):
        frontend(torch.randn(1, 8, 20), torch.tensor([8]))
