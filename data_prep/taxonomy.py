"""Dialect groups and the varieties below them, and the way from a corpus's own label to them.

Every table of the toolkit speaks of a *group* (``yue``, ``wuu``, ...; ISO 639-3 where there is a code) and,
where it is known, of a *subdialect* (``wuu-shanghai``). Corpora label their recordings in many ways;
``variety_of`` is the only place where such a label becomes one of these names. The names and labels
themselves are data: ``taxonomy.tsv`` has one line per variety with its id, its Chinese and English name, and
further labels separated by semicolons.
"""

import csv
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

TAXONOMY_FILE = Path(__file__).with_name("taxonomy.tsv")


class UnknownDialectError(ValueError):
    """A label that neither the taxonomy nor the mapping of the corpus knows."""


@dataclass(frozen=True)
class Variety:
    """What an utterance is spoken in.

    Attributes:
        group: dialect group, e.g. ``wuu``; goes to ``supervision.language``.
        subdialect: variety inside the group, e.g. ``wuu-shanghai``, or None if only the group is known; goes
            to ``supervision.custom["subdialect"]``.
    """

    group: str
    subdialect: str | None = None

    @property
    def id(self) -> str:
        """The most exact name: the subdialect where known, else the group."""
        return self.subdialect or self.group


@dataclass(frozen=True)
class TaxonomyEntry:
    """One line of the taxonomy file."""

    variety: Variety
    chinese: str
    english: str
    labels: tuple[str, ...]


def groups() -> tuple[str, ...]:
    """Ids of all dialect groups, in the order of the taxonomy file."""
    return tuple(entry.variety.group for entry in entries() if entry.variety.subdialect is None)


@lru_cache(maxsize=1)
def entries() -> tuple[TaxonomyEntry, ...]:
    """All groups and subdialects, in the order of the taxonomy file."""
    with TAXONOMY_FILE.open(encoding="utf-8", newline="") as stream:
        return tuple(_entry(row) for row in csv.DictReader(stream, delimiter="\t"))


def variety_of(label: str, dialect_map: Mapping[str, str] | None = None) -> Variety:
    """Map a corpus's own dialect label to its variety.

    Args:
        label: the label as the corpus writes it. Case, spaces and punctuation do not matter: ``Xi'an``,
            ``xian`` and ``XI AN`` are one label.
        dialect_map: further labels of this corpus, from the label to any label or id of the taxonomy. They
            win over the labels of the taxonomy.

    Raises:
        UnknownDialectError: nobody knows the label. The message lists the known ids and says how to add a
            mapping.
    """
    if dialect_map:
        wanted = _key(label)
        label = next((target for source, target in dialect_map.items() if _key(source) == wanted), label)
    try:
        return _varieties_by_label()[_key(label)]
    except KeyError:
        known = ", ".join(entry.variety.id for entry in entries())
        mapping = f"dialect_map: {{{_key(label)}: <id>}} in a file conf/corpus/NAME.yaml for corpus=NAME"
        if label.isascii():  # Hydra's command line takes no other keys
            mapping = f"'+corpus.dialect_map={{{_key(label)}: <id>}}'"
        raise UnknownDialectError(
            f"unknown dialect label {label!r}. Known ids: {known}. Map the label to one of them in the "
            f"settings of the corpus ({mapping}), or add it to the labels in {TAXONOMY_FILE}"
        ) from None


@lru_cache(maxsize=1)
def _varieties_by_label() -> dict[str, Variety]:
    """Every spelling the taxonomy knows; ids and names win over the free labels of another line."""
    table: dict[str, Variety] = {}
    for entry in entries():
        for label in (entry.variety.id, entry.chinese, entry.english, *entry.labels):
            other = table.setdefault(_key(label), entry.variety)
            if other != entry.variety:
                raise ValueError(
                    f"{TAXONOMY_FILE}: label {label!r} stands for both {other.id} and {entry.variety.id}"
                )
    return table


def _entry(row: Mapping[str, str]) -> TaxonomyEntry:
    group, _, _ = row["id"].partition("-")
    variety = Variety(group, row["id"] if row["id"] != group else None)
    labels = tuple(label for label in row["labels"].split(";") if label)
    return TaxonomyEntry(variety, row["chinese"], row["english"], labels)


def _key(label: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKC", label).casefold() if c.isalnum())
