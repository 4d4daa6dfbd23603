"""Reads results of fangyan retrieve: the table of ``recall.json``, and the inputs it was made from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.protocol.estimates import MetricRow
from retrieval.protocol.tables import PairRow, RecallTable, SummaryRow
from retrieval.results.weights import Digests, data_behind, weights_behind
from zipformer.typed_json import MalformedResultError, json_object, names_or_none, read_rows, require

SAME_SETTINGS = ("level", "duplicates")  # must be equal in results that are compared
RETRIEVED_WITH = "fangyan embed and fangyan retrieve"


@dataclass(frozen=True)
class RecallResult:
    """Content of ``recall.json``: table, settings and digests of the inputs.

    Attributes:
        table: rates of all pairs of groups.
        embedder: name of the embedder.
        settings: settings of fangyan retrieve.
        weights, data: digests behind the embeddings (:mod:`retrieval.results.weights`).
        challenge_fingerprint: fingerprint of the challenge set; None for the full set.
        drawn_for: for a random challenge set, fingerprint of the set that it was drawn for; else None.
    """

    table: RecallTable
    embedder: str
    settings: Mapping[str, Any]
    weights: Digests
    data: Digests
    challenge_fingerprint: str | None
    drawn_for: str | None


def read_recall(path: Path) -> RecallResult | None:
    """Read ``recall.json``; None if there is no such file.

    Raises:
        MalformedResultError: fields are missing, or a pair has a group that is not listed.
    """
    if not path.is_file():
        return None
    content = json_object(path, path.read_text(encoding="utf-8"), "retrieve")
    shape = {"groups": list, "pairs": list, "within": list, "summary": list, "metrics": list}
    require(content, shape, path, "retrieve")
    pairs, within = (read_rows(PairRow, content[key], path, key, "retrieve") for key in ("pairs", "within"))
    for row in [*pairs, *within]:
        if row.source not in content["groups"] or row.target not in content["groups"]:
            raise MalformedResultError(
                path, f"pair {row.source}, {row.target} is not among the groups", "retrieve"
            )
    table = RecallTable(
        content["groups"],
        names_or_none(content, "trained_groups", path, "retrieve"),
        pairs,
        within,
        read_rows(SummaryRow, content["summary"], path, "summary", "retrieve"),
        read_rows(MetricRow, content["metrics"], path, "metrics", "retrieve"),
        names_or_none(content, "single_site_groups", path, "retrieve"),
    )
    return RecallResult(
        table,
        str(content.get("embedder", "")),
        content.get("settings", {}),
        weights_behind([content.get("embeddings")]),
        data_behind([content.get("embeddings")]),
        content.get("challenge_fingerprint"),
        content.get("challenge_drawn_for"),
    )
