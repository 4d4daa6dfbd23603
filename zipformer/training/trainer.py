"""The training loop: batches, losses, gradients, ScaledAdam, with checkpoints, validation and reports."""

import logging
import signal
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from zipformer.data.batches import Batch, TrainingData
from zipformer.data.cuts import encoder_frames
from zipformer.data.loader_workers import explaining_dead_workers
from zipformer.device import keep_freed_memory
from zipformer.distributed import Agreement, World
from zipformer.errors import UserError
from zipformer.lock import sole_use
from zipformer.model_dir import dialects_of
from zipformer.optim.eden import Eden
from zipformer.optim.scaled_adam import ScaledAdam
from zipformer.stopping import StopSignals, ending_at_once
from zipformer.training.bad_steps import BadSteps
from zipformer.training.checkpoint import newest_whole_checkpoint, thin_checkpoints
from zipformer.training.config import TrainConfig, autocast_dtype, check
from zipformer.training.environment import (
    describe_environment,
    log_data,
    log_environment,
    log_parameters,
    prepare_cpu,
)
from zipformer.training.metrics import Interval, MetricsLog, ProgressLine
from zipformer.training.state import TrainingState, seed_everything
from zipformer.training.task import Loss, Task

logger = logging.getLogger(__name__)

EARLY_REPORTS = (1, 10)  # steps: a slow machine should not be silent until log_interval


class Trainer:
    """One training run, in one process or as one of several.

    Starts a new run in ``config.exp_dir``, or resumes from its newest whole checkpoint.

    Args:
        config: settings of the run and of its task.
        world: processes of the run.
        task_class: class of the task.
    """

    def __init__(self, config: TrainConfig, world: World, task_class: type[Task]) -> None:
        self.config = config
        self.world = world
        self.exp_dir = Path(config.exp_dir)
        self.autocast_dtype = autocast_dtype(config, world.device)
        newest = newest_whole_checkpoint(self.exp_dir / "checkpoints")
        # Dialects that the weights were trained on before are not held out, even if this run leaves them out.
        self.known_dialects: list[str] = [] if newest is None else newest.record["known_dialects"]

        self.task = task_class(config, world)
        if newest is not None:
            self.task.check_resumable(newest.directory)
        elif config.init_from is not None:
            source = Path(config.init_from)
            self.task.initialise(source)
            self.known_dialects = dialects_of(source)
        self.task.to(world.device).train()
        self.task.clock.batch = config.clock_start
        seed_everything(config.seed, world.rank)
        self.task.clock.random.seed(f"{config.seed} {world.rank}")

        optim = config.optim
        self.optimizer = ScaledAdam(
            self.task.parameter_groups(), lr=optim.lr, clipping_scale=optim.clipping_scale
        )
        self.scheduler = Eden(
            self.optimizer,
            lr_batches=optim.lr_batches,
            lr_epochs=optim.lr_epochs,
            warmup_batches=optim.warmup_batches,
            warmup_start=optim.warmup_start,
            cooldown_batches=optim.cooldown * (config.max_steps or 0),
            last_batch=config.max_steps,
        )
        needs = self.task.needs
        self.data = TrainingData(
            Path(config.data_dir) / "cuts_train.jsonl.gz",
            needs.tokenizer,
            config.data,
            repeats_need_blank=needs.repeats_need_blank,
            seed=config.seed,
            rank=world.rank,
            world_size=world.size,
            pin_memory=world.device.type == "cuda",
            translation=needs.translation,
            fields=needs.fields,
        )

        self.state = TrainingState(self.task, self.optimizer, self.scheduler, world)
        if newest is not None:
            sampler_state = self.state.restore(newest, config=asdict(config), order=self._order())
            if sampler_state is not None:
                self.data.restore(sampler_state)
        self.parallel: torch.nn.Module = self.task
        if world.size > 1:
            # Every parameter takes part in every step, so nothing has to be searched for unused ones.
            self.parallel = DistributedDataParallel(
                self.task,
                device_ids=[world.device] if world.device.type == "cuda" else None,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                static_graph=True,
            )
        self.interval = Interval()
        self.bad_steps = BadSteps(self.state, self._losses_alone, config.max_bad_steps, self._record_bad_step)
        self.signals = StopSignals(speak=world.is_main)
        self.agreement = Agreement(world)
        self.stopped_by = 0  # number of the signal, once all processes know of it
        self.saved_at = (0, 0)  # step and epoch of the last checkpoint

    def run(self) -> None:
        """Train until num_epochs, max_steps or max_minutes; SIGTERM or SIGINT end it with a checkpoint.

        Raises:
            UserError: too many steps in a row were not finite, an epoch has no batch, or the processes that
                load features cannot start.
            SystemExit: after SIGTERM, with 143, or after SIGINT, with 130.
        """
        with self.signals.noted():
            self._run()
        if self.stopped_by:
            raise SystemExit(128 + self.stopped_by)

    def _run(self) -> None:
        config, counters = self.config, self.state.counters
        if self._finished() or self._out_of_time():
            logger.info("Nothing left to train: %s is complete at step %d", self.exp_dir, counters.step)
            return
        self._open_logs()
        started = time.monotonic() - counters.elapsed_seconds
        stop = False
        with self.progress:
            self.interval.reset()
            while not stop:
                self.scheduler.step_epoch(counters.epoch - 1)
                for batch in self.interval.waiting(self.data.epoch(counters.epoch, counters.batches)):
                    self._train_on(batch)
                    counters.step += 1
                    counters.batches += 1
                    counters.audio_seconds += batch.seconds * self.world.size
                    counters.elapsed_seconds = time.monotonic() - started
                    self.scheduler.step_batch(counters.step)
                    self._advance_clock()

                    if counters.step % config.average_period == 0 and self.world.is_main:
                        self.state.average.update(self.task.model.state_dict())
                    if counters.step in EARLY_REPORTS or counters.step % config.log_interval == 0:
                        self._report()
                    stop = self._finished() or self._asked_to_stop()
                    if stop:
                        break
                    with self.interval.pause():
                        if self._validation_is_due():
                            self._validate()
                        if counters.step % config.save_interval == 0 and not self.stopped_by:
                            self._save()
                    stop = bool(self.stopped_by)
                    if stop:
                        break
                else:
                    if counters.batches == 0:
                        raise UserError(
                            "an epoch has not a single batch: lower data.max_duration or set "
                            "data.drop_last=false"
                        )
                    counters.epoch, counters.batches = counters.epoch + 1, 0
                    stop = self._finished()
            self.agreement.finish()
            if self.saved_at != (counters.step, counters.epoch):
                self._save()
            if self.task.validation_interval and not self.stopped_by:
                self._validate()
            if self.stopped_by:
                name = signal.Signals(self.stopped_by).name
                logger.info("Stopped by %s; the same command resumes at step %d", name, counters.step)
        if self.world.is_main:
            self.metrics.close()

    def _train_on(self, batch: Batch) -> None:
        """One optimiser step, which leaves everything as it is where a loss or a gradient is not finite."""
        loss = self._backward(batch)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.task.clock.settle()
        self.task.after_step(self.state.counters.step + 1)
        self.bad_steps.taken(self.state.counters.step + 1, batch, loss)
        self.bad_steps.judge()

    def _backward(self, batch: Batch) -> Tensor:
        """Leave the gradient of all processes' summed losses in the parameters; returns this one's loss."""
        losses = self._losses(self.parallel, batch, self.state.counters.step)
        total = torch.stack([loss.weight * loss.total for loss in losses.values()]).sum()
        # DistributedDataParallel gives the mean of the processes' gradients; the gradient that one process
        # would have for all the utterances is their sum. The last factor is 1, or NaN where the loss is not
        # finite: that spoils the gradients of all processes, so they agree to skip the step without asking
        # one another.
        (total * self.world.size * (1 + 0 * total.detach())).backward()
        frames = sum(encoder_frames(length) for length in batch.lengths.tolist())
        self.interval.add(losses, total, frames, batch.seconds)
        return total.detach()

    def _losses(self, task: torch.nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        dtype = self.autocast_dtype
        with torch.autocast(self.world.device.type, dtype, enabled=dtype is not None):
            losses: dict[str, Loss] = task(batch, step)
        return losses

    def _losses_alone(self, batch: Batch, step: int) -> dict[str, Loss]:
        """Losses in this process only: the others may have another number of utterances to look at."""
        return self._losses(self.task, batch, step)

    def _record_bad_step(self, step: int, values: Mapping[str, Any]) -> None:
        self.metrics.write("skipped", step, self.state.counters.epoch, values)

    def _advance_clock(self) -> None:
        assert self.task.clock.batch is not None
        self.task.clock.batch += self.config.data.max_duration * self.world.size / self.config.ref_duration

    def _finished(self) -> bool:
        config, counters = self.config, self.state.counters
        return (config.max_steps is not None and counters.step >= config.max_steps) or (
            config.num_epochs is not None and counters.epoch > config.num_epochs
        )

    def _out_of_time(self) -> bool:
        config = self.config
        return (
            config.max_minutes is not None and self.state.counters.elapsed_seconds >= 60 * config.max_minutes
        )

    def _asked_to_stop(self) -> bool:
        """Whether the time is over or a signal came, in any process; of several, at the step before."""
        self.stopped_by, late = self.agreement.exchange([self.signals.received, self._out_of_time()])
        return bool(self.stopped_by or late)

    def _ask_for_signals(self) -> None:
        """Learn of a signal that any process received; waits for all of them."""
        self.stopped_by = max(self.world.gather(self.signals.received))

    def _share_done(self) -> float:
        config, counters = self.config, self.state.counters
        shares = [0.0]
        if config.max_steps:
            shares.append(counters.step / config.max_steps)
        if config.max_minutes:
            shares.append(counters.elapsed_seconds / 60 / config.max_minutes)
        if config.num_epochs:
            shares.append(counters.audio_seconds / (self.data.seconds_per_epoch * config.num_epochs))
        return min(1.0, max(shares))

    def _report(self) -> None:
        self.bad_steps.judge(wait=True)
        values = self.interval.summary(self.world) | self.task.monitors()
        losses = self.interval.losses
        self.interval.reset()
        if not self.world.is_main:
            return
        counters = self.state.counters
        values["lr"] = self.optimizer.param_groups[0]["lr"]
        values["elapsed_seconds"] = counters.elapsed_seconds
        values["bad_steps"] = counters.bad_steps
        self.metrics.write("train", counters.step, counters.epoch, values)
        self.progress.report(
            counters.step,
            counters.epoch,
            values,
            losses=losses,
            done=self._share_done(),
            elapsed=counters.elapsed_seconds,
        )

    def _validation_is_due(self) -> bool:
        interval = self.task.validation_interval
        return interval > 0 and self.state.counters.step % interval == 0

    def _validate(self) -> None:
        counters = self.state.counters
        rates = self.task.validate(counters.step, lambda: bool(self.signals.received))
        self._ask_for_signals()
        if rates is None:
            logger.info("Validation at step %d is broken off", counters.step)
        elif self.world.is_main:
            self.metrics.write("valid", counters.step, counters.epoch, rates)
            for name, table in rates.items():
                text = "  ".join(f"{dialect} {rate:.1f}" for dialect, rate in table.items())
                logger.info("step %d %s (%%): %s", counters.step, name, text)

    def _save(self) -> None:
        self.bad_steps.judge(wait=True)
        root = self.exp_dir / "checkpoints"
        checkpoint = self.state.save(
            root,
            config=asdict(self.config),
            order=self._order(),
            sampler_state=self.data.state(self.state.counters.epoch, self.state.counters.batches),
            environment=self.environment,
            trained_hours={
                dialect: seconds / 3600
                for dialect, seconds in sorted(self.data.selection.seconds_by_dialect.items())
            },
            known_dialects=self.known_dialects,
        )
        if checkpoint is not None:
            logger.info("Checkpoint: %s", checkpoint.directory)
            thin_checkpoints(root, keep_last=self.config.keep_last, keep_averages=self.config.keep_averages)
        self.saved_at = (self.state.counters.step, self.state.counters.epoch)
        self._ask_for_signals()  # also keeps the processes together

    def _order(self) -> dict[str, Any]:
        """Everything that decides which batches an epoch has and in which order."""
        data = asdict(self.config.data)
        for name in ("num_workers", "prefetch_batches", "spec_augment", "distortion", "cache"):
            del data[name]
        return {
            "world_size": self.world.size,
            "seed": self.config.seed,
            "utterances": self.data.selection.utterances,
            "manifest": self.data.selection.digest,
            **data,
        }

    def _open_logs(self) -> None:
        """Create the run's files and say what is going to happen."""
        precision = "bf16" if self.autocast_dtype is torch.bfloat16 else "fp32"
        self.environment = describe_environment(self.world, precision)
        self.progress = ProgressLine(enabled=self.world.is_main)
        if not self.world.is_main:
            return
        self.metrics = MetricsLog(self.exp_dir, from_step=self.state.counters.step)
        OmegaConf.save(OmegaConf.structured(self.config), self.exp_dir / "config.yaml")
        self.task.write_files(self.exp_dir)
        log_environment(self.environment)
        log_parameters(self.task)
        log_data(self.data.selection, self.exp_dir / "dropped.tsv")
        for line in [*self.data.mixture.description(), *self.data.left_out_by_corpus]:
            logger.info("%s", line)


def train(config: TrainConfig, task_class: type[Task]) -> None:
    """Run one training in this process, together with those that torchrun started beside it.

    Raises:
        CheckpointError: exp_dir holds checkpoints, but none that can be used.
        UserError: settings contradict each other, another run works in exp_dir, training cannot continue, or
            the processes that load features cannot start or died.
        SystemExit: after SIGTERM or SIGINT, with 143 or 130.
    """
    check(config, task_class.problems(config))
    prepare_cpu(config.num_threads)
    world = World.join(config.device)
    if world.device.type == "cpu":
        keep_freed_memory()
    try:
        alone = sole_use(Path(config.exp_dir)) if world.is_main else nullcontext()
        with ending_at_once(), explaining_dead_workers(), alone:
            Trainer(config, world, task_class).run()
    finally:
        world.leave()
