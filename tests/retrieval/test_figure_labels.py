"""Every axis of every figure says what it shows."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import retrieval
from retrieval.challenge.figure import challenge_figure
from retrieval.challenge.results import ChallengeResults
from retrieval.comparison.controls import ControlRow
from retrieval.comparison.controls_figure import control_dots
from retrieval.comparison.figure import comparison_figure
from retrieval.comparison.models import Comparison
from retrieval.depth.figure import layer_figure
from retrieval.depth.probes import ProbeScore
from retrieval.depth.results import LayerStudy, Rate, TapResult
from retrieval.depth.study import taps_of
from retrieval.interpretation.compare import Interpretation
from retrieval.interpretation.matching import Match
from retrieval.interpretation.pictures import Side, matched_against_random, similarity_matrix
from retrieval.interpretation.validation import paired_test
from retrieval.interpretation.words import FrameClock, Word
from retrieval.protocol.estimates import MetricRow
from retrieval.protocol.figure import recall_heat_map
from retrieval.protocol.tables import PairRow, RecallTable, SummaryRow
from retrieval.report.figures import cer_bars, training_curves
from retrieval.results.decodings import CerResult
from retrieval.results.training import Metrics
from retrieval.statistics.ranks import METRICS
from zipformer.scoring.conventions import CONVENTIONS
from zipformer.scoring.tables import ScoreRow

GROUPS = ["官话", "yue", "hak"]


def table() -> RecallTable:
    pairs = [PairRow(a, b, 60.0, 50.0, 70.0, 2.0, 4, 200) for a in GROUPS for b in GROUPS if a != b]
    return RecallTable(GROUPS, GROUPS[:2], pairs, [], [SummaryRow("all", 6, 60.0, 50.0, 70.0, 2.0)])


def heat_map() -> Figure:
    return recall_heat_map(table())


def bars() -> Figure:
    rows = [
        ScoreRow("dialect", name, name, 50, 900, 9, 0, 0, rate, rate - 2, rate + 2, "sentences")
        for name, rate in zip(GROUPS, (3.0, 8.0, 40.0), strict=True)
    ]
    results = [CerResult(method, "test", rows, [], [], Path(method), None) for method in ("beam", "ctc")]
    return cer_bars(results, held_out=["hak"])


def curves() -> Figure:
    train = [{"step": n, "ctc": 9.0 / n, "lr": 0.045, "elapsed_seconds": 60.0 * n} for n in range(1, 9)]
    return training_curves(Metrics(train, [{"step": 4, "cer": {"overall": 50.0, "官话": 40.0}}]))


def controls() -> Figure:
    names = {"zipformer": "model, SeqSim", "zipformer-dtw": "model, DTW", "mfcc-dtw": "MFCC, DTW"}
    rows = [
        ControlRow(name, text, part, recall, recall - 5, recall + 5, 2.0, None, None, None)
        for (name, text), recall in zip(names.items(), (94.0, 95.0, 36.0), strict=True)
        for part in ("trained", "held_out")
    ]
    return control_dots(rows)


def challenges() -> Figure:
    sets = ["full", "no-close-sound", "no-close-sound-random", "no-names", "duration-matched"]
    tables = {(system, name): table() for system in ("zipformer", "mfcc, dtw") for name in sets}
    return challenge_figure(ChallengeResults(GROUPS, ["hak"], ["zipformer", "mfcc, dtw"], sets, tables))


def side_by_side() -> Figure:
    def rows(value: float) -> list[MetricRow]:
        places = [("pair", a, b) for a in GROUPS for b in GROUPS if a != b] + [("all", "", "")]
        numbers = (value, value - 5, value + 5, 2.0, None, None, value, value - 5, value + 5, 2.0)
        return [MetricRow(*place, metric, *numbers) for place in places for metric in METRICS]

    return comparison_figure(Comparison(["客家", "all"], GROUPS, {"客家": rows(60.0), "all": rows(90.0)}, []))


def layers() -> Figure:
    scores = {
        task: ProbeScore(task, 90.0, 85.0, 95.0, 50.0, 40.0, 35.0, 45.0, 20.0, 5, 100, 5)
        for task in ("speaker", "sentence, unseen dialect")
    }
    results = [
        TapResult(tap, Rate(40.0 + tap.layer, 30.0, 50.0), 2.0, {"ctc": Rate(50.0)}, scores)
        for tap in taps_of([(0, 3, 1), (1, 3, 1), (2, 4, 4), (2, 4, 4)], 4)
    ]
    tasks = dict.fromkeys(scores, ("", ""))
    return layer_figure(LayerStudy("m", "test", results, Rate(15.0), tasks=tasks))


def words() -> Figure:
    frames = np.random.default_rng(0).normal(size=(40, 8))
    source = Side("yue, 香港", frames, FrameClock(0.04), [Word("佢", 0.1, 0.6), Word("食飯", 0.7, 1.5)])
    target = Side("官话, 北京", frames, FrameClock(0.04), [Word("他", 0.1, 0.7), Word("吃饭", 0.8, 1.5)])
    return similarity_matrix(source, target, [Match(0, 0, 0.5), Match(1, 1, 0.5)], [0.0, 1.0])


def matches() -> Figure:
    test = paired_test(np.array([0.5, 0.4, 0.6]), np.array([0.2, 0.1, 0.3]), word_pairs=3)
    both = {"characters": test, "table": test}
    return matched_against_random(
        Interpretation(3, 0, 6, 6, 3, both, {name: {("官话", "yue"): test} for name in both})
    )


FIGURES: dict[str, Callable[[], Figure]] = {
    "recall_heat_map": heat_map,
    "cer_bars": bars,
    "training_curves": curves,
    "control_dots": controls,
    "challenge_figure": challenges,
    "comparison_figure": side_by_side,
    "layer_figure": layers,
    "similarity_matrix": words,
    "matched_against_random": matches,
}


def test_bars_are_named_after_the_rate_that_was_scored() -> None:
    rows = [ScoreRow("dialect", "cmn", "cmn", 50, 900, 9, 0, 0, 3.0, 2.0, 4.0, "sentences")]
    mixed = CerResult("ctc", "test", rows, [], [], Path("ctc"), None, scoring=CONVENTIONS["mer"])
    axes = cer_bars([mixed]).axes[0]
    assert axes.get_ylabel() == "MER (%)"
    assert axes.get_title("left").startswith("Mixed error rate")


def test_no_figure_is_left_out() -> None:
    sources = Path(next(iter(retrieval.__path__))).rglob("*.py")
    found = [
        name
        for path in sources
        for name in re.findall(r"^def (\w+)\((?:(?!^def ).)*?\) -> Figure:", path.read_text(), re.M | re.S)
    ]
    assert sorted(found) == sorted(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_every_axis_is_labelled(name: str) -> None:
    figure = FIGURES[name]()
    drawn = [axes for axes in figure.axes if axes.axison and axes.get_visible()]
    assert drawn
    assert [problem for axes in drawn for problem in unlabelled(axes)] == []


def unlabelled(axes: Axes) -> list[str]:
    """Axes without a name of their own or of those that they are shared with; colour bars have one of two."""
    sides = {
        "x": [one.get_xlabel() for one in axes.get_shared_x_axes().get_siblings(axes)],
        "y": [one.get_ylabel() for one in axes.get_shared_y_axes().get_siblings(axes)],
    }
    if axes.get_label() == "<colorbar>":
        sides = {"colour": sides["x"] + sides["y"]}
    # Secondary axes have ticks on one side only.
    sides |= {
        f"{side} beside": [getattr(child, f"get_{side}label")()]
        for child in axes.child_axes
        for side in "xy"
        if len(getattr(child, f"get_{side}ticks")())
    }
    return [f"{side} of {axes.get_title()!r}" for side, names in sides.items() if not any(names)]
