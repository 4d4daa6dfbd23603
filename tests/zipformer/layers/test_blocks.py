import math

import pytest
import torch
from torch import Tensor

from zipformer.layers.activations import swoosh_l
from zipformer.layers.blocks import BLOCK, blockwise, in_row_blocks
from zipformer.layers.regularizers import Balancer, balancer_gradient
from zipformer.layers.schedule import Clock
from zipformer.layers.swoosh import SWOOSH_L


@pytest.mark.parametrize("shape", [(7,), (BLOCK,), (3, BLOCK // 2 + 5), (2, 3, BLOCK)])
def test_blocks_cover_everything_once(shape: tuple[int, ...]) -> None:
    x, y = torch.randn(shape), torch.randn(shape)
    sizes = []

    def add(x_piece: Tensor, y_piece: Tensor) -> Tensor:
        sizes.append(x_piece.numel())
        return x_piece + y_piece

    assert torch.equal(blockwise(add, x, y), x + y)
    assert max(sizes) <= BLOCK
    assert len(sizes) == math.ceil(x.numel() / BLOCK)


@pytest.mark.parametrize(("rows", "channels"), [(5, 7), (1000, 300), (3, 2 * BLOCK)])
def test_row_blocks_cover_everything_once(rows: int, channels: int) -> None:
    x, y = torch.randn(rows, channels), torch.zeros(rows, channels)
    for x_part, y_part in in_row_blocks(x, y):
        assert x_part.shape[1] == channels
        assert len(x_part) == 1 or x_part.numel() <= BLOCK
        y_part += x_part
    assert torch.equal(x, y)


def test_tensors_in_another_layout_are_one_piece() -> None:
    x, y = torch.randn(3, BLOCK).t(), torch.randn(BLOCK, 3)
    assert torch.equal(blockwise(torch.add, x, y), x + y)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_swoosh_of_large_tensors(transposed: bool, dtype: torch.dtype) -> None:
    values = (4 * torch.randn(3, BLOCK, dtype=torch.float64) + 3).to(dtype)
    x = (values.t() if transposed else values).requires_grad_()
    grad = torch.randn_like(x)
    y = swoosh_l(x)
    y.backward(grad)
    exact = x.detach().double()
    z = exact - SWOOSH_L.offset
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-9, torch.bfloat16: 2e-2}[dtype]
    expected = torch.log1p(z.exp()) - 0.08 * exact - SWOOSH_L.shift
    torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)
    assert x.grad is not None
    expected = (z.sigmoid() - 0.08) * grad.double()
    torch.testing.assert_close(x.grad.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("transposed", [False, True])
def test_balancer_of_large_tensors(transposed: bool) -> None:
    def laid_out(x: Tensor) -> Tensor:
        return x.permute(1, 0, 2).contiguous().permute(1, 0, 2) if transposed else x

    x, grad = laid_out(torch.randn(7, BLOCK // 30, 10) + 2.0), laid_out(torch.randn(7, BLOCK // 30, 10))
    balancer = Balancer(10, clock=Clock(), prob=1.0, grad_scale=0.1, max_positive=0.7)
    leaf = x.clone().requires_grad_()
    balancer(leaf).backward(grad)
    offset, slope = balancer_gradient(x.double().reshape(-1, 10), balancer.limits())
    expected = grad + 0.1 * grad.abs() * (offset + slope * x)
    torch.testing.assert_close(leaf.grad, expected.float(), rtol=1e-4, atol=1e-5)
