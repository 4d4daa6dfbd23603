"""Figure of the challenge sets: means with their chance levels, and a matrix of groups for every set."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from retrieval.challenge.results import ChallengeResults, ChallengeRow
from retrieval.challenge.settings import RANDOM_ENDING
from retrieval.figures.fonts import label
from retrieval.figures.style import PALETTE, style

PANELS = 3  # matrices side by side
DIAMOND: dict[str, Any] = {
    "marker": "D", "markersize": 5, "markerfacecolor": "white", "markeredgecolor": "black",
    "linestyle": "none", "zorder": 5,
}  # fmt: skip


def challenge_figure(comparison: ChallengeResults) -> Figure:
    """Upper part: mean recall@1 of every system on every set, with interval.

    A black line marks chance, a diamond the recall on random pools of the same size. Lower part: recall@1 of
    the first system by source and target group, one matrix for each set.
    """
    plain = [name for name in comparison.sets if not name.endswith(RANDOM_ENDING)]
    sets = plain or comparison.sets  # random sets alone only if there are no others
    side = max(2.2, 0.44 * len(comparison.groups) + 0.5)
    with style():
        lower = -(-len(sets) // PANELS) * (side + 0.4) + 0.6
        figure = Figure(figsize=(max(9.0, PANELS * side + 1.5), 3.2 + lower), layout="constrained")
        places = figure.add_gridspec(2, 1, height_ratios=(3.2, lower))
        _bars(figure.add_subplot(places[0]), comparison, sets)
        _matrices(figure, places[1], comparison, sets)
    return figure


def _bars(axes: Axes, comparison: ChallengeResults, sets: Sequence[str]) -> None:
    rows = {(row.system, row.challenge): row for row in comparison.overall()}
    systems = comparison.systems
    width = 0.8 / len(systems)
    for index, system in enumerate(systems):
        shown = [(x, rows[system, name]) for x, name in enumerate(sets) if (system, name) in rows]
        places = [x + (index - (len(systems) - 1) / 2) * width for x, _ in shown]
        rates = [row.recall_at_1 for _, row in shown]
        axes.bar(places, rates, 0.9 * width, color=PALETTE[index % len(PALETTE)], label=label(system))
        axes.errorbar(
            places,
            rates,
            [[max(0.0, row.recall_at_1 - row.low) for _, row in shown],
             [max(0.0, row.high - row.recall_at_1) for _, row in shown]],
            fmt="none", ecolor="#222222", elinewidth=1, capsize=2.5,
        )  # fmt: skip
        for place, (_, row) in zip(places, shown, strict=True):
            top = max(row.high, row.recall_at_1)
            axes.hlines(
                row.chance, place - 0.45 * width, place + 0.45 * width, color="black", linewidth=2, zorder=4
            )
            if drawn := rows.get((system, row.challenge + RANDOM_ENDING)):
                top = max(top, drawn.recall_at_1 + 2)
                axes.plot(place - 0.25 * width, drawn.recall_at_1, **DIAMOND)
            axes.annotate(
                f"{row.recall_at_1:.1f}", (place, top), (0, 2), textcoords="offset points", ha="center",
                fontsize=8,
            )  # fmt: skip
    axes.hlines([], 0, 0, color="black", linewidth=2, label="chance")
    if any(name.endswith(RANDOM_ENDING) for name in comparison.sets):
        axes.plot([], [], label="as many at random", **DIAMOND)
    chances = {row.challenge: row.chance for row in reversed(comparison.overall())}
    labels = [f"{label(name)}\nchance {chances[name]:.1f} %" for name in sets]
    axes.set_xticks(range(len(sets)), labels)
    axes.grid(False, axis="x")
    axes.set_xlabel("challenge set")
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("recall@1 (%)")
    axes.set_title("Mean over ordered pairs of groups", loc="left")
    axes.legend(ncols=4, loc="lower right", bbox_to_anchor=(1, 1), fontsize=8)


def _matrices(figure: Figure, place: SubplotSpec, comparison: ChallengeResults, sets: Sequence[str]) -> None:
    system, groups = comparison.systems[0], comparison.groups
    panels = place.subgridspec(-(-len(sets) // PANELS), PANELS).subplots(sharey=True, squeeze=False).ravel()
    for axes in panels[len(sets) :]:
        axes.set_axis_off()
    names = [label(group) + ("*" if group in comparison.held_out else "") for group in groups]
    colours = matplotlib.colormaps["cividis"].with_extremes(bad="#eeeeee")
    for number, (axes, name) in enumerate(zip(panels, sets, strict=False)):
        rows = [row for row in comparison.pairs() if (row.system, row.challenge) == (system, name)]
        axes.imshow(_matrix(groups, rows), cmap=colours, vmin=0, vmax=100)
        for row in rows:
            colour = "black" if row.recall_at_1 > 55 else "white"
            x, y = groups.index(row.target), groups.index(row.source)
            axes.text(x, y, f"{row.recall_at_1:.0f}", ha="center", va="center", color=colour, fontsize=7.5)
        axes.set_xticks(range(len(groups)), names, rotation=45, ha="right", fontsize=8)
        axes.set_yticks(range(len(groups)), names, fontsize=8)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_title(label(name), fontsize=9)
        axes.set_xlabel("target group (pool)")
        if number % PANELS == 0:
            axes.set_ylabel("source group (query)")
    note = "    * not trained on" if comparison.held_out else ""
    figure.supxlabel(f"system: {label(system)}{note}", fontsize=10)
    scale = ScalarMappable(Normalize(0, 100), cmap=colours)
    bar = figure.colorbar(scale, ax=list(panels), shrink=0.8, label="recall@1 (%)")
    bar.outline.set_visible(False)


def _matrix(groups: Sequence[str], rows: Sequence[ChallengeRow]) -> np.ma.MaskedArray:
    matrix = np.full((len(groups), len(groups)), np.nan)
    for row in rows:
        matrix[groups.index(row.source), groups.index(row.target)] = row.recall_at_1
    return np.ma.masked_invalid(matrix)
