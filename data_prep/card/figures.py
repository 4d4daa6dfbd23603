"""Figures of a data card, as SVG. Labels are ids and names of corpora, so no Chinese font is needed."""

import base64
import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from data_prep.card.contents import BIN_SECONDS, Amount

_STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "fangyan",  # equal input gives equal bytes
}
_LINES = ("solid", "dashed", "dotted")
_LONGEST_SHOWN = 30.0  # seconds
_LIGHT_FROM = 0.6  # of the colour map: from here on, dark text is read better


def svg_data_uri(figure: Figure) -> str:
    """A figure as ``data:`` address for an ``<img>``."""
    buffer = io.BytesIO()
    metadata: dict[str, str | None] = {"Date": None}
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        figure.savefig(buffer, format="svg", metadata=metadata)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def hours_figure(
    hours: Mapping[tuple[str, str], float], corpora: Sequence[str], groups: Sequence[str]
) -> Figure:
    """Hours by corpus (rows) and dialect group (columns), in colours on a logarithmic scale.

    Args:
        hours: hours by corpus and group; a pair that is not there has none.
        corpora, groups: in the order of the figure.
    """
    matrix = np.array([[hours.get((corpus, group), np.nan) for group in groups] for corpus in corpora])
    values = matrix[matrix > 0]
    low, high = (values.min(), values.max()) if len(values) else (1.0, 1.0)
    norm = LogNorm(low, high if high > low else low * 10)
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(2.5 + 0.75 * len(groups), 1.2 + 0.3 * len(corpora)), layout="constrained")
        axes = figure.subplots()
        masked = np.ma.masked_invalid(np.where(matrix > 0, matrix, np.nan))
        image = axes.imshow(masked, norm=norm, cmap="cividis", aspect="auto")
        for row, column in zip(*np.nonzero(~np.ma.getmaskarray(masked)), strict=True):
            value = float(matrix[row, column])
            colour = "black" if float(norm(value)) > _LIGHT_FROM else "white"
            axes.text(column, row, f"{value:,.3g}", ha="center", va="center", color=colour, fontsize=8)
        axes.set_xticks(range(len(groups)), groups)
        axes.set_yticks(range(len(corpora)), [_plain(name, row) for row, name in enumerate(corpora)])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        figure.colorbar(image, ax=axes, label="hours")
    return figure


def durations_figure(amounts: Mapping[str, Amount]) -> Figure:
    """Distribution of the durations of utterances, a line for each dialect group.

    Args:
        amounts: by group, in the order of the legend.
    """
    edges = np.arange(0.0, _LONGEST_SHOWN + 0.5, 0.5)
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(8.0, 3.6), layout="constrained")
        axes = figure.subplots()
        colours = matplotlib.colormaps["tab10"]
        for place, (group, amount) in enumerate(amounts.items()):
            bins = np.fromiter(amount.durations.keys(), float) * BIN_SECONDS + 1e-6
            weights = np.fromiter(amount.durations.values(), float) / max(1, amount.utterances) * 100
            shares, _ = np.histogram(np.minimum(bins, _LONGEST_SHOWN - 1e-6), edges, weights=weights)
            line = _LINES[place // 10 % len(_LINES)]
            axes.stairs(shares, edges, label=group, color=colours(place % 10), linestyle=line)
        axes.set_xlabel(f"duration in seconds (the last bin: {_LONGEST_SHOWN - 0.5:g} and more)")
        axes.set_ylabel("% of the group's utterances")
        axes.set_xlim(0, _LONGEST_SHOWN)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.legend(ncols=2, fontsize=8)
    return figure


def _plain(name: str, row: int) -> str:
    """A name that the font has; else the number of its row in the tables."""
    return name if name.isascii() else f"corpus {row + 1}"
