"""Figures of the results: recall heat map, character error rates, training curves."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retrieval.figures.fonts import label
from retrieval.figures.style import PALETTE, style
from retrieval.protocol.tables import RecallTable
from retrieval.report.headline import method_name
from retrieval.results.reading import VALIDATED, CerResult, Metrics

LOSS_NAMES = {
    "simple": "simple RNN-T",
    "pruned": "pruned RNN-T",
    "ctc": "CTC",
    "attention": "attention decoder",
    "translation": "translation",
    "text_alignment": "text alignment",
}


def recall_heat_map(
    table: RecallTable, *, title: str = "Cross-dialect retrieval", confidence: float = 0.95
) -> Figure:
    """Matrix of recall@1 with its interval in every cell.

    Held-out groups have an asterisk, and cells that are not surely above chance a question mark.

    Args:
        table: rates and intervals.
        title: of the figure.
        confidence: of the intervals; the figure says it.
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
            # cividis runs from dark to light, so the text has the colour of the other end.
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


def cer_bars(results: Sequence[CerResult], *, held_out: Sequence[str] = ()) -> Figure:
    """Character error rate by dialect with its interval, one colour a decoding method; dashed: overall."""
    dialects = list(dict.fromkeys(row.name for result in results for row in result.level("dialect")))
    width = 0.8 / len(results)
    with style():
        figure = Figure(figsize=(max(5.0, 1.0 * len(dialects) + 2.0), 3.6), layout="constrained")
        axes = figure.add_subplot()
        for index, result in enumerate(results):
            rows = {row.name: row for row in result.level("dialect")}
            shown = [(x, rows[name]) for x, name in enumerate(dialects) if name in rows]
            places = [x + (index - (len(results) - 1) / 2) * width for x, _ in shown]
            rates = [_number(row.cer) for _, row in shown]
            errors = [
                [max(0.0, rate - _number(row.low)) for rate, (_, row) in zip(rates, shown, strict=True)],
                [max(0.0, _number(row.high) - rate) for rate, (_, row) in zip(rates, shown, strict=True)],
            ]
            colour = PALETTE[index % len(PALETTE)]
            axes.bar(places, rates, 0.92 * width, color=colour, label=method_name(result.method))
            axes.errorbar(places, rates, errors, fmt="none", ecolor="#222222", elinewidth=1, capsize=2.5)
            tops = [rate + error for rate, error in zip(rates, errors[1], strict=True)]
            for place, rate, top in zip(places, rates, tops, strict=True):
                if np.isfinite(rate):
                    axes.annotate(
                        f"{rate:.1f}",
                        (place, top),
                        (0, 2),
                        textcoords="offset points",
                        ha="center",
                        fontsize=8,
                    )
            overall = [row for row in result.level("overall") if row.cer is not None]
            if overall:
                axes.axhline(_number(overall[0].cer), color=colour, linewidth=1, linestyle="--")
        marked = [label(name) + ("*" if name in held_out else "") for name in dialects]
        axes.set_xticks(range(len(dialects)), marked)
        axes.grid(False, axis="x")
        axes.set_ylim(bottom=0)
        axes.margins(y=0.12)
        axes.set_ylabel("CER (%)")
        axes.set_xlabel("dialect" + ("    * not trained on" if set(held_out) & set(dialects) else ""))
        axes.set_title("Character error rate; dashed: overall", loc="left")
        axes.legend(ncols=len(results), loc="lower right", bbox_to_anchor=(1, 1), fontsize=8)
    return figure


def training_curves(metrics: Metrics) -> Figure:
    """Losses and learning rate against the step, CER by dialect against minutes of training.

    Where both were validated, error rates of the CTC head are dashed beside those of the transducer.
    """
    with style():
        figure = Figure(figsize=(11.5, 3.6), layout="constrained")
        losses, errors, rates = figure.subplots(1, 3)
        for colour, (key, name) in zip(PALETTE, LOSS_NAMES.items(), strict=False):
            steps, values = metrics.series(key)
            if steps:
                losses.plot(steps, values, color=colour, linewidth=1.4, label=name)
        losses.set_title("Training loss")
        losses.set_ylabel("loss (nats per encoder frame)")
        losses.set_xlabel("step")
        losses.set_yscale("log")
        _legend(losses)

        several = all(any(key in line for line in metrics.valid) for key in VALIDATED)
        for index, name in enumerate(metrics.validated_dialects()):
            overall = name == "overall"
            for key, line in zip(VALIDATED, ("-", "--"), strict=True):
                minutes, values = metrics.cer_against_minutes(name, key)
                if minutes:
                    errors.plot(
                        minutes,
                        values,
                        color="black" if overall else PALETTE[index % len(PALETTE)],
                        linewidth=2.2 if overall else 1.4,
                        linestyle=line if several else "-",
                        marker="o",
                        markersize=3,
                        label=label(name) if key == VALIDATED[0] or not several else None,
                    )
        if several:
            errors.plot([], [], color="black", linestyle="--", label="dashed: CTC")
        errors.set_title(_validation_title(metrics))
        errors.set_ylabel("CER (%)")
        errors.set_xlabel("training time (min)")
        errors.set_ylim(bottom=0)
        errors.set_xlim(left=0)
        _legend(errors)

        steps, values = metrics.series("lr")
        rates.plot(steps, values, color=PALETTE[0], linewidth=1.4)
        rates.set_title("Learning rate")
        rates.set_ylabel("learning rate")
        rates.set_xlabel("step")
        rates.set_ylim(bottom=0)
    return figure


def _validation_title(metrics: Metrics) -> str:
    """What the validation curves are of, where it is CTC alone."""
    if metrics.valid and not any("cer" in line for line in metrics.valid):
        return "CER in validation, CTC"
    return "CER in validation"


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
