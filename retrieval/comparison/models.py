"""Compares models on the same queries, with intervals and tests of the differences.

Differences are paired: the same sentences and sites are resampled for all models, and the permutation test
swaps the answers for a sentence between two models (:mod:`retrieval.statistics.significance`). Therefore all
models must have the same queries with the same candidates (:mod:`retrieval.comparison.finished`).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from retrieval.comparison.finished import Finished
from retrieval.protocol.estimates import (
    CEILING,
    PAIR,
    Estimate,
    Estimator,
    MetricRow,
    Pair,
    metric_rows,
    sum_padded,
    unit_of,
)
from retrieval.protocol.outcome import Outcome
from retrieval.protocol.tables import parts_of
from retrieval.results.naming import COMPARISON_FILE
from retrieval.results.weights import data_behind, weights_behind
from retrieval.statistics.bootstrap import Factor, metric_difference_intervals, resampled
from retrieval.statistics.ranks import METRICS, Floats, distributions_of_queries
from retrieval.statistics.significance import draw_swaps, holm, paired_p_values, swapped_differences
from zipformer.errors import UserError
from zipformer.files import column_names, write_csv, write_json
from zipformer.typed_json import names_or_none, read_rows, require

logger = logging.getLogger(__name__)


@dataclass
class CompareConfig:
    """Settings of a comparison.

    Attributes:
        results: folders that fangyan retrieve wrote (``exp/a/averaged/results/mini/retrieval-test``), or
            model directories. Each model is compared with each later one.
        output: folder for the tables and the figure; null = ``comparison-{split}...`` beside the first
            results, where the report finds it.
        names: names of the models, in the order of ``results``; empty = names from the folders.
        split: split of the results, if a model directory is given.
        dataset: data set of the results, if a model directory is given; null = the only data set with
            results.
        resamples: number of bootstrap resamples.
        confidence: confidence level of the intervals.
        permutations: number of permutations of the paired tests.
        seed: random seed of the bootstrap and of the permutations.
        any_dimension: allow models of one kind whose embeddings differ in dimension.
    """

    results: list[str]
    output: str | None = None
    names: list[str] = field(default_factory=list)
    split: str = "test"
    dataset: str | None = None
    resamples: int = 1000
    confidence: float = 0.95
    permutations: int = 9999
    seed: int = 0
    any_dimension: bool = False

    def __post_init__(self) -> None:
        if len(self.results) < 2:
            raise UserError("a comparison needs at least two models: give their folders as results=[...]")
        if self.names and len(self.names) != len(self.results):
            raise UserError(f"{len(self.names)} names for {len(self.results)} results: give one for each")
        if self.resamples < 1 or self.permutations < 1:
            raise UserError("resamples and permutations must be at least 1")
        if not 0 < self.confidence < 1:
            raise UserError(f"confidence={self.confidence} must be between 0 and 1")


@dataclass(frozen=True)
class DifferenceRow:
    """Metric of one model minus that of another, mean over site pairs; rates in percentage points.

    ``part``, ``source`` and ``target`` are those of :class:`retrieval.protocol.estimates.MetricRow`. ``p``
    is the two-sided p-value of the paired test. ``p_holm`` is adjusted for all pairs of groups of the part; a
    mean over pairs is adjusted for all pairs of models.
    """

    first: str
    second: str
    part: str
    source: str
    target: str
    metric: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class Comparison:
    """Models, their metrics, and the difference of each model with each later one.

    ``single_site_groups`` are groups with one site, which the intervals do not resample; None if unknown.
    """

    models: list[str]
    groups: list[str]
    metrics: dict[str, list[MetricRow]]
    differences: list[DifferenceRow]
    single_site_groups: list[str] | None = None

    @property
    def resampled(self) -> str:
        """Resampled units of the intervals, for captions."""
        return resampled(self.groups, self.single_site_groups)


def compare(
    models: Sequence[Finished],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    permutations: int = 9999,
    seed: int = 0,
) -> Comparison:
    """Metrics of all models and differences of all pairs of models.

    Args:
        models: finished retrievals that ``check_same_queries`` accepted.
        resamples: number of bootstrap resamples.
        confidence: confidence level of the intervals.
        permutations: number of permutations of the paired tests.
        seed: random seed of the resamples and of the permutations.
    """
    estimators = [
        Estimator(model.outcome, resamples=resamples, confidence=confidence, seed=seed) for model in models
    ]
    pairs = estimators[0].pairs()
    parts = parts_of(pairs, _common_trained(models))
    estimates: list[dict[Pair, Estimate]] = [{} for _ in models]
    pools: list[dict[str, Floats]] = [{} for _ in models]
    swaps = draw_swaps(len(models[0].outcome.sentences), permutations=permutations, seed=seed)
    versus = list(combinations(range(len(models)), 2))
    swapped: dict[tuple[int, int], dict[Pair, Floats]] = {which: {} for which in versus}
    for pair in track(pairs, description="comparing"):
        for n, estimator in enumerate(estimators):
            estimates[n][pair], pool = estimator.estimate(pair)
            for name, members in parts.items():
                if pair in members:
                    pools[n][name] = sum_padded([pools[n][name], pool]) if name in pools[n] else pool
        site_pairs = estimators[0].site_pairs(pair)
        for i, j in versus:
            swapped[i, j][pair] = _swapped(models[i].outcome, models[j].outcome, site_pairs, swaps)

    sections = {
        PAIR: [pair for pair in pairs if pair[0] != pair[1]],
        CEILING: [pair for pair in pairs if pair[0] == pair[1]],
    }
    metrics: dict[str, list[MetricRow]] = {}
    means: list[dict[str, Estimate]] = []
    for n, (model, estimator) in enumerate(zip(models, estimators, strict=True)):
        rows: list[MetricRow] = []
        for part, members in sections.items():
            rows += metric_rows(part, {pair: estimates[n][pair] for pair in members}, adjust=False)
        means.append(
            {
                name: estimator.mean([estimates[n][pair] for pair in members], pools[n][name])
                for name, members in parts.items()
            }
        )
        for name, mean in means[n].items():
            rows += metric_rows(name, {("", ""): mean}, adjust=False)
        metrics[model.name] = rows

    differences: list[DifferenceRow] = []
    names = [model.name for model in models]
    factors = estimators[0].draws.factors  # the same for all models
    for i, j in versus:
        for part, members in sections.items():
            cells = {pair: (estimates[i][pair], estimates[j][pair], swapped[i, j][pair]) for pair in members}
            differences += _adjusted(
                [
                    _differences(names[i], names[j], part, pair, *cells[pair], factors, confidence)
                    for pair in members
                ]
            )
    for part, members in parts.items():
        rows_of_part = []
        for i, j in versus:
            null = np.mean([swapped[i, j][pair] for pair in members], axis=0)
            both = means[i][part], means[j][part]
            rows_of_part.append(
                _differences(names[i], names[j], part, ("", ""), *both, null, factors, confidence)
            )
        differences += _adjusted(rows_of_part)
    first = estimators[0]
    return Comparison(names, first.groups, metrics, differences, first.single_site_groups)


def _common_trained(models: Sequence[Finished]) -> list[str] | None:
    """Groups that all models were trained on; None if they were trained on different groups."""
    known = [model.content.get("trained_groups") for model in models]
    if any(groups != known[0] for groups in known):
        logger.warning("the models were trained on different groups: no means by what was trained on")
        return None
    return known[0]


def _swapped(first: Outcome, second: Outcome, site_pairs: Sequence[tuple[int, int]], swaps: Floats) -> Floats:
    """Differences (B,M) of a pair of groups with swapped answers, mean over site pairs."""
    total = np.zeros((len(swaps), len(METRICS)))
    for a, b in site_pairs:
        places = [(outcome.above[a, b], outcome.equal[a, b]) for outcome in (first, second)]
        ranks = max(int((above + equal).max()) for above, equal in places)
        ours, theirs = (distributions_of_queries(above, equal, ranks) for above, equal in places)
        total += swapped_differences(ours, theirs, swaps)
    return total / len(site_pairs)


def _differences(
    first: str,
    second: str,
    part: str,
    pair: Pair,
    ours: Estimate,
    theirs: Estimate,
    null: Floats,
    factors: Sequence[Factor],
    confidence: float,
) -> list[DifferenceRow]:
    """One row for each metric, with unadjusted p."""
    difference = ours.value - theirs.value
    intervals = metric_difference_intervals(
        difference,
        ours.replicates - theirs.replicates,
        factors=factors,
        sentences=int(ours.sentences.sum()),
        pool=ours.pool,
        confidence=confidence,
    )
    p_values = paired_p_values(difference, null)
    rows = []
    for m, metric in enumerate(METRICS):
        unit = unit_of(metric)
        low, high = intervals[m]
        p = float(p_values[m])
        rows.append(
            DifferenceRow(
                first, second, part, *pair, metric, unit * float(difference[m]), unit * low, unit * high, p, p
            )
        )
    return rows


def _adjusted(rows: Sequence[Sequence[DifferenceRow]]) -> list[DifferenceRow]:
    """All rows with p adjusted for their number, separately for each metric."""
    adjusted = [holm([row[m].p for row in rows]) for m in range(len(METRICS))]
    return [
        DifferenceRow(**(asdict(row) | {"p_holm": adjusted[m][n]}))
        for n, of_cell in enumerate(rows)
        for m, row in enumerate(of_cell)
    ]


def write_comparison(
    directory: Path, comparison: Comparison, models: Sequence[Finished], settings: Mapping[str, Any]
) -> None:
    """Write ``comparison.json``, ``comparison.csv`` (metrics by model) and ``differences.csv``.

    Args:
        directory: folder to write into.
        comparison: metrics and differences.
        models: compared results. For results beside ``directory``, which belong to the same model directory,
            the digests of weights and data are recorded (:mod:`retrieval.results.weights`).
        settings: settings of the comparison.
    """
    beside = [model for model in models if model.path.resolve().parent == directory.resolve().parent]
    embeddings = [model.content.get("embeddings") or {} for model in beside]
    content = {
        "settings": dict(settings),
        "weights": weights_behind(embeddings),
        "data": data_behind(embeddings),
        "models": [
            {
                "name": model.name,
                "results": str(model.path),
                "dimension": model.dimension,
                "settings": model.content["settings"],
            }
            for model in models
        ],
        "groups": comparison.groups,
        "single_site_groups": comparison.single_site_groups,
        "metrics": {name: [asdict(row) for row in rows] for name, rows in comparison.metrics.items()},
        "differences": [asdict(row) for row in comparison.differences],
    }
    metrics = [{"model": name} | asdict(row) for name, rows in comparison.metrics.items() for row in rows]
    write_json(directory / COMPARISON_FILE, content)
    write_csv(directory / "comparison.csv", ["model", *column_names(MetricRow)], metrics)
    differences = map(asdict, comparison.differences)
    write_csv(directory / "differences.csv", column_names(DifferenceRow), differences)


def read_comparison(content: Mapping[str, Any], path: Path) -> Comparison:
    """Comparison from the content of ``comparison.json``.

    Raises:
        MalformedResultError: a field is missing.
    """
    require(content, {"groups": list, "metrics": dict, "differences": list}, path, "compare")
    metrics = {
        model: read_rows(MetricRow, rows, path, model, "compare")
        for model, rows in content["metrics"].items()
    }
    differences = read_rows(DifferenceRow, content["differences"], path, "differences", "compare")
    single = names_or_none(content, "single_site_groups", path, "compare")
    return Comparison(list(metrics), content["groups"], metrics, differences, single)
