"""The complete state of a training, which can be saved and restored."""

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zipformer.distributed import World
from zipformer.optim.eden import Eden
from zipformer.optim.scaled_adam import ScaledAdam
from zipformer.training.averaging import RunningAverage
from zipformer.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from zipformer.training.task import Task

logger = logging.getLogger(__name__)

ONLY_AT_THE_START = ("clock_start", "init_from")  # settings that a resumed run does not read


@dataclass
class Counters:
    """Progress of the run."""

    step: int = 0  # optimiser steps, including skipped ones
    epoch: int = 1
    batches: int = 0  # batches of this epoch that every process has used
    elapsed_seconds: float = 0.0  # seconds of training over all starts of the run
    audio_seconds: float = 0.0  # seconds of training audio, all processes together
    bad_steps: int = 0  # steps that were skipped because they were not finite


class TrainingState:
    """Weights, their running average, optimiser, scheduler, clock, random generators and counters.

    Only the main process has the running average.
    """

    def __init__(self, task: Task, optimizer: ScaledAdam, scheduler: Eden, world: World) -> None:
        self.task = task
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.world = world
        self.average = RunningAverage()
        self.counters = Counters()

    def save(
        self,
        root: Path,
        *,
        config: Mapping[str, Any],
        order: Mapping[str, Any],
        environment: Mapping[str, Any],
        trained_hours: Mapping[str, float],
        known_dialects: Sequence[str] = (),
        sampler_state: Mapping[str, Any] | None = None,
    ) -> Checkpoint | None:
        """Write a checkpoint below ``root``; every process must call this, the main process writes.

        Args:
            config: all settings, as plain values.
            order: settings that determine the batches of an epoch, see :meth:`restore`.
            environment: hardware and versions of the run.
            trained_hours: hours of training audio by dialect group.
            known_dialects: groups that the weights were trained on before this run.
            sampler_state: state of the sampler, the same in every process; :meth:`restore` returns it.

        Returns:
            The checkpoint; only in the main process.
        """
        processes = self.world.gather({"random": random_state(), "clock": self.task.clock.state_dict()})
        if not self.world.is_main:
            return None
        return save_checkpoint(
            root,
            model=self.task,
            average=self.average.tensors,
            training={
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "processes": processes,
                "task": self.task.own_state(),
                "sampler": sampler_state,
            },
            record={
                **asdict(self.counters),
                "average_samples": self.average.samples,
                "order": order,
                "environment": environment,
                "trained_hours": trained_hours,
                "known_dialects": list(known_dialects),
                "config": config,
            },
        )

    def restore(
        self, checkpoint: Checkpoint, *, config: Mapping[str, Any], order: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Restore everything from a checkpoint, and log it.

        Settings may have changed since then. If ``order`` has, the epoch has other batches, and it starts
        over. A process that the earlier run did not have takes the clock of the first process.

        Returns:
            the state that the sampler can continue the epoch from, if there is one.

        Raises:
            CheckpointError: the model of the checkpoint differs from ``config``.
        """
        record = checkpoint.record
        changed = differences(record["config"], config)
        fixed = ("model.", "task", *self.task.fixed_settings)
        other_model = [line for name, line in changed.items() if name.startswith(fixed)]
        if other_model:
            raise CheckpointError(
                f"{checkpoint.directory} holds another model:\n  " + "\n  ".join(other_model) + "\n"
                "Set it as it was, or choose another exp_dir (and init_from to start from these weights)."
            )
        for name in ONLY_AT_THE_START:
            if name in changed and config[name] is not None:
                raise CheckpointError(
                    f"{changed[name]}: this matters only at the start of a run, and "
                    f"{checkpoint.directory} is past it. Set it as it was, or choose another exp_dir."
                )
        self.counters = Counters(**{name: record[name] for name in asdict(self.counters)})
        self.task.model.load_state_dict(checkpoint.weights())
        if self.world.is_main:
            self.average.load(checkpoint.average(), record["average_samples"])
        training = checkpoint.training_state()
        self.task.load_own_state(training["task"])
        self.optimizer.resume(training["optimizer"])
        self.scheduler.load_state_dict(training["scheduler"])
        known = self.world.rank < len(training["processes"])
        process = training["processes"][self.world.rank if known else 0]
        self.task.clock.load_state_dict(process["clock"])
        if known:
            restore_random_state(process["random"])
        else:
            seed_everything(config["seed"], self.world.rank, self.counters.step)
            self.task.clock.random.seed(f"{config['seed']} {self.world.rank} {self.counters.step}")
        self._report(checkpoint, changed)
        other_order = differences(record["order"], order)
        if "manifest" in other_order:
            logger.warning("The training utterances or their texts have changed since that checkpoint.")
        if other_order and self.counters.batches:
            logger.warning(
                "Epoch %d starts over, because its batches are no longer the same: %s",
                self.counters.epoch,
                "; ".join(other_order.values()),
            )
            self.counters.batches = 0
        sampler_state: Mapping[str, Any] | None = training.get("sampler")
        return None if other_order else sampler_state

    def _report(self, checkpoint: Checkpoint, changed: Mapping[str, str]) -> None:
        if not self.world.is_main:
            return
        logger.info(
            "Resuming from %s: step %d, epoch %d after %d batches, %.0f s trained",
            checkpoint.directory,
            self.counters.step,
            self.counters.epoch,
            self.counters.batches,
            self.counters.elapsed_seconds,
        )
        for line in changed.values():
            logger.info("Setting changed since that checkpoint: %s", line)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings that differ, by dotted name, as "name: old -> new"."""
    lines: dict[str, str] = {}
    for key in sorted(old.keys() | new.keys()):
        left, right = old.get(key), new.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            lines |= differences(left, right, f"{prefix}{key}.")
        elif left != right:
            lines[prefix + key] = f"{prefix}{key}: {left} -> {right}"
    return lines


def seed_everything(*seed: int) -> None:
    """Seed the global generators of Python, NumPy and PyTorch from one or several numbers."""
    state = np.random.SeedSequence(seed).generate_state(2)
    random.seed(int(state[0]))
    np.random.seed(state[0])  # noqa: NPY002  (libraries may draw from it)
    torch.manual_seed(int(state[0]) << 32 | int(state[1]))
