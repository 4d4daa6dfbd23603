"""Dialect groups and the varieties below them, and the mapping from the labels of a corpus to them.

Every table of the toolkit uses a *group* (``yue``, ``wuu``, ...; ISO 639-3 where there is a code) and, where
known, a *subdialect* (``wuu-shanghai``). Corpora label their recordings in many ways; ``variety_of`` is the
only function that maps such labels. The names and labels are data: ``taxonomy.tsv`` has one line per variety
with id, Chinese and English name, and further labels separated by semicolons. Labels whose meaning depends on
the corpus are refused: ``ambiguous.tsv`` lists them, with the ids they may stand for.
"""

import csv
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from opencc import OpenCC

from zipformer.errors import UserError

TAXONOMY_FILE = Path(__file__).with_name("taxonomy.tsv")
AMBIGUOUS_FILE = Path(__file__).with_name("ambiguous.tsv")


class UnknownDialectError(UserError):
    """A label that neither the taxonomy nor the mapping of the corpus knows, or that has several meanings."""


class AmbiguousDialectError(UnknownDialectError):
    """A label whose meaning depends on the corpus."""


@dataclass(frozen=True)
class Variety:
    """The variety of Chinese that an utterance is spoken in.

    Attributes:
        group: dialect group, e.g. ``wuu``; goes to ``supervision.language``.
        subdialect: variety inside the group, e.g. ``wuu-shanghai``, or None if only the group is known; goes
            to ``supervision.custom["subdialect"]``.
    """

    group: str
    subdialect: str | None = None

    @property
    def id(self) -> str:
        """The most specific id: the subdialect where known, else the group."""
        return self.subdialect or self.group


@dataclass(frozen=True)
class TaxonomyEntry:
    """One line of the taxonomy file."""

    variety: Variety
    chinese: str
    english: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Ambiguity:
    """Possible meanings of an ambiguous label, as ids of the taxonomy, and the reason in words."""

    ids: tuple[str, ...]
    why: str


def groups() -> tuple[str, ...]:
    """Ids of all dialect groups, in the order of the taxonomy file."""
    return tuple(entry.variety.group for entry in entries() if entry.variety.subdialect is None)


@lru_cache(maxsize=1)
def entries() -> tuple[TaxonomyEntry, ...]:
    """All groups and subdialects, in the order of the taxonomy file."""
    with TAXONOMY_FILE.open(encoding="utf-8", newline="") as stream:
        return tuple(_entry(row) for row in csv.DictReader(stream, delimiter="\t"))


def variety_of_id(name: str) -> Variety:
    """The variety with an id of the taxonomy, which must match exactly.

    Raises:
        UnknownDialectError: there is no such id. The message lists all ids.
    """
    for entry in entries():
        if entry.variety.id == name:
            return entry.variety
    raise UnknownDialectError(f"{name!r} is not an id of {TAXONOMY_FILE}. Known ids: {_known_ids()}")


def variety_of(label: str, dialect_map: Mapping[str, str] | None = None) -> Variety:
    """Map a corpus's own dialect label to its variety.

    Args:
        label: the label as the corpus writes it. Case, spaces, punctuation, and simplified or traditional
            characters do not matter: ``Xi'an``, ``xian`` and ``XI AN`` are one label.
        dialect_map: label or id of the taxonomy for further labels of this corpus. It takes precedence over
            the labels of the taxonomy.

    Raises:
        UnknownDialectError: the label is unknown or ambiguous. The message says how to map it.
    """
    wanted = _key(label)
    for source, target in (dialect_map or {}).items():
        if _key(source) == wanted:
            return _variety_of_target(source, target)
    return _variety_of_label(label)


def label_fault(label: str) -> str:
    """Short message: why a label has no variety, and how to map it."""
    try:
        variety = _variety_of_label(label)
    except AmbiguousDialectError as error:
        return str(error)
    except UnknownDialectError:
        return f"unknown dialect label {label!r}: {map_setting(label)}" if _key(label) else "no dialect label"
    return f"{label!r} is a label of {variety.id}, which the corpus has not mapped"


def map_setting(label: str, target: str = "<id>") -> str:
    """Setting that maps a label to an id, written so that Hydra's command line accepts it."""
    key = _key(label)
    if re.fullmatch(r"[a-z][a-z0-9]*", key) and key not in ("null", "true", "false", "inf", "nan"):
        return f"'+corpus.dialect_map={{{key}: {target}}}'"
    # Hydra's command line rejects keys with other letters or with brackets.
    return f"corpus.dialect_map_file=FILE with the line '{label}<TAB>{target}' in FILE"


def _variety_of_target(source: str, target: str) -> Variety:
    ids = {entry.variety.id: entry.variety for entry in entries()}
    try:
        return ids.get(target.strip()) or _variety_of_label(target)
    except UnknownDialectError as error:
        raise UnknownDialectError(f"dialect_map maps {source!r} to {target!r}: {error}") from error


def _variety_of_label(label: str) -> Variety:
    key = _key(label)
    if ambiguity := _ambiguous_labels().get(key):
        choices = " or ".join(f"{choice} ({_name(choice)})" for choice in ambiguity.ids)
        remedies = " or ".join(map_setting(label, choice) for choice in ambiguity.ids[:2])
        raise AmbiguousDialectError(
            f"the dialect label {label!r} is ambiguous: {ambiguity.why}. Say whether it means {choices} in "
            f"this corpus: {remedies}"
        )
    if found := _varieties_by_label().get(key):
        return found
    if not key:
        raise UnknownDialectError("the dialect label is empty; write one into the table")
    raise UnknownDialectError(
        f"unknown dialect label {label!r}. Known ids: {_known_ids()}. Map the label to one of them: "
        f"{map_setting(label)}, or add it to the labels in {TAXONOMY_FILE}"
    )


def _known_ids() -> str:
    return ", ".join(entry.variety.id for entry in entries())


def _name(variety_id: str) -> str:
    return next(entry.english for entry in entries() if entry.variety.id == variety_id)


@lru_cache(maxsize=1)
def _varieties_by_label() -> dict[str, Variety]:
    """Variety by label, for all labels of the taxonomy that are not ambiguous."""
    table: dict[str, Variety] = {}
    for entry in entries():
        for label in (entry.variety.id, entry.chinese, entry.english, *entry.labels):
            other = table.setdefault(_key(label), entry.variety)
            if other != entry.variety:
                raise UserError(
                    f"{TAXONOMY_FILE}: label {label!r} stands for both {other.id} and {entry.variety.id}"
                )
    return table


@lru_cache(maxsize=1)
def _ambiguous_labels() -> dict[str, Ambiguity]:
    table: dict[str, Ambiguity] = {}
    with AMBIGUOUS_FILE.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            ambiguity = Ambiguity(tuple(row["ids"].split(";")), row["why"])
            table.update({_key(label): ambiguity for label in row["labels"].split(";")})
    return table


def _entry(row: Mapping[str, str]) -> TaxonomyEntry:
    group, _, _ = row["id"].partition("-")
    variety = Variety(group, row["id"] if row["id"] != group else None)
    labels = tuple(label for label in row["labels"].split(";") if label)
    return TaxonomyEntry(variety, row["chinese"], row["english"], labels)


def _key(label: str) -> str:
    return "".join(c for c in _simplified(unicodedata.normalize("NFKC", label)).casefold() if c.isalnum())


def _simplified(label: str) -> str:
    return label if label.isascii() else _converter().convert(label)


@lru_cache(maxsize=1)
def _converter() -> OpenCC:
    return OpenCC("t2s")
