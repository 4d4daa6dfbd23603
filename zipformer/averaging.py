"""Averages of weights over a part of the training.

During training the mean m_n of the weights at steps P, 2P, ..., nP is kept in float64. From the means at two
checkpoints follows the mean over what lies between them, without the weights themselves:

    mean over (start, end] = (n_end * m_end - n_start * m_start) / (n_end - n_start)

which is what icefall uses for its published results (``--use-averaged-model``).
"""

import json
import logging
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import MISSING
from safetensors.torch import save_file
from torch import Tensor, nn

from zipformer.checkpoint import AVERAGE_FILE, MODEL_FILE, Checkpoint, CheckpointError, list_checkpoints

logger = logging.getLogger(__name__)

CARRIED_FILES = ("config.json", "tokens.model", "tokens.txt")
METHODS = ("running", "checkpoints")


@dataclass
class AverageConfig:
    """Which weights are averaged, and where the model goes.

    Attributes:
        exp_dir: folder of the training run.
        method: ``running`` = mean over every sample of the weights between two steps (best, and the default);
            ``checkpoints`` = mean of the last ``num_checkpoints`` checkpoints.
        end_step: last step of the average; none = the newest checkpoint.
        start_step: the average begins after this step (``running``); none = as ``last_fraction`` says.
        last_fraction: average over about the last so-much of the training (``running``). More smooths more,
            but reaches back to worse weights.
        num_checkpoints: for ``checkpoints``.
        model_dir: where the model directory is written; none = ``exp_dir/averaged``. Results of weights that
            were there before stay; scripts/report.py leaves them out.
    """

    exp_dir: str = MISSING
    method: str = "running"
    end_step: int | None = None
    start_step: int | None = None
    last_fraction: float = 0.5
    num_checkpoints: int = 5
    model_dir: str | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method={self.method} is not known; choose one of {', '.join(METHODS)}")
        if not 0 < self.last_fraction <= 1:
            raise ValueError(f"last_fraction={self.last_fraction} is not in (0, 1]")
        if self.num_checkpoints < 1:
            raise ValueError(f"num_checkpoints={self.num_checkpoints} averages nothing; give 1 or more")


class RunningAverage:
    """Mean of the weights it was shown, in float64 on the CPU.

    float64, because a difference of two means multiplies their rounding errors by n_end / (n_end - n_start).
    """

    def __init__(self) -> None:
        self.samples = 0
        self.tensors: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the current weights as one more sample; only floating-point tensors are averaged."""
        self.samples += 1
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            current = tensor.to("cpu", torch.float64, copy=True)
            if self.samples == 1:
                self.tensors[name] = current
            else:
                self.tensors[name].lerp_(current, 1.0 / self.samples)

    def load(self, tensors: Mapping[str, Tensor], samples: int) -> None:
        self.tensors = dict(tensors)
        self.samples = samples


def mean_between(
    end: Mapping[str, Tensor], end_samples: int, start: Mapping[str, Tensor] | None, start_samples: int
) -> dict[str, Tensor]:
    """Mean over (start, end] from two running means; ``start`` None = from the beginning of the training.

    Raises:
        ValueError: no sample lies between the two, or they hold different tensors.
    """
    if start is None:
        return dict(end)
    samples = end_samples - start_samples
    if samples <= 0:
        raise ValueError(f"no sample of the weights between them ({start_samples} and {end_samples} samples)")
    _require_same_names(end, start)
    return {
        name: (tensor.double() * end_samples - start[name].double() * start_samples) / samples
        for name, tensor in end.items()
    }


def plain_mean(models: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of the weights of several checkpoints, in float64; integer tensors are left out."""
    total: dict[str, Tensor] = {}
    count = 0
    for weights in models:
        floating = {name: tensor.double() for name, tensor in weights.items() if tensor.is_floating_point()}
        if total:
            _require_same_names(total, floating)
        total = {name: total[name] + tensor if total else tensor for name, tensor in floating.items()}
        count += 1
    return {name: tensor / count for name, tensor in total.items()}


def write_averaged_model(config: AverageConfig) -> Path:
    """Average as configured and write a model directory: config.json, weights, tokens, provenance.json.

    Returns:
        The model directory.
    Raises:
        CheckpointError: no checkpoint, or a file that is missing, damaged or does not fit, and is named.
    """
    root = Path(config.exp_dir) / "checkpoints"
    found = [Checkpoint.open(directory) for directory in list_checkpoints(root)]
    if not found:
        raise CheckpointError(
            f"no checkpoint in {root}: train first (scripts/train.py exp_dir={config.exp_dir})"
        )
    end = _end_checkpoint(found, config.end_step)
    end.verify([MODEL_FILE, AVERAGE_FILE, *CARRIED_FILES])
    if config.method == "running":
        start = _start_checkpoint(found, end, config)
        weights = _running_mean(start, end)
        steps = [start.step if start else 0, end.step]
    else:
        chosen = [checkpoint for checkpoint in found if checkpoint.resumable and checkpoint.step <= end.step]
        chosen = chosen[-config.num_checkpoints :]
        for checkpoint in chosen:
            checkpoint.verify([MODEL_FILE])
        weights = plain_mean(checkpoint.weights() for checkpoint in chosen)
        steps = [checkpoint.step for checkpoint in chosen]

    directory = Path(config.model_dir) if config.model_dir else Path(config.exp_dir) / "averaged"
    directory.mkdir(parents=True, exist_ok=True)
    for name in CARRIED_FILES:
        shutil.copyfile(end.directory / name, directory / name)
    save_file(_in_shape_of(end, weights), directory / MODEL_FILE)
    provenance = {
        "method": config.method,
        "steps": steps,  # running: (start, end]; checkpoints: those averaged
        "trained_dialects": sorted({*end.record["trained_hours"], *end.record.get("known_dialects", [])}),
        "training": {name: value for name, value in end.record.items() if name != "files"},
    }
    text = json.dumps(provenance, indent=2, ensure_ascii=False) + "\n"
    (directory / "provenance.json").write_text(text, encoding="utf-8")
    logger.info("Average (%s) of steps %s written to %s", config.method, steps, directory)
    return directory


def _end_checkpoint(found: list[Checkpoint], step: int | None) -> Checkpoint:
    whole = [checkpoint for checkpoint in found if checkpoint.resumable]
    chosen = [checkpoint for checkpoint in whole if step is None or checkpoint.step == step]
    if not chosen:
        steps = ", ".join(str(checkpoint.step) for checkpoint in whole)
        raise CheckpointError(
            f"no whole checkpoint at end_step={step}; there are whole ones at {steps or 'none'}"
        )
    return chosen[-1]


def _start_checkpoint(found: list[Checkpoint], end: Checkpoint, config: AverageConfig) -> Checkpoint | None:
    """The checkpoint whose running average is taken away, or None for the beginning of the training."""
    earlier = [checkpoint for checkpoint in found if checkpoint.step < end.step]
    if config.start_step is not None:
        if config.start_step == 0:
            return None
        for checkpoint in earlier:
            if checkpoint.step == config.start_step:
                return checkpoint
        steps = ", ".join(str(checkpoint.step) for checkpoint in earlier)
        raise CheckpointError(
            f"no checkpoint at start_step={config.start_step}; choose 0 or one of {steps or 'none'}"
        )
    wanted = end.step * (1 - config.last_fraction)
    samples = end.record["average_samples"]
    usable = [checkpoint for checkpoint in earlier if checkpoint.record["average_samples"] < samples]
    # The beginning of the training counts as a checkpoint at step 0.
    nearest = min(usable, key=lambda checkpoint: abs(checkpoint.step - wanted), default=None)
    if nearest is None or wanted < abs(nearest.step - wanted):
        return None
    return nearest


def _running_mean(start: Checkpoint | None, end: Checkpoint) -> dict[str, Tensor]:
    if start is not None:
        start.verify([AVERAGE_FILE])
    samples = end.record["average_samples"]
    if samples == 0:
        raise CheckpointError(
            f"{end.directory} holds no running average yet; train longer than average_period, or lower that "
            "setting"
        )
    try:
        return mean_between(
            end.average(),
            samples,
            start.average() if start else None,
            start.record["average_samples"] if start else 0,
        )
    except ValueError as error:
        beginning = start.directory if start else "the beginning"
        raise CheckpointError(f"cannot average from {beginning} to {end.directory}: {error}") from error


def _in_shape_of(checkpoint: Checkpoint, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the dtypes of a checkpoint's model, with its integer tensors as they are.

    Raises:
        CheckpointError: a tensor is missing or has another shape.
    """
    result = {}
    for name, tensor in checkpoint.weights().items():
        if not tensor.is_floating_point():
            result[name] = tensor
        elif name not in weights or weights[name].shape != tensor.shape:
            raise CheckpointError(f"the average has no tensor {name} of shape {tuple(tensor.shape)}")
        else:
            result[name] = weights[name].to(tensor.dtype)
    return result


def _require_same_names(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> None:
    different = sorted(left.keys() ^ right.keys())
    if different:
        raise ValueError(f"the two hold different tensors: {', '.join(different[:5])}")
