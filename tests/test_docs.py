"""The documentation: every path that it names exists, every command has a row, and lines are short."""

import re
from pathlib import Path

import pytest

from fangyan.commands import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [
    page.relative_to(ROOT)
    for pattern in (
        "*.md",
        *(f"{name}/**/*.md" for name in ("recipes", "retrieval", "data_prep", "zipformer", "benchmarks")),
    )
    for page in sorted(ROOT.glob(pattern))
]
PACKAGES = "benchmarks|conf|data_prep|fangyan|recipes|retrieval|scripts|tests|zipformer"
# A file in a folder of the project. Names with capitals or *, which stand for something, do not match.
NAMED_FILE = re.compile(rf"(?<![\w/.-])(?:{PACKAGES})/[a-z0-9_/.-]+\.(?:py|sh|tsv|yaml|md|png)\b")
COMMAND_ROW = re.compile(r"^\| ((?:`\w+`(?:, )?)+) \|", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_and_named_files_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if not (ROOT / page.parent / link).exists()]
    missing += [name for name in NAMED_FILE.findall(text) if not (ROOT / name).exists()]
    assert not missing, f"{page}: {', '.join(missing)}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"(?<=`)fangyan ([a-z_]+)|^(?:\S*/)?fangyan ([a-z_]+)", text, re.MULTILINE)
    unknown = {first or second for first, second in named} - set(COMMANDS)
    assert not unknown, f"{page}: {', '.join(sorted(unknown))}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_lines_are_narrow(page):
    """Only the rows of tables may be longer than 120 columns: they cannot be broken."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if len(line) > 120 and not line.startswith("|")]


def test_readme_is_short_and_names_every_command():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(lines) <= 180
    assert max(map(len, lines)) <= 120, "not even in tables"
    rows = re.findall(r"`(\w+)`", " ".join(COMMAND_ROW.findall(text)))
    assert not set(COMMANDS) - set(rows)
