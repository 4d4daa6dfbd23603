"""Computes the rows of an error-rate table and the list of frequent confusions from transcripts."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zipformer.scoring.alignment import Alignment, ErrorCounts, align, align_units, characters
from zipformer.scoring.conventions import PLAIN, Convention
from zipformer.scoring.intervals import Design, error_rate_interval, resampled

LEVELS = ("overall", "dialect", "subdialect", "site")
PART_LEVEL = "part"  # level of the rows for the lists of a split, where it has several, e.g. TEST_NET
KIND_LEVEL = "kind"  # level of the rows for the kinds of units of a convention, e.g. Han characters


@dataclass(frozen=True)
class Transcript:
    """Reference and hypothesis of an utterance with its labels; unknown fields are None.

    ``duration`` is that of the utterance in seconds; ``part`` is the corpus's own name of
    the list that it is in.
    """

    id: str
    dialect: str | None
    subdialect: str | None
    site: str | None
    sentence_id: str | None
    reference: str
    hypothesis: str
    speaker: str | None = None
    duration: float | None = None
    part: str | None = None

    @property
    def sentence(self) -> Hashable:
        """Key of the sentence: the sentence id, else the text, else the utterance itself."""
        if self.sentence_id is not None:
            return "sentence", self.sentence_id
        text = "".join(characters(self.reference))
        return ("text", text) if text else ("utterance", self.id)

    def group(self, level: str) -> tuple[str, str] | None:
        """Key (dialect, name) of the group that the utterance belongs to at a level, None where it has none.

        The dialect is part of the key so that two sites of one name in two dialects stay apart.
        """
        if level == "overall":
            return "", "overall"
        if level == PART_LEVEL:
            return None if self.part is None else ("", self.part)
        name = {"dialect": self.dialect, "subdialect": self.subdialect, "site": self.site}[level]
        return None if name is None else (self.dialect or "", name)


@dataclass(frozen=True)
class ScoredUtterance:
    transcript: Transcript
    alignment: Alignment
    counts: ErrorCounts


@dataclass(frozen=True)
class ScoreRow:
    """One row of the table. Rates are in per cent, and None where the references hold no unit.

    ``reference_characters`` and the errors count the units of the convention, characters by default.

    ``low`` and ``high`` are the ends of the interval, None also where a single utterance gives none;
    ``resampled`` says what other recordings it speaks of: other sentences, other sites or speakers.
    ``no_token`` counts reference units that no token of the model writes; None where that is not known.
    Each of them is an error, so that no rate can be lower than their share.
    """

    level: str
    name: str
    group: str
    utterances: int
    reference_characters: int
    substitutions: int
    deletions: int
    insertions: int
    cer: float | None
    low: float | None
    high: float | None
    resampled: str
    no_token: int | None = None


@dataclass(frozen=True)
class Confusion:
    """One kind of error and how often it happened; the missing side of a deletion or insertion is ``""``."""

    dialect: str
    kind: str
    reference: str
    hypothesis: str
    count: int


def align_all(transcripts: Iterable[Transcript], convention: Convention = PLAIN) -> list[ScoredUtterance]:
    """Align every utterance once; tables, confusions and the printed alignments all read the result."""
    scored = []
    for transcript in transcripts:
        alignment = align_units(
            convention.units(transcript.reference), convention.units(transcript.hypothesis)
        )
        scored.append(ScoredUtterance(transcript, alignment, alignment.counts))
    return scored


def score(
    scored: Sequence[ScoredUtterance], *, confidence: float = 0.95, convention: Convention = PLAIN
) -> list[ScoreRow]:
    """Error rates with their intervals at every level of `LEVELS`, groups sorted by name.

    The intervals are over sentences and, where a row has several, over its sites, or else its speakers
    (:mod:`zipformer.scoring.intervals`). The dialects of a test set are those that it has. Rows for
    its parts follow where it has several. Where the
    convention distinguishes kinds of units, a row for each kind follows. It counts the same alignments: an
    error is of the kind of its reference unit, and an insertion of the kind of the inserted unit.
    """
    rows = []
    for level in (*LEVELS, PART_LEVEL):
        members: dict[tuple[str, str], list[ScoredUtterance]] = defaultdict(list)
        for utterance in scored:
            key = utterance.transcript.group(level)
            if key is not None:
                members[key].append(utterance)
        if level == PART_LEVEL and len(members) < 2:
            continue  # a split that is one list is the row overall
        for (group, name), utterances in sorted(members.items(), key=lambda item: item[0]):
            counts = [utterance.counts for utterance in utterances]
            transcripts = [utterance.transcript for utterance in utterances]
            rows.append(_row(level, name, group, transcripts, counts, confidence))
    if convention.kind is not None:
        of_kind: dict[str, list[tuple[Transcript, ErrorCounts]]] = defaultdict(list)
        for utterance in scored:
            pairs: dict[str, list[tuple[str, str]]] = defaultdict(list)
            for reference, hypothesis in utterance.alignment.pairs:
                pairs[convention.kind(reference or hypothesis)].append((reference, hypothesis))
            for kind, found in pairs.items():
                of_kind[kind].append((utterance.transcript, Alignment(tuple(found)).counts))
        for kind, items in sorted(of_kind.items()):
            kind_transcripts, kind_counts = zip(*items, strict=True)
            rows.append(_row(KIND_LEVEL, kind, "", kind_transcripts, kind_counts, confidence))
    return rows


def _row(
    level: str,
    name: str,
    group: str,
    transcripts: Sequence[Transcript],
    counts: Sequence[ErrorCounts],
    confidence: float,
) -> ScoreRow:
    """The row of some utterances."""
    total = sum(counts, ErrorCounts())
    design, over = design_of(transcripts, "overall" if level in (PART_LEVEL, KIND_LEVEL) else level)
    interval = error_rate_interval(
        np.array([item.errors for item in counts]),
        np.array([item.reference_characters for item in counts]),
        design,
        confidence=confidence,
    )
    return ScoreRow(
        level=level,
        name=name,
        group=group,
        utterances=len(counts),
        reference_characters=total.reference_characters,
        substitutions=total.substitutions,
        deletions=total.deletions,
        insertions=total.insertions,
        cer=total.rate,
        low=None if interval is None else 100.0 * interval.low,
        high=None if interval is None else 100.0 * interval.high,
        resampled=over,
    )


def design_of(transcripts: Sequence[Transcript], level: str) -> tuple[Design, str]:
    """Which utterances of a row vary together, and in words what its interval is over.

    Places are the sites of a dialect (or of the row, below the level overall) where it has several, else its
    speakers where it has several; else all its utterances are of one place, which cannot vary.
    """
    strata = _numbers([item.dialect if level == "overall" else None for item in transcripts])
    names = dict(zip(strata.tolist(), (item.dialect or "unknown" for item in transcripts), strict=True))
    sites: dict[int, set[str | None]] = defaultdict(set)
    speakers: dict[int, set[str | None]] = defaultdict(set)
    for stratum, item in zip(strata.tolist(), transcripts, strict=True):
        sites[stratum].add(item.site)
        speakers[stratum].add(item.speaker)
    kinds = {}
    for stratum in names:
        several_sites, several_speakers = (len(known[stratum] - {None}) > 1 for known in (sites, speakers))
        kinds[stratum] = "sites" if several_sites else "speakers" if several_speakers else ""
    places = _numbers(
        [
            (stratum, {"sites": item.site, "speakers": item.speaker, "": None}[kinds[stratum]])
            for stratum, item in zip(strata.tolist(), transcripts, strict=True)
        ]
    )
    design = Design(_numbers([item.sentence for item in transcripts]), places, strata)
    called = " and ".join(kind for kind in ("sites", "speakers") if kind in kinds.values()) or "sites"
    if level == "overall":
        groups = [names[stratum] for stratum in kinds]
        over = resampled(groups, [names[stratum] for stratum, kind in kinds.items() if not kind], called)
    else:
        over = f"sentences and {called}" if any(kinds.values()) else "sentences"
    return design, over


def _numbers(labels: Sequence[Hashable]) -> NDArray[np.intp]:
    """Equal labels get the same number, in the order in which they first occur."""
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(label, len(number)) for label in labels], dtype=np.intp)


def confusions(scored: Iterable[ScoredUtterance], top: int | None = None) -> list[Confusion]:
    """Most frequent errors, over all dialects together (dialect ``""``) and for each one.

    Args:
        scored: aligned utterances.
        top: number of confusions to keep for each dialect and kind; None keeps all.

    Returns:
        The overall list first, then the dialects by name; within each, substitutions, deletions, insertions,
        each by falling count.
    """
    counters: dict[tuple[str, str], Counter[tuple[str, str]]] = defaultdict(Counter)
    for utterance in scored:
        dialect = utterance.transcript.dialect
        for reference, hypothesis in utterance.alignment.pairs:
            if reference == hypothesis:
                continue
            kind = "deletion" if not hypothesis else "substitution" if reference else "insertion"
            counters["", kind][reference, hypothesis] += 1
            if dialect is not None:
                counters[dialect, kind][reference, hypothesis] += 1
    result: list[Confusion] = []
    for dialect in sorted({dialect for dialect, _ in counters}):
        for kind in ("substitution", "deletion", "insertion"):
            # Ties in code point order, so that the list does not depend on the order of the utterances.
            ranked = sorted(counters[dialect, kind].items(), key=lambda item: (-item[1], item[0]))
            result.extend(Confusion(dialect, kind, *pair, count) for pair, count in ranked[:top])
    return result


def character_error_rate(references: Iterable[str], hypotheses: Iterable[str]) -> float | None:
    """Character error rate of paired texts in per cent, None where the references hold no character.

    Raises:
        ValueError: the two sides differ in length.
    """
    counts = (align(*pair).counts for pair in zip(references, hypotheses, strict=True))
    return sum(counts, ErrorCounts()).rate


def empty_references(scored: Iterable[ScoredUtterance]) -> int:
    """Number of utterances whose reference has no unit. What was recognised in them counts as insertions."""
    return sum(utterance.counts.reference_characters == 0 for utterance in scored)
