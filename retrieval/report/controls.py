"""The part of the report about the model and its controls."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.comparison.controls import PERMUTED, SOUND, ControlRow, read_controls, shown_parts
from retrieval.results.weights import Digests, data_behind, weights_behind
from retrieval.statistics.bootstrap import resampled
from zipformer.typed_json import names_or_none


@dataclass(frozen=True)
class ControlsSection:
    """Controls in the report.

    Attributes:
        rows: rows of the parts that are shown.
        sounds: rows of the controls of sound alone, for all parts of the pairs of groups.
        groups: groups of the retrieval; None if unknown.
        confidence, level: settings of the same names.
        settings: all settings.
        weights, data: digests behind the embeddings (:mod:`retrieval.results.weights`).
        resampled: units that were resampled for the intervals, for captions.
        permuted_draws: number of draws of permuted sentences; None without this control.
    """

    rows: list[ControlRow]
    sounds: list[ControlRow]
    groups: list[str] | None
    confidence: float
    level: str
    settings: Mapping[str, Any]
    weights: Digests
    data: Digests
    resampled: str
    permuted_draws: int | None


def controls_section(path: Path) -> ControlsSection | None:
    """The section of the report from a ``controls.json``; None if there is no such file.

    Raises:
        MalformedResultError: see :func:`read_controls`.
    """
    found = read_controls(path)
    if found is None:
        return None
    rows, header = found
    parts = shown_parts(rows)
    settings, embeddings = header.get("settings", {}), header.get("embeddings")
    groups = names_or_none(header, "groups", path, "controls")
    single = names_or_none(header, "single_site_groups", path, "controls")
    permuted = any(row.name == PERMUTED for row in rows)
    return ControlsSection(
        [row for row in rows if row.pairs in parts],
        [row for row in rows if row.name.partition("-")[0] in SOUND],
        groups,
        float(settings.get("confidence", 0.95)),
        str(settings.get("level", "group")),
        settings,
        weights_behind(embeddings.values()) if isinstance(embeddings, dict) else None,
        data_behind(embeddings.values()) if isinstance(embeddings, dict) else None,
        resampled(groups or [], single),
        settings["permuted_draws"] if permuted else None,
    )
