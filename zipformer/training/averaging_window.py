"""How far back an average of the weights reaches: chosen by recognising a part of the validation split.

A longer window smooths more, but reaches back to weights that had learnt less. How far is too far depends on
the run (a short one is still far from its end half-way through), so the candidates are tried: each is decoded
on the utterances that the training was validated on, those of trained dialects only, and the one with the
lowest CER is taken. The test split is never read.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from zipformer.data.tokenizer import Tokenizer
from zipformer.distributed import World
from zipformer.files import file_sha256, write_json
from zipformer.model import AsrModel
from zipformer.model_config import read_config
from zipformer.model_dir import WEIGHTS_FILE
from zipformer.tasks.validation import Validator
from zipformer.training.checkpoint import AVERAGE_FILE, Checkpoint, CheckpointError
from zipformer.training.config import ValidationConfig

logger = logging.getLogger(__name__)

Weights = Callable[[Checkpoint | None, Checkpoint], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Window:
    """Part of the training over which weights are averaged, and the CERs of that average.

    Attributes:
        start: the average begins after this checkpoint; None = at the beginning of the training.
        end: the average ends with this checkpoint; ``start == end`` is its weights alone, without average.
        cer: in per cent over all utterances, by what recognised them: ``greedy`` (transducer) and ``ctc``.
    """

    start: Checkpoint | None
    end: Checkpoint
    cer: dict[str, float] = field(default_factory=dict)

    @property
    def steps(self) -> list[int]:
        """(start, end], or [end] for the weights of the last checkpoint alone."""
        if self.start is self.end:
            return [self.end.step]
        return [self.start.step if self.start else 0, self.end.step]

    @property
    def last_fraction(self) -> float:
        """Part of the training that is averaged; 0 for the weights of the last checkpoint alone."""
        return 1 - (self.start.step if self.start else 0) / self.end.step

    @property
    def mean_cer(self) -> float:
        """Mean over the heads, each of which must be good with the same weights."""
        return sum(self.cer.values()) / len(self.cer)


@dataclass(frozen=True)
class Choice:
    """The window with the lowest mean CER (the shortest of equal ones), and what it was chosen from."""

    best: Window
    windows: list[Window]
    split: str
    dialects: list[str]
    utterances: int

    def record(self) -> dict[str, Any]:
        """For ``provenance.json``."""
        return {
            "by": f"lowest mean CER over the heads on {self.utterances} utterances of the split {self.split}",
            "dialects": self.dialects,
            "candidates": [
                {"steps": window.steps, "last_fraction": round(window.last_fraction, 3), "cer": window.cer}
                for window in self.windows
            ],
        }

    def table(self) -> str:
        """Text, one line a window."""
        heads = list(self.best.cer)
        lines = [
            "".join(f"{name:>18}" for name in ("steps", "last fraction", *(f"CER {h} %" for h in heads)))
        ]
        for window in self.windows:
            steps = f"{window.steps[0]}-{window.steps[1]}" if len(window.steps) == 2 else f"{window.steps[0]}"
            cells = [steps, f"{window.last_fraction:.2f}", *(f"{window.cer[head]:.2f}" for head in heads)]
            mark = "  chosen" if window is self.best else ""
            lines.append("".join(f"{cell:>18}" for cell in cells) + mark)
        return "\n".join(lines)


def choose_window(
    windows: list[Window], weights: Weights, *, data_dir: Path | None, cache: Path, world: World
) -> Choice:
    """Decode with every window's weights and take the best.

    Args:
        windows: with one end.
        weights: averages a window, in the dtypes of the model.
        data_dir: prepared corpus; None = that of the training, as its record says.
        cache: JSON file that keeps the CERs, so that a run that was killed decodes nothing twice.
        world: of this process, with the device that decodes.

    Raises:
        CheckpointError: the validation data is not there, or cannot decide.
    """
    end = windows[0].end
    settings = _validation_settings(end)
    trained = sorted({*end.record["trained_hours"], *end.record.get("known_dialects", [])})
    directory = data_dir if data_dir is not None else Path(end.record["config"]["data_dir"])
    manifest = directory / f"cuts_{settings.split}.jsonl.gz"
    remedy = "or choose the window yourself, for example with last_fraction=0.25"
    if not manifest.is_file():
        raise CheckpointError(
            f"the window of the average is chosen on validation data, and {manifest} is not there: give "
            f"data_dir=DIR, {remedy}"
        )
    tokenizer = Tokenizer.load(end.directory)
    validator = Validator(directory, tokenizer, settings, world, dialects=trained)
    if not len(validator.cuts):
        raise CheckpointError(
            f"the window of the average is chosen on validation data, and {manifest} has no utterance of a "
            f"trained dialect ({', '.join(trained)}): give another data_dir=DIR, {remedy}"
        )
    ctc_only = end.step <= end.record["config"]["loss"]["ctc_first_steps"]  # other heads have learnt nothing
    model = AsrModel(read_config(end.directory)).to(world.device).eval()
    common = {"manifest": file_sha256(manifest), "dialects": trained, "validation": asdict(settings)}
    cached = _read_cache(cache)
    tried = []
    for number, window in enumerate(windows, start=1):
        key = json.dumps(common | {"weights": _identity(window)}, sort_keys=True)
        if key not in cached:
            model.load_state_dict(dict(weights(window.start, window.end)))
            cached[key] = _rates(validator, model, ctc_only=ctc_only, manifest=manifest, remedy=remedy)
            write_json(cache, cached)
        done = Window(window.start, window.end, cached[key])
        logger.info("Window %d of %d, steps %s: CER %s", number, len(windows), done.steps, _shown(done.cer))
        tried.append(done)
    best = min(tried, key=lambda window: (window.mean_cer, window.last_fraction))
    return Choice(best, tried, settings.split, trained, len(validator.cuts))


def _validation_settings(end: Checkpoint) -> ValidationConfig:
    """Settings of the training's validation, with both heads wherever there are both.

    Raises:
        CheckpointError: the training was validated on the test split.
    """
    recorded = end.record["config"]["validation"]
    known = {name: recorded[name] for name in asdict(ValidationConfig()) if name in recorded}
    settings = ValidationConfig(**known)
    settings.ctc = read_config(end.directory).ctc
    if settings.split == "test":
        raise CheckpointError(
            "the training was validated on the split test, on which no window may be chosen: give "
            "last_fraction, for example last_fraction=0.25"
        )
    return settings


def _rates(
    validator: Validator, model: AsrModel, *, ctc_only: bool, manifest: Path, remedy: str
) -> dict[str, float]:
    """CER in per cent by head."""
    tables = validator(model, ctc_only=ctc_only)
    assert tables is not None  # nobody asks it to stop
    if any("overall" not in table for table in tables.values()):
        raise CheckpointError(f"the utterances of {manifest} have no text to score: prepare them, {remedy}")
    names = {"cer": "greedy" if model.config.transducer else "ctc", "cer_ctc": "ctc"}
    return {names[name]: table["overall"] for name, table in tables.items()}


def _identity(window: Window) -> list[str]:
    """Digests of the files that the weights of a window come from."""
    if window.start is window.end:
        return [window.end.record["files"][WEIGHTS_FILE]["sha256"]]
    checkpoints = [window.end] if window.start is None else [window.start, window.end]
    return [checkpoint.record["files"][AVERAGE_FILE]["sha256"] for checkpoint in checkpoints]


def _read_cache(path: Path) -> dict[str, dict[str, float]]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}): remove it, it only saves time") from error
    return dict(content)


def _shown(cer: Mapping[str, float]) -> str:
    return ", ".join(f"{head} {rate:.2f} %" for head, rate in cer.items())
