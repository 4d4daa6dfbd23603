"""Counts characters of reference texts that a model cannot write, because they are always errors.

For example, a model that was trained on Simplified text cannot write a Traditional reference: a third of the
characters have no token, which is a lower limit of the error rate. Therefore decoding, training and
preparation count them.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from zipformer.data.tokenizer import SPECIAL_PIECES, Tokenizer, is_byte_piece
from zipformer.scoring.alignment import characters
from zipformer.scoring.tables import KIND_LEVEL, LEVELS, PART_LEVEL, ScoredUtterance, ScoreRow

SHOWN = 10  # characters that a warning names
REMEDY = (
    "write the references like the training text (fangyan prepare or fangyan transcripts with"
    " text.script=simplified, if that is its script), or use a model whose training text has these characters"
)


def written_characters(tokenizer: Tokenizer) -> frozenset[str]:
    """All characters that occur in a token. Bytes are left out: a model rarely learns to spell with them."""
    pieces = [piece for piece in tokenizer.pieces if piece not in SPECIAL_PIECES and not is_byte_piece(piece)]
    return frozenset("".join(pieces))


@dataclass
class TokenCoverage:
    """Counts characters of texts that are no tokens, by dialect.

    Attributes:
        known: characters that the tokens write (:func:`written_characters`).
        characters: number of characters that were counted, by dialect.
        missing: by dialect, the characters that are no tokens and how often each occurred.
    """

    known: Collection[str]
    characters: Counter[str] = field(default_factory=Counter)
    missing: dict[str, Counter[str]] = field(default_factory=dict)

    @classmethod
    def of_model(cls, directory: Path) -> "TokenCoverage":
        """Coverage by the tokens of a model directory; nothing is counted yet."""
        return cls(written_characters(Tokenizer.load(directory)))

    def add(self, text: str, dialect: str | None) -> None:
        """Count the characters of one text."""
        found = characters(text)
        self.characters[dialect or ""] += len(found)
        if unknown := [character for character in found if character not in self.known]:
            self.missing.setdefault(dialect or "", Counter()).update(unknown)

    def warning(self, what: str) -> str | None:
        """One message on what is missing; None where nothing is.

        Args:
            what: name of the texts in the message.
        """
        return coverage_warning(what, self.missing, self.characters)


def with_no_token(
    rows: Iterable[ScoreRow], scored: Iterable[ScoredUtterance], known: Collection[str]
) -> list[ScoreRow]:
    """Rows of a table of error rates with the number of reference units that no token writes.

    Args:
        rows: table of error rates (:func:`zipformer.scoring.score`).
        scored: utterances that the rows count.
        known: characters that hypotheses can have (:meth:`zipformer.scoring.Convention.known`).
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    for utterance in scored:
        missing = sum(not known_to(reference, known) for reference, _ in utterance.alignment.pairs)
        for level in (*LEVELS, PART_LEVEL):
            if (key := utterance.transcript.group(level)) is not None:
                group, name = key
                counts[level, group, name] += missing
    return [
        replace(row, no_token=counts[row.level, row.group, row.name]) if row.level != KIND_LEVEL else row
        for row in rows
    ]


def known_to(unit: str, known: Collection[str]) -> bool:
    """Whether every character of a unit is known; an empty unit is."""
    return all(character in known for character in unit)


def coverage_of(texts: Iterable[tuple[str, str | None]], tokenizer: Tokenizer) -> TokenCoverage:
    """Coverage of pairs of text and dialect."""
    coverage = TokenCoverage(written_characters(tokenizer))
    for text, dialect in texts:
        coverage.add(text, dialect)
    return coverage


def coverage_warning(what: str, missing: Mapping[str, Counter[str]], total: Mapping[str, int]) -> str | None:
    """The message of :meth:`TokenCoverage.warning`.

    Args:
        what: name of the texts in the message.
        missing: by dialect, the characters that are no tokens and how often each occurred.
        total: number of characters that were counted, by dialect.
    """
    together: Counter[str] = sum(missing.values(), Counter())
    if not together:
        return None
    most = sorted(together.items(), key=lambda item: (-item[1], item[0]))
    named = ", ".join(f"{character} ({count})" for character, count in most[:SHOWN])
    more = f" and {len(most) - SHOWN} others" if len(most) > SHOWN else ""
    floors = ", ".join(
        f"{dialect or 'unknown'} {_percent(counts.total(), total[dialect])}"
        for dialect, counts in sorted(missing.items())
    )
    count, of = together.total(), sum(total.values())
    return (
        f"{count} of {of} characters of {what} are no tokens of the model and count as errors unless it"
        f" spells them in bytes: CER is at least {_percent(count, of)} ({floors}). Most frequent:"
        f" {named}{more}. Remedy: {REMEDY}"
    )


def _percent(count: int, total: int) -> str:
    return f"{100 * count / total:.1f} %"
