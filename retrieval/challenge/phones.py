"""Phones of an utterance, and the distance between the phones of two utterances.

The distance is the edit distance (substitutions, insertions and deletions cost 1) divided by the length of
the longer pronunciation: 0 for equal pronunciations, 1 if no phone can be matched with an equal one. It is
symmetric and comparable over all pairs of dialects with the same notation.
"""

import csv
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import kaldialign

from retrieval.challenge.settings import Notation
from zipformer.errors import UserError

TONE_LETTERS = frozenset("˥˦˧˨˩꜒꜓꜔꜕꜖꜀꜁꜂꜃꜄꜅꜆꜇")  # pitches, and the corners of the four tone classes
RAISED_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉", "01234567890123456789")
TONE_ENDINGS = "0123456789⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉" + "".join(sorted(TONE_LETTERS))
STRESS = frozenset("ˈˌ")
# One sound, several spellings: tied and ligatured affricates become two letters, as they mostly are typed.
SPELLINGS = str.maketrans(
    {
        "\u0361": "", "\u035c": "", "ʦ": "ts", "ʣ": "dz", "ʨ": "tɕ", "ʥ": "dʑ", "ʧ": "tʃ", "ʤ": "dʒ",
        "ɡ": "g",
    }
)  # fmt: skip


def split_ipa(text: str, *, tones: bool = False) -> tuple[str, ...]:
    """Phones of a transcription in IPA.

    A phone is a letter with the diacritics and modifier letters after it (``tʰ``, ``ã``, ``iː``), and at the
    beginning of a syllable with those before it (``ᵐb``); an affricate is two phones, ``ts`` like ``t͡s``.
    Spaces, punctuation, stress and other signs (``∅`` of an absent onset, ``⁻`` between the tones of a
    sandhi, ``□`` of a missing character) are left out. A run of digits or tone letters is a tone.

    Args:
        text: e.g. ``ŋo³¹ tsʰie⁵⁵``.
        tones: keep tones, as phones of their own.
    """
    phones: list[str] = []
    tone = before = ""  # an unfinished tone, and modifier letters whose letter is still to come
    inside = False  # a syllable, so that a modifier belongs to the letter before it
    # NFD first, then the superscripts: NFKD would also turn ʰ into h.
    for character in unicodedata.normalize("NFD", text).translate(SPELLINGS).translate(RAISED_DIGITS):
        category = unicodedata.category(character)
        is_tone = character.isdecimal() or character in TONE_LETTERS
        if tone and not is_tone:
            phones.append(tone)
            tone = ""
        if is_tone:
            tone += character
            inside = False
        elif category[0] in "ZPC" or category in ("Sm", "Sc", "So", "No") or character in STRESS:
            inside = False
        elif category in ("Mn", "Lm", "Sk"):
            if inside:
                phones[-1] += character
            else:
                before += character
        else:
            phones.append(before + character.lower())
            before, inside = "", True
    phones += [rest for rest in (before, tone) if rest]
    return tuple(phones) if tones else tuple(p for p in phones if not _is_tone(p))


def split_phones(text: str, notation: Notation, *, tones: bool = False) -> tuple[str, ...]:
    """Phones in either notation; in ``spaced``, digits or tone letters at the end are a tone."""
    if notation is Notation.ipa:
        return split_ipa(text, tones=tones)
    symbols = text.split()
    if not tones:
        symbols = [symbol.rstrip(TONE_ENDINGS) for symbol in symbols]
    return tuple(symbol for symbol in symbols if symbol)


def phone_distance(one: Sequence[str], other: Sequence[str]) -> float:
    """Edit distance divided by the length of the longer pronunciation, in 0..1.

    Raises:
        UserError: both are empty.
    """
    longer = max(len(one), len(other))
    if longer == 0:
        raise UserError("two pronunciations without phones have no distance: give their phones")
    return int(kaldialign.edit_distance(list(one), list(other))["total"]) / longer


def read_phones(path: Path) -> dict[str, str]:
    """Read a tab-separated table with the columns ``utterance_id`` and ``phones``.

    Raises:
        UserError: there is no such file, a column is missing, or a line has an empty cell or repeats an
            utterance.
    """
    if not path.is_file():
        raise UserError(f"no table of phones at {path}: correct sound.phones_file")
    result: dict[str, str] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if not {"utterance_id", "phones"} <= set(reader.fieldnames or ()):
            raise UserError(
                f"{path}, line 1: the columns utterance_id and phones are needed, separated by a tab; found"
                f" {', '.join(reader.fieldnames or ()) or 'nothing'}"
            )
        for row in reader:
            name, phones = row["utterance_id"], (row["phones"] or "").strip()
            if not name or not phones:
                raise UserError(f"{path}, line {reader.line_num}: an utterance id or its phones are missing")
            if name in result:
                raise UserError(f"{path}, line {reader.line_num}: utterance {name} is there twice")
            result[name] = phones
    return result


def _is_tone(phone: str) -> bool:
    return phone[0].isdecimal() or phone[0] in TONE_LETTERS
