"""Chooses the window of the average of the weights, by recognising a part of the validation split.

A longer window smooths more, but includes weights from earlier in the training, which are worse. The best
length depends on the run (half-way through a short run, the weights are still poor). Therefore several
windows are tried: each average decodes the validation utterances of the training, only those of trained
dialects, and the window with the lowest CER is chosen. The test split is never read.
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
    """Part of the training over which weights are averaged, with the CERs of the average.

    Attributes:
        start: checkpoint after which the average begins; None = the beginning of the training.
        end: last checkpoint of the average; with ``start == end``, the weights of this checkpoint without
            average.
        cer: CER in per cent over all utterances, by head: ``greedy`` (transducer) and ``ctc``.
    """

    start: Checkpoint | None
    end: Checkpoint
    cer: dict[str, float] = field(default_factory=dict)

    @property
    def steps(self) -> list[int]:
        """(start, end], or [end] for the weights of the last checkpoint without average."""
        if self.start is self.end:
            return [self.end.step]
        return [self.start.step if self.start else 0, self.end.step]

    @property
    def last_fraction(self) -> float:
        """Share of the training that is averaged; 0 for the last checkpoint without average."""
        return 1 - (self.start.step if self.start else 0) / self.end.step

    @property
    def mean_cer(self) -> float:
        """Mean CER over the heads, which share the same weights."""
        return sum(self.cer.values()) / len(self.cer)


@dataclass(frozen=True)
class Choice:
    """The window with the lowest mean CER (the shortest of equal ones), and all candidates."""

    best: Window
    windows: list[Window]
    split: str
    dialects: list[str]
    utterances: int

    def record(self) -> dict[str, Any]:
        """Record for ``provenance.json``."""
        return {
            "by": f"lowest mean CER over the heads on {self.utterances} utterances of the split {self.split}",
            "dialects": self.dialects,
            "candidates": [
                {"steps": window.steps, "last_fraction": round(window.last_fraction, 3), "cer": window.cer}
                for window in self.windows
            ],
        }

    def table(self) -> str:
        """Text with one line for each window."""
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
    """Interface of scorers of averaged weights on validation data.

    Attributes:
        split: name of the split.
        dialects: dialect groups of the utterances.
        utterances: number of utterances.
        key: everything that the scores depend on, except the weights.
    """

    split: str
    dialects: list[str]
    utterances: int
    key: Mapping[str, Any]

    def __call__(self, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """Error rates in per cent by head."""
        ...


def choose_window(windows: list[Window], weights: Weights, scorer: WindowScorer, cache: Path) -> Choice:
    """Score the weights of every window and take the best window.

    Args:
        windows: candidates with the same end.
        weights: function from a window to its averaged weights, in the dtypes of the model.
        scorer: scorer of weights.
        cache: JSON file of the scores, so that a killed run computes nothing twice.

    Raises:
        CheckpointError: no window can be chosen by the validation data, or the cache cannot be read.
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
    """Digests of the files behind the weights of a window."""
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
