"""The sites of the benchmark: 78 places in eight dialect groups.

``sites.tsv`` has one line for each site: group in our taxonomy, id on the platform (the first five characters
of every utterance id), and name as the platform writes it (province, prefecture, county). The groups are in
the order of the table in the paper.
"""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from data_prep.delimited import read_records
from data_prep.taxonomy import groups
from zipformer.errors import UserError, listed

SITES_FILE = Path(__file__).with_name("sites.tsv")
COLUMNS = ["group", "site_id", "site"]
SITE_ID_LENGTH = 5

# Whole words: 粤 alone is also in 客家话粤台片, and 湘 in names of places.
GROUPS_OF_WORDS = {
    "官话": ("cmn", "mandarin"),
    "闽语": ("nan", "cdo"),
    "闽南": ("nan",),
    "闽东": ("cdo",),
    "吴语": ("wuu",),
    "客家": ("hak",),
    "粤语": ("yue",),
    "湘语": ("hsn",),
    "赣语": ("gan",),
    "晋语": ("cjy",),
}
_GROUP_WORDS = re.compile("|".join(GROUPS_OF_WORDS))


@dataclass(frozen=True)
class BenchmarkSite:
    """One place.

    Attributes:
        group: id of a dialect group of the taxonomy.
        site_id: five characters, e.g. ``11127``.
        name: e.g. ``河北_承德市_滦平县``.
    """

    group: str
    site_id: str
    name: str

    def __str__(self) -> str:
        return f"{self.site_id} {self.name} ({self.group})"


def read_sites(path: Path = SITES_FILE) -> list[BenchmarkSite]:
    """Read a list of sites, by default that of the benchmark.

    Raises:
        UserError: the file is missing or is not a list of sites; the message names the line.
    """
    try:
        header, records, faults = read_records(path)
    except UserError as error:
        raise UserError(
            f"the list of sites {path} cannot be read ({error}); write one like {SITES_FILE}"
        ) from error
    if header != COLUMNS:
        raise UserError(
            f"{path}:1: the columns must be {', '.join(COLUMNS)} with tabs between them, found {header}"
        )
    sites: list[BenchmarkSite] = []
    known, lines_by_value = set(groups()), dict[str, int]()
    for record in records:
        number, row = record.line, record.values
        if len(row[1]) != SITE_ID_LENGTH or not row[2]:
            raise UserError(
                f"{path}:{number}: {row} is not a group, a site id of {SITE_ID_LENGTH} characters and a name"
            )
        site = BenchmarkSite(*row)
        if site.group not in known:
            raise UserError(f"{path}:{number}: group {site.group!r} is not one of {', '.join(sorted(known))}")
        for value in (site.site_id, same_name(site.name)):
            if (first := lines_by_value.setdefault(value, number)) != number:
                raise UserError(
                    f"{path}:{number}: {site.site_id} {site.name} has the id or name of line {first}; "
                    "remove one"
                )
        sites.append(site)
    if faults:
        raise UserError(listed("lines of the list of sites that cannot be used", faults))
    if not sites:
        raise UserError(f"{path}: the list has no site; write one like {SITES_FILE}")
    return sites


def groups_named(subgrouping: str) -> set[str]:
    """Dialect groups in the platform's description of a dialect, e.g. ``{"yue"}`` for ``粤语广府片``."""
    return {group for word in _GROUP_WORDS.findall(subgrouping) for group in GROUPS_OF_WORDS[word]}


def same_name(name: str) -> str:
    """A name without variation in the width of parentheses and in spaces."""
    return "".join(unicodedata.normalize("NFKC", name).split())
