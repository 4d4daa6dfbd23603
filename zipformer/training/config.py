"""Settings of a training run, and the checks that need more than one of them."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from omegaconf import MISSING

from zipformer.data.selection import DataConfig
from zipformer.errors import UserError
from zipformer.files import StorageError, check_writable
from zipformer.heads.sentence_encoders import TeacherConfig, encoder_problem
from zipformer.losses.backend import backend_problem
from zipformer.model import LOSSES
from zipformer.model_config import AsrModelConfig

PRECISIONS = ("auto", "fp32", "bf16")


@dataclass
class OptimConfig:
    """ScaledAdam and Eden, see :mod:`zipformer.optim.scaled_adam` and :mod:`zipformer.optim.eden`."""

    lr: float = 0.045  # base learning rate, before the factors of batches, epochs and warm-up
    clipping_scale: float = 2.0  # gradients longer than this many times their usual length are shortened
    lr_batches: float = (
        7500.0  # steps after which the learning rate begins to fall; larger = higher for longer
    )
    lr_epochs: float = 3.5  # the same in epochs
    warmup_batches: float = 500.0  # steps over which the learning rate rises from warmup_start of its value
    warmup_start: float = 0.1  # share of the learning rate that the warm-up begins with
    # Share of max_steps over which the learning rate falls linearly to 0 at the end of the run; more leaves
    # fewer steps at the full rate. 0 = the rate does not fall to 0.
    cooldown: float = 0.0


@dataclass
class LossConfig:
    """Weights of the losses that the model has heads for.

    The simple transducer loss teaches where to prune, and must have learnt that before the pruned loss is
    worth much: over ``warm_steps`` its weight falls from ``simple_start`` to ``simple``, and that of the
    pruned loss rises from ``pruned_start`` to ``pruned``. The other weights are constant.

    On a small corpus that is not enough: the transducer and the attention decoder can lower their losses by
    learning the language alone, and the encoder is left with little reason to listen. For the first
    ``ctc_first_steps`` only CTC is trained, which has no language model to fall back on; ``warm_steps`` then
    count from there.
    """

    simple_start: float = 1.0  # of the simple transducer loss, before the warm steps
    simple: float = 0.5  # the same after the warm steps
    pruned_start: float = 0.1  # of the pruned transducer loss, before the warm steps
    pruned: float = 1.0  # the same after the warm steps
    warm_steps: int = 2000  # steps over which these weights change
    ctc_first_steps: int = 0  # steps at the start that train CTC alone
    ctc: float = 0.2  # weight of CTC
    attention: float = 0.8  # weight of the attention decoder
    translation: float = 0.8  # of the attention decoder's second text
    text_alignment: float = 1.0  # weight of the likeness to a text encoder
    prune_range: int = 5  # label positions per frame in the pruned loss
    lm_scale: float = 0.25  # smoothing of the simple loss towards the predictor alone
    am_scale: float = 0.0  # and towards the encoder alone
    backend: str = "native"  # of the sums over the transducer's lattice; k2 = by k2, where it is installed

    def weights(self, step: int) -> dict[str, float]:
        """Weight of every loss at a step, counted from 0."""
        if step < self.ctc_first_steps:
            return dict.fromkeys(LOSSES, 0.0) | {"ctc": 1.0}
        done = min(1.0, (step - self.ctc_first_steps) / self.warm_steps) if self.warm_steps else 1.0
        return {
            "simple": self.simple_start + done * (self.simple - self.simple_start),
            "pruned": self.pruned_start + done * (self.pruned - self.pruned_start),
            "ctc": self.ctc,
            "attention": self.attention,
            "translation": self.translation,
            "text_alignment": self.text_alignment,
        }


@dataclass
class ValidationConfig:
    """Recognition of a part of the validation split during training."""

    split: str = "valid"  # whose cuts are recognised
    interval: int = 1000  # steps; 0 = never
    utterances_per_dialect: int = 50  # a fixed random choice of at most so many
    max_duration: float = 300.0  # seconds of audio in a batch
    ctc: bool = False  # also report greedy decoding of the CTC head


@dataclass
class TrainConfig:
    """One training run, which ends at the first of ``num_epochs``, ``max_steps`` and ``max_minutes``."""

    exp_dir: str = MISSING  # receives checkpoints, logs and metrics
    data_dir: str = MISSING  # prepared corpus: cuts_train and cuts_valid, features, tokens
    model: AsrModelConfig = field(default_factory=AsrModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)  # of model.text_alignment
    # What the attention decoder writes with model.attention_decoder.translation: a field of ``custom`` of the
    # supervisions. It is learnt as it stands there, so it should be written like the transcripts.
    translation_field: str = "translation"

    num_epochs: int | None = None  # end after so many passes over the training data
    max_steps: int | None = None  # end after so many steps
    max_minutes: float | None = None  # of training, validation included, over all runs into this exp_dir
    init_from: str | None = (
        None  # model directory to take weights from; what does not fit is counted and left out
    )
    seed: int = 42  # of the weights at the start, the order of batches, augmentation and dropout
    device: str = "auto"  # cpu, cuda, or auto for CUDA where there is one
    precision: str = "auto"  # auto = bf16 on CUDA devices that have it, else fp32
    # Recompute the activations of the encoder's layers in backward: the same numbers in less
    # memory and more time. For batches that do not fit otherwise.
    activation_checkpointing: bool = False
    num_threads: int = 0  # of this process on the CPU; 0 = as PyTorch chooses
    # The model's schedules run on a clock that counts batches of this many seconds of audio over all
    # processes. Smaller = schedules (dropout, layer skipping, regularisers) end after fewer steps.
    ref_duration: float = 600.0
    # Where that clock starts. A model that was trained before (init_from) does not want the layer skipping
    # and dropout of a beginner: 20000 is past the end of nearly all schedules.
    clock_start: float = 0.0
    average_period: int = 200  # steps between the samples of the running average
    log_interval: int = 50  # steps between reports; steps 1 and 10 are reported too
    save_interval: int = 4000  # steps
    keep_last: int = 5  # whole checkpoints
    keep_averages: int = 20  # running averages kept of older ones, spread over the run
    max_bad_steps: int = 50  # give up after this many non-finite steps in a row


def check(config: TrainConfig) -> None:
    """Check what one setting alone cannot show.

    Raises:
        UserError: lists every problem, with the settings to change.
    """
    data_dir = Path(config.data_dir)
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
    if config.loss.ctc_first_steps and not config.model.ctc:
        problems.append(
            f"loss.ctc_first_steps={config.loss.ctc_first_steps} needs a CTC head: "
            "set model.ctc=true or loss.ctc_first_steps=0"
        )
    if config.model.transducer and (problem := backend_problem(config.loss.backend)):
        problems.append(f"loss.backend={config.loss.backend}: {problem}")
    if config.model.text_alignment.enabled and (problem := encoder_problem(config.teacher.encoder)):
        problems.append(f"teacher.encoder={config.teacher.encoder}: {problem}")
    if config.validation.ctc and not config.model.ctc:
        problems.append("validation.ctc=true needs a CTC head: set model.ctc=true or validation.ctc=false")
    needed = ["train"] + ([config.validation.split] if config.validation.interval else [])
    paths = [*(f"cuts_{split}.jsonl.gz" for split in needed), "tokens/tokens.model"]
    if missing := [path for path in paths if not (data_dir / path).is_file()]:
        problems.append(
            f"data_dir={data_dir} has no {', '.join(missing)}: prepare it with scripts/prepare.py"
        )
    try:
        check_writable(Path(config.exp_dir), "choose another exp_dir")
    except StorageError as error:
        problems.append(str(error))
    if config.init_from is not None and not Path(config.init_from).is_dir():
        problems.append(f"init_from={config.init_from} is not a folder: give a model directory")
    if len(problems) == 1:
        raise UserError(f"this training cannot start: {problems[0]}")
    if problems:
        raise UserError("this training cannot start:\n  " + "\n  ".join(problems))


def _has_bf16(device: str) -> bool:
    return device != "cpu" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def autocast_dtype(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """Type in which the model computes under autocast, or None for plain fp32."""
    if config.precision == "fp32" or device.type != "cuda" or not _has_bf16(device.type):
        return None
    return torch.bfloat16
