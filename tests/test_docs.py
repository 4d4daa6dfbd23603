"""Every path that the documentation names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MARKDOWN = sorted(
    path.relative_to(ROOT)
    for folder in ("recipes", "retrieval", "benchmarks")
    for path in (ROOT / folder).rglob("*.md")
) + [Path("CHANGELOG.md"), Path("README.md")]
PACKAGES = "benchmarks|conf|data_prep|fangyan|recipes|retrieval|scripts|tests|zipformer"
# A file in a folder of the project; NAME and *, which stand for something, are left out.
NAMED = re.compile(rf"(?<![\w/.-])(?:{PACKAGES})/[a-z0-9_/.-]+\.(?:py|sh|tsv|yaml|md|png)\b")


@pytest.mark.parametrize("page", MARKDOWN, ids=str)
def test_links_lead_to_files(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if not (ROOT / page.parent / link).exists()]
    assert not missing, f"{page}: {', '.join(missing)}"


@pytest.mark.parametrize("page", MARKDOWN, ids=str)
def test_named_files_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    missing = [name for name in NAMED.findall(text) if not (ROOT / name).exists()]
    assert not missing, f"{page}: {', '.join(missing)}"


def test_readme_has_a_row_for_every_command():
    from fangyan.commands import COMMANDS

    rows = re.findall(
        r"^\| ((?:`\w+`(?:, )?)+) \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) >= set(COMMANDS)
