"""The Eden schedule of the learning rate (Yao et al. 2024, "Zipformer", section 3.4)."""

from typing import Any

from torch.optim import Optimizer

from zipformer.errors import UserError


class Eden:
    """Learning rate that falls with the square roots of batches and epochs, after a short linear warm-up.

        lr = base_lr * (1 + (batch / lr_batches)^2)^(-1/4) * (1 + (epoch / lr_epochs)^2)^(-1/4) * warmup

    where warmup rises from warmup_start to 1 over warmup_batches. The base_lr of a group is its ``lr`` at
    construction. A run of known length may have a cool-down: over the last cooldown_batches the rate also
    falls linearly, to 0 at last_batch. Without it, a short run ends at a rate at which the weights still
    fluctuate (Hägele et al. 2024, "Scaling laws and compute-optimal training beyond fixed training
    durations").

    Args:
        optimizer: optimiser; the ``lr`` of its groups is set.
        lr_batches: number of batches after which the rate begins to fall noticeably.
        lr_epochs: number of epochs after which the rate begins to fall noticeably.
        warmup_batches: length of the warm-up; 0 for none.
        warmup_start: factor at batch 0, in [0, 1].
        cooldown_batches: length of the cool-down; 0 for none.
        last_batch: batch at which the cool-down ends; required with a cool-down.
    Raises:
        UserError: a setting is out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_batches: float,
        lr_epochs: float,
        *,
        warmup_batches: float,
        warmup_start: float,
        cooldown_batches: float = 0.0,
        last_batch: int | None = None,
    ) -> None:
        if lr_batches <= 0 or lr_epochs <= 0:
            raise UserError(f"lr_batches is {lr_batches} and lr_epochs {lr_epochs}; both must be positive")
        if not 0.0 <= warmup_start <= 1.0:
            raise UserError(f"warmup_start is {warmup_start}; it must be in [0, 1]")
        if cooldown_batches < 0 or (cooldown_batches and last_batch is None):
            raise UserError(
                f"cooldown_batches is {cooldown_batches} and last_batch {last_batch}; it needs an end"
            )
        self.optimizer = optimizer
        self.lr_batches = lr_batches
        self.lr_epochs = lr_epochs
        self.warmup_batches = warmup_batches
        self.warmup_start = warmup_start
        self.cooldown_batches = cooldown_batches
        self.last_batch = last_batch
        self.batch = 0
        self.epoch = 0.0
        self.base_lrs: list[float] = [
            group.setdefault("base_lr", group["lr"]) for group in optimizer.param_groups
        ]
        self._set_rates()

    def step_batch(self, batch: int | None = None) -> None:
        """Advance to the next batch, or to the given one, counted from the start of training."""
        self.batch = self.batch + 1 if batch is None else batch
        self._set_rates()

    def step_epoch(self, epoch: float | None = None) -> None:
        """Advance to the next epoch, or to the given one (from 0), which may be fractional."""
        self.epoch = self.epoch + 1 if epoch is None else epoch
        self._set_rates()

    def get_last_lr(self) -> list[float]:
        """Learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, float]:
        """Position of the schedule, without base rates, so that training can continue with another rate."""
        return {"batch": self.batch, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the position of a saved schedule and set the learning rates."""
        self.batch, self.epoch = state["batch"], state["epoch"]
        self._set_rates()

    def _set_rates(self) -> None:
        factor = (1 + (self.batch / self.lr_batches) ** 2) ** -0.25
        factor *= (1 + (self.epoch / self.lr_epochs) ** 2) ** -0.25
        if self.batch < self.warmup_batches:
            factor *= self.warmup_start + (1 - self.warmup_start) * self.batch / self.warmup_batches
        if self.cooldown_batches:
            assert self.last_batch is not None
            factor *= min(1.0, max(0.0, (self.last_batch - self.batch) / self.cooldown_batches))
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base_lr * factor
