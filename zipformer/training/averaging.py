"""Averages the weights over a part of the training.

During training the mean m_n of the weights at steps P, 2P, ..., nP is kept in float64. The means at two
checkpoints give the mean over the steps between them, without the weights themselves:

    mean over (start, end] = (n_end * m_end - n_start * m_start) / (n_end - n_start)

as in the published results of icefall (``--use-averaged-model``).
"""

import logging
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from omegaconf import MISSING
from torch import Tensor

from zipformer.data.tokenizer import TOKEN_TABLE_FILE, TOKENS_FILE
from zipformer.device import choose_device
from zipformer.distributed import World
from zipformer.errors import UserError
from zipformer.files import check_writable, place_errors, replacing_folder, write_json, write_tensors
from zipformer.model_dir import CONFIG_FILE, PROVENANCE_FILE, WEIGHTS_FILE
from zipformer.training.averaging_window import Choice, Window, WindowScorer, choose_window
from zipformer.training.checkpoint import AVERAGE_FILE, Checkpoint, CheckpointError, open_whole

logger = logging.getLogger(__name__)

MakeScorer = Callable[[Checkpoint, Path | None, World], WindowScorer | None]
CARRIED_FILES = (CONFIG_FILE, TOKENS_FILE, TOKEN_TABLE_FILE)
METHODS = ("running", "checkpoints")


@dataclass
class AverageConfig:
    """Settings of fangyan average.

    Attributes:
        exp_dir: folder of the training run.
        method: ``running`` = mean over all samples of the weights between two steps (best, and the default);
            ``checkpoints`` = mean of the last ``num_checkpoints`` checkpoints.
        end_step: last step of the average; none = the newest checkpoint.
        start_step: step after which the average begins (``running``); none = determined by ``last_fraction``.
        last_fraction: share of the training, at its end, to average over (``running``). A larger share
            smooths more, but includes worse weights. none = the one of ``windows`` with the lowest CER on the
            validation utterances of the training.
        windows: candidates for ``last_fraction``, beside the weights of the last checkpoint without an
            average.
        data_dir: prepared corpus with the validation split; none = that of the training.
        device: device that decodes the validation split: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for CUDA
            where there is one.
        num_checkpoints: number of checkpoints for the method ``checkpoints``.
        model_dir: folder of the model directory to write; none = ``exp_dir/averaged``. Results of earlier
            weights in it are kept; fangyan report leaves them out.
    """

    exp_dir: str = MISSING
    method: str = "running"
    end_step: int | None = None
    start_step: int | None = None
    last_fraction: float | None = None
    windows: list[float] = field(default_factory=lambda: [0.05, 0.1, 0.15, 0.25, 0.5])
    data_dir: str | None = None
    device: str = "auto"
    num_checkpoints: int = 5
    model_dir: str | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f"method={self.method} is not known; choose one of {', '.join(METHODS)}")
        if self.last_fraction is not None and not 0 < self.last_fraction <= 1:
            raise UserError(f"last_fraction={self.last_fraction} is not in (0, 1]")
        if not self.windows or not all(0 < fraction <= 1 for fraction in self.windows):
            raise UserError(f"windows={self.windows} must hold fractions of the training in (0, 1]")
        if self.num_checkpoints < 1:
            raise UserError(f"num_checkpoints={self.num_checkpoints} averages nothing; give 1 or more")


class RunningAverage:
    """Running mean of weights, in float64 on the CPU.

    float64, because the difference of two means multiplies rounding errors by n_end / (n_end - n_start).
    """

    def __init__(self) -> None:
        self.samples = 0
        self.tensors: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Add the current weights as one more sample; only floating-point tensors are averaged."""
        self.samples += 1
        for name, tensor in weights.items():
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
        UserError: there is no sample between the two, or they have different tensors.
    """
    if start is None:
        return dict(end)
    samples = end_samples - start_samples
    if samples <= 0:
        raise UserError(f"no sample of the weights between them ({start_samples} and {end_samples} samples)")
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


def write_averaged_model(config: AverageConfig, scorer: MakeScorer) -> Path:
    """Average as configured and write a model directory: config.json, weights, tokens, provenance.json.

    The directory is replaced in one step; other files in it, such as results, are kept. Damaged checkpoints
    are named in the log and left out.

    Args:
        config: settings of the average.
        scorer: function that makes the scorer of the windows, used if the settings leave the choice open.

    Returns:
        The model directory.
    Raises:
        CheckpointError: there is no checkpoint, a requested one is damaged or does not fit, or the validation
            data for choosing the window is missing.
        StorageError: the model directory cannot be written.
    """
    directory = Path(config.model_dir) if config.model_dir else Path(config.exp_dir) / "averaged"
    root = Path(config.exp_dir) / "checkpoints"
    found = open_whole(root)
    if not found:
        raise CheckpointError(
            f"no checkpoint in {root}: train first (fangyan train exp_dir={config.exp_dir})"
        )
    check_writable(directory, "give a place for the model as model_dir=DIR")
    end = _end_checkpoint(found, config.end_step)
    choice: Choice | None = None
    if config.method == "checkpoints":
        chosen = _last_whole(found, end, config.num_checkpoints)
        weights = plain_mean(checkpoint.weights() for checkpoint in chosen)
        steps = [checkpoint.step for checkpoint in chosen]
    else:
        window, choice = _window(found, end, config, directory, scorer)
        weights = _mean_over(window.start, window.end)
        steps = window.steps
    provenance = {
        "method": config.method,
        "steps": steps,  # running: (start, end], or [end] without an average; checkpoints: those averaged
        "window": choice.record() if choice else {"by": "settings"},
        "trained_dialects": sorted({*end.record["trained_hours"], *end.record["known_dialects"]}),
        "training": {name: value for name, value in end.record.items() if name != "files"},
    }
    with (
        place_errors(directory, "free space there, or give another place as model_dir=DIR"),
        replacing_folder(directory) as folder,
    ):
        for name in _carried(end):
            shutil.copyfile(end.directory / name, folder / name)
        write_tensors(_in_shape_of(end, weights), folder / WEIGHTS_FILE)
        write_json(folder / PROVENANCE_FILE, provenance)
    if choice:
        logger.info(
            "Windows by CER on %d utterances of %s:\n%s", choice.utterances, choice.split, choice.table()
        )
    logger.info("Average (%s) of steps %s written to %s", config.method, steps, directory)
    return directory


def _carried(checkpoint: Checkpoint) -> list[str]:
    """Files of a model directory in a checkpoint, beside the weights; an encoder has no tokens."""
    return [name for name in CARRIED_FILES if name in checkpoint.record["files"]]


def _end_checkpoint(found: list[Checkpoint], step: int | None) -> Checkpoint:
    """The newest whole checkpoint, or the checkpoint of a step.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
    """
    resumable = [checkpoint for checkpoint in found if checkpoint.resumable]
    damaged = []
    for checkpoint in reversed(resumable):
        if step is not None and checkpoint.step != step:
            continue
        try:
            checkpoint.verify([WEIGHTS_FILE, AVERAGE_FILE, *_carried(checkpoint)])
        except CheckpointError as error:
            if step is not None:
                raise
            logger.warning("Damaged checkpoint: %s. Averaging up to the one before it.", error)
            damaged.append(str(error))
            continue
        return checkpoint
    if damaged:
        raise CheckpointError("every checkpoint is damaged:\n  " + "\n  ".join(damaged))
    steps = ", ".join(str(checkpoint.step) for checkpoint in resumable)
    raise CheckpointError(
        f"no whole checkpoint at end_step={step}; there are whole ones at {steps or 'none'}"
    )


def _last_whole(found: list[Checkpoint], end: Checkpoint, count: int) -> list[Checkpoint]:
    """The last checkpoints with weights up to ``end``, at most ``count``, oldest first."""
    chosen: list[Checkpoint] = []
    for checkpoint in reversed(found):
        if len(chosen) == count:
            break
        usable = checkpoint.resumable and checkpoint.step <= end.step
        if usable and (checkpoint is end or _is_whole(checkpoint, WEIGHTS_FILE)):
            chosen.insert(0, checkpoint)
    return chosen


def _is_whole(checkpoint: Checkpoint, name: str) -> bool:
    """Whether a file has its recorded content; warns if not."""
    try:
        checkpoint.verify([name])
    except CheckpointError as error:
        logger.warning("Damaged checkpoint, left out: %s", error)
        return False
    return True


def _window(
    found: list[Checkpoint], end: Checkpoint, config: AverageConfig, directory: Path, scorer: MakeScorer
) -> tuple[Window, Choice | None]:
    """The window from the settings, or the best of several, with the record of the choice."""
    earlier = [checkpoint for checkpoint in found if checkpoint.step < end.step]
    if config.start_step is not None:
        return Window(_checkpoint_at(earlier, config.start_step), end), None
    if config.last_fraction is not None:
        return Window(_nearest_start(earlier, end, config.last_fraction), end), None
    windows = [Window(end, end)]
    if end.record["average_samples"]:
        starts = [_nearest_start(earlier, end, fraction) for fraction in sorted(config.windows)]
        windows += [Window(start, end) for n, start in enumerate(starts) if start not in starts[:n]]
    made = scorer(
        end, Path(config.data_dir) if config.data_dir else None, World(0, 1, choose_device(config.device))
    )
    if made is None:
        raise CheckpointError(
            f"{end.directory} is of task={end.record['config']['task']}, which has no score to choose a "
            "window by: give last_fraction, for example last_fraction=0.25"
        )
    choice = choose_window(
        windows,
        lambda start, end: _in_shape_of(end, _mean_over(start, end)),
        made,
        directory.with_name(f"{directory.name}.windows.json"),
    )
    return choice.best, choice


def _checkpoint_at(earlier: list[Checkpoint], step: int) -> Checkpoint | None:
    """The checkpoint of a step; None for step 0.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    if step == 0:
        return None
    for checkpoint in earlier:
        if checkpoint.step == step:
            checkpoint.verify([AVERAGE_FILE])
            return checkpoint
    steps = ", ".join(str(checkpoint.step) for checkpoint in earlier)
    raise CheckpointError(f"no checkpoint at start_step={step}; choose 0 or one of {steps or 'none'}")


def _nearest_start(earlier: list[Checkpoint], end: Checkpoint, fraction: float) -> Checkpoint | None:
    """The whole checkpoint nearest to the beginning of the last ``fraction``; None for step 0.

    Damaged checkpoints are named in the log and removed from ``earlier``.
    """
    wanted = end.step * (1 - fraction)
    samples = end.record["average_samples"]
    usable = [checkpoint for checkpoint in earlier if checkpoint.record["average_samples"] < samples]
    # The beginning of the training counts as a checkpoint at step 0.
    nearest = min(usable, key=lambda checkpoint: abs(checkpoint.step - wanted), default=None)
    if nearest is None or wanted < abs(nearest.step - wanted):
        return None
    if _is_whole(nearest, AVERAGE_FILE):
        return nearest
    earlier.remove(nearest)
    return _nearest_start(earlier, end, fraction)


def _mean_over(start: Checkpoint | None, end: Checkpoint) -> dict[str, Tensor]:
    """Weights averaged over (start, end]; the weights of the checkpoint if the two are the same."""
    return end.weights() if start is end else _running_mean(start, end)


def _running_mean(start: Checkpoint | None, end: Checkpoint) -> dict[str, Tensor]:
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
    """Weights in the dtypes of the model of a checkpoint, with its integer tensors unchanged.

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
        raise UserError(f"the two hold different tensors: {', '.join(different[:5])}")
