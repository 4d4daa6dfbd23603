"""Handles training steps that are not finite: reports skipped steps, and ends the run after many in a row."""

import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from zipformer.data.batches import Batch
from zipformer.errors import UserError
from zipformer.training.state import TrainingState
from zipformer.training.task import Loss

logger = logging.getLogger(__name__)


class BadSteps:
    """Keeps every step until it is known whether it was finite.

    Args:
        state: state of the training; its counters count skipped steps.
        losses: function that computes the losses of a batch at a step as in training.
        max_in_a_row: largest number of such steps in a row; more end the run.
        record: function for the main process that records the number of a skipped step and its values.
    """

    def __init__(
        self,
        state: TrainingState,
        losses: Callable[[Batch, int], Mapping[str, Loss]],
        max_in_a_row: int,
        record: Callable[[int, Mapping[str, Any]], None],
    ) -> None:
        self.state = state
        self.losses = losses
        self.max_in_a_row = max_in_a_row
        self.record = record
        self.unjudged: deque[tuple[int, Batch, Tensor]] = deque()  # steps with an unknown outcome
        self.in_a_row = 0

    def taken(self, step: int, batch: Batch, loss: Tensor) -> None:
        """Store a step that was just taken, with the loss of this process."""
        self.unjudged.append((step, batch, loss))

    def judge(self, *, wait: bool = False) -> None:
        """Report the steps that were not finite. On a GPU this is one step late, unless ``wait`` is set.

        Raises:
            UserError: more than ``max_in_a_row`` such steps in a row.
        """
        for finite in self.state.optimizer.take_verdicts(wait=wait):
            step, batch, loss = self.unjudged.popleft()
            if finite:
                self.in_a_row = 0
            else:
                self._report(step, batch, loss)

    def _report(self, step: int, batch: Batch, loss: Tensor) -> None:
        """Log the utterances of a skipped step."""
        counters, world = self.state.counters, self.state.world
        counters.bad_steps += 1
        self.in_a_row += 1
        culprits = [name for names in world.gather(self._culprits(batch, step - 1)) for name in names]
        everyone = [name for names in world.gather(batch.ids) for name in names]
        if world.is_main:
            logger.warning(
                "Step %d skipped: the loss (%g in this process) or its gradient is not finite. %s",
                step,
                loss.item(),
                f"Not finite by themselves: {', '.join(culprits)}"
                if culprits
                else f"Every utterance is finite by itself; the batch was {', '.join(everyone)}",
            )
            self.record(step, {"bad_steps": counters.bad_steps, "utterances": culprits or everyone})
        if self.in_a_row > self.max_in_a_row:
            raise UserError(
                f"{self.in_a_row} steps in a row were not finite, the last at step {step}: "
                "lower optim.lr, or look at the utterances that the log names"
            )

    @torch.no_grad()
    def _culprits(self, batch: Batch, step: int) -> list[str]:
        """Utterances whose losses are not finite in a batch of their own, without dropout."""
        task = self.state.task
        task.eval()
        found = []
        for index, name in enumerate(batch.ids):
            losses = self.losses(batch.alone(index), step)
            if not all(bool(loss.total.isfinite()) for loss in losses.values() if loss.weight):
                found.append(name)
        task.train()
        return found
