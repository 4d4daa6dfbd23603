"""Settings of all trainings, and checks that involve several of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from omegaconf import MISSING

from zipformer.data.selection import DataConfig
from zipformer.data.tokenizer import TOKENS_FILE
from zipformer.errors import UserError
from zipformer.files import StorageError, check_writable

PRECISIONS = ("auto", "fp32", "bf16")


@dataclass
class OptimConfig:
    """ScaledAdam and Eden, see :mod:`zipformer.optim.scaled_adam` and :mod:`zipformer.optim.eden`."""

    lr: float = 0.045  # base learning rate, before the factors of batches, epochs and warm-up
    clipping_scale: float = 2.0  # clips gradients longer than this multiple of their median length
    lr_batches: float = (
        7500.0  # steps after which the learning rate begins to fall; larger = higher for longer
    )
    lr_epochs: float = 3.5  # epochs after which the learning rate begins to fall
    warmup_batches: float = 500.0  # steps over which the learning rate rises from warmup_start of its value
    warmup_start: float = 0.1  # share of the learning rate at the start of the warm-up
    # Share of max_steps over which the learning rate falls linearly to 0 at the end of the run; more leaves
    # fewer steps at the full rate. 0 = the rate does not fall to 0.
    cooldown: float = 0.0


@dataclass
class TrainConfig:
    """One training run, which ends at the first of ``num_epochs``, ``max_steps`` and ``max_minutes``.

    These settings are common to all tasks; each task has its own class, which extends this one.
    """

    task: str = MISSING  # what is learnt, see zipformer/tasks
    exp_dir: str = MISSING  # folder for checkpoints, logs and metrics
    data_dir: str = MISSING  # prepared corpus: cuts_train and cuts_valid, features, tokens; or its URL
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)

    num_epochs: int | None = None  # end after this many passes over the training data
    max_steps: int | None = None  # end after this many steps
    max_minutes: float | None = None  # limit on training and validation, over all runs into exp_dir
    init_from: str | None = (
        None  # model directory to load weights from; weights that do not fit are counted and left out
    )
    seed: int = 42  # random seed of the first weights, the order of batches, augmentation, dropout
    device: str = "auto"  # cpu, cuda, or auto for CUDA where there is one
    precision: str = "auto"  # auto = bf16 on CUDA devices that have it, else fp32
    # Recompute the activations of the encoder's layers in backward: the same numbers in less
    # memory and more time. For batches that would not fit.
    activation_checkpointing: bool = False
    num_threads: int = 0  # threads of this process on the CPU; 0 = as PyTorch chooses
    # The model's schedules run on a clock that counts batches of this many seconds of audio over all
    # processes. Smaller = schedules (dropout, layer skipping, regularisers) end after fewer steps.
    ref_duration: float = 600.0
    # Start of the clock of the schedules. A model that was trained before (init_from) does not need the layer
    # skipping and dropout of the start of training: 20000 is after the end of nearly all schedules.
    clock_start: float = 0.0
    average_period: int = 200  # steps between the samples of the running average
    log_interval: int = 50  # steps between reports; steps 1 and 10 are reported too
    save_interval: int = 4000  # steps between checkpoints
    keep_last: int = 5  # number of complete checkpoints to keep
    keep_averages: int = 20  # number of running averages of older checkpoints to keep, spread over the run
    max_bad_steps: int = 50  # give up after this many non-finite steps in a row


def check(config: TrainConfig, task_problems: Sequence[str] = ()) -> None:
    """Check settings that depend on each other.

    Args:
        config: settings of the training.
        task_problems: problems in the settings of the task.

    Raises:
        UserError: there are problems; the message lists all, with the settings to change.
    """
    problems = []
    if config.num_epochs is None and config.max_steps is None and config.max_minutes is None:
        problems.append("the training would never end: set num_epochs, max_steps or max_minutes")
    for name in ("num_epochs", "max_steps", "max_minutes"):
        value = getattr(config, name)
        if value is not None and value <= 0:
            problems.append(f"{name}={value} trains nothing: give a positive number or null")
    if not 0 <= config.optim.cooldown <= 1:
        problems.append(f"optim.cooldown={config.optim.cooldown} is not a share of the run: give 0 to 1")
    if config.optim.cooldown and config.max_steps is None:
        problems.append(
            f"optim.cooldown={config.optim.cooldown} needs to know where the run ends: set max_steps, or "
            "optim.cooldown=0"
        )
    for name in (
        "average_period",
        "log_interval",
        "save_interval",
        "keep_last",
        "max_bad_steps",
        "ref_duration",
    ):
        if getattr(config, name) <= 0:
            problems.append(f"{name}={getattr(config, name)} must be positive")
    if config.data.max_duration < config.data.max_utterance_seconds:
        problems.append(
            f"a single utterance of data.max_utterance_seconds={config.data.max_utterance_seconds:g} does "
            f"not fit into a batch of data.max_duration={config.data.max_duration:g} seconds: lower the one "
            "or raise the other"
        )
    if config.data.min_utterance_seconds > config.data.max_utterance_seconds:
        problems.append(
            "data.min_utterance_seconds is greater than data.max_utterance_seconds: no utterance is left"
        )
    if config.precision not in PRECISIONS:
        problems.append(f"precision={config.precision} is not known: choose one of {', '.join(PRECISIONS)}")
    if config.precision == "bf16" and not _has_bf16(config.device):
        problems.append("precision=bf16 needs a CUDA device that has it: set precision=auto or fp32")
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        problems.append(f"device={config.device}, but PyTorch finds no CUDA device: set device=auto or cpu")
    try:
        check_writable(Path(config.exp_dir), "choose another exp_dir")
    except StorageError as error:
        problems.append(str(error))
    if config.init_from is not None and not Path(config.init_from).is_dir():
        problems.append(f"init_from={config.init_from} is not a folder: give a model directory")
    problems += task_problems
    if len(problems) == 1:
        raise UserError(f"this training cannot start: {problems[0]}")
    if problems:
        raise UserError("this training cannot start:\n  " + "\n  ".join(problems))


def missing_data(data_dir: str, splits: Sequence[str], *, tokens: bool) -> list[str]:
    """Problems of a task with a prepared corpus that lacks splits or tokens."""
    paths = [f"cuts_{split}.jsonl.gz" for split in splits] + [f"tokens/{TOKENS_FILE}"] * tokens
    if missing := [path for path in paths if not (Path(data_dir) / path).is_file()]:
        return [f"data_dir={data_dir} has no {', '.join(missing)}: prepare it with fangyan prepare"]
    return []


def _has_bf16(device: str) -> bool:
    return device != "cpu" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def autocast_dtype(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """Type in which the model computes under autocast, or None for plain fp32."""
    if config.precision == "fp32" or device.type != "cuda" or not _has_bf16(device.type):
        return None
    return torch.bfloat16
