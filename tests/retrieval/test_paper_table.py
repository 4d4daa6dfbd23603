"""The table in the paper's form."""

import csv
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from data_prep.corpora.yubao.sites import read_sites
from retrieval.comparison.paper_table import (
    deviations,
    paper_rows,
    paper_table,
    sites_asked,
    write_paper_table,
)
from zipformer.errors import UserError
from zipformer.typed_json import MalformedResultError

ORDER = ["cmn", "mandarin", "nan", "wuu", "hak", "yue", "hsn", "gan"]
NAMES = ["Standard Mandarin", "Mandarin dialects", "Southern Min", "Wu", "Hakka", "Yue", "Xiang", "Gan"]

SITES = {(site.group, site.name) for site in read_sites()}


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


def printed(table: SimpleNamespace, differing: list[str]) -> str:
    stream = StringIO()
    Console(width=150, file=stream).print(paper_table(table, differing))
    return " ".join(stream.getvalue().split())


def test_the_order_and_the_form_of_the_paper() -> None:
    whole = table_of(sorted(ORDER), sites_a_group=11)
    rows = paper_rows(whole)
    assert rows[0] == ["", *ORDER]
    for i, row in enumerate(rows[1:]):
        assert row == [NAMES[i], *("-" if i == j else f"{10 * i + j}.0" for j in range(8))]
    assert deviations(whole, SITES, SITES) == []
    assert "NOT THE WHOLE" not in printed(whole, [])
    assert "chance 2.0 to 2.2" in printed(whole, [])


def test_groups_that_are_not_the_benchmark_are_said() -> None:
    table = table_of(ORDER[:-1], 11)
    found = deviations(table, SITES, SITES)
    assert found == ["no results of gan"]
    assert "NOT THE WHOLE BENCHMARK: no results of gan" in printed(table, found)
    assert paper_rows(table)[1][8] == "-"
    table = table_of([*ORDER, "cdo"], 11)
    assert deviations(table, SITES | {("cdo", "a")}, SITES) == ["cdo is not a group of it"]
    assert paper_rows(table)[1][8] == "7.0"


def test_as_many_other_sites_are_not_the_benchmark() -> None:
    names = sorted(name for group, name in SITES if group == "wuu")
    others = {("wuu", f"x{number}") for number in range(11)}
    found = deviations(table_of(ORDER, 11), {site for site in SITES if site[0] != "wuu"} | others, SITES)
    assert found == [
        "wuu has 11 other sites (x0, x1, x10, ...)",
        f"wuu lacks 11 of 11 sites ({', '.join(names[:3])}, ...)",
    ]
    # A site of the benchmark that was taken for one of another group
    moved = SITES - {("wuu", names[0])} | {("gan", names[0])}
    assert deviations(table_of(ORDER, 11), moved, SITES) == [
        f"wuu lacks 1 of 11 sites ({names[0]})",
        f"gan has 1 other sites ({names[0]})",
    ]


def test_fewer_pairs_of_sites_are_said() -> None:
    found = deviations(table_of(ORDER, 10), SITES, SITES)
    assert found == ["cmn to mandarin has 10 pairs of sites, not 11, and 55 more cells are of other pairs"]


def test_cells_that_were_not_asked_are_named() -> None:
    table = table_of(ORDER, sites_a_group=11)
    table.pairs = [row for row in table.pairs if (row.source, row.target) != ("wuu", "gan")]
    assert deviations(table, SITES, SITES) == ["wuu to gan was not asked"]
    assert paper_rows(table)[4][8] == "-"


def test_the_sites_of_results(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"site_pairs\.csv.*fangyan retrieve"):
        sites_asked(tmp_path)
    file = tmp_path / "site_pairs.csv"
    file.write_text("source,source_site,target,target_site,queries\nyue,a,wuu,b,3\nyue,c,wuu,b,3\n")
    assert sites_asked(tmp_path) == {("yue", "a"), ("yue", "c"), ("wuu", "b")}
    file.write_text("source,target\nyue,wuu\n")
    with pytest.raises(MalformedResultError, match=r"no column source_site, target_site"):
        sites_asked(tmp_path)


@pytest.mark.parametrize("differing", [[], ["no results of gan", "wuu, with a comma"]])
def test_the_file(tmp_path: Path, differing: list[str]) -> None:
    table = table_of(ORDER, sites_a_group=11)
    write_paper_table(tmp_path / "paper_table.csv", table, differing)
    with (tmp_path / "paper_table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    if differing:
        marks = [row.pop() for row in rows]
        assert marks == ["NOT THE WHOLE BENCHMARK", *["no results of gan; wuu, with a comma"] * 8]
    assert rows == paper_rows(table)
    assert [path.name for path in tmp_path.iterdir()] == ["paper_table.csv"]
