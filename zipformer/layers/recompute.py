"""Activation checkpointing (Chen et al. 2016, "Training deep nets with sublinear memory cost")."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zipformer.layers.schedule import Clock


def recomputed(module: nn.Module, clock: Clock, *arguments: Any, **options: Any) -> Tensor:
    """``module(*arguments, **options)``, keeping only the arguments until backward, which runs it once more.

    The second run draws what the first one drew, from PyTorch's generators as well as from the clock, so the
    gradients are the same bit by bit.
    """
    drawn_from = clock.random.getstate()
    return checkpoint(
        module,
        *arguments,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), clock.replay(drawn_from)),
        **options,
    )
