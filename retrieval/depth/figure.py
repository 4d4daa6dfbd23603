"""The figure of a layer study, which shows where the encoder moves from sound to meaning."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from retrieval.depth.results import LayerStudy, Rate
from retrieval.figures.style import PALETTE, style

SHIFT = 0.05  # shift in layers between the lines of a panel, so that their intervals do not overlap
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
METHOD_NAMES = {
    "ctc": "CTC",
    "greedy": "transducer, greedy",
    "beam": "transducer, beam",
    "attention": "attention decoder",
}


def layer_figure(study: LayerStudy) -> Figure:
    """Retrieval, recognition by early exit, probes and their selectivity, by layer of the encoder.

    Bands in the background show the stacks, with their frame rates.
    """
    with style():
        figure = Figure(figsize=(12.5, 8.4), layout="constrained")
        (recall, accuracy), (errors, selectivity) = figure.subplots(2, 2, sharex=True)
        _recall(recall, study)
        _errors(errors, study)
        _probes(accuracy, selectivity, study)
        for axes in (recall, accuracy, errors, selectivity):
            _stacks(axes, study, named=axes in (recall, accuracy))
        for axes in (errors, selectivity):
            axes.set_xlabel("layer, counted over the whole encoder (0 = front end)")
    return figure


def _recall(axes: Axes, study: LayerStudy) -> None:
    measured = [(result.tap.layer, result.recall) for result in study.layers if result.recall is not None]
    _line(axes, measured, PALETTE[0], "o", "layer")
    stacks = [result for result in study.taps if result.tap.kind == "stack" and result.recall is not None]
    if stacks:
        axes.plot(
            [result.tap.layer + 0.3 for result in stacks],
            [result.recall.value for result in stacks if result.recall is not None],
            linestyle="none",
            marker="D",
            markerfacecolor="white",
            color=PALETTE[0],
            label="stack, after upsampling and bypass",
        )
    output = study.taps[-1]
    if output.recall is not None:
        axes.plot(
            [output.tap.layer + 0.6], [output.recall.value], "*", color="black", ms=11, label="encoder output"
        )
    sounds = {"SeqSim": (study.sound, "--"), "DTW": (study.sound_in_order, "-.")}
    for score, (sound, dashes) in sounds.items():
        if sound is not None:
            name = f"sound alone: MFCCs, {score}"
            axes.axhline(sound.value, color=PALETTE[1], linestyle=dashes, label=name)
    chances = [result.chance for result in study.taps if result.chance is not None]
    if chances:
        axes.axhline(float(np.mean(chances)), color=PALETTE[7], linestyle=":", label="chance")
    axes.set_ylim(0, 102)
    axes.set_ylabel("recall@1 (%)")
    axes.set_title("Retrieval of the same sentence in another dialect", loc="left")
    _legend(axes)


def _errors(axes: Axes, study: LayerStudy) -> None:
    for index, method in enumerate(study.methods):
        points = [(result.tap.layer, result.cer[method]) for result in study.layers if method in result.cer]
        _line(axes, points, PALETTE[index], MARKERS[index], METHOD_NAMES.get(method, method))
    axes.set_ylim(bottom=0)
    axes.set_ylabel("CER (%)")
    axes.set_title("Recognition by early exit", loc="left")
    _legend(axes)


def _probes(accuracy: Axes, selectivity: Axes, study: LayerStudy) -> None:
    for index, task in enumerate(study.tasks):
        shift = SHIFT * (index - (len(study.tasks) - 1) / 2)
        scored = [
            (result.tap.layer + shift, result.probes[task])
            for result in study.layers
            if task in result.probes
        ]
        if not scored:
            continue
        colour, marker = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]
        name = f"{task} (chance {scored[0][1].chance:.0f} %)"
        points = [(layer, Rate(score.accuracy, score.low, score.high)) for layer, score in scored]
        _line(accuracy, points, colour, marker, name, faint=True)
        points = [
            (layer, Rate(score.selectivity, score.selectivity_low, score.selectivity_high))
            for layer, score in scored
        ]
        _line(selectivity, points, colour, marker, task, faint=True)
    accuracy.set_ylim(0, 102)
    accuracy.set_ylabel("accuracy (%)")
    accuracy.set_title("Linear probes", loc="left")
    _legend(accuracy, outside=True)
    selectivity.axhline(0, color=PALETTE[7], linewidth=1)
    selectivity.set_ylabel("accuracy less control (points)")
    selectivity.set_title("Selectivity of the probes", loc="left")


def _line(
    axes: Axes,
    points: Sequence[tuple[float, Rate]],
    colour: str,
    marker: str,
    label: str,
    *,
    faint: bool = False,
) -> None:
    """A line with intervals as bars, which are faint if there are many lines."""
    if not points:
        return
    layers = [layer for layer, _ in points]
    values = [estimate.value for _, estimate in points]
    below = [max(0.0, e.value - (e.value if e.low is None else e.low)) for _, e in points]
    above = [max(0.0, (e.value if e.high is None else e.high) - e.value) for _, e in points]
    _, _, bars = axes.errorbar(
        layers,
        values,
        [below, above],
        color=colour,
        marker=marker,
        markersize=5,
        linewidth=1.6,
        elinewidth=0.9,
        capsize=0 if faint else 2,
        label=label,
    )
    if faint:
        for bar in bars:
            bar.set_alpha(0.35)


def _stacks(axes: Axes, study: LayerStudy, *, named: bool) -> None:
    last = study.taps[-1].tap.layer
    taps = [result.tap for result in study.layers]
    for number, (_, members) in enumerate(groupby(taps, key=lambda tap: tap.stack)):
        inside = list(members)
        left, right = inside[0].layer - 0.5, inside[-1].layer + 0.5
        if number % 2:
            axes.axvspan(left, right, color="#000000", alpha=0.05, linewidth=0, zorder=0)
        if named:
            axes.annotate(
                f"{inside[0].stack or '–'}\n{inside[0].frame_rate:g}",
                ((left + right) / 2, 1.0),
                (0, 2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=7.5,
                color="#444444",
                annotation_clip=False,
            )
    if named:
        axes.annotate(
            "stack\nframes/s",
            (-0.02, 1.0),
            (0, 2),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=7.5,
            color="#444444",
        )
        axes.title.set_position((0.0, 1.0))
        axes.set_title(axes.get_title(loc="left"), loc="left", pad=26)
    axes.set_xlim(-0.6, last + 0.9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(False, axis="x")


def _legend(axes: Axes, *, outside: bool = False) -> None:
    if not axes.get_legend_handles_labels()[0]:
        return
    if outside:
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    else:
        axes.legend(fontsize=8, loc="best", frameon=True, framealpha=1, edgecolor="none")  # over lines
