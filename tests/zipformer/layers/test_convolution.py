from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from zipformer.layers.activations import swoosh_r
from zipformer.layers.convolution import ChunkCausalDepthwiseConv1d, ConvolutionModule
from zipformer.layers.depthwise import depthwise_conv1d
from zipformer.layers.schedule import Clock


@settings(max_examples=40, deadline=None)
@given(
    N=st.integers(1, 3),
    T=st.integers(1, 70),
    C=st.integers(1, 5),
    half=st.sampled_from([0, 1, 3, 7, 15, 20]),
)
def test_depthwise_conv_and_its_gradients(N: int, T: int, C: int, half: int) -> None:
    generator = torch.Generator().manual_seed(T)
    kernel_size = 2 * half + 1

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    x, weight, bias, grad = draw(N, T, C), draw(C, 1, kernel_size), draw(C), draw(N, T, C).detach()
    y = depthwise_conv1d(x, weight, bias)
    expected = F.conv1d(x.transpose(1, 2), weight, bias, padding=half, groups=C).transpose(1, 2)
    torch.testing.assert_close(y, expected)
    gradients = torch.autograd.grad(y, (x, weight, bias), grad)
    for gradient, correct in zip(
        gradients, torch.autograd.grad(expected, (x, weight, bias), grad), strict=True
    ):
        torch.testing.assert_close(gradient, correct)


def chunk_causal_reference(layer: ChunkCausalDepthwiseConv1d, x: Tensor, chunk_size: int) -> Tensor:
    """Frame by frame."""
    N, T, C = x.shape
    K, half = layer.kernel_size, layer.kernel_size // 2
    left, right = layer.chunkwise_conv_scale
    y = torch.zeros_like(x)
    for t in range(T):
        begin = t // chunk_size * chunk_size
        end = begin + chunk_size
        causal = layer.causal_conv.bias.expand(N, C)
        for k in range(half + 1):
            if t - half + k >= 0:
                causal = causal + layer.causal_conv.weight[:, 0, k] * x[:, t - half + k]
        within = layer.chunkwise_conv.bias.expand(N, C)
        for k in range(K):
            if begin <= t - half + k < min(end, T):
                within = within + layer.chunkwise_conv.weight[:, 0, k] * x[:, t - half + k]
        scale = torch.ones(C, dtype=x.dtype)
        if t - begin < K:
            scale = scale + left[:, t - begin]
        if end - 1 - t < K:
            scale = scale + right[:, K - 1 - (end - 1 - t)]
        y[:, t] = causal + within * scale
    return y


@pytest.mark.parametrize("chunk_size", [1, 3, 4, 7, 16, 50, -1])
def test_chunk_causal_convolution_equals_a_loop(chunk_size: int) -> None:
    layer = ChunkCausalDepthwiseConv1d(3, 7).double()
    layer.chunkwise_conv_scale.data.normal_()
    x = torch.randn(2, 17, 3, dtype=torch.float64)
    expected = chunk_causal_reference(layer, x, chunk_size if 0 < chunk_size <= 17 else 17)
    torch.testing.assert_close(layer(x, chunk_size), expected)


def test_chunk_causal_convolution_does_not_see_later_chunks() -> None:
    layer = ChunkCausalDepthwiseConv1d(3, 7)
    x = torch.randn(1, 20, 3)
    changed = x.clone()
    changed[:, 12:] += 1.0
    same = (layer(x, 4) == layer(changed, 4)).all(dim=2)[0]
    assert same.tolist() == [True] * 12 + [False] * 8


def test_convolution_module_formula_and_padding() -> None:
    module = ConvolutionModule(6, 5, clock=Clock()).double().eval()
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[1, 6:] = True
    values, gate = module.in_proj(x).chunk(2, dim=2)
    gated = (values * gate.sigmoid()).masked_fill(mask[:, :, None], 0.0)
    conv = module.depthwise_conv
    convolved = F.conv1d(gated.transpose(1, 2), conv.weight, conv.bias, padding=2, groups=6).transpose(1, 2)
    expected = F.linear(swoosh_r(convolved), module.out_proj.weight, module.out_proj.bias)
    torch.testing.assert_close(module(x, mask), expected)

    x[1, 6:] = 100.0
    torch.testing.assert_close(module(x, mask)[1, :6], expected[1, :6])
    torch.testing.assert_close(module(x[1:, :6]), module(x, mask)[1:, :6])


def test_causal_convolution_module_passes_the_chunk_size_on() -> None:
    module = ConvolutionModule(4, 5, clock=Clock(), causal=True).eval()
    x = torch.randn(1, 12, 4)
    torch.testing.assert_close(module(x, chunk_size=4)[:, :8], module(x[:, :8], chunk_size=4))
    assert not torch.allclose(module(x)[:, :8], module(x[:, :8]))
    names = {name.removeprefix("depthwise_conv.") for name in module.state_dict() if "depthwise" in name}
    assert names == {
        "chunkwise_conv_scale",
        "causal_conv.weight",
        "causal_conv.bias",
        "chunkwise_conv.weight",
        "chunkwise_conv.bias",
    }


def test_unusable_options_are_named() -> None:
    with pytest.raises(ValueError, match="odd size, got 4"):
        ConvolutionModule(4, 4, clock=Clock())
    with pytest.raises(ValueError, match="chunk_size 8 needs a model with causal=True"):
        ConvolutionModule(4, 5, clock=Clock())(torch.randn(1, 10, 4), chunk_size=8)


@pytest.mark.parametrize(("name", "chunk_size"), [("y_full", -1), ("y_chunk4", 4), ("y_chunk8", 8)])
def test_golden_chunk_causal_convolution(modules: dict[str, Any], name: str, chunk_size: int) -> None:
    golden = modules["chunk_conv"]
    channels, kernel_size = golden["state"]["chunkwise_conv_scale"].shape[1:]
    layer = ChunkCausalDepthwiseConv1d(channels, kernel_size)
    layer.load_state_dict(golden["state"])
    y = layer(golden["x"].transpose(1, 2), chunk_size).transpose(1, 2)
    torch.testing.assert_close(y, golden[name], rtol=1e-4, atol=1e-6)
