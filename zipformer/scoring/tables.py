"""Transcripts to the rows of an error-rate table and to the list of frequent confusions."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from zipformer.scoring.alignment import Alignment, ErrorCounts, align
from zipformer.scoring.bootstrap import bootstrap_ratio

LEVELS = ("overall", "dialect", "subdialect", "site")


@dataclass(frozen=True)
class Transcript:
    """What one utterance says and what was recognised; fields that a corpus does not know are None."""

    id: str
    dialect: str | None
    subdialect: str | None
    site: str | None
    sentence_id: str | None
    reference: str
    hypothesis: str

    def group(self, level: str) -> tuple[str, str] | None:
        """Key (dialect, name) of the group that the utterance belongs to at a level, None where it has none.

        The dialect is part of the key so that two sites of one name in two dialects stay apart.
        """
        if level == "overall":
            return "", "overall"
        name = {"dialect": self.dialect, "subdialect": self.subdialect, "site": self.site}[level]
        return None if name is None else (self.dialect or "", name)


@dataclass(frozen=True)
class ScoredUtterance:
    transcript: Transcript
    alignment: Alignment
    counts: ErrorCounts


@dataclass(frozen=True)
class ScoreRow:
    """One row of the table. Rates are in per cent, and None where the references hold no character.

    ``no_token`` counts reference characters that no token of the model writes; None where that is not known.
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
    no_token: int | None = None


@dataclass(frozen=True)
class Confusion:
    """One kind of error and how often it happened; the missing side of a deletion or insertion is ``""``."""

    dialect: str
    kind: str
    reference: str
    hypothesis: str
    count: int


def align_all(transcripts: Iterable[Transcript]) -> list[ScoredUtterance]:
    """Align every utterance once; tables, confusions and the printed alignments all read the result."""
    scored = []
    for transcript in transcripts:
        alignment = align(transcript.reference, transcript.hypothesis)
        scored.append(ScoredUtterance(transcript, alignment, alignment.counts))
    return scored


def score(
    scored: Sequence[ScoredUtterance], *, confidence: float = 0.95, replications: int = 2000, seed: int = 0
) -> list[ScoreRow]:
    """Character error rates with bootstrap intervals at every level of `LEVELS`, groups sorted by name."""
    rows = []
    for level in LEVELS:
        members: dict[tuple[str, str], list[ErrorCounts]] = defaultdict(list)
        for utterance in scored:
            key = utterance.transcript.group(level)
            if key is not None:
                members[key].append(utterance.counts)
        for (group, name), counts in sorted(members.items()):
            total = sum(counts, ErrorCounts())
            interval = bootstrap_ratio(
                [item.errors for item in counts],
                [item.reference_characters for item in counts],
                confidence=confidence,
                replications=replications,
                seed=seed,
            )
            rows.append(
                ScoreRow(
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
                )
            )
    return rows


def confusions(scored: Iterable[ScoredUtterance], top: int | None = None) -> list[Confusion]:
    """Most frequent errors, over all dialects together (dialect ``""``) and for each one.

    Args:
        scored: aligned utterances.
        top: how many to keep for each dialect and kind; None keeps all.

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
