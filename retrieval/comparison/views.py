"""Tables of a comparison of models, for the terminal."""

from rich import box
from rich.table import Table

from retrieval.comparison.models import Comparison, DifferenceRow
from retrieval.protocol.estimates import PAIR
from retrieval.protocol.tables import LEVEL, SUMMARY_NAMES
from retrieval.protocol.views import TITLES
from retrieval.statistics.ranks import METRICS


def comparison_views(comparison: Comparison, confidence: float) -> list[Table]:
    """Tables that ``fangyan compare`` prints: the metrics of all models, and their differences."""
    return [_models(comparison, confidence), _differences(comparison, confidence)]


def _models(comparison: Comparison, confidence: float) -> Table:
    title = f"means over pairs of groups, with {100 * confidence:g} % intervals"
    view = Table(title=title, box=box.SIMPLE_HEAD)
    view.add_column("pairs")
    view.add_column("model")
    for metric in METRICS:
        view.add_column(TITLES[metric], justify="right")
    for part, name in SUMMARY_NAMES.items():
        shown = {
            model: {row.metric: row for row in rows if row.part == part}
            for model, rows in comparison.metrics.items()
        }
        if not all(shown.values()):
            continue
        for n, (model, rows) in enumerate(shown.items()):
            cells = [
                f"{row.value:.1f}\n[dim]{row.low:.1f} to {row.high:.1f}[/dim]"
                for row in (rows[metric] for metric in METRICS)
            ]
            view.add_row(name if n == 0 else "", model, *cells)
        chances = [f"{rows[metric].chance:.1f}" for metric in METRICS]
        view.add_row("", "chance", *chances, style="dim", end_section=True)
    view.caption = f"intervals: over {comparison.resampled}"
    return view


def _differences(comparison: Comparison, confidence: float) -> Table:
    title = f"differences between models, with {100 * confidence:g} % intervals and p (paired, Holm)"
    view = Table(title=title, box=box.SIMPLE_HEAD)
    view.add_column("pairs")
    view.add_column("difference")
    for metric in METRICS:
        view.add_column(TITLES[metric], justify="right")
    view.add_column("group pairs with a sure\ndifference in recall@1", justify="right")
    for part, name in SUMMARY_NAMES.items():
        rows = [row for row in comparison.differences if row.part == part]
        versus = dict.fromkeys((row.first, row.second) for row in rows)
        for n, (first, second) in enumerate(versus):
            of_both = {row.metric: row for row in rows if (row.first, row.second) == (first, second)}
            view.add_row(
                name if n == 0 else "",
                f"{first} - {second}",
                *(_difference_cell(of_both[metric]) for metric in METRICS),
                _sure_pairs(comparison, first, second) if part == "all" else "",
                end_section=n == len(versus) - 1,
            )
    return view


def _difference_cell(row: DifferenceRow) -> str:
    interval = f"[dim]{row.low:+.1f} to {row.high:+.1f}[/dim]"
    return f"{row.difference:+.1f}\n{interval}\np {row.p_holm:.2g}"


def _sure_pairs(comparison: Comparison, first: str, second: str) -> str:
    """Number of pairs of groups in which one model is significantly better, by adjusted p."""
    rows = [
        row
        for row in comparison.differences
        if (row.first, row.second, row.part, row.metric) == (first, second, PAIR, METRICS[0])
    ]
    sure = [row for row in rows if row.p_holm <= LEVEL]
    higher = sum(row.difference > 0 for row in sure)
    return f"{higher} higher, {len(sure) - higher} lower\nof {len(rows)}"
