"""Schedules, values that change during training, and the clock that they read."""

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

    A schedule reads the clock when it is evaluated, so advancing training time is one assignment, without a
    loop over all modules. Decisions such as "apply this regulariser now" are drawn from ``random`` on the
    host: reading them from a GPU would wait for it.

    Args:
        batch: training time in reference batches (a batch of 600 s of audio on one process is 1); None = not
            training: every schedule has its default.
        seed: seed of ``random``.
    """

    def __init__(self, batch: float | None = None, seed: int = 0) -> None:
        self.batch = batch
        self.random = random.Random(seed)
        self._flags: list[bool] = []
        self._answers: Tensor | None = None  # (flags,) on a GPU
        self._pending: HostCopy | None = None  # copy of the answers

    def chance(self, probability: float) -> bool:
        """True with the given probability; draws no number if the probability is 0 or 1."""
        if probability <= 0.0:
            return False
        return probability >= 1.0 or self.random.random() < probability

    @contextmanager
    def replay(self, state: tuple[Any, ...]) -> Iterator[None]:
        """Within the block, draw again the numbers after a ``random.getstate()``; then continue as before."""
        now = self.random.getstate()
        self.random.setstate(state)
        try:
            yield
        finally:
            self.random.setstate(now)

    def add_flag(self, value: bool) -> int:
        """Store a switch of a module here, so that it is in checkpoints; returns its index."""
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
        """End a training step: switches take the answers of the previous step, which are already known."""
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
        """Restore a ``state_dict()``, possibly after conversion to JSON and back.

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
    """A value that is piecewise linear in training time, constant before the first and after the last point.

    Args:
        clock: the model's clock.
        points: (batch, value) pairs with increasing batch.
        default: value while the clock is not set.

    Raises:
        ValueError: there are no points, or the batches do not increase.
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
    """The current value of a schedule, or the number itself."""
    return value() if isinstance(value, Schedule) else value
