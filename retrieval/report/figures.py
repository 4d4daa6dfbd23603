"""Figures of the results: recall heat map, character error rates, training curves."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retrieval.figures.fonts import label
from retrieval.figures.style import PALETTE, style
from retrieval.report.headline import method_name
from retrieval.results.decodings import CerResult
from retrieval.results.training import VALIDATED, Metrics
from zipformer.scoring.files import RATES

LOSS_NAMES = {
    "simple": "simple RNN-T",
    "pruned": "pruned RNN-T",
    "ctc": "CTC",
    "attention": "attention decoder",
    "translation": "translation",
    "text_alignment": "text alignment",
}


def cer_bars(results: Sequence[CerResult], *, held_out: Sequence[str] = ()) -> Figure:
    """Error rate by dialect with its interval, one colour a decoding method; dashed: overall.

    The axis has the name of the rate (CER, MER or SER) by which the results were scored.
    """
    measures = list(dict.fromkeys(result.scoring.rate for result in results))
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
        axes.set_ylabel(f"{', '.join(measures)} (%)")
        axes.set_xlabel("dialect" + ("    * not trained on" if set(held_out) & set(dialects) else ""))
        named = " or ".join(RATES[rate] for rate in measures).capitalize()
        axes.set_title(f"{named} error rate; dashed: overall", loc="left")
        axes.legend(ncols=len(results), loc="lower right", bbox_to_anchor=(1, 1), fontsize=8)
    return figure


def training_curves(metrics: Metrics) -> Figure:
    """Losses and learning rate by step, CER of each dialect by minutes of training.

    If both were validated, the error rates of the CTC head are dashed, those of the transducer solid.
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
    """Title of the validation curves, which says so if only CTC was validated."""
    if metrics.valid and not any("cer" in line for line in metrics.valid):
        return "CER in validation, CTC"
    return "CER in validation"


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
