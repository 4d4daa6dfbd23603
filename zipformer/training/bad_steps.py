"""Training steps that are not finite: they are skipped and explained, and a long row of them ends the run."""

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
    """Follows every step until the optimiser has told whether it was finite.

    Args:
        state: state of the training; its counters get every skipped step.
        losses: losses of a batch at a step, computed as in training.
        max_in_a_row: give up after more such steps in a row.
        record: called in the main process with the number of a skipped step and what is to be kept of it.
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
        self.unjudged: deque[tuple[int, Batch, Tensor]] = deque()  # steps whose outcome is not known yet
        self.in_a_row = 0

    def taken(self, step: int, batch: Batch, loss: Tensor) -> None:
        """Remember a step that was just taken, with the loss of this process."""
        self.unjudged.append((step, batch, loss))

    def judge(self, *, wait: bool = False) -> None:
        """Report the steps that were not finite. A GPU tells one step late, unless it is waited for.

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
        """Name the utterances of a step that was skipped."""
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
        """Utterances whose losses are not finite when they are alone and dropout is off."""
        task = self.state.task
        task.eval()
        found = []
        for index, name in enumerate(batch.ids):
            losses = self.losses(batch.alone(index), step)
            if not all(bool(loss.total.isfinite()) for loss in losses.values() if loss.weight):
                found.append(name)
        task.train()
        return found
