"""Figure of a retrieval: the recall matrix as a heat map."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from retrieval.figures.fonts import label
from retrieval.figures.style import style
from retrieval.protocol.tables import RecallTable


def recall_heat_map(
    table: RecallTable, *, title: str = "Cross-dialect retrieval", confidence: float = 0.95
) -> Figure:
    """Matrix of recall@1 with its interval in every cell.

    Held-out groups have an asterisk; cells that are not significantly above chance have a question mark.

    Args:
        table: rates and intervals.
        title: title of the figure.
        confidence: confidence level of the intervals, for the caption.
    """
    groups = table.groups
    names = [label(group) + ("*" if group in table.held_out_groups else "") for group in groups]
    number = {group: index for index, group in enumerate(groups)}
    doubtful = table.doubtful_pairs
    side = max(4.2, 0.82 * len(groups) + 1.6)
    chance = float(np.mean([row.chance for row in table.pairs]))
    with style():
        figure = Figure(figsize=(side + 1.0, side), layout="constrained")
        axes = figure.add_subplot()
        colours = matplotlib.colormaps["cividis"].with_extremes(bad="#eeeeee")
        image = axes.imshow(np.ma.masked_invalid(table.matrix()), cmap=colours, vmin=0, vmax=100)
        for row in table.pairs:
            # cividis runs from dark to light; the text has the colour of the opposite end.
            colour = "black" if row.recall_at_1 > 55 else "white"
            x, y = number[row.target], number[row.source]
            mark = "?" if (row.source, row.target) in doubtful else ""
            text = f"{row.recall_at_1:.1f}{mark}"
            axes.text(x, y - 0.1, text, ha="center", va="center", color=colour, fontsize=11)
            axes.text(
                x,
                y + 0.26,
                f"{row.low:.0f}–{row.high:.0f}",
                ha="center",
                va="center",
                color=colour,
                fontsize=7.5,
            )
        rotation = 30 if max(len(name) for name in names) > 6 else 0
        axes.set_xticks(range(len(groups)), names, rotation=rotation, ha="right" if rotation else "center")
        axes.set_yticks(range(len(groups)), names)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        notes = ["target group (pool)", f"small: {100 * confidence:g} % interval"]
        if table.held_out_groups:
            notes.append("* not trained on")
        if doubtful:
            notes.append("? not surely above chance")
        axes.set_xlabel(f"{notes[0]}\n{'    '.join(notes[1:])}")
        axes.set_ylabel("source group (query)")
        axes.set_title(f"{title}: recall@1 (%), chance {chance:.1f} %")
        bar = figure.colorbar(image, ax=axes, shrink=0.8, label="recall@1 (%)")
        bar.outline.set_visible(False)
    return figure
