"""Elementwise work in pieces that stay in the caches of a CPU, where memory is slower than arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

# Elements. Small enough that a few tensors of it fit into a last-level cache, large enough that threads
# seldom wait for one another: where something else runs on a core, each operation waits for the slower half.
BLOCK = 1 << 20


def blockwise(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """``function(*tensors)`` of an elementwise function, piece by piece where the tensors are large.

    Args:
        function: takes tensors of equal size and gives one of that size.
        tensors: arguments of equal size; cut up only if contiguous and on a CPU.
    """
    if tensors[0].numel() <= BLOCK or not all(x.is_cpu and x.is_contiguous() for x in tensors):
        return function(*tensors)
    result = torch.empty_like(tensors[0])
    pieces = zip(*(x.view(-1).split(BLOCK) for x in (result, *tensors)), strict=True)
    for result_piece, *tensor_pieces in pieces:
        result_piece.copy_(function(*tensor_pieces))
    return result


def in_row_blocks(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Pieces of some rows of CPU tensors (rows, C); tensors of another device in one piece."""
    rows, num_channels = tensors[0].shape
    if rows * num_channels <= BLOCK or not tensors[0].is_cpu:
        return (tensors,)
    return zip(*(x.split(max(1, BLOCK // num_channels)) for x in tensors), strict=True)
