"""Elementwise operations in blocks that fit into the cache of a CPU, where memory limits the speed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

# Elements of a block. Small enough that a few such tensors fit into a last-level cache, large enough that
# threads seldom wait for one another: if something else runs on a core, each operation waits for the slowest
# thread.
BLOCK = 1 << 20


def blockwise(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """``function(*tensors)`` of an elementwise function, block by block if the tensors are large.

    Args:
        function: function from tensors of equal size to a tensor of that size.
        tensors: arguments of equal size; divided into blocks only if contiguous and on a CPU.
    """
    if tensors[0].numel() <= BLOCK or not all(x.is_cpu and x.is_contiguous() for x in tensors):
        return function(*tensors)
    result = torch.empty_like(tensors[0])
    pieces = zip(*(x.view(-1).split(BLOCK) for x in (result, *tensors)), strict=True)
    for result_piece, *tensor_pieces in pieces:
        result_piece.copy_(function(*tensor_pieces))
    return result


def in_row_blocks(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Blocks of rows of CPU tensors (rows, C); tensors on another device are one block."""
    rows, num_channels = tensors[0].shape
    if rows * num_channels <= BLOCK or not tensors[0].is_cpu:
        return (tensors,)
    return zip(*(x.split(max(1, BLOCK // num_channels)) for x in tensors), strict=True)
