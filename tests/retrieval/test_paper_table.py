"""The table in the paper's form."""

import csv
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from retrieval.paper_table import deviations, paper_rows, paper_table, write_paper_table

ORDER = ["cmn", "mandarin", "nan", "wuu", "hak", "yue", "hsn", "gan"]
NAMES = ["Standard Mandarin", "Mandarin dialects", "Southern Min", "Wu", "Hakka", "Yue", "Xiang", "Gan"]


def table_of(groups: list[str], sites_a_group: int) -> SimpleNamespace:
    """Results whose rates tell source and target: ten times the one's place in the order and the other's."""
    sites = {group: 1 if group == "cmn" else sites_a_group for group in groups}
    place = {group: ORDER.index(group) if group in ORDER else 9 for group in groups}
    pairs = [
        SimpleNamespace(
            source=source,
            target=target,
            recall_at_1=10 * place[source] + place[target] + 0.04,
            site_pairs=sites[source] * sites[target],
            chance=2.0 if "cmn" in (source, target) else 2.22,
        )
        for source in groups
        for target in groups
        if source != target
    ]
    return SimpleNamespace(groups=groups, pairs=pairs)


def printed(table: SimpleNamespace) -> str:
    stream = StringIO()
    Console(width=150, file=stream).print(paper_table(table))
    return " ".join(stream.getvalue().split())


def test_the_order_and_the_form_of_the_paper() -> None:
    whole = table_of(sorted(ORDER), sites_a_group=11)
    rows = paper_rows(whole)
    assert rows[0] == ["", *ORDER]
    for i, row in enumerate(rows[1:]):
        assert row == [NAMES[i], *("-" if i == j else f"{10 * i + j}.0" for j in range(8))]
    assert deviations(whole) == []
    assert "NOT THE WHOLE" not in printed(whole)
    assert "chance 2.0 to 2.2" in printed(whole)


@pytest.mark.parametrize(
    ("groups", "sites", "deviation"),
    [
        (ORDER[:-1], 11, "no results of gan"),
        ([*ORDER, "cdo"], 11, "cdo is not a group of it"),
        (ORDER, 10, "cmn to mandarin has 10 pairs of sites, not 11, and 55 more cells are of other sites"),
    ],
)
def test_what_is_not_the_benchmark_is_said(groups: list[str], sites: int, deviation: str) -> None:
    table = table_of(groups, sites)
    assert deviations(table)[0] == deviation
    assert f"NOT THE WHOLE BENCHMARK: {deviation}" in printed(table)
    assert paper_rows(table)[1][8] == ("-" if "gan" not in groups else "7.0")


def test_cells_that_were_not_asked_and_few_candidates_are_said() -> None:
    table = table_of(ORDER, sites_a_group=11)
    table.pairs = [row for row in table.pairs if (row.source, row.target) != ("wuu", "gan")]
    assert deviations(table) == ["wuu to gan was not asked"]
    assert paper_rows(table)[4][8] == "-"
    found = deviations(table_of(ORDER, sites_a_group=11), candidates=10)
    assert found == ["retrieved with candidates=10, not whole pools"]


def test_the_file(tmp_path: Path) -> None:
    table = table_of(ORDER, sites_a_group=11)
    write_paper_table(tmp_path / "paper_table.csv", table)
    with (tmp_path / "paper_table.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == paper_rows(table)
    assert [path.name for path in tmp_path.iterdir()] == ["paper_table.csv"]
