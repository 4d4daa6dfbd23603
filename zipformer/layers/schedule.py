"""Values that change while a model trains, and the clock that they all read."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor

from zipformer.device import HostCopy, on_host


class Clock:
    """Training time and host-side randomness, shared by all modules of one model.

    A schedule looks at the clock when it is read, so advancing training time is one assignment and no walk
    over the module tree. Decisions such as "apply this regulariser now" are drawn from ``random`` on the
    host: asking a GPU would wait for it.

    Args:
        batch: training time in reference batches (a batch of 600 s of audio on one process is 1); None means
            "not training", where every schedule gives its default.
        seed: seed of ``random``.
    """

    def __init__(self, batch: float | None = None, seed: int = 0) -> None:
        self.batch = batch
        self.random = random.Random(seed)
        self._flags: list[bool] = []
        self._answers: Tensor | None = None  # (flags,) on a GPU
        self._pending: HostCopy | None = None  # of the answers

    def chance(self, probability: float) -> bool:
        """True with the given probability; draws nothing where the answer is certain."""
        if probability <= 0.0:
            return False
        return probability >= 1.0 or self.random.random() < probability

    @contextmanager
    def replay(self, state: tuple[Any, ...]) -> Iterator[None]:
        """Within the block, draw what followed a ``random.getstate()``; afterwards go on as before."""
        now = self.random.getstate()
        self.random.setstate(state)
        try:
            yield
        finally:
            self.random.setstate(now)

    def add_flag(self, value: bool) -> int:
        """Keep a module's switch here, where checkpoints find it; returns its index."""
        self._flags.append(value)
        return len(self._flags) - 1

    def flag(self, index: int) -> bool:
        return self._flags[index]

    def answer(self, index: int, value: Tensor) -> None:
        """Set a switch to a bool tensor (): at once if it is on the host, else by the second ``settle``."""
        if on_host(value):
            self._flags[index] = bool(value)
            return
        if self._answers is None:
            last = self._flags if self._pending is None else self._pending.read()
            self._answers = torch.tensor(last, device=value.device)
        self._answers[index].copy_(value)

    def settle(self) -> None:
        """Ends a training step: the switches take the answers of the step before, which are long known."""
        if self._pending is not None:
            self._flags = self._pending.read()
        if self._answers is not None:
            self._pending = HostCopy(self._answers)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed training needs to draw the same numbers."""
        return {
            "batch": self.batch,
            "random": self.random.getstate(),
            "flags": list(self._flags),
            "answers": None if self._pending is None else self._pending.read(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict()``, also after a round trip through JSON.

        Raises:
            ValueError: the state belongs to a model with another number of switches.
        """
        flags = [bool(flag) for flag in state["flags"]]
        if len(flags) != len(self._flags):
            raise ValueError(
                f"clock state has {len(flags)} switches, this model has {len(self._flags)}: "
                "the checkpoint was written by a model with another configuration"
            )
        version, internal, gauss_next = state["random"]
        self.random.setstate((version, tuple(internal), gauss_next))
        self.batch = state["batch"]
        self._flags = flags
        answers = state.get("answers")  # None on a CPU, and in checkpoints of version 0.1
        self._answers = None
        self._pending = None if answers is None else HostCopy(torch.tensor(answers, dtype=torch.bool))


class Schedule:
    """A value piecewise linear in training time, constant before the first and after the last point.

    Args:
        clock: the model's clock.
        points: (batch, value) pairs with increasing batch.
        default: the value while the clock is not set.

    Raises:
        ValueError: no points, or batches that do not increase.
    """

    def __init__(self, clock: Clock, *points: tuple[float, float], default: float = 0.0) -> None:
        if not points:
            raise ValueError("a schedule needs at least one (batch, value) point")
        if any(later[0] <= earlier[0] for earlier, later in pairwise(points)):
            raise ValueError(f"the batches of a schedule must increase, got {points}")
        self.clock = clock
        self.points = tuple((float(batch), float(value)) for batch, value in points)
        self.default = float(default)

    def __call__(self) -> float:
        batch = self.clock.batch
        if batch is None:
            return self.default
        after = bisect_right(self.points, batch, key=lambda point: point[0])
        if after == 0:
            return self.points[0][1]
        if after == len(self.points):
            return self.points[-1][1]
        (b0, v0), (b1, v1) = self.points[after - 1 : after + 1]
        return v0 + (v1 - v0) * (batch - b0) / (b1 - b0)

    def __repr__(self) -> str:
        return f"Schedule({', '.join(map(str, self.points))}, default={self.default})"


ScheduleLike: TypeAlias = float | Schedule


def current(value: ScheduleLike) -> float:
    """The value now: a schedule is read, a number is itself."""
    return value() if isinstance(value, Schedule) else value
