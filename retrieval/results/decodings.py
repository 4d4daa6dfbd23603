"""Reads results of fangyan decode: error rates, hypotheses, confusions."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.results.weights import Digests
from zipformer.decoding.hypothesis_file import DECODE_FILE, HYPOTHESES_FILE, read_hypotheses
from zipformer.decoding.recognise import DATA_KEY
from zipformer.model_dir import WEIGHTS_FILE
from zipformer.scoring import CONVENTIONS, PLAIN, Convention
from zipformer.scoring.files import CER_FILE, CONFUSIONS_FILE
from zipformer.scoring.tables import Confusion, ScoreRow, Transcript
from zipformer.typed_json import (
    MalformedResultError,
    json_object,
    read_json,
    read_row,
    read_rows,
    require,
)


@dataclass(frozen=True)
class CerResult:
    """All results of decoding with one method.

    ``folder`` has the files; ``weights`` and ``data`` are the digests of the weights and data behind the
    hypotheses (:mod:`retrieval.results.weights`). ``scoring`` is the convention of counting errors.
    """

    method: str
    split: str
    rows: list[ScoreRow]
    hypotheses: list[Transcript]
    confusions: list[Confusion]
    folder: Path
    weights: Digests
    data: Digests = None
    scoring: Convention = PLAIN

    @property
    def resampled(self) -> str:
        """Resampled units of the intervals of the table, for captions; empty in a table without rows."""
        return next((row.resampled for row in self.level("overall")), "")

    def level(self, level: str) -> list[ScoreRow]:
        """Rows of one level: overall, dialect, subdialect or site."""
        return [row for row in self.rows if row.level == level]


def read_decodings(results: Path, split: str) -> list[CerResult]:
    """Read all of ``decode-{split}-{method}`` in the results of a data set, sorted by method; may be empty.

    If the name of another split begins with this name and a hyphen, its folders match too; the split in the
    files tells them apart.
    """
    found = [read_decoding(path.parent) for path in sorted(results.glob(f"decode-{split}-*/cer.json"))]
    return [result for result in found if result.split == split]


def read_decoding(directory: Path) -> CerResult:
    """Read ``cer.json`` of a folder and the files beside it; ``decode.json`` names model and data.

    Raises:
        MalformedResultError: fields are missing.
    """
    path = directory / CER_FILE
    content = json_object(path, path.read_text(encoding="utf-8"), "decode")
    require(content, {"method": str, "split": str, "rows": list}, path, "decode")
    scoring = content.get("scoring", PLAIN.name)
    if scoring not in CONVENTIONS:
        raise MalformedResultError(path, f"scoring must be a known convention, found {scoring!r}", "decode")
    rows = read_rows(ScoreRow, content["rows"], path, "rows", "decode")
    hypotheses: list[Transcript] = []
    confusions: list[Confusion] = []
    hypotheses_path, confusions_path = directory / HYPOTHESES_FILE, directory / CONFUSIONS_FILE
    if hypotheses_path.is_file():
        hypotheses = read_hypotheses(hypotheses_path)
    if confusions_path.is_file():
        with confusions_path.open(encoding="utf-8", newline="") as file:
            for number, record in enumerate(csv.DictReader(file), start=2):
                row: dict[str, Any] = dict(record)
                if not str(row.get("count") or "").isdecimal():
                    raise MalformedResultError(
                        confusions_path, f"line {number}: count must be a number in {row}", "decode"
                    )
                row["count"] = int(row["count"])
                confusions.append(read_row(Confusion, row, confusions_path, f"line {number}", "decode"))
    made_with = read_json(directory / DECODE_FILE, "decode") or {}
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
        CONVENTIONS[scoring],
    )
