"""Reads ``metrics.jsonl`` of a training."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zipformer.typed_json import MalformedResultError, json_lines, require

# Error rates of a validation: of the greedy search of the transducer, and of the CTC head. Without a
# transducer the first is that of CTC.
VALIDATED = ("cer", "cer_ctc")
METRIC_FIELDS: dict[str, dict[str, type]] = {"train": {"elapsed_seconds": float}, "valid": {"cer": dict}}


@dataclass(frozen=True)
class Metrics:
    """Records of ``metrics.jsonl`` of a training; steps that were repeated after a resume occur once."""

    train: list[dict[str, Any]]
    valid: list[dict[str, Any]]

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Steps and finite values of a training quantity; empty if it is always 0 (an absent head)."""
        points = [(line["step"], line[key]) for line in self.train if _finite(line.get(key))]
        if not any(value for _, value in points):
            return [], []
        return [step for step, _ in points], [float(value) for _, value in points]

    def validated_dialects(self) -> list[str]:
        """Names in the validation results, ``overall`` first."""
        names = {name for line in self.valid for key in VALIDATED for name in line.get(key, {})}
        return sorted(names, key=lambda name: (name != "overall", name))

    def cer_against_minutes(self, name: str, key: str = "cer") -> tuple[list[float], list[float]]:
        """Minutes of training and CER (%) of a dialect at each validation, by a key of ``VALIDATED``."""
        steps = [line["step"] for line in self.train]
        minutes, rates = [], []
        for line in self.valid:
            if _finite(line.get(key, {}).get(name)):
                trained = bisect_right(steps, line["step"])  # training records up to this validation
                minutes.append(self.train[trained - 1]["elapsed_seconds"] / 60 if trained else 0.0)
                rates.append(float(line[key][name]))
        return minutes, rates


def read_metrics(path: Path) -> Metrics | None:
    """Read ``metrics.jsonl``; None if there is no such file. An incomplete last line is ignored.

    Raises:
        MalformedResultError: a line is not a training or validation record.
    """
    if not path.is_file():
        return None
    records: dict[str, list[dict[str, Any]]] = {"train": [], "valid": []}
    for number, line in json_lines(path, "train"):
        kind = line.get("kind")
        if kind == "skipped":  # a step that was not finite; it has no numbers to show
            continue
        if kind not in records or not isinstance(line.get("step"), int):
            raise MalformedResultError(path, f"line {number}: needs kind train or valid, and a step", "train")
        # During the phase with CTC alone, there is no error rate of the transducer.
        fields_of_line = {"cer_ctc": dict} if kind == "valid" and "cer" not in line else METRIC_FIELDS[kind]
        require(line, fields_of_line, path, "train", f"line {number}: ")
        # After a resume the steps since the last checkpoint are repeated; the later records count.
        kept = records[kind]
        while kept and kept[-1]["step"] >= line["step"]:
            kept.pop()
        kept.append(line)
    return Metrics(records["train"], records["valid"])


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
