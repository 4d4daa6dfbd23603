"""The kernels of the layers against the plain functions, and the choice between them."""

import importlib.util
import logging
import sys
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from triton_runs import DEVICE, compiling_for_a_gpu, not_interpreted, run_in_the_interpreter, runs_kernels

from zipformer import device as device_module
from zipformer.encoder.frontend import ConvFrontend
from zipformer.layers.activations import swoosh_l, swoosh_r
from zipformer.layers.convolution import ConvolutionModule
from zipformer.layers.feedforward import FeedForward
from zipformer.layers.linear import activation_linear
from zipformer.layers.norm import BiasNorm
from zipformer.layers.schedule import Clock
from zipformer.layers.swoosh import SWOOSH_L, SWOOSH_R, Swoosh

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton comes with the CUDA builds of PyTorch"
)

# What is left of a number in each type. For float64 the plain softplus is the one that is less exact: it
# becomes the identity at 20. The interpreter cuts bfloat16 off instead of rounding it.
PRECISION = {torch.float64: 3e-9, torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}
TYPES = list(PRECISION)


@pytest.fixture
def use_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels for tensors on any device, so that the interpreter gets those on the CPU."""
    for module in ("activations", "linear", "norm"):
        monkeypatch.setattr(f"zipformer.layers.{module}.has_kernels", lambda device: device_module._enabled)


def build_feed_forward(clock: Clock) -> tuple[nn.Module, list[Tensor]]:
    return FeedForward(16, 40, clock=clock), [torch.randn(3, 7, 16)]


def build_convolution(clock: Clock) -> tuple[nn.Module, list[Tensor]]:
    return ConvolutionModule(16, 5, clock=clock), [torch.randn(3, 7, 16)]


def build_frontend(clock: Clock) -> tuple[nn.Module, list[Tensor]]:
    frontend = ConvFrontend(20, 16, clock=clock, channels=(2, 4, 8))
    return frontend, [torch.randn(2, 21, 20), torch.tensor([21, 15])]


def run(function: Callable[..., Tensor], inputs: list[Tensor], grad: Tensor | None) -> list[Tensor]:
    """Value and gradients."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    y = function(*inputs)
    y.backward(torch.ones_like(y) if grad is None else grad.to(y.dtype))
    return [y, *(x.grad for x in inputs if x.grad is not None)]


def assert_same(
    function: Callable[..., Tensor], inputs: list[Tensor], dtype: torch.dtype, grad: Tensor | None = None
) -> None:
    """By kernels as by plain PyTorch on float64 copies; and of the types that plain PyTorch gives."""
    inputs = [x.to(DEVICE) for x in inputs]
    grad = None if grad is None else grad.to(DEVICE)
    found = run(function, inputs, grad)
    with device_module.plain_pytorch():
        types = [x.dtype for x in run(function, inputs, grad)]
        expected = run(function, [x.double() for x in inputs], None if grad is None else grad.double())
    assert [x.dtype for x in found] == types
    precision = PRECISION[dtype]
    for one, other in zip(found, expected, strict=True):
        scale = other.abs().max().clamp(min=1.0).item()
        torch.testing.assert_close(one.double(), other, rtol=precision, atol=precision * scale)


@runs_kernels
@pytest.mark.usefixtures("use_kernels")
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("swoosh", [swoosh_l, swoosh_r])
def test_swoosh(swoosh: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    x = torch.cat([5 * torch.randn(4091), torch.tensor([-1e4, -60.0, 0.0, 24.0, 1e4])]).to(dtype)
    assert_same(swoosh, [x], dtype, torch.randn(len(x)).to(dtype))


@runs_kernels
@pytest.mark.usefixtures("use_kernels")
def test_swoosh_in_every_layout() -> None:
    x = torch.randn(3, 4, 5, 6, device=DEVICE)
    for view in (x.permute(0, 2, 3, 1), x.transpose(0, 3), x[:, 1:3, ::2], x[:1].expand(3, 4, 5, 6), x[:0]):
        in_order = torch.randn(view.shape, device=DEVICE)
        for grad in (in_order, in_order.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)):
            leaf = view.detach().requires_grad_()
            y = swoosh_r(leaf)
            (found,) = torch.autograd.grad(y, leaf, grad)
            with device_module.plain_pytorch():
                expected = swoosh_r(leaf)
                torch.testing.assert_close(y, expected)
                torch.testing.assert_close(found, torch.autograd.grad(expected, leaf, grad)[0])


@runs_kernels
@pytest.mark.usefixtures("use_kernels")
def test_swoosh_keeps_the_layout_of_channels_last() -> None:
    x = torch.randn(2, 8, 3, 5, device=DEVICE).contiguous(memory_format=torch.channels_last)
    assert swoosh_l(x).stride() == x.stride()


@runs_kernels
@pytest.mark.usefixtures("use_kernels")
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("swoosh", [SWOOSH_L, SWOOSH_R])
def test_activation_dropout_and_linear(swoosh: Swoosh, with_mask: bool, dtype: torch.dtype) -> None:
    N, T, C, out = 3, 5, 37, 11
    x, weight, bias = torch.randn(N, T, C), 0.1 * torch.randn(out, C), torch.randn(out)
    mask = (torch.rand(N, 1, C) > 0.3) * 1.5 if with_mask else None

    def function(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return activation_linear(
            x, weight, bias, swoosh, None if mask is None else mask.to(x.device, x.dtype)
        )

    grad = torch.randn(N, T, out).to(dtype)
    # A product of C rounded factors loses more than the activation does.
    assert_same(function, [z.to(dtype) for z in (x, weight, bias)], dtype, grad)


@runs_kernels
@pytest.mark.usefixtures("use_kernels")
def test_activation_of_images_and_without_a_bias() -> None:
    x, weight = torch.randn(2, 3, 4, 9), torch.randn(5, 9)
    assert_same(lambda x, weight: activation_linear(x, weight, None, SWOOSH_L), [x, weight], torch.float32)
    mask = (torch.rand(2, 1, 1, 4) > 0.5).double().to(DEVICE)
    turned, weight = torch.randn(4, 2, 3, 5).permute(1, 2, 3, 0), torch.randn(6, 4)
    assert_same(
        lambda x, weight: activation_linear(x, weight, None, SWOOSH_L, mask.to(x.dtype)),
        [turned, weight],
        torch.float32,
    )


@runs_kernels
@pytest.mark.usefixtures("use_kernels")
def test_a_mask_for_every_frame_is_refused() -> None:
    x, weight = torch.randn(2, 3, 4, device=DEVICE), torch.randn(5, 4, device=DEVICE)
    with pytest.raises(ValueError, match="expected"):
        activation_linear(x, weight, None, SWOOSH_L, torch.ones_like(x))


@runs_kernels
@pytest.mark.usefixtures("use_kernels")
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(2, 7, 6), (5, 192), (1, 1, 2100)])
def test_bias_norm(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    norm = BiasNorm(shape[-1], clock=Clock()).eval()

    def function(x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
        return torch.func.functional_call(norm, {"bias": bias, "log_scale": log_scale}, (x,))

    x, bias, log_scale = torch.randn(shape) + 0.1, 0.3 * torch.randn(shape[-1]), torch.tensor(0.7)
    # Parameters are never in half precision while they are trained.
    parameters = [z.to(torch.promote_types(dtype, torch.float32)) for z in (bias, log_scale)]
    assert_same(function, [x.to(dtype), *parameters], dtype, torch.randn(shape).to(dtype))


@runs_kernels
@pytest.mark.usefixtures("use_kernels")
def test_bias_norm_with_more_frames_than_programs_can_take_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from zipformer.layers import norm_cuda

    monkeypatch.setattr(norm_cuda, "MAX_PROGRAMS", 3)
    monkeypatch.setattr(norm_cuda, "ELEMENTS", 32)
    x = torch.randn(57, 9).t().contiguous().t()
    norm = BiasNorm(9, clock=Clock()).eval()

    def function(x: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(norm, {"bias": bias, "log_scale": norm.log_scale.to(x)}, (x,))

    assert_same(function, [x, torch.randn(9)], torch.float32, torch.randn(57, 9))


@runs_kernels
@pytest.mark.usefixtures("use_kernels")
def test_nothing_to_do() -> None:
    norm = BiasNorm(4, clock=Clock()).to(DEVICE).eval()
    x = torch.randn(0, 3, 4, device=DEVICE, requires_grad=True)
    norm(swoosh_l(x)).sum().backward()
    assert x.grad is not None
    assert norm.bias.grad is not None
    assert not norm.bias.grad.any()


@runs_kernels
@pytest.mark.usefixtures("use_kernels")
def test_types_under_autocast() -> None:
    """As on the plain path: half precision inside, float32 in the residual stream."""
    norm = BiasNorm(8, clock=Clock()).to(DEVICE).eval()
    x, weight = torch.randn(2, 3, 8, device=DEVICE), torch.randn(8, 8, device=DEVICE)

    def forward() -> list[torch.dtype]:
        with torch.autocast(DEVICE, torch.bfloat16):
            hidden = activation_linear(F.linear(x, weight), weight, None, SWOOSH_R)
            return [hidden.dtype, swoosh_l(hidden).dtype, swoosh_l(x).dtype, norm(hidden).dtype]

    found = forward()
    with device_module.plain_pytorch():
        assert found == forward()
    assert found == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]


@runs_kernels
@pytest.mark.usefixtures("use_kernels")
@pytest.mark.parametrize("build", [build_feed_forward, build_convolution, build_frontend])
def test_modules_in_training(build: Callable[[Clock], tuple[nn.Module, list[Tensor]]]) -> None:
    """With dropout, balancers and all, from the same random numbers."""

    def run_module() -> list[Tensor]:
        torch.manual_seed(3)
        module, inputs = build(Clock(batch=100.0, seed=5))
        module.to(DEVICE).train()
        x = inputs[0].to(DEVICE).requires_grad_()
        y = module(x, *(z.to(DEVICE) for z in inputs[1:]))
        y = y[0] if isinstance(y, tuple) else y
        (y * torch.linspace(-1, 1, y.numel(), device=y.device).view_as(y)).sum().backward()
        return [y, x.grad, *(parameter.grad for parameter in module.parameters())]

    found = run_module()
    with device_module.plain_pytorch():
        expected = run_module()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * other.abs().max().item())


def test_tensors_on_the_cpu_take_the_plain_path() -> None:
    assert not device_module.has_kernels(torch.device("cpu"))


@not_interpreted
@pytest.mark.parametrize(
    ("found", "missing"), [(None, "Triton is not installed"), (True, "Triton is older than 3.3")]
)
def test_a_missing_or_old_triton_is_named_once(
    found: object, missing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    device = torch.device("cuda")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    monkeypatch.setitem(sys.modules, "triton.language", ModuleType("without gather"))
    device_module._triton_is_installed.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert not device_module.has_kernels(device)
            assert not device_module.has_kernels(device)
        assert [record.message for record in caplog.records if "Triton" in record.message] == [
            f"{missing}: training on this GPU uses plain PyTorch, which is slower"
        ]
    finally:
        device_module._triton_is_installed.cache_clear()


@needs_triton
@not_interpreted
@pytest.mark.usefixtures("use_kernels")
@pytest.mark.parametrize("dtype", TYPES)
def test_kernels_compile_for_a_gpu(dtype: torch.dtype) -> None:
    parameter_dtype = torch.promote_types(dtype, torch.float32)
    norm = BiasNorm(192, clock=Clock()).to(parameter_dtype).eval()
    x = torch.zeros(2, 3, 192, dtype=dtype, requires_grad=True)
    weight, mask = torch.zeros(8, 192, dtype=dtype), torch.ones(2, 1, 192, dtype=dtype)
    with compiling_for_a_gpu() as compiled:
        for swoosh in (swoosh_l, swoosh_r):
            swoosh(x).sum().backward()
        activation_linear(x, weight, None, SWOOSH_L).sum().backward()
        activation_linear(x, weight, None, SWOOSH_R, mask).sum().backward()
        norm(x).sum().backward()
    assert [kernel.name for kernel in compiled] == [
        *(4 * ["value_kernel", "gradient_kernel"]),
        *("norm_kernel", "gradient_kernel"),
    ]


@needs_triton
@not_interpreted
def test_in_the_interpreter() -> None:
    run_in_the_interpreter(__file__)
