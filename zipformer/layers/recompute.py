"""Activation checkpointing (Chen et al. 2016, "Training deep nets with sublinear memory cost")."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zipformer.layers.schedule import Clock


def recomputed(module: nn.Module, clock: Clock, *arguments: Any, **options: Any) -> Tensor:
    """``module(*arguments, **options)``; stores only the arguments, and runs the module again in backward.

    The second run draws the same random numbers as the first, from the generators of PyTorch and from the
    clock, so the gradients are equal bit for bit.
    """
    drawn_from = clock.random.getstate()
    return checkpoint(
        module,
        *arguments,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), clock.replay(drawn_from)),
        **options,
    )
