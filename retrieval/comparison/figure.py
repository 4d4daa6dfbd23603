"""Figure of models side by side."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from retrieval.comparison.models import Comparison
from retrieval.figures.fonts import label
from retrieval.figures.style import PALETTE, style
from retrieval.protocol.estimates import PAIR, MetricRow
from retrieval.statistics.ranks import METRICS

AXIS_NAMES = {
    "recall_at_1": "recall@1 (%)",
    "recall_at_5": "recall@5 (%)",
    "recall_at_10": "recall@10 (%)",
    "mrr": "mean reciprocal rank (%)",
    "median_rank": "median rank (low is good)",
}
MARKERS = "osD^vPX*"
MOST_PAIRS = 60  # pairs of groups that fit beside each other


def comparison_figure(comparison: Comparison) -> Figure:
    """Means of all metrics over pairs of groups, and recall@1 of every pair; one colour for each model.

    Bars are the intervals; the dashed line is chance.
    """
    models = comparison.models
    pairs = [
        (row.source, row.target)
        for row in comparison.metrics[models[0]]
        if row.part == PAIR and row.metric == METRICS[0]
    ]
    with_pairs = len(pairs) <= MOST_PAIRS
    height = 1.5 + 0.3 * len(models)
    width = max(11.5, 0.32 * len(pairs) * max(1.0, len(models) / 3) + 1.5) if with_pairs else 11.5
    with style():
        figure = Figure(figsize=(width, height + (4.2 if with_pairs else 0)), layout="constrained")
        grid = figure.add_gridspec(
            2 if with_pairs else 1, len(METRICS), height_ratios=[height, 4.2][: 1 + with_pairs]
        )
        first = figure.add_subplot(grid[0, 0])
        for n, metric in enumerate(METRICS):
            axes = figure.add_subplot(grid[0, n], sharey=first) if n else first
            _means(axes, comparison, metric)
            axes.tick_params(axis="y", labelleft=axes is first)
        first.set_ylabel("model")
        if with_pairs:
            _pairs(figure.add_subplot(grid[1, :]), comparison, pairs)
        figure.suptitle(
            "Mean over pairs of groups, with interval; dashed: chance", x=0.01, ha="left", fontsize=11
        )
    return figure


def _means(axes: Axes, comparison: Comparison, metric: str) -> None:
    """One metric of all models, one line each."""
    rows = []
    for n, model in enumerate(comparison.models):
        row = next(r for r in comparison.metrics[model] if r.part == "all" and r.metric == metric)
        rows.append(row)
        _point(axes, row, n, vertical=False, place=n)
        axes.annotate(
            f"{row.value:.1f}",
            (row.value, n),
            (0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
    axes.axvline(rows[0].chance, color="#222222", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(rows)), [label(model) for model in comparison.models])
    axes.set_ylim(len(rows) - 0.5, -0.7)
    axes.grid(False, axis="y")
    axes.set_xlabel(AXIS_NAMES[metric])
    if metric == "median_rank":
        largest = max([rows[0].chance, *(row.high for row in rows)])
        axes.set_xlim(-0.08 * largest, 1.08 * largest)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    else:
        axes.set_xlim(-4, 106)
        axes.set_xticks([0, 25, 50, 75, 100])


def _pairs(axes: Axes, comparison: Comparison, pairs: list[tuple[str, str]]) -> None:
    """Recall@1 of every ordered pair of groups, the models beside each other."""
    spread = 0.7
    chance = np.zeros(len(pairs))
    for n, model in enumerate(comparison.models):
        rows = {
            (row.source, row.target): row
            for row in comparison.metrics[model]
            if row.part == PAIR and row.metric == METRICS[0]
        }
        for x, pair in enumerate(pairs):
            place = x + spread * ((n + 0.5) / len(comparison.models) - 0.5)
            _point(axes, rows[pair], n, vertical=True, place=place, label=label(model) if x == 0 else None)
            chance[x] = rows[pair].chance
    edges = np.arange(len(pairs) + 1) - 0.5
    axes.stairs(chance, edges, baseline=None, color="#222222", linestyle="--", linewidth=1, label="chance")
    for x in range(1, len(pairs)):
        if pairs[x][0] != pairs[x - 1][0]:
            axes.axvline(x - 0.5, color="#bbbbbb", linewidth=0.8)
    axes.set_xticks(
        range(len(pairs)),
        [f"{label(source)} → {label(target)}" for source, target in pairs],
        rotation=60,
        ha="right",
        rotation_mode="anchor",
    )
    axes.tick_params(axis="x", labelsize=8, length=0)
    axes.grid(False, axis="x")
    axes.set_xlim(-0.6, len(pairs) - 0.4)
    axes.set_ylim(-2, 104)
    axes.set_ylabel("recall@1 (%)")
    axes.set_xlabel("source → target group")
    axes.legend(ncols=len(comparison.models) + 1, loc="lower right", bbox_to_anchor=(1, 1), fontsize=9)


def _point(
    axes: Axes, row: MetricRow, number: int, *, vertical: bool, place: float, label: str | None = None
) -> None:
    """A value with its interval, with the colour and marker of a model."""
    errors = [[max(0.0, row.value - row.low)], [max(0.0, row.high - row.value)]]
    x, y = (place, row.value) if vertical else (row.value, place)
    axes.errorbar(
        x,
        y,
        yerr=errors if vertical else None,
        xerr=None if vertical else errors,
        fmt=MARKERS[number % len(MARKERS)],
        color=PALETTE[number % len(PALETTE)],
        markersize=4 if vertical else 5,
        elinewidth=1.4,
        label=label,
    )
