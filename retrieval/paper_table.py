"""The recall matrix in the form of the YuBao paper (arXiv 2601.07274).

Eight groups in the paper's order, source in rows and target in columns; recall@1 in per cent with one
decimal, the unweighted mean over the pairs of sites; "-" on the diagonal. Standard Mandarin is a group of one
site, each of the others has eleven.
"""

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table

from retrieval.tables import RecallTable


@dataclass
class PaperTableConfig:
    """Which results to show.

    Attributes:
        model_dir: model directory whose ``results`` hold those of scripts/retrieve.py.
        split: which split.
        embedder: whose embeddings, as in scripts/embed.py.
    """

    model_dir: str
    split: str = "test"
    embedder: str = "zipformer"


@dataclass(frozen=True)
class PaperGroup:
    """A row of the paper's table: its group in our taxonomy, its name, its number of sites."""

    group: str
    name: str
    sites: int


GROUPS = (
    PaperGroup("cmn", "Standard Mandarin", 1),
    PaperGroup("mandarin", "Mandarin dialects", 11),
    PaperGroup("nan", "Southern Min", 11),
    PaperGroup("wuu", "Wu", 11),
    PaperGroup("hak", "Hakka", 11),
    PaperGroup("yue", "Yue", 11),
    PaperGroup("hsn", "Xiang", 11),
    PaperGroup("gan", "Gan", 11),
)


def paper_rows(table: RecallTable) -> list[list[str]]:
    """The cells (9,9): a header row with the groups' ids, then a row a source group.

    Groups outside the benchmark are left out; those of the benchmark that were not asked have "-".
    """
    rates = {(row.source, row.target): row.recall_at_1 for row in table.pairs}
    rows = [["", *(target.group for target in GROUPS)]]
    for source in GROUPS:
        cells = [rates.get((source.group, target.group)) for target in GROUPS]
        rows.append([source.name, *("-" if rate is None else f"{rate:.1f}" for rate in cells)])
    return rows


def deviations(table: RecallTable, *, candidates: int = 0) -> list[str]:
    """In what the results are not those of the whole benchmark; empty if they are.

    Args:
        table: the results.
        candidates: the setting of scripts/retrieve.py that made them.
    """
    pairs = {(row.source, row.target): row.site_pairs for row in table.pairs}
    found = [f"no results of {group.group}" for group in GROUPS if group.group not in table.groups]
    known = {group.group for group in GROUPS}
    found += [f"{group} is not a group of it" for group in table.groups if group not in known]
    other_counts = []
    for source in GROUPS:
        for target in GROUPS:
            asked, whole = pairs.get((source.group, target.group)), source.sites * target.sites
            if asked is None and source != target and {source.group, target.group} <= set(table.groups):
                other_counts.append(f"{source.group} to {target.group} was not asked")
            elif asked not in (None, whole):
                other_counts.append(
                    f"{source.group} to {target.group} has {asked} pairs of sites, not {whole}"
                )
    if candidates:
        found.append(f"retrieved with candidates={candidates}, not whole pools")
    if other_counts:
        more = len(other_counts) - 1
        found.append(other_counts[0] + (f", and {more} more cells are of other sites" if more else ""))
    return found


def paper_table(table: RecallTable, *, candidates: int = 0) -> Table:
    """The table for the terminal; its caption says what chance is and what is not as in the paper.

    Arguments as in :func:`deviations`.
    """
    header, *rows = paper_rows(table)
    view = Table(title="recall@1 in %, from source (rows) to target (columns)", box=box.SIMPLE_HEAD)
    for index, name in enumerate(header):
        view.add_column(name, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        view.add_row(*row)
    chances = [row.chance for row in table.pairs]
    notes = [f"chance {np.min(chances):.1f} to {np.max(chances):.1f}"] if chances else []
    if differing := deviations(table, candidates=candidates):
        notes.append(f"NOT THE WHOLE BENCHMARK: {'; '.join(differing)}")
    view.caption = "\n".join(notes)
    return view


def write_paper_table(path: Path, table: RecallTable) -> None:
    """The same cells as CSV, complete or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(paper_rows(table))
    temporary.replace(path)
