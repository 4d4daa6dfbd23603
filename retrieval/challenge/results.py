"""Recall on the full test set and on its challenge sets, each with its own chance level."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from retrieval.challenge.settings import COMBINED, RANDOM_ENDING, Removal
from retrieval.protocol.challenge_sets import ChallengeSet
from retrieval.protocol.reading import RETRIEVED_WITH, SAME_SETTINGS, RecallResult, read_recall
from retrieval.protocol.tables import PairRow, RecallTable, SummaryRow
from retrieval.results.weights import Sieve
from retrieval.statistics.bootstrap import resampled
from zipformer.data.dataset import SHOWN_DIGITS
from zipformer.files import column_names, write_csv, write_json

FULL = "full"
ORDER = (FULL, *(removal.set_name for removal in Removal), COMBINED)
Key = tuple[str, str]  # system, set
DEFAULTS = {"layer": None, "score": "seqsim", "correction": "none"}  # omitted in names of systems


@dataclass(frozen=True)
class Asked:
    """A result of retrieval and its file."""

    path: Path
    result: RecallResult

    @property
    def question(self) -> dict[str, Any]:
        """Settings that must be equal in results that are compared."""
        found: dict[str, Any] = {"challenge_fingerprint": self.result.challenge_fingerprint}
        for key in SAME_SETTINGS:
            found[key] = self.result.settings.get(key)
        return found


@dataclass(frozen=True)
class ChallengeRow:
    """Recall of one system on one set; rates in per cent.

    Attributes:
        system: embedder and score, e.g. ``mfcc``.
        challenge: name of the set, or ``full``.
        source, target: an ordered pair of groups; both empty for the mean over all pairs.
        pairs: ordered pairs of groups in the mean, 1 for a pair.
        recall_at_1, low, high: recall@1 and the ends of its interval.
        chance: chance level of this set.
        above_chance: (recall - chance) / (1 - chance): 0 at chance, 100 if every query hits. Use it to
            compare sets with different pool sizes.
        full_recall_at_1: recall@1 on the full set over the same pairs of groups; None if not measured.
    """

    system: str
    challenge: str
    source: str
    target: str
    pairs: int
    recall_at_1: float
    low: float
    high: float
    chance: float
    above_chance: float
    full_recall_at_1: float | None


@dataclass(frozen=True)
class ChallengeResults:
    """Results on challenge sets, as the report shows them.

    Attributes:
        groups: rows and columns of the matrices.
        held_out: groups that the encoder was not trained on.
        systems: names of the systems, the encoder first.
        sets: names of the sets, ``full`` first.
        tables: tables by system and set; a combination that was not run is absent.
        single_site_groups: groups with one site, which the intervals do not resample; None if unknown.
    """

    groups: list[str]
    held_out: list[str]
    systems: list[str]
    sets: list[str]
    tables: dict[tuple[str, str], RecallTable]
    single_site_groups: list[str] | None = None

    @property
    def resampled(self) -> str:
        """Resampled units of the intervals, for captions."""
        return resampled(self.groups, self.single_site_groups)

    def overall(self) -> list[ChallengeRow]:
        """Means over all ordered pairs of groups with at least one sentence."""
        return [
            self._row(system, name, _of_all(self.tables[system, name]))
            for system in self.systems
            for name in self.sets
            if (system, name) in self.tables
        ]

    def pairs(self) -> list[ChallengeRow]:
        """All ordered pairs of groups."""
        return [
            self._row(system, name, row)
            for system in self.systems
            for name in self.sets
            if (system, name) in self.tables
            for row in self.tables[system, name].pairs
        ]

    def _row(self, system: str, name: str, row: PairRow | SummaryRow) -> ChallengeRow:
        table, full = self.tables[system, name], self.tables.get((system, FULL))
        if isinstance(row, PairRow):
            source, target, asked = row.source, row.target, {(row.source, row.target)}
        else:
            source, target, asked = "", "", {(pair.source, pair.target) for pair in table.pairs}
        full_rates = (
            [] if full is None else [p.recall_at_1 for p in full.pairs if (p.source, p.target) in asked]
        )
        return ChallengeRow(
            system,
            name,
            source,
            target,
            len(asked),
            row.recall_at_1,
            row.low,
            row.high,
            row.chance,
            above_chance=100 * (row.recall_at_1 - row.chance) / (100 - row.chance),
            full_recall_at_1=float(np.mean(full_rates)) if full_rates else None,
        )


def read_challenge_results(results: Path, split: str, sieve: Sieve | None = None) -> ChallengeResults | None:
    """Read the results of a model directory on challenge sets and on the full set.

    Args:
        results: folder of a data set in the ``results`` of a model directory.
        split: split of the results.
        sieve: checks the results and collects the warnings; by default one for the model directory.

    Returns:
        The results; None if there are none on a challenge set. A result is left out, with a warning, if its
        groups differ from those of the first result; if its settings differ from those of the first result on
        the same set (that of the model, if there is one); or if its random set was drawn for another set of
        the same name.

    Raises:
        MalformedResultError: a ``recall.json`` without its fields.
    """
    model_dir = results.parents[1]
    sieve = sieve or Sieve(model_dir)
    found: dict[Key, Asked] = {}
    for path in sorted(results.glob(f"retrieval-{split}*/recall.json")):
        result = read_recall(path)
        if result is not None and result.settings.get("split", split) == split:
            if not sieve.passes(result.weights, result.data, path, RETRIEVED_WITH):
                continue
            challenge = result.settings.get("challenge")
            key = system_name(result), Path(challenge).stem if challenge else FULL
            found[key] = Asked(path, result)
    asked = {system for system, name in found if name != FULL}
    if not asked:
        return None
    order = sorted((key for key in found if key[0] in asked), key=_place)
    first = found[order[0]].result.table
    alike: dict[Key, Asked] = {}
    for key in order:
        if set(found[key].result.table.groups) == set(first.groups):
            alike[key] = found[key]
        else:
            sieve.warn("results of {} on {} are for other groups and are not compared".format(*key))
    tables = {key: asked.result.table for key, asked in _of_the_same_sets(alike, sieve).items()}
    return ChallengeResults(
        groups=first.groups,
        held_out=first.held_out_groups,
        systems=list(dict.fromkeys(system for system, _ in tables)),
        sets=sorted({name for _, name in tables}, key=_set_place),
        tables=tables,
        single_site_groups=first.single_site_groups,
    )


def _of_the_same_sets(found: Mapping[Key, Asked], sieve: Sieve) -> dict[Key, Asked]:
    """Results with the same settings as the first result on their set (that of the model, if there is one).

    If a set is built again with another threshold or from other cuts, it keeps its name, but its fingerprint
    and that of its random counterpart change.
    """
    first_of: dict[str, Asked] = {}
    kept: dict[Key, Asked] = {}
    for key, asked in _with_their_counterparts(found, sieve).items():
        system, name = key
        first = first_of.setdefault(name, asked)
        different = [what for what, value in first.question.items() if asked.question[what] != value]
        if not different:
            kept[key] = asked
            continue
        sieve.warn(
            f"{asked.path} ({system}) is left out of the challenge set {name}: it was asked with"
            f" {_named(asked, different)}, {first.path} with {_named(first, different)}. Ask both the same"
            " with fangyan retrieve"
        )
    return kept


def _with_their_counterparts(found: Mapping[Key, Asked], sieve: Sieve) -> dict[Key, Asked]:
    """All results except those on a random set that was drawn for another set of the same name."""
    first_of: dict[str, Asked] = {}
    for (_, name), asked in found.items():
        first_of.setdefault(name, asked)
    kept: dict[Key, Asked] = {}
    for key, asked in found.items():
        system, name = key
        counterpart = first_of.get(name.removesuffix(RANDOM_ENDING))
        expected = None if counterpart is None else counterpart.result.challenge_fingerprint
        if name.endswith(RANDOM_ENDING) and counterpart and asked.result.drawn_for != expected:
            sieve.warn(
                f"{asked.path} ({system}) is left out: its random set was drawn for another set than"
                f" that of {counterpart.path}. Ask both sets again with fangyan retrieve"
            )
            continue
        kept[key] = asked
    return kept


def _named(asked: Asked, names: Sequence[str]) -> str:
    return ", ".join(f"{name}={str(asked.question[name])[:SHOWN_DIGITS]}" for name in names)


def system_name(result: RecallResult) -> str:
    """Embedder, followed by layer, score and correction if not default, e.g. ``mfcc, dtw``."""
    parts = [result.embedder]
    for key, default in DEFAULTS.items():
        value = result.settings.get(key, default)
        if value != default:
            parts.append(f"{key} {value}" if key == "layer" else str(value))
    return ", ".join(parts)


def write_challenge_results(folder: Path, comparison: ChallengeResults) -> None:
    """Write ``challenge.json`` and ``challenge.csv``: means first, then all pairs of groups."""
    overall, pairs = comparison.overall(), comparison.pairs()
    content = {
        "groups": comparison.groups,
        "single_site_groups": comparison.single_site_groups,
        "systems": comparison.systems,
        "sets": comparison.sets,
        "overall": [asdict(row) for row in overall],
        "pairs": [asdict(row) for row in pairs],
    }
    write_json(folder / "challenge.json", content)
    write_csv(folder / "challenge.csv", column_names(ChallengeRow), map(asdict, [*overall, *pairs]))


def report_context(comparison: ChallengeResults) -> dict[str, Any]:
    """Variables of the partial template ``_challenge.html.j2``, without the figure."""
    cells: dict[tuple[str, str], dict[tuple[str, str], ChallengeRow]] = {}
    for row in comparison.pairs():
        cells.setdefault((row.source, row.target), {})[row.system, row.challenge] = row
    columns = [key for system in comparison.systems for key in _columns(comparison, system)]
    return {
        "overall": comparison.overall(),
        "columns": columns,
        "cells": cells,
        "resampled": comparison.resampled,
    }


def challenge_table(comparison: ChallengeResults) -> Table:
    """Table of the means, for the terminal."""
    view = Table(title="recall@1 in % on the full set and on challenge sets", box=box.SIMPLE_HEAD)
    for name in ("system", "set"):
        view.add_column(name)
    for name in ("pairs", "recall@1", "interval", "chance", "above chance", "full set, same pairs"):
        view.add_column(name, justify="right")
    for row in comparison.overall():
        view.add_row(
            row.system,
            row.challenge,
            str(row.pairs),
            f"{row.recall_at_1:.1f}",
            f"{row.low:.1f} to {row.high:.1f}",
            f"{row.chance:.1f}",
            f"{row.above_chance:.1f}",
            "-" if row.full_recall_at_1 is None else f"{row.full_recall_at_1:.1f}",
        )
    view.caption = f"intervals: over {comparison.resampled}"
    return view


def sets_overview(sets: Sequence[ChallengeSet]) -> Table:
    """Table of the size of each set, for the terminal, over pairs of sites of different groups."""
    view = Table(title="challenge sets, pairs of sites of different groups", box=box.SIMPLE_HEAD)
    view.add_column("set")
    for name in ("site pairs", "left out", "sentences", "kept", "kept %", "chance %"):
        view.add_column(name, justify="right")
    view.add_column("dropped by")
    for challenge in sets:
        counts: Mapping[str, Any] = challenge.about["between_groups"]
        view.add_row(
            challenge.name,
            str(counts["site_pairs"]),
            str(counts["excluded_site_pairs"]),
            str(counts["sentences"]),
            str(counts["kept"]),
            f"{100 * counts['kept'] / counts['sentences']:.1f}",
            f"{counts['chance']:.1f}",
            ", ".join(f"{reason} {count}" for reason, count in counts["dropped_by"].items()),
        )
    return view


def _columns(comparison: ChallengeResults, system: str) -> list[tuple[str, str]]:
    return [(system, name) for name in comparison.sets if (system, name) in comparison.tables]


def _of_all(table: RecallTable) -> SummaryRow:
    return next(row for row in table.summary if row.name == "all")


def _set_place(name: str) -> tuple[int, str]:
    """Sort key: the full set, then the sets of the builder with their random counterparts, then others."""
    plain = name.removesuffix(RANDOM_ENDING)
    return ORDER.index(plain) if plain in ORDER else len(ORDER), name


def _place(key: tuple[str, str]) -> tuple[bool, str, tuple[int, str]]:
    """Sort key: the model before its controls."""
    system, name = key
    return not system.startswith("zipformer"), system, _set_place(name)
