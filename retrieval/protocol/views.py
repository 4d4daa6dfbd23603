"""Tables of a retrieval for the terminal: the matrix of recall@1, its means, and all metrics."""

from collections.abc import Collection, Sequence

import numpy as np
from rich import box
from rich.table import Table

from retrieval.protocol.estimates import MetricRow, Pair
from retrieval.protocol.tables import LEVEL, SUMMARY_NAMES, PairRow, RecallTable

LONGEST_COLUMN_NAME = 9  # letters; a column of the matrix needs six for its numbers
TITLES = {
    "recall_at_1": "recall@1 %",
    "recall_at_5": "recall@5 %",
    "recall_at_10": "recall@10 %",
    "mrr": "MRR %",
    "median_rank": "median rank",
}


def retrieval_views(table: RecallTable, confidence: float) -> list[Table]:
    """Tables that ``fangyan retrieve`` prints."""
    return [recall_matrix(table), recall_summary(table, confidence), metric_means(table.metrics, confidence)]


def metric_means(rows: Sequence[MetricRow], confidence: float) -> Table:
    """All metrics as means over pairs of groups, with interval, chance and p, and pooled over queries."""
    view = Table(title="means over pairs of groups", box=box.SIMPLE_HEAD)
    view.add_column("pairs")
    interval = f"{100 * confidence:g} % interval"
    for name in ("metric", "value", interval, "chance", "p", "pooled queries", interval, "chance"):
        view.add_column(name, justify="right")
    for part, name in SUMMARY_NAMES.items():
        of_part = [row for row in rows if row.part == part]
        for row in of_part:
            view.add_row(
                name if row is of_part[0] else "",
                TITLES[row.metric],
                f"{row.value:.1f}",
                f"{row.low:.1f} to {row.high:.1f}",
                f"{row.chance:.1f}",
                "-" if row.p is None else f"{row.p:.2g}",
                f"{row.pooled:.1f}",
                f"{row.pooled_low:.1f} to {row.pooled_high:.1f}",
                f"{row.pooled_chance:.1f}",
                end_section=row is of_part[-1],
            )
    return view


def recall_matrix(table: RecallTable) -> Table:
    """The matrix for the terminal, source in rows, target in columns; held-out groups have an asterisk.

    Below each recall is its confidence interval; the last column is the chance level of the row. Names too
    long for a column are replaced by the number of their row. A question mark means that recall is not
    significantly above chance, with p adjusted for all pairs of groups.
    """
    doubtful = table.doubtful_pairs
    names = {group: f"{group}*" if group in table.held_out_groups else group for group in table.groups}
    numbered = max(len(name) for name in names.values()) > LONGEST_COLUMN_NAME
    rows = {(row.source, row.target): row for row in table.pairs}
    view = Table(title="recall@1 in %, from source (rows) to target (columns)", box=box.SIMPLE_HEAD)
    view.add_column("")
    for index, name in enumerate([*names.values(), "chance"]):
        header = str(index + 1) if numbered and index < len(names) else name
        view.add_column(header, justify="right", no_wrap=True)
    for index, (source, name) in enumerate(names.items()):
        of_source = [rows.get((source, target)) for target in table.groups]
        chances = [row.chance for row in of_source if row]  # none where a challenge set left no sentence
        chance = f"{np.mean(chances):.1f}" if chances else "-"
        label = f"{index + 1:2} {name}" if numbered else name
        view.add_row(label, *(_cell(row, doubtful) for row in of_source), chance)
    notes = []
    if table.held_out_groups:
        notes.append("* not trained on")
    if doubtful:
        notes.append(f"? not above chance (permutation test, Holm, p > {LEVEL})")
    view.caption = "; ".join(notes) or None
    return view


def _cell(row: PairRow | None, doubtful: Collection[Pair]) -> str:
    if row is None:
        return "-"
    mark = "?" if (row.source, row.target) in doubtful else ""
    return f"{row.recall_at_1:.1f}{mark}\n[dim]{row.low:.0f}-{row.high:.0f}[/dim]"


def recall_summary(table: RecallTable, confidence: float) -> Table:
    """The means for the terminal, with interval and chance."""
    view = Table(title="mean recall@1 in %", box=box.SIMPLE_HEAD)
    view.add_column("pairs")
    for name in ("number", "recall@1", f"{100 * confidence:g} % interval", "chance"):
        view.add_column(name, justify="right")
    for row in table.summary:
        view.add_row(
            SUMMARY_NAMES[row.name],
            str(row.pairs),
            f"{row.recall_at_1:.1f}",
            f"{row.low:.1f} to {row.high:.1f}",
            f"{row.chance:.1f}",
        )
    view.caption = f"intervals: over {table.resampled}"
    return view
