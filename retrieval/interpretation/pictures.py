"""Figures: the frame similarities of two utterances with their words, and the text similarity of matches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, withStroke
from numpy.typing import NDArray

from retrieval.figures.fonts import label
from retrieval.figures.style import PALETTE, style
from retrieval.interpretation.compare import Interpretation
from retrieval.interpretation.matching import Match
from retrieval.interpretation.validation import PairedTest
from retrieval.interpretation.words import FrameClock, Word

MATCHED, RANDOM = PALETTE[0], PALETTE[7]
ALIKE = 0.5  # text similarity from which the words of a match are drawn as similar


@dataclass(frozen=True)
class Side:
    """One of the two utterances of a picture.

    Attributes:
        name: label of the axis.
        frames: frames (T,D) of the utterance.
        clock: times of the frames.
        words: words with their times.
    """

    name: str
    frames: NDArray[np.floating]
    clock: FrameClock
    words: Sequence[Word]

    @property
    def extent(self) -> tuple[float, float]:
        """Start of the first frame and end of the last frame, in seconds."""
        return self.clock.first, self.clock.seconds(len(self.frames))


def similarity_matrix(
    source: Side,
    target: Side,
    matches: Sequence[Match],
    similarities: Sequence[float],
    *,
    similarity: str = "text similarity",
) -> Figure:
    """Cosines of all frames of two utterances, their words along the axes, and boxes around matched words.

    Args:
        source: rows, from top to bottom.
        target: columns.
        matches: matches to draw.
        similarities: text similarity of each match; matches below ``ALIKE`` are drawn dashed.
        similarity: name of the text similarity, for the legend.
    """
    rows, columns = (_unit(side.frames) for side in (source, target))
    cosines = rows @ columns.T  # (S,T)
    (top, bottom), (left, right) = source.extent, target.extent
    # An inch for every 0.4 s keeps characters apart; limits keep the figure readable on a screen.
    width, height = (float(np.clip((b - a) / 0.4, 4.0, 14.0)) for a, b in ((left, right), (top, bottom)))
    with style():
        figure = Figure(figsize=(width + 2.4, height + 1.5), layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(
            cosines,
            cmap="cividis",
            vmin=float(np.quantile(cosines, 0.02)),
            vmax=float(cosines.max()),
            extent=(left, right, bottom, top),
            interpolation="nearest",
            aspect="auto",
        )
        axes.grid(False)
        for word in target.words:
            axes.vlines([word.start, word.end], top, bottom, colors="white", linewidth=0.4, alpha=0.7)
        for word in source.words:
            axes.hlines([word.start, word.end], left, right, colors="white", linewidth=0.4, alpha=0.7)
        for match, alike in zip(matches, similarities, strict=True):
            _box(axes, source.words[match.source], target.words[match.target], alike >= ALIKE)
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)
        axes.set_ylabel(f"time (s) in {label(source.name)}")
        axes.set_xlabel(f"time (s) in {label(target.name)}")
        over = axes.secondary_xaxis("top")
        over.set_xticks(
            [(word.start + word.end) / 2 for word in target.words],
            [label(word.text) for word in target.words],
            fontsize=12,
        )
        beside = axes.secondary_yaxis("right")
        beside.set_yticks(
            [(word.start + word.end) / 2 for word in source.words],
            [label(word.text) for word in source.words],
            fontsize=12,
        )
        over.set_xlabel(f"words of {label(target.name)}")
        beside.set_ylabel(f"words of {label(source.name)}")
        for axis in (over, beside):
            axis.tick_params(length=0)
            axis.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.02, label="cosine of frames")
        bar.outline.set_visible(False)
        lines = [
            Line2D(
                [],
                [],
                color=_BOX,
                linewidth=2,
                linestyle=style,
                label=f"match, {similarity} {what} {ALIKE:g}",
            )
            for style, what in _STYLES
        ]
        figure.legend(handles=lines, loc="outside lower left", ncols=2, fontsize=8)
    return figure


_BOX = PALETTE[1]
_STYLES: tuple[tuple[Literal["-", "--"], str], ...] = (("-", "at least"), ("--", "under"))


def _box(axes: Axes, source: Word, target: Word, alike: bool) -> None:
    """Draw a box around two matched words and a dot at their centre frames."""
    box = Rectangle(
        (target.start, source.start),
        target.end - target.start,
        source.end - source.start,
        fill=False,
        edgecolor=_BOX,
        linewidth=1.8,
        linestyle="-" if alike else "--",
    )
    # A white rim makes the box visible on dark and light frames.
    box.set_path_effects([withStroke(linewidth=3.4, foreground="white"), Normal()] if alike else [])
    axes.add_patch(box)
    centre = (target.start + target.end) / 2, (source.start + source.end) / 2
    axes.plot(*centre, marker="o", markersize=4.5, color=_BOX, markeredgecolor="white", markeredgewidth=0.8)


def _unit(frames: NDArray[np.floating]) -> NDArray[np.float64]:
    rows = frames.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def matched_against_random(outcome: Interpretation, *, confidence: float = 0.95) -> Figure:
    """Mean text similarity of matched words and random pairs, by pair of groups; one panel a similarity."""
    names = list(outcome.overall)
    rows = len(next(iter(outcome.by_groups.values()))) + 1
    with style():
        figure = Figure(figsize=(4.2 * len(names) + 1.6, 0.34 * rows + 1.9), layout="constrained")
        panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
        for axes, name in zip(panels, names, strict=True):
            tests = [(f"{a} – {b}", test) for (a, b), test in outcome.by_groups[name].items()]
            _dots(axes, [*tests, ("all", outcome.overall[name])])
            axes.set_title(f"by {label(name)}", loc="left")
            axes.set_xlabel("text similarity (1: the same word)")
        panels[0].set_ylabel("pair of groups")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2, fontsize=9)
        figure.supxlabel(
            f"bars: {100 * confidence:g} % interval of the mean difference from random, over sentences",
            fontsize=8,
        )
    return figure


def _dots(axes: Axes, tests: Sequence[tuple[str, PairedTest]]) -> None:
    places = np.arange(len(tests))
    matched = np.array([test.matched for _, test in tests])
    random = np.array([test.random for _, test in tests])
    axes.hlines(places, random, matched, color="#bbbbbb", linewidth=1)
    axes.plot(random, places, "o", markerfacecolor="white", color=RANDOM, label="random pairs")
    reach = [
        (0.0, 0.0)
        if test.low is None or test.high is None
        else (test.difference - test.low, test.high - test.difference)
        for _, test in tests
    ]
    axes.errorbar(
        matched,
        places,
        xerr=np.array(reach).T,
        fmt="o",
        color=MATCHED,
        ecolor=MATCHED,
        elinewidth=1.4,
        capsize=2.5,
        label="matched words",
    )
    axes.set_yticks(places, [label(name) for name, _ in tests])
    axes.set_ylim(len(tests) - 0.5, -0.5)
    # Cosines of text models may be negative. Wide intervals may be cut off here; the tables have them.
    axes.set_xlim(
        1.05 * min(0.0, float(random.min()), float(matched.min())), max(1.0, float(matched.max()) * 1.05)
    )
