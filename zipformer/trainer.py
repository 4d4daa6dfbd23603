"""The training loop: batches -> losses -> gradients -> ScaledAdam, with checkpoints, validation and reports."""

import logging
import math
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from zipformer.averaging import RunningAverage
from zipformer.checkpoint import (
    Checkpoint,
    CheckpointError,
    newest_whole_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
    thin_checkpoints,
)
from zipformer.data import Batch, TrainingData, encoder_frames
from zipformer.distributed import World
from zipformer.environment import describe_environment, parameters_by_part, prepare_cpu
from zipformer.initialise import initialise_from
from zipformer.metrics import Interval, MetricsLog, ProgressLine
from zipformer.model import AsrModel
from zipformer.optim import Eden, ScaledAdam
from zipformer.tokenizer import Tokenizer
from zipformer.train_config import ConfigError, TrainConfig, autocast_dtype, check
from zipformer.validation import Validator

logger = logging.getLogger(__name__)


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to change."""


@dataclass
class TrainState:
    """How far the run has come."""

    step: int = 0  # optimiser steps, skipped ones included
    epoch: int = 1
    batches: int = 0  # used of this epoch, by every process
    elapsed_seconds: float = 0.0
    audio_seconds: float = 0.0  # trained on, all processes together
    bad_steps: int = 0  # skipped because something was not finite


@dataclass
class StepResult:
    """Sums over all processes of one step's numbers."""

    losses: dict[str, float]  # "loss" is the weighted sum that is minimised
    frames: float  # encoder frames
    audio_seconds: float
    gradient_norm: float
    stop: bool  # a process was asked to stop, or the time is over

    @property
    def finite(self) -> bool:
        return math.isfinite(self.losses["loss"]) and math.isfinite(self.gradient_norm)


class Trainer:
    """One training run, in one process or as one of several.

    Starts a new run in ``config.exp_dir``, or goes on from its newest whole checkpoint.
    """

    def __init__(self, config: TrainConfig, world: World) -> None:
        self.config = config
        self.world = world
        self.exp_dir = Path(config.exp_dir)
        self.checkpoints = self.exp_dir / "checkpoints"
        self.tokens_dir = Path(config.data_dir) / "tokens"
        tokenizer = Tokenizer.load(self.tokens_dir)
        if config.model.vocab_size not in (0, tokenizer.size):
            raise ConfigError(
                f"model.vocab_size={config.model.vocab_size}, but {self.tokens_dir} has {tokenizer.size} tokens: "
                "leave the setting out"
            )
        config.model.vocab_size = tokenizer.size

        seed_everything(config.seed)  # the same first weights in every process
        self.model = AsrModel(config.model)
        newest = newest_whole_checkpoint(self.checkpoints)
        if newest is None and config.init_from is not None:
            initialise_from(self.model, Path(config.init_from), tokenizer).report(Path(config.init_from))
        self.model.to(world.device).train()
        self.model.clock.batch = 0.0
        self.parallel: torch.nn.Module = self.model
        if world.size > 1:
            # Every parameter takes part in every step, so nothing has to be searched for unused ones.
            self.parallel = DistributedDataParallel(
                self.model,
                device_ids=[world.device] if world.device.type == "cuda" else None,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                static_graph=True,
            )
        self.autocast_dtype = autocast_dtype(config, world.device)

        optim = config.optim
        self.optimizer = ScaledAdam(self.model.parameters(), lr=optim.lr, clipping_scale=optim.clipping_scale)
        self.scheduler = Eden(
            self.optimizer,
            lr_batches=optim.lr_batches,
            lr_epochs=optim.lr_epochs,
            warmup_batches=optim.warmup_batches,
            warmup_start=optim.warmup_start,
        )
        self.data = TrainingData(
            Path(config.data_dir) / "cuts_train.jsonl.gz",
            tokenizer,
            config.data,
            repeats_need_blank=config.model.ctc,
            seed=config.seed,
            rank=world.rank,
            world_size=world.size,
            pin_memory=world.device.type == "cuda",
        )
        self.validator: Validator | None = None
        if config.validation.interval:
            self.validator = Validator(Path(config.data_dir), tokenizer, config.validation, world)

        self.state = TrainState()
        self.average = RunningAverage()  # kept by the main process only
        self.interval = Interval()
        self.bad_steps_in_a_row = 0
        self.stop_requested = False
        seed_everything(config.seed + world.rank)
        self.model.clock.random.seed(config.seed + world.rank)
        if newest is not None:
            self._resume(newest)
        self.started = time.monotonic() - self.state.elapsed_seconds

    def run(self) -> None:
        """Train until the first of num_epochs, max_steps, max_minutes; SIGTERM ends it early with a checkpoint.

        Raises:
            TrainingError: too many steps in a row were not finite, or an epoch has no batch.
            SystemExit: after SIGTERM, with 143.
        """
        config, state = self.config, self.state
        self._open_logs()
        with self.progress, self._stop_on_sigterm():
            self.interval.reset()
            stop = self._finished()
            while not stop:
                self.scheduler.step_epoch(state.epoch - 1)
                first = state.batches
                for batch in self.interval.waiting(self.data.epoch(state.epoch, first)):
                    result = self._forward_backward(batch)
                    if result.finite:
                        self.optimizer.step()
                    self.optimizer.zero_grad()
                    state.step += 1
                    state.batches += 1
                    state.audio_seconds += result.audio_seconds
                    state.elapsed_seconds = time.monotonic() - self.started
                    self._count(result, batch)
                    self.scheduler.step_batch(state.step)
                    self._advance_clock()

                    if state.step % config.average_period == 0 and self.world.is_main:
                        self.average.update(self.model)
                    if state.step % config.log_interval == 0:
                        self._report()
                    stop = result.stop or self._finished()
                    if stop:
                        break
                    if self.validator and state.step % config.validation.interval == 0:
                        self._validate()
                    if state.step % config.save_interval == 0:
                        self._save()
                else:
                    if state.batches == 0:
                        raise TrainingError(
                            "an epoch has not a single batch: lower data.max_duration or set data.drop_last=false"
                        )
                    state.epoch, state.batches = state.epoch + 1, 0
                    stop = self._finished()
            if self.validator and not self.stop_requested:
                self._validate()
            self._save()
        self.metrics.close()
        if self.stop_requested:
            raise SystemExit(128 + signal.SIGTERM)

    def _forward_backward(self, batch: Batch) -> StepResult:
        """Leave the gradient of the summed losses of all processes in the parameters."""
        config, world = self.config, self.world
        with torch.autocast(world.device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None):
            losses = self.parallel(
                batch.features.to(world.device, non_blocking=True),
                batch.lengths.to(world.device, non_blocking=True),
                batch.tokens,
                prune_range=config.loss.prune_range,
                lm_scale=config.loss.lm_scale,
                am_scale=config.loss.am_scale,
            )
        weights = config.loss.weights(self.state.step)
        loss = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        # DistributedDataParallel gives the mean of the processes' gradients; the gradient that one process would have
        # for all the utterances is their sum.
        (loss * world.size).backward()
        norm = get_total_norm(
            [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        )
        frames = sum(encoder_frames(length) for length in batch.lengths.tolist())
        over = config.max_minutes is not None and self.state.elapsed_seconds > 60 * config.max_minutes
        host = torch.tensor([frames, batch.seconds, self.stop_requested or over], dtype=torch.float32)
        device = torch.stack([value.detach().float() for value in (*losses.values(), loss, norm)])
        # The only place of a step where the host waits for the device.
        total = world.sum(torch.cat([device, host.to(world.device, non_blocking=True)])).tolist()
        *values, gradient_norm, frames_sum, seconds, stop = total
        return StepResult(
            losses=dict(zip([*losses, "loss"], values, strict=True)),
            frames=frames_sum,
            audio_seconds=seconds,
            gradient_norm=gradient_norm / world.size,  # every process has the same gradient
            stop=stop > 0,
        )

    def _count(self, result: StepResult, batch: Batch) -> None:
        """Take a step's numbers into the interval; name the utterances of a step that was not finite.

        Raises:
            TrainingError: more than max_bad_steps such steps in a row.
        """
        if result.finite:
            self.bad_steps_in_a_row = 0
            self.interval.add(result.losses, result.frames, result.audio_seconds)
            return
        self.state.bad_steps += 1
        self.bad_steps_in_a_row += 1
        self.interval.add({}, 0.0, result.audio_seconds)
        culprits = [name for names in self.world.gather(self._culprits(batch)) for name in names]
        everyone = [name for names in self.world.gather(batch.ids) for name in names]
        if self.world.is_main:
            logger.warning(
                "Step %d skipped: loss %g, gradient norm %g. %s",
                self.state.step,
                result.losses["loss"],
                result.gradient_norm,
                f"Not finite by themselves: {', '.join(culprits)}"
                if culprits
                else f"Every utterance is finite by itself; the batch was {', '.join(everyone)}",
            )
            values = {"losses": result.losses, "gradient_norm": result.gradient_norm}
            values |= {"utterances": culprits or everyone, "bad_steps": self.state.bad_steps}
            self.metrics.write("skipped", self.state.step, self.state.epoch, values)
        if self.bad_steps_in_a_row > self.config.max_bad_steps:
            raise TrainingError(
                f"{self.bad_steps_in_a_row} steps in a row were not finite (the last at step {self.state.step}): lower "
                "optim.lr, or look at the utterances named above; the last checkpoint is from before"
            )

    @torch.no_grad()
    def _culprits(self, batch: Batch) -> list[str]:
        """Utterances whose loss is not finite when they are alone and nothing is drawn."""
        self.model.eval()
        found = []
        for index, name in enumerate(batch.ids):
            length = batch.lengths[index : index + 1].to(self.world.device)
            features = batch.features[index : index + 1, : int(length)].to(self.world.device)
            losses = self.model.losses(features, length, batch.tokens[index : index + 1])
            if not all(bool(value.isfinite()) for value in losses.values()):
                found.append(name)
        self.model.train()
        return found

    def _advance_clock(self) -> None:
        assert self.model.clock.batch is not None
        self.model.clock.batch += self.config.data.max_duration * self.world.size / self.config.ref_duration

    def _finished(self) -> bool:
        """Whether steps or epochs are used up. Time is looked at in each step, so that all processes agree."""
        config, state = self.config, self.state
        return (config.max_steps is not None and state.step >= config.max_steps) or (
            config.num_epochs is not None and state.epoch > config.num_epochs
        )

    def _share_done(self) -> float:
        config, state = self.config, self.state
        shares = [0.0]
        if config.max_steps:
            shares.append(state.step / config.max_steps)
        if config.max_minutes:
            shares.append(state.elapsed_seconds / 60 / config.max_minutes)
        if config.num_epochs:
            shares.append(state.audio_seconds / (self.data.selection.seconds * config.num_epochs))
        return min(1.0, max(shares))

    def _report(self) -> None:
        values = self.interval.summary()
        self.interval.reset()
        if not self.world.is_main:
            return
        values["lr"] = self.optimizer.param_groups[0]["lr"]
        values["elapsed_seconds"] = self.state.elapsed_seconds
        values["bad_steps"] = self.state.bad_steps
        self.metrics.write("train", self.state.step, self.state.epoch, values)
        self.progress.report(
            self.state.step,
            self.state.epoch,
            values,
            done=self._share_done(),
            elapsed=self.state.elapsed_seconds,
        )

    def _validate(self) -> None:
        assert self.validator is not None
        rates = self.validator(self.model)
        if self.world.is_main:
            self.metrics.write("valid", self.state.step, self.state.epoch, rates)
            for name, table in rates.items():
                text = "  ".join(f"{dialect} {rate:.1f}" for dialect, rate in table.items())
                logger.info("step %d %s (%%): %s", self.state.step, name, text)
        self.interval.reset()

    def _save(self) -> None:
        processes = self.world.gather({"random": random_state(), "clock": self.model.clock.state_dict()})
        if self.world.is_main:
            checkpoint = save_checkpoint(
                self.checkpoints,
                model=self.model,
                average=self.average.tensors,
                training={
                    "optimizer": self.optimizer.state_dict(),
                    "scheduler": self.scheduler.state_dict(),
                    "processes": processes,
                },
                record={
                    **asdict(self.state),
                    "average_samples": self.average.samples,
                    "order": self._order(),
                    "environment": self.environment,
                    "config": asdict(self.config),
                },
                copies=[self.exp_dir / "tokens.model", self.exp_dir / "tokens.txt"],
            )
            logger.info("Checkpoint: %s", checkpoint.directory)
            thin_checkpoints(
                self.checkpoints, keep_last=self.config.keep_last, keep_averages=self.config.keep_averages
            )
        self.world.barrier()
        self.interval.reset()

    def _order(self) -> dict[str, Any]:
        """Everything that decides which batches an epoch has and in which order."""
        data = asdict(self.config.data)
        for name in ("num_workers", "prefetch_batches", "spec_augment"):
            del data[name]
        return {
            "world_size": self.world.size,
            "seed": self.config.seed,
            "utterances": self.data.selection.utterances,
            **data,
        }

    def _resume(self, checkpoint: Checkpoint) -> None:
        """Put everything back as it was when the checkpoint was written.

        Raises:
            CheckpointError: the run in exp_dir trains another model.
        """
        record = checkpoint.record
        changed = _differences(record["config"], asdict(self.config))
        other_model = [line for name, line in changed.items() if name.startswith("model.")]
        if other_model:
            raise CheckpointError(
                f"{checkpoint.directory} holds another model:\n  " + "\n  ".join(other_model) + "\n"
                "Set it as it was, or choose another exp_dir (and init_from to start from these weights)."
            )
        self.state = TrainState(**{name: record[name] for name in asdict(self.state)})
        self.model.load_state_dict(checkpoint.weights())
        self.average.load(checkpoint.average(), record["average_samples"])
        training = checkpoint.training_state()
        self.optimizer.load_state_dict(training["optimizer"])
        self.scheduler.load_state_dict(training["scheduler"])
        # Processes that were not there before take the clock of the first, and their own fresh random state.
        known = self.world.rank < len(training["processes"])
        process = training["processes"][self.world.rank if known else 0]
        self.model.clock.load_state_dict(process["clock"])
        if known:
            restore_random_state(process["random"])
        else:
            self.model.clock.random.seed(self.config.seed + self.world.rank + self.state.step)
        if self.world.is_main:
            logger.info(
                "Going on from %s: step %d, epoch %d after %d batches, %.0f s trained",
                checkpoint.directory,
                self.state.step,
                self.state.epoch,
                self.state.batches,
                self.state.elapsed_seconds,
            )
            for line in changed.values():
                logger.info("Setting changed since that checkpoint: %s", line)
        other_order = _differences(record["order"], self._order())
        if other_order and self.state.batches:
            logger.warning(
                "Epoch %d starts over, because its batches are no longer the same: %s",
                self.state.epoch,
                "; ".join(other_order.values()),
            )
            self.state.batches = 0

    def _open_logs(self) -> None:
        """Create the run's files and say what is going to happen."""
        self.environment = describe_environment(
            self.world.device, "bf16" if self.autocast_dtype is torch.bfloat16 else "fp32"
        )
        self.progress = ProgressLine(enabled=self.world.is_main)
        if not self.world.is_main:
            return
        self.metrics = MetricsLog(self.exp_dir, from_step=self.state.step)
        OmegaConf.save(OmegaConf.structured(self.config), self.exp_dir / "config.yaml")
        Tokenizer.load(self.tokens_dir).save(self.exp_dir)
        logger.info(
            "Environment: %s", ", ".join(f"{name} {value}" for name, value in self.environment.items())
        )
        logger.info("Processes: %d", self.world.size)
        parts = parameters_by_part(self.model)
        logger.info("Parameters: %s", ", ".join(f"{name} {size:,}" for name, size in parts.items()))
        selection = self.data.selection
        hours = ", ".join(
            f"{dialect} {seconds / 3600:.2f}"
            for dialect, seconds in selection.seconds_by_dialect.most_common()
        )
        logger.info(
            "Training data: %d utterances, %.2f hours (%s)",
            selection.utterances,
            selection.seconds / 3600,
            hours,
        )
        for reason, ids in selection.dropped.items():
            shown = ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")
            logger.warning("Left out %d utterances, %s: %s", len(ids), reason, shown)
        if selection.dropped:
            lines = [f"{name}\t{reason}\n" for reason, ids in selection.dropped.items() for name in ids]
            (self.exp_dir / "dropped.tsv").write_text("".join(lines), encoding="utf-8")

    @contextmanager
    def _stop_on_sigterm(self) -> Iterator[None]:
        """Let SIGTERM end the training after the running step."""

        def request(number: int, frame: FrameType | None) -> None:
            self.stop_requested = True

        previous = signal.signal(signal.SIGTERM, request)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings that differ, by dotted name, as "name: old -> new"."""
    lines: dict[str, str] = {}
    for key in sorted(old.keys() | new.keys()):
        left, right = old.get(key), new.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            lines |= _differences(left, right, f"{prefix}{key}.")
        elif left != right:
            lines[prefix + key] = f"{prefix}{key}: {left} -> {right}"
    return lines


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (libraries may draw from it)
    torch.manual_seed(seed)


def train(config: TrainConfig) -> None:
    """Run one training in this process, together with those that torchrun started beside it.

    Raises:
        ConfigError: settings that do not go together.
        CheckpointError: exp_dir holds checkpoints, but none that can be used.
        TrainingError: training cannot go on.
    """
    check(config)
    prepare_cpu(config.num_threads)
    world = World.join(config.device)
    try:
        Trainer(config, world).run()
    finally:
        world.leave()
