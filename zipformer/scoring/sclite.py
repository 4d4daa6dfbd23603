"""Writes aligned transcripts in the formats of NIST's sclite, so that others can check an error rate.

``ref.trn`` and ``hyp.trn`` have the units of the two sides, after the steps of the convention, separated by
spaces. sclite counts them with::

    sclite -s -e utf-8 -i rm -r ref.trn trn -h hyp.trn trn -o sum stdout

It aligns with cost 4 for a substitution and 3 for a deletion or an insertion. Its total equals ours or is
larger in a few badly recognised utterances, because for sclite six deletions and insertions cost less than
five substitutions.

``ref.stm`` has the references with the duration of each utterance, for systems with word times (``ctm``).
Decoding does not store word times, so no ``ctm`` is written.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from zipformer.files import write_text
from zipformer.scoring.tables import ScoredUtterance

# Many ASCII marks have a meaning in sclite: {a / b}, (a), @, ;;, <a>, a-. Only letters and digits are safe.
_UNSAFE = re.compile("[^0-9A-Za-z\x80-\U0010ffff]")


def write_sclite(folder: Path, scored: Sequence[ScoredUtterance]) -> None:
    """Write ``ref.trn`` and ``hyp.trn``, and ``ref.stm`` if every utterance has a duration."""
    references = [[left for left, _ in item.alignment.pairs if left] for item in scored]
    hypotheses = [[right for _, right in item.alignment.pairs if right] for item in scored]
    for name, sides in (("ref.trn", references), ("hyp.trn", hypotheses)):
        _write(folder / name, (trn_line(item, side) for item, side in zip(scored, sides, strict=True)))
    if all(item.transcript.duration is not None for item in scored):
        lines = (stm_line(item, side) for item, side in zip(scored, references, strict=True))
        _write(folder / "ref.stm", lines)


def trn_line(utterance: ScoredUtterance, units: Sequence[str]) -> str:
    """One side of an utterance, followed by speaker and utterance in parentheses."""
    speaker, name = _speaker(utterance), escaped(utterance.transcript.id)
    return " ".join([*map(escaped, units), f"({speaker}-{name})"])


def stm_line(utterance: ScoredUtterance, units: Sequence[str]) -> str:
    """The reference of an utterance: recording, channel, speaker, begin and end in seconds, label, units.

    Each utterance is its own recording, so that times begin at 0. The label is the dialect.
    """
    transcript = utterance.transcript
    label = escaped(transcript.dialect or "unknown")
    head = [escaped(transcript.id), "A", _speaker(utterance), "0.000", f"{transcript.duration:.3f}"]
    return " ".join([*head, f"<{label}>", *map(escaped, units)])


def escaped(text: str) -> str:
    """A unit or name that sclite reads literally: ASCII marks and spaces are replaced by hexadecimal codes.

    Different units stay different, because ``_`` is replaced too::

        escaped("{")    # "_7B"
        escaped("IT'S")  # "IT_27S"
    """
    return _UNSAFE.sub(lambda match: f"_{ord(match[0]):02X}", text)


def _speaker(utterance: ScoredUtterance) -> str:
    return escaped(utterance.transcript.speaker or "unknown")


def _write(path: Path, lines: Iterable[str]) -> None:
    write_text(path, "".join(line + "\n" for line in lines))
