"""How far back an average of the weights reaches: chosen by recognising a part of the validation split.

A longer window smooths more, but reaches back to weights that had learnt less. How far is too far depends on
the run (a short one is still far from its end half-way through), so the candidates are tried: each is decoded
on the utterances that the training was validated on, those of trained dialects only, and the one with the
lowest CER is taken. The test split is never read.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from zipformer.files import write_json
from zipformer.model_dir import WEIGHTS_FILE
from zipformer.training.checkpoint import AVERAGE_FILE, Checkpoint, CheckpointError

logger = logging.getLogger(__name__)

Weights = Callable[[Checkpoint | None, Checkpoint], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Window:
    """Part of the training over which weights are averaged, and the CERs of that average.

    Attributes:
        start: the average begins after this checkpoint; None = at the beginning of the training.
        end: the average ends with this checkpoint; ``start == end`` is its weights alone, without average.
        cer: CER in per cent over all utterances, by the head that recognised them: ``greedy`` (transducer)
            and ``ctc``.
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


class WindowScorer(Protocol):
    """Says how good averaged weights are, on validation data.

    Attributes:
        split: name of the split that is recognised.
        dialects: dialect groups whose utterances count.
        utterances: number of them.
        key: everything but the weights that the scores depend on.
    """

    split: str
    dialects: list[str]
    utterances: int
    key: Mapping[str, Any]

    def __call__(self, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """Error rates in per cent by head."""
        ...


def choose_window(windows: list[Window], weights: Weights, scorer: WindowScorer, cache: Path) -> Choice:
    """Score every window's weights and take the best.

    Args:
        windows: candidates with one end.
        weights: averages a window, in the dtypes of the model.
        scorer: scores weights.
        cache: JSON file that keeps the scores, so that a run that was killed computes nothing twice.

    Raises:
        CheckpointError: the validation data cannot decide, or the cache cannot be read.
    """
    cached = _read_cache(cache)
    tried = []
    for number, window in enumerate(windows, start=1):
        key = json.dumps({**scorer.key, "weights": _identity(window)}, sort_keys=True)
        if key not in cached:
            cached[key] = scorer(weights(window.start, window.end))
            write_json(cache, cached, shared=True)  # the same command may run twice
        done = Window(window.start, window.end, cached[key])
        logger.info("Window %d of %d, steps %s: CER %s", number, len(windows), done.steps, _shown(done.cer))
        tried.append(done)
    best = min(tried, key=lambda window: (window.mean_cer, window.last_fraction))
    return Choice(best, tried, scorer.split, scorer.dialects, scorer.utterances)


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
