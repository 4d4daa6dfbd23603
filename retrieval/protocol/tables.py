"""The recall matrix with intervals and chance levels, computed from ranks and written to files."""

import csv
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

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
from retrieval.protocol.outcome import Outcome, write_ranks
from retrieval.results.naming import RANKS_FILE, RECALL_FILE, SITE_PAIRS_FILE
from retrieval.statistics.bootstrap import resampled
from retrieval.statistics.ranks import METRICS, Floats
from zipformer.files import column_names, replacing, write_csv, write_json

logger = logging.getLogger(__name__)


LEVEL = 0.05  # significance level of p-values
SUMMARY_NAMES = {
    "trained": "between trained groups",
    "held_out": "with a held-out group",
    "all": "all pairs of groups",
    "within": "within groups (ceiling)",
}


@dataclass(frozen=True)
class PairRow:
    """Recall of an ordered pair of groups; ``recall_at_1``, ``low``, ``high`` and ``chance`` in per cent."""

    source: str
    target: str
    recall_at_1: float
    low: float
    high: float
    chance: float
    site_pairs: int
    queries: int


@dataclass(frozen=True)
class SummaryRow:
    """Unweighted mean over ordered pairs of groups; rates in per cent.

    ``name`` is ``trained`` (the model was trained on both groups), ``held_out`` (on at most one of them),
    ``all``, or ``within`` (other sites of the same group).
    """

    name: str
    pairs: int
    recall_at_1: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True)
class RecallTable:
    """The result of a retrieval.

    Attributes:
        groups: rows and columns of the matrix.
        trained_groups: groups that the encoder was trained on; None if unknown.
        pairs: all ordered pairs of different groups.
        within: results for different sites of one group, separate from the matrix: a ceiling beyond the
            protocol.
        summary: means over pairs.
        metrics: all metrics of the pairs and of the means, with their tests against chance.
        single_site_groups: groups with one site, which the intervals do not resample.
    """

    groups: list[str]
    trained_groups: list[str] | None
    pairs: list[PairRow]
    within: list[PairRow]
    summary: list[SummaryRow]
    metrics: list[MetricRow] = field(default_factory=list)
    single_site_groups: list[str] | None = None

    @property
    def held_out_groups(self) -> list[str]:
        """Groups that the encoder was not trained on; empty if unknown."""
        return [] if self.trained_groups is None else [g for g in self.groups if g not in self.trained_groups]

    @property
    def parts(self) -> dict[str, list[Pair]]:
        """Pairs of different groups that are averaged together (:func:`parts_of`)."""
        return parts_of([(row.source, row.target) for row in self.pairs], self.trained_groups)

    @property
    def resampled(self) -> str:
        """Resampled units of the intervals, for captions."""
        return resampled(self.groups, self.single_site_groups)

    @property
    def doubtful_pairs(self) -> set[Pair]:
        """Pairs of groups whose recall@1 is not significantly above chance, with p adjusted for all pairs."""
        return {
            (row.source, row.target)
            for row in self.metrics
            if (row.part, row.metric) == (PAIR, METRICS[0]) and row.p_holm is not None and row.p_holm > LEVEL
        }

    def matrix(self) -> NDArray[np.float64]:
        """Recall@1 (G,G) in per cent, source by target; NaN without queries."""
        return _matrix(self.groups, self.pairs)


def _matrix(groups: Sequence[str], pairs: Iterable[PairRow]) -> NDArray[np.float64]:
    number = {group: index for index, group in enumerate(groups)}
    matrix = np.full((len(groups), len(groups)), np.nan)
    for row in pairs:
        matrix[number[row.source], number[row.target]] = row.recall_at_1
    return matrix


def tabulate(
    outcome: Outcome,
    *,
    trained_groups: Sequence[str] | None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> RecallTable:
    """Means over site pairs with bootstrap intervals (see :mod:`retrieval.statistics.bootstrap`).

    Args:
        outcome: ranks of all queries.
        trained_groups: groups that the encoder was trained on; None if unknown.
        resamples: number of bootstrap resamples.
        confidence: confidence level of the intervals.
        seed: random seed of the bootstrap.
    """
    estimator = Estimator(outcome, resamples=resamples, confidence=confidence, seed=seed)
    pairs = estimator.pairs()
    trained = None
    if trained_groups is not None:
        trained = [group for group in estimator.groups if group in trained_groups]
    parts = parts_of(pairs, trained)
    estimates: dict[Pair, Estimate] = {}
    pools: dict[str, Floats] = {}
    for pair in track(pairs, description="resampling"):
        estimates[pair], pool = estimator.estimate(pair)
        for name, members in parts.items():
            if pair in members:
                pools[name] = sum_padded([pools[name], pool]) if name in pools else pool
    means = {
        name: estimator.mean([estimates[pair] for pair in members], pools[name])
        for name, members in parts.items()
    }
    different = {pair: estimates[pair] for pair in pairs if pair[0] != pair[1]}
    warn_if_too_few(outcome.permuted, len(different))
    within = {pair: estimates[pair] for pair in pairs if pair[0] == pair[1]}
    rows = metric_rows(PAIR, different, adjust=True) + metric_rows(CEILING, within, adjust=True)
    for name, mean in means.items():
        rows += metric_rows(name, {("", ""): mean}, adjust=False)
    return RecallTable(
        estimator.groups,
        trained,
        [_pair_row(*item) for item in different.items()],
        [_pair_row(*item) for item in within.items()],
        [
            SummaryRow(name, len(parts[name]), *_recall_at_1(mean), 100 * float(mean.chance[0]))
            for name, mean in means.items()
        ],
        rows,
        estimator.single_site_groups,
    )


def warn_if_too_few(permuted: Mapping[Pair, Floats] | None, pairs: int) -> None:
    """Warn if no p-value can be significant after adjustment for the number of pairs."""
    if permuted:
        permutations = len(next(iter(permuted.values())))
        if pairs / (1 + permutations) > LEVEL:
            logger.warning(
                "%d permutations are too few to be sure of any of %d pairs of groups: take %d or more",
                permutations,
                pairs,
                math.ceil(pairs / LEVEL) - 1,
            )


def parts_of(pairs: Sequence[Pair], trained: Sequence[str] | None) -> dict[str, list[Pair]]:
    """Parts of the pairs of groups that are averaged together, according to the training of the encoder.

    Args:
        pairs: ordered pairs of groups.
        trained: groups that the encoder was trained on; None if unknown.

    Returns:
        Pairs by name of the part, see :class:`SummaryRow`; parts without pairs are left out.
    """
    different = [pair for pair in pairs if pair[0] != pair[1]]
    parts: dict[str, list[Pair]] = {}
    if trained is not None:
        parts["trained"] = [pair for pair in different if pair[0] in trained and pair[1] in trained]
        parts["held_out"] = [pair for pair in different if pair not in set(parts["trained"])]
    parts |= {"all": different, "within": [pair for pair in pairs if pair[0] == pair[1]]}
    return {name: members for name, members in parts.items() if members}


def _pair_row(pair: Pair, estimate: Estimate) -> PairRow:
    chance = 100 * float(estimate.chance[0])
    return PairRow(*pair, *_recall_at_1(estimate), chance, estimate.site_pairs, estimate.queries)


def _recall_at_1(estimate: Estimate) -> tuple[float, float, float]:
    """Value, low and high in per cent."""
    low, high = estimate.intervals[0]
    return 100 * float(estimate.value[0]), 100 * low, 100 * high


def write_tables(directory: Path, table: RecallTable, outcome: Outcome, header: dict[str, object]) -> None:
    """Write all files of a retrieval except the figure: recall, metrics, pairs of sites and ranks."""
    write_recall_json(directory / RECALL_FILE, table, header)
    write_recall_csv(directory / "recall.csv", table)
    write_csv(directory / "metrics.csv", column_names(MetricRow), map(asdict, table.metrics))
    write_site_pairs(directory / SITE_PAIRS_FILE, outcome)
    write_ranks(directory / RANKS_FILE, outcome)


def write_recall_json(path: Path, table: RecallTable, header: dict[str, object]) -> None:
    """Write ``recall.json``: the header (split, model_dir, settings) and the table; rates in per cent."""
    content = header | {"held_out_groups": table.held_out_groups} | asdict(table)
    write_json(path, content)


def write_recall_csv(path: Path, table: RecallTable) -> None:
    """Write ``recall.csv``: one line for each ordered pair of groups, pairs within a group last."""
    write_csv(path, column_names(PairRow), map(asdict, [*table.pairs, *table.within]))


def write_site_pairs(path: Path, outcome: Outcome) -> None:
    """Write ``site_pairs.csv``: one line for each ordered pair of sites; ``hits`` has fractions for ties."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                *("source", "source_site", "target", "target_site", "queries", "hits"),
                *("recall_at_1", "chance", *METRICS[1:], *(f"{metric}_chance" for metric in METRICS[1:])),
            ]
        )
        units = np.array([unit_of(metric) for metric in METRICS])
        for a, source in enumerate(outcome.sites):
            for b, target in enumerate(outcome.sites):
                if queries := outcome.queries(a, b):
                    hits = float(np.nansum(outcome.hits[a, b]))
                    rates, chance = units * outcome.metrics(a, b), units * outcome.chance_metrics(a, b)
                    numbers = [rates[0], chance[0], *rates[1:], *chance[1:]]
                    writer.writerow(
                        [source.group, source.name, target.group, target.name, queries, hits, *numbers]
                    )
