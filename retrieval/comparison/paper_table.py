"""The recall matrix in the format of the YuBao paper (arXiv 2601.07274).

It has eight groups in the order of the paper, source in rows and target in columns; recall@1 in per cent with
one decimal, the unweighted mean over the pairs of sites; "-" on the diagonal. Standard Mandarin is a group of
one site, each of the others has eleven. If results have other or fewer sites, the file states the
differences.
"""

import csv
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table

from retrieval.protocol.tables import RecallTable
from retrieval.results.naming import SITE_PAIRS_FILE
from zipformer.errors import UserError
from zipformer.files import replacing
from zipformer.typed_json import MalformedResultError

NOT_WHOLE = "NOT THE WHOLE BENCHMARK"
NAMES_SHOWN = 3

NamedSite = tuple[str, str]  # group and name


@dataclass
class PaperTableConfig:
    """Settings of the table.

    Attributes:
        model_dir: model directory with results of fangyan retrieve.
        split: name of the split.
        dataset: name of the data set; null = the only data set with results.
        embedder: name of the embedder, as in fangyan embed.
        allow_partial: write the table even if the results do not cover the whole benchmark; an extra column
            then states the differences.
    """

    model_dir: str
    split: str = "test"
    dataset: str | None = None
    embedder: str = "zipformer"
    allow_partial: bool = False


@dataclass(frozen=True)
class PaperGroup:
    """A row of the table in the paper: group in our taxonomy, and name."""

    group: str
    name: str


GROUPS = (
    PaperGroup("cmn", "Standard Mandarin"),
    PaperGroup("mandarin", "Mandarin dialects"),
    PaperGroup("nan", "Southern Min"),
    PaperGroup("wuu", "Wu"),
    PaperGroup("hak", "Hakka"),
    PaperGroup("yue", "Yue"),
    PaperGroup("hsn", "Xiang"),
    PaperGroup("gan", "Gan"),
)


def paper_rows(table: RecallTable) -> list[list[str]]:
    """Cells (9,9): a header row with the ids of the groups, then one row for each source group.

    Groups outside the benchmark are left out; groups of the benchmark without results have "-".
    """
    rates = {(row.source, row.target): row.recall_at_1 for row in table.pairs}
    rows = [["", *(target.group for target in GROUPS)]]
    for source in GROUPS:
        cells = [rates.get((source.group, target.group)) for target in GROUPS]
        rows.append([source.name, *("-" if rate is None else f"{rate:.1f}" for rate in cells)])
    return rows


def sites_asked(folder: Path) -> set[NamedSite]:
    """Sites of the results in a folder, from ``site_pairs.csv`` of fangyan retrieve.

    Raises:
        UserError: there is no such file.
        MalformedResultError: the file lacks columns.
    """
    path = folder / SITE_PAIRS_FILE
    if not path.is_file():
        raise UserError(f"no results at {path}: make them with fangyan retrieve")
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        ends = [("source", "source_site"), ("target", "target_site")]
        if missing := {column for end in ends for column in end} - set(rows.fieldnames or ()):
            raise MalformedResultError(path, f"no column {', '.join(sorted(missing))}", "retrieve")
        return {(row[group], row[site]) for row in rows for group, site in ends}


def deviations(
    table: RecallTable, sites: Collection[NamedSite], benchmark: Collection[NamedSite]
) -> list[str]:
    """Differences between the results and those of the whole benchmark, in words; empty if none.

    Args:
        table: rates of the results.
        sites: sites of the results.
        benchmark: sites of the benchmark.
    """
    found = [f"no results of {group.group}" for group in GROUPS if group.group not in table.groups]
    known = {group.group for group in GROUPS}
    found += [f"{group} is not a group of it" for group in table.groups if group not in known]
    for group in GROUPS:
        if group.group in table.groups:
            ours, theirs = ({name for of, name in names if of == group.group} for names in (sites, benchmark))
            if others := sorted(ours - theirs):
                found.append(f"{group.group} has {len(others)} other sites ({_some(others)})")
            if missing := sorted(theirs - ours):
                found.append(f"{group.group} lacks {len(missing)} of {len(theirs)} sites ({_some(missing)})")
    if cells := _other_cells(table, Counter(group for group, _ in benchmark)):
        more = len(cells) - 1
        found.append(cells[0] + (f", and {more} more cells are of other pairs" if more else ""))
    return found


def _other_cells(table: RecallTable, sites: Counter[str]) -> list[str]:
    """Cells without results, or with results for only some of the pairs of sites."""
    pairs = {(row.source, row.target): row.site_pairs for row in table.pairs}
    found = []
    for source in GROUPS:
        for target in GROUPS:
            between = f"{source.group} to {target.group}"
            asked, whole = pairs.get((source.group, target.group)), sites[source.group] * sites[target.group]
            if asked is None and source != target and {source.group, target.group} <= set(table.groups):
                found.append(f"{between} was not asked")
            elif asked not in (None, whole):
                found.append(f"{between} has {asked} pairs of sites, not {whole}")
    return found


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")


def paper_table(table: RecallTable, differing: Sequence[str]) -> Table:
    """The table for the terminal; the caption gives the chance level and the differences from the paper.

    Args:
        table: results.
        differing: differences from the benchmark, from :func:`deviations`.
    """
    header, *rows = paper_rows(table)
    view = Table(title="recall@1 in %, from source (rows) to target (columns)", box=box.SIMPLE_HEAD)
    for index, name in enumerate(header):
        view.add_column(name, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        view.add_row(*row)
    chances = [row.chance for row in table.pairs]
    notes = [f"chance {np.min(chances):.1f} to {np.max(chances):.1f}"] if chances else []
    if differing:
        notes.append(f"{NOT_WHOLE}: {'; '.join(differing)}")
    view.caption = "\n".join(notes)
    return view


def write_paper_table(path: Path, table: RecallTable, differing: Sequence[str]) -> None:
    """Write the same cells as CSV, complete or not at all.

    If the results differ from the benchmark, every row has a tenth value, under ``NOT_WHOLE``, with the
    differences, so that they are visible even in a single row. Arguments as in :func:`paper_table`.
    """
    header, *rows = paper_rows(table)
    if differing:
        header, rows = [*header, NOT_WHOLE], [[*row, "; ".join(differing)] for row in rows]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
