"""The parts of the report about all metrics and their tests, and about the comparison of models."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.comparison.figure import comparison_figure
from retrieval.comparison.models import DifferenceRow, read_comparison
from retrieval.figures.style import svg_data_uri
from retrieval.protocol.estimates import PAIR, MetricRow
from retrieval.protocol.reading import RecallResult
from retrieval.protocol.tables import LEVEL, SUMMARY_NAMES
from retrieval.protocol.views import TITLES
from retrieval.results.weights import Digests, recorded_weights
from retrieval.statistics.ranks import METRICS
from zipformer.typed_json import names_or_none, read_json


@dataclass(frozen=True)
class RanksSection:
    """Variables of the template ``_ranks.html.j2``.

    Attributes:
        titles: titles of the metrics, in their order.
        means: name of each part of the pairs of groups, with the rows of all metrics of its mean.
        tested: number of pairs of groups with a test against chance.
        sure: number of these pairs with recall@1 significantly above chance, by adjusted p.
    """

    titles: list[str]
    means: list[tuple[str, list[MetricRow]]]
    tested: int
    sure: int
    level: float


@dataclass(frozen=True)
class ComparisonSection:
    """Variables of the template ``_comparison.html.j2``.

    Attributes:
        titles: titles of the metrics, in their order.
        figure: ``data:`` address of the figure.
        models: name of a part of the pairs of groups, name of a model, rows of all metrics of the mean.
        differences: name of a part of the pairs of groups, the two models, rows of all metrics.
        settings: settings of the comparison.
        weights, data: digests behind the models of this model directory
            (:mod:`retrieval.results.weights`).
        resampled: units that were resampled for the intervals, for captions.
    """

    titles: list[str]
    figure: str
    models: list[tuple[str, str, list[MetricRow]]]
    differences: list[tuple[str, str, list[DifferenceRow]]]
    settings: Mapping[str, Any]
    weights: Digests
    data: Digests
    resampled: str


def ranks_section(result: RecallResult | None) -> RanksSection | None:
    """The metrics of a retrieval; None if there is no retrieval or it has only recall@1."""
    if result is None or not result.table.metrics:
        return None
    rows = result.table.metrics
    means = [(name, [row for row in rows if row.part == part]) for part, name in SUMMARY_NAMES.items()]
    adjusted = [
        row.p_holm for row in rows if (row.part, row.metric) == (PAIR, METRICS[0]) and row.p_holm is not None
    ]
    return RanksSection(
        [TITLES[metric] for metric in METRICS],
        [(name, of_part) for name, of_part in means if of_part],
        tested=len(adjusted),
        sure=sum(p <= LEVEL for p in adjusted),
        level=LEVEL,
    )


def comparison_section(path: Path) -> ComparisonSection | None:
    """The section from ``comparison.json``; None if there is no such file."""
    content = read_json(path, "compare")
    if content is None:
        return None
    comparison = read_comparison(content, path)
    models = [
        (name, model, [row for row in rows if row.part == part])
        for part, name in SUMMARY_NAMES.items()
        for model, rows in comparison.metrics.items()
    ]
    versus = dict.fromkeys((row.first, row.second) for row in comparison.differences)
    differences = [
        (
            name,
            f"{first} - {second}",
            [
                row
                for row in comparison.differences
                if (row.part, row.first, row.second) == (part, first, second)
            ],
        )
        for part, name in SUMMARY_NAMES.items()
        for first, second in versus
    ]
    return ComparisonSection(
        [TITLES[metric] for metric in METRICS],
        svg_data_uri(comparison_figure(comparison)),
        [item for item in models if item[2]],
        [item for item in differences if item[2]],
        content.get("settings", {}),
        recorded_weights(content),
        names_or_none(content, "data", path, "compare"),
        comparison.resampled,
    )
