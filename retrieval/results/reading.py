"""Result files of a model directory, read back for the report.

A missing file is None or an empty list; a malformed one is an error.
"""

import csv
import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from retrieval.protocol.estimates import MetricRow
from retrieval.protocol.tables import PairRow, RecallTable, SummaryRow
from retrieval.results.weights import Digests, data_behind, weights_behind
from retrieval.statistics.hubness import HubnessRow
from zipformer.decoding.recognise import DATA_KEY
from zipformer.errors import UserError
from zipformer.model import WEIGHTS_FILE

Row = TypeVar("Row")

# JSON values that a field of a row may have, by the field's type
ACCEPTED: dict[Any, tuple[type, ...]] = {
    int: (int,),
    int | None: (int, type(None)),
    float: (int, float),
    float | None: (int, float, type(None)),
    str: (str,),
    str | None: (str, type(None)),
}
# Error rates of a validation: of the transducer's greedy search, and of the CTC head (or the first of a model
# that has no transducer).
VALIDATED = ("cer", "cer_ctc")
METRIC_FIELDS: dict[str, dict[str, type]] = {"train": {"elapsed_seconds": float}, "valid": {"cer": dict}}


class MalformedResultError(UserError):
    """A result file that does not hold what it should; names the file, the place and the remedy."""

    def __init__(self, path: Path, what: str, maker: str) -> None:
        super().__init__(f"{path}: {what}. Make the file again with scripts/{maker}.py, or delete it")


@dataclass(frozen=True)
class CerRow:
    """One row of ``cer.json``; rates in per cent, None without reference characters.

    ``no_token``: reference characters that no token of the model writes, None where they were not counted.
    """

    level: str
    name: str
    group: str
    utterances: int
    reference_characters: int
    substitutions: int
    deletions: int
    insertions: int
    cer: float | None
    low: float | None
    high: float | None
    resampled: str
    no_token: int | None = None


@dataclass(frozen=True)
class Hypothesis:
    """One line of ``hypotheses.jsonl``."""

    id: str
    dialect: str | None
    subdialect: str | None
    site: str | None
    sentence_id: str | None
    reference: str
    hypothesis: str


@dataclass(frozen=True)
class ConfusionRow:
    """One line of ``confusions.csv``; one side of an insertion or deletion is empty, and dialect for all."""

    dialect: str
    kind: str
    reference: str
    hypothesis: str
    count: int


@dataclass(frozen=True)
class CerResult:
    """Everything that decoding with one method left.

    ``folder`` holds the files; ``weights`` and ``data`` are those that the hypotheses are of
    (:mod:`retrieval.results.weights`).
    """

    method: str
    split: str
    rows: list[CerRow]
    hypotheses: list[Hypothesis]
    confusions: list[ConfusionRow]
    folder: Path
    weights: Digests
    data: Digests = None

    @property
    def resampled(self) -> str:
        """What the intervals of the table are over, for captions; empty in a table without rows."""
        return next((row.resampled for row in self.level("overall")), "")

    def level(self, level: str) -> list[CerRow]:
        """Rows of one level: overall, dialect, subdialect or site."""
        return [row for row in self.rows if row.level == level]


@dataclass(frozen=True)
class RecallResult:
    """``recall.json``: the table, and what it was made from and with.

    Attributes:
        table: rates.
        embedder: whose embeddings.
        settings: of scripts/retrieve.py.
        weights, data: behind the embeddings (:mod:`retrieval.results.weights`).
        challenge_fingerprint: of the challenge set that was asked; None for the full set.
        drawn_for: of a random challenge set, fingerprint of the one whose counterpart it is; None if unknown.
    """

    table: RecallTable
    embedder: str
    settings: Mapping[str, Any]
    weights: Digests
    data: Digests
    challenge_fingerprint: str | None
    drawn_for: str | None


@dataclass(frozen=True)
class Metrics:
    """``metrics.jsonl`` of a training run, one record a line; repeated steps after a resume are merged."""

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


def read_decodings(results: Path, split: str) -> list[CerResult]:
    """All of ``decode-{split}-{method}`` in the results of a data set, sorted by method; may be none.

    Where the name of another split begins with this one and a hyphen, its folders look alike; the files say
    whose they are.
    """
    found = [read_decoding(path.parent) for path in sorted(results.glob(f"decode-{split}-*/cer.json"))]
    return [result for result in found if result.split == split]


def read_decoding(directory: Path) -> CerResult:
    """``cer.json`` of a folder and the files beside it, ``decode.json`` of which says what decoded.

    Raises:
        MalformedResultError: a file without its fields.
    """
    path = directory / "cer.json"
    content = _object(path, path.read_text(encoding="utf-8"), "decode")
    _require(content, {"method": str, "split": str, "rows": list}, path, "decode")
    rows = [
        read_row(CerRow, row, path, f"row {number}", "decode")
        for number, row in enumerate(content["rows"], start=1)
    ]
    hypotheses: list[Hypothesis] = []
    confusions: list[ConfusionRow] = []
    hypotheses_path, confusions_path = directory / "hypotheses.jsonl", directory / "confusions.csv"
    if hypotheses_path.is_file():
        hypotheses = [
            read_row(Hypothesis, line, hypotheses_path, f"line {number}", "decode")
            for number, line in _json_lines(hypotheses_path, "decode")
        ]
    if confusions_path.is_file():
        with confusions_path.open(encoding="utf-8", newline="") as file:
            for number, record in enumerate(csv.DictReader(file), start=2):
                row: dict[str, Any] = dict(record)
                if not str(row.get("count") or "").isdecimal():
                    raise MalformedResultError(
                        confusions_path, f"line {number}: count must be a number in {row}", "decode"
                    )
                row["count"] = int(row["count"])
                confusions.append(read_row(ConfusionRow, row, confusions_path, f"line {number}", "decode"))
    made_with = read_json(directory / "decode.json", "decode") or {}
    digest = made_with.get(WEIGHTS_FILE)
    weights = [digest] if isinstance(digest, str) else None
    data = made_with.get(DATA_KEY)
    return CerResult(
        content["method"],
        content["split"],
        rows,
        hypotheses,
        confusions,
        directory,
        weights,
        [data] if isinstance(data, str) else None,
    )


def read_recall(path: Path) -> RecallResult | None:
    """``recall.json``, or None where there is none.

    Raises:
        MalformedResultError: a file without its fields, or a pair of groups that are not listed.
    """
    if not path.is_file():
        return None
    content = _object(path, path.read_text(encoding="utf-8"), "retrieve")
    shape = {"groups": list, "pairs": list, "within": list, "summary": list}
    _require(content, shape, path, "retrieve")
    pairs, within = (
        [
            read_row(PairRow, row, path, f"{key}, row {n}", "retrieve")
            for n, row in enumerate(content[key], start=1)
        ]
        for key in ("pairs", "within")
    )
    summary = [
        read_row(SummaryRow, row, path, f"summary, row {n}", "retrieve")
        for n, row in enumerate(content["summary"], start=1)
    ]
    for row in [*pairs, *within]:
        if row.source not in content["groups"] or row.target not in content["groups"]:
            raise MalformedResultError(
                path, f"pair {row.source}, {row.target} is not among the groups", "retrieve"
            )
    metrics = [
        read_row(MetricRow, row, path, f"metrics, row {n}", "retrieve")
        for n, row in enumerate(content.get("metrics", []), start=1)
    ]
    hubness = [
        read_row(HubnessRow, row, path, f"hubness, row {n}", "retrieve")
        for n, row in enumerate(content.get("hubness", []), start=1)
    ]
    table = RecallTable(
        content["groups"],
        content.get("trained_groups"),
        pairs,
        within,
        summary,
        metrics,
        hubness,
        names_or_none(content, "single_site_groups", path, "retrieve"),
    )
    embedder = str(content.get("embedder", ""))
    return RecallResult(
        table,
        embedder,
        content.get("settings", {}),
        weights_behind([content.get("embeddings") or {"embedder": embedder}]),
        data_behind([content.get("embeddings")]),
        content.get("challenge_fingerprint"),
        content.get("challenge_drawn_for"),
    )


def read_metrics(path: Path) -> Metrics | None:
    """``metrics.jsonl``, or None where there is none. A line that is still being written is left out.

    Raises:
        MalformedResultError: a line that is not a training or validation record.
    """
    if not path.is_file():
        return None
    records: dict[str, list[dict[str, Any]]] = {"train": [], "valid": []}
    for number, line in _json_lines(path, "train"):
        kind = line.get("kind")
        if kind == "skipped":  # a step that was not finite; its log line says all there is
            continue
        if kind not in records or not isinstance(line.get("step"), int):
            raise MalformedResultError(path, f"line {number}: needs kind train or valid, and a step", "train")
        # While only CTC is trained, there is no error rate of the transducer yet.
        fields_of_line = {"cer_ctc": dict} if kind == "valid" and "cer" not in line else METRIC_FIELDS[kind]
        _require(line, fields_of_line, path, "train", f"line {number}: ")
        # After a resume the steps since the last checkpoint are done again; the later ones count.
        kept = records[kind]
        while kept and kept[-1]["step"] >= line["step"]:
            kept.pop()
        kept.append(line)
    return Metrics(records["train"], records["valid"])


def read_json(path: Path, maker: str) -> dict[str, Any] | None:
    """A JSON object, or None where there is no file."""
    return _object(path, path.read_text(encoding="utf-8"), maker) if path.is_file() else None


def trained_groups(model_dir: Path) -> list[str] | None:
    """``trained_dialects`` of ``provenance.json``; None where it is not recorded.

    Raises:
        MalformedResultError: a field that is not a list of names.
    """
    path = model_dir / "provenance.json"
    content = read_json(path, "average")
    return None if content is None else names_or_none(content, "trained_dialects", path, "average")


def names_or_none(content: Mapping[str, Any], key: str, path: Path, maker: str) -> list[str] | None:
    """A list of names; None where it is not recorded.

    Raises:
        MalformedResultError: a field that is not a list of names.
    """
    names = content.get(key)
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise MalformedResultError(path, f"{key} must be a list of names, found {names!r}", maker)
    return names


def check_trained(names: Sequence[str] | None, dialects: Iterable[str], model_dirs: Iterable[Path]) -> None:
    """See that names given as trained dialects are known: a misspelt one would make its dialect held out.

    Args:
        names: the setting; None asks nothing.
        dialects: of the utterances that are retrieved.
        model_dirs: whose ``trained_dialects`` are known as well.

    Raises:
        ValueError: an unknown name.
        MalformedResultError: as of :func:`trained_groups`.
    """
    if names is None:
        return
    known = set(dialects).union(*(trained_groups(directory) or [] for directory in model_dirs))
    if unknown := [name for name in names if name not in known]:
        raise UserError(
            f"trained names {', '.join(unknown)}: no dialect of the embeddings, and none that the model was"
            f" trained on; there are {', '.join(sorted(known))}"
        )


def _object(path: Path, text: str, maker: str, place: str = "") -> dict[str, Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise MalformedResultError(path, f"{place}not JSON ({error})", maker) from error
    if not isinstance(content, dict):
        raise MalformedResultError(path, f"{place}not a JSON object", maker)
    return content


def _json_lines(path: Path, maker: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith("\n") and line.strip():
                yield number, _object(path, line, maker, f"line {number}: ")


def _require(
    content: Mapping[str, Any], shape: Mapping[str, type], path: Path, maker: str, place: str = ""
) -> None:
    for key, kind in shape.items():
        accepted = (int, float) if kind is float else kind
        if not isinstance(content.get(key), accepted):
            found = "nothing" if key not in content else repr(content[key])[:80]
            raise MalformedResultError(path, f"{place}{key} must be {kind.__name__}, found {found}", maker)


def read_row(row_type: type[Row], values: object, path: Path, place: str, maker: str) -> Row:
    """A dataclass from a mapping that has its fields with their types (more are ignored).

    Fields with a default may be missing.
    """
    if not isinstance(values, dict):
        raise MalformedResultError(path, f"{place} is not an object", maker)
    names: Sequence[Any] = fields(row_type)  # type: ignore[arg-type]
    for field in names:
        if field.name not in values:
            if field.default is not MISSING:
                continue
            raise MalformedResultError(path, f"{place} has no {field.name}", maker)
        accepted = ACCEPTED[field.type]
        if not isinstance(values[field.name], accepted):
            raise MalformedResultError(
                path, f"{place}: {field.name} must be {field.type}, found {values[field.name]!r}", maker
            )
    return row_type(**{field.name: values[field.name] for field in names if field.name in values})


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
