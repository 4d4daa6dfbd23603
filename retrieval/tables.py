"""The recall matrix with intervals and chance: from hits to rows, to files and to the terminal."""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from retrieval.recall import Outcome
from retrieval.statistics import Replicates, Resamples, recall_interval

LONGEST_COLUMN_NAME = 9  # letters; a column of the matrix needs six for its numbers


@dataclass(frozen=True)
class PairRow:
    """Recall of an ordered pair of groups; ``recall_at_1``, ``low``, ``high`` and ``chance`` in per cent."""

    source: str
    target: str
    recall_at_1: float
    low: float
    high: float
    chance: float
    site_pairs: int
    queries: int


@dataclass(frozen=True)
class SummaryRow:
    """Unweighted mean over ordered pairs of groups; rates in per cent.

    ``name`` is ``trained`` (both groups were trained on), ``held_out`` (at least one was not), ``all``, or
    ``within`` (other sites of the same group).
    """

    name: str
    pairs: int
    recall_at_1: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True)
class RecallTable:
    """The result of one retrieval run.

    Attributes:
        groups: rows and columns of the matrix.
        trained_groups: those that the encoder was trained on; None if unknown.
        pairs: all ordered pairs of different groups.
        within: pairs of different sites of one group, kept apart from the matrix: a ceiling, not the
            protocol.
        summary: means over pairs.
    """

    groups: list[str]
    trained_groups: list[str] | None
    pairs: list[PairRow]
    within: list[PairRow]
    summary: list[SummaryRow]

    @property
    def held_out_groups(self) -> list[str]:
        """Groups that the encoder has not seen; none if unknown."""
        return [] if self.trained_groups is None else [g for g in self.groups if g not in self.trained_groups]

    def matrix(self) -> NDArray[np.float64]:
        """Recall@1 (G,G) in per cent, source by target; NaN where not asked."""
        return _matrix(self.groups, self.pairs)


def _matrix(groups: Sequence[str], pairs: Iterable[PairRow]) -> NDArray[np.float64]:
    number = {group: index for index, group in enumerate(groups)}
    matrix = np.full((len(groups), len(groups)), np.nan)
    for row in pairs:
        matrix[number[row.source], number[row.target]] = row.recall_at_1
    return matrix


def tabulate(
    outcome: Outcome,
    *,
    trained_groups: Sequence[str] | None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> RecallTable:
    """Means over site pairs with bootstrap intervals (see :mod:`retrieval.statistics`).

    Args:
        outcome: of all queries.
        trained_groups: which of the groups the encoder was trained on; None if unknown.
        resamples, confidence, seed: of the bootstrap.
    """
    groups = list(dict.fromkeys(site.group for site in outcome.sites))
    group_of_site = np.array([groups.index(site.group) for site in outcome.sites])
    draws = Resamples.draw(group_of_site, len(outcome.sentences), resamples=resamples, seed=seed)
    members = {group: np.flatnonzero(group_of_site == index) for index, group in enumerate(groups)}

    rows: dict[tuple[str, str], PairRow] = {}
    replicates: dict[tuple[str, str], Replicates] = {}
    for source in groups:
        for target in groups:
            asked = [
                (a, b) for a in members[source] for b in members[target] if outcome.queries(a, b) and a != b
            ]
            if not asked:  # a group of one site has no pair within
                continue
            queries = [outcome.queries(a, b) for a, b in asked]
            rate = float(np.mean([outcome.recall(a, b) for a, b in asked]))
            replicate = draws.recall(outcome.hits, members[source], members[target])
            low, high = recall_interval(rate, replicate, sentences=max(queries), confidence=confidence)
            rows[source, target] = PairRow(
                source,
                target,
                recall_at_1=100 * rate,
                low=100 * low,
                high=100 * high,
                chance=100 * float(np.mean([1 / n for n in queries])),
                site_pairs=len(asked),
                queries=sum(queries),
            )
            replicates[source, target] = replicate

    trained = None if trained_groups is None else [group for group in groups if group in trained_groups]
    different = [pair for pair in rows if pair[0] != pair[1]]
    within = [pair for pair in rows if pair[0] == pair[1]]
    parts: dict[str, list[tuple[str, str]]] = {}
    if trained is not None:
        parts["trained"] = [pair for pair in different if pair[0] in trained and pair[1] in trained]
        parts["held_out"] = [pair for pair in different if pair not in set(parts["trained"])]
    parts |= {"all": different, "within": within}
    summary = [
        _summarise(
            name,
            [rows[pair] for pair in pairs],
            [replicates[pair] for pair in pairs],
            sentences=len(outcome.sentences),
            confidence=confidence,
        )
        for name, pairs in parts.items()
        if pairs
    ]
    return RecallTable(groups, trained, [rows[p] for p in different], [rows[p] for p in within], summary)


def _summarise(
    name: str,
    rows: Sequence[PairRow],
    replicates: Sequence[Replicates],
    *,
    sentences: int,
    confidence: float,
) -> SummaryRow:
    # The same draws lie behind all pairs, so the mean of their resamples keeps how they vary together. A
    # resample in which one group drew a single site has no pair within it; the others still have a mean.
    mean = np.ma.masked_invalid(np.stack(replicates)).mean(axis=0)  # (B,)
    replicate = np.ma.filled(mean.astype(np.float64), np.nan)
    rate = float(np.mean([row.recall_at_1 / 100 for row in rows]))
    low, high = recall_interval(rate, replicate, sentences=sentences, confidence=confidence)
    return SummaryRow(
        name,
        len(rows),
        recall_at_1=100 * rate,
        low=100 * low,
        high=100 * high,
        chance=float(np.mean([row.chance for row in rows])),
    )


def write_recall_json(path: Path, table: RecallTable, header: dict[str, object]) -> None:
    """``recall.json``: the header's fields (split, model_dir, settings) and the table; rates in per cent."""
    content = header | {"held_out_groups": table.held_out_groups} | asdict(table)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_recall_csv(path: Path, table: RecallTable) -> None:
    """``recall.csv``: one line an ordered pair of groups, pairs within a group last."""
    write_csv(path, PairRow, [*table.pairs, *table.within])


def write_site_pairs(path: Path, outcome: Outcome) -> None:
    """``site_pairs.csv``: one line an ordered pair of sites; ``hits`` may have fractions (ties)."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["source", "source_site", "target", "target_site", "queries", "hits", "recall_at_1", "chance"]
        )
        for a, source in enumerate(outcome.sites):
            for b, target in enumerate(outcome.sites):
                if queries := outcome.queries(a, b):
                    hits = float(np.nansum(outcome.hits[a, b]))
                    rates = (100 * hits / queries, 100 / queries)
                    writer.writerow(
                        [source.group, source.name, target.group, target.name, queries, hits, *rates]
                    )


def write_csv(path: Path, row_type: type[PairRow], rows: Iterable[PairRow]) -> None:
    """Dataclasses as CSV with a header line."""
    names = [field.name for field in fields(row_type)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def recall_matrix(table: RecallTable) -> Table:
    """The matrix for the terminal, source in rows, target in columns; held-out groups have an asterisk.

    Under each recall stands its confidence interval; the last column is the chance level of the row. Names
    too long for a column are replaced by the number of their row.
    """
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
        chance = float(np.mean([row.chance for row in of_source if row]))
        label = f"{index + 1:2} {name}" if numbered else name
        view.add_row(label, *(_cell(row) for row in of_source), f"{chance:.1f}")
    if table.held_out_groups:
        view.caption = "* not trained on"
    return view


def _cell(row: PairRow | None) -> str:
    return "-" if row is None else f"{row.recall_at_1:.1f}\n[dim]{row.low:.0f}-{row.high:.0f}[/dim]"


def print_tables(tables: Iterable[Table]) -> None:
    """Print at full width also where the terminal, or the log file, is thought to be narrower."""
    console = Console()
    for table in tables:
        natural = console.measure(table, options=console.options.update(max_width=10_000)).maximum
        Console(width=max(console.width, natural)).print(table)


SUMMARY_NAMES = {
    "trained": "between trained groups",
    "held_out": "with a held-out group",
    "all": "all pairs of groups",
    "within": "within groups (ceiling)",
}


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
    return view
