"""Figure of a model and its controls."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from retrieval.comparison.controls import MODEL, ControlRow, shown_parts
from retrieval.figures.fonts import label
from retrieval.figures.style import PALETTE, style
from retrieval.protocol.tables import SUMMARY_NAMES

MARKERS = ("o", "D")  # one for each part of the pairs of groups
MODEL_COLOUR, SCORE_COLOUR, CONTROL_COLOUR = PALETTE[0], PALETTE[2], PALETTE[1]


def control_dots(rows: Sequence[ControlRow], *, confidence: float = 0.95) -> Figure:
    """Recall@1 with interval, one line for the model and for each control; dashed: chance.

    The model has one colour, its frames with other scores a second one, controls a third. Pairs with held-out
    groups have a marker of their own.
    """
    parts = shown_parts(rows)
    names = list(dict.fromkeys(row.name for row in rows))
    labels = {row.name: row.label for row in rows}
    chance = sum(row.chance for row in rows) / len(rows)
    step = 0.3
    with style():
        figure = Figure(figsize=(7.6, 0.44 * len(names) + 1.6), layout="constrained")
        axes = figure.add_subplot()
        for number, part in enumerate(parts):
            shift = (number - (len(parts) - 1) / 2) * step
            for row in rows:
                if row.pairs != part:
                    continue
                y = names.index(row.name) + shift
                colour = _colour(row.name)
                error = [[max(0.0, row.recall_at_1 - row.low)], [max(0.0, row.high - row.recall_at_1)]]
                axes.errorbar(
                    row.recall_at_1,
                    y,
                    xerr=error,
                    fmt=MARKERS[number],
                    color=colour,
                    markerfacecolor=colour if number == 0 else "white",
                    markersize=5,
                    elinewidth=1.3,
                    capsize=2.5,
                )
                axes.annotate(
                    f"{row.recall_at_1:.1f}",
                    (max(row.high, row.recall_at_1), y),
                    (5, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                )
        axes.axvline(chance, color="#444444", linewidth=1.2, linestyle="--")
        axes.set_yticks(range(len(names)), [label(labels[name]) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, 108)
        axes.set_xticks(range(0, 101, 20))
        axes.grid(False, axis="y")
        axes.set_ylabel("embeddings, score")
        axes.set_xlabel(f"recall@1 (%), {100 * confidence:g} % interval")
        axes.set_title(f"The model and its controls; dashed: chance, {chance:.1f} %", loc="left")
        if len(parts) > 1:
            handles = [
                Line2D(
                    [], [], color="#444444", marker=marker, linestyle="", markerfacecolor=face, markersize=5
                )
                for marker, face in zip(MARKERS, ("#444444", "white"), strict=True)
            ]
            # Below the axes: the markers of a good model may be anywhere inside.
            names_of_parts = [SUMMARY_NAMES[part] for part in parts]
            figure.legend(handles, names_of_parts, loc="outside lower center", ncols=len(parts), fontsize=8)
    return figure


def _colour(name: str) -> str:
    if name == MODEL:
        return MODEL_COLOUR
    return SCORE_COLOUR if name.startswith(f"{MODEL}-") else CONTROL_COLOUR
