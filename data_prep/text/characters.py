"""Rules for single characters of transcripts: forms that become one, and characters to keep, drop or report.

NFKC is not used on whole transcripts, because it removes differences that are spoken: it turns the nasal saⁿ
of Pe̍h-ōe-jī into the word san, ½ into the numbers 1 and 2, and an accent that stands alone into a space and
a combining mark. Here each kind of compatibility character has a rule.

A character that is removed but may have been spoken is reported: ``report(kind, detail)`` is called with a
kind of :class:`data_prep.problems.Severities` and the character with its name.
"""

import csv
import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from pathlib import Path

Report = Callable[[str, str], None]

LOOK_ALIKES_FILE = Path(__file__).with_name("look_alikes.tsv")

# By range and not by unicodedata, which lacks extensions newer than the Python version. The iteration mark
# 々, the closing mark 〆, the numeral 〇 and the private use areas (where fonts of dialects keep their own
# characters) stand for syllables as well.
HAN_RANGES = "々〆〇\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"
_PRIVATE_RANGES = "\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd"
# Components that are never characters by themselves: 亻厓 is a composition even without brackets.
COMPONENT = re.compile("[亻扌氵忄犭纟讠饣钅衤礻辶艹灬疒]")
HAN = re.compile(f"[{HAN_RANGES}]")
SYLLABIC = re.compile(f"[{HAN_RANGES}{_PRIVATE_RANGES}]")
_PRIVATE = re.compile(f"[{_PRIVATE_RANGES}]")

# Formatting characters, fillers, variation selectors and tags, which have neither sound nor form. U+200B and
# the soft hyphen come from web pages, U+FEFF from joined files (inside lines of MagicData).
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
)

_NUMERALS = "0-9〇零一二三四五六七八九十百千萬万億亿兩两"
# Several circles stand for 〇, as in 二○一九, but only beside other numerals: 陳○○ hides a name.
_CIRCLE_ZERO = re.compile(f"(?<=[{_NUMERALS}])[○◯⭕⚪]+|[○◯⭕⚪]+(?=[{_NUMERALS}])")
_LETTER_ZERO = re.compile("(?<=[〇零一二三四五六七八九])[Oo]+(?=[〇零一二三四五六七八九年月日號号])")
# Common Voice has sentences with the Bopomofo letter ㄧ for 一 (yue, zh-HK), then without other Bopomofo.
_BOPOMOFO = "\u3105-\u312f\u31a0-\u31bf"
_BOPOMOFO_ONE = re.compile(f"(?<![{_BOPOMOFO}ˊˇˋ˙])ㄧ(?![{_BOPOMOFO}ˊˇˋ˙])")

_SUPERSCRIPT_DIGITS = {c: str(i % 10) for i, c in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉")}
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉]+")
# Units and variables: a raised 2 or 3 is an exponent (km², x²), not the tone of a syllable (si², m⁴).
_EXPONENT_BASE = re.compile("[kcdmnμ]?m|in|ft|yd|[b-df-hj-np-z]", re.IGNORECASE)
_LAST_WORD = re.compile(f"(?:(?![{HAN_RANGES}])[^\\W\\d_]|[\u0300-\u036f])*$")
_EXPONENTS = ("²", "³")

# All forms of the apostrophe become one (AISHELL-2 has Let’s; ʻ and ` are glottal stops).
_APOSTROPHES = frozenset("'’‘‛ʼʻʽʹ′‵´`ꞌꞋʾʿ՚")
# Tone letters, which Unicode counts as symbols. They belong to the syllable before them.
TONE_LETTER = re.compile("[\u02e5-\u02ed˙\ua700-\ua721]")

_SPOKEN_PUNCTUATION = frozenset("%‰‱&@/\\#§〃➕➖➗✕✖⚪丶")
_UNSPOKEN_SYMBOLS = re.compile(
    "[~∼©®™℠℗\u2500-\u257f▁■◆◇▲△▼▽◎※\u2600-\u27bf\u2b50\u303f\U0001f000-\U0001faff\u20e3]"
)
_ARROWS = re.compile("[←-⇿]")
_RANGE_MARKS = frozenset("-‐‑‒–—―~〜∼")
_NUMBER_MARKS = frozenset(".:∶")
_NUMERAL = re.compile(f"[{_NUMERALS}]")
# Placeholders for words that the transcriber could not hear or the font did not have. The tests of
# WenetSpeech-Chuan write * for unintelligible speech, transcripts of Hakka for fused syllables.
_PLACE_HOLDERS = frozenset("*□▢☐〓⬚\ufffd")

_KANA = re.compile("[\u3041-\u30ff]")
_DOTTED_O = re.compile("o[\u0300-\u036f]*$", re.IGNORECASE)

_KNOWN_SCRIPTS = ("LATIN ", "BOPOMOFO ", "MODIFIER LETTER ", "SUPERSCRIPT LATIN ", "SUBSCRIPT LATIN ")


@lru_cache(maxsize=1)
def look_alikes() -> Mapping[str, str]:
    """Meant character, for each character that always stands for another one (``look_alikes.tsv``)."""
    with LOOK_ALIKES_FILE.open(encoding="utf-8", newline="") as stream:
        return {row["typed"]: row["meant"] for row in csv.DictReader(stream, delimiter="\t")}


@lru_cache(maxsize=1)
def _look_alikes_of_han() -> dict[int, str]:
    return {ord(c): meant for c, meant in look_alikes().items() if not _is_cyrillic_or_greek(c)}


@lru_cache(maxsize=1)
def _look_alikes_of_latin() -> dict[int, str]:
    return {ord(c): meant for c, meant in look_alikes().items() if _is_cyrillic_or_greek(c)}


def compatible(text: str) -> str:
    """Replace full-width forms, ligatures, circled numbers and digits of other scripts by one standard form.

    Forms with a sound or meaning of their own are kept: superscripts, fractions, ℃, accents that stand alone.
    Invisible characters are removed. The result is in NFC.
    """
    text = "".join(map(_compatible, unicodedata.normalize("NFC", text)))
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", text))


@cache
def _compatible(character: str) -> str:
    if character < "\x80" or SYLLABIC.match(character):
        return character
    kind, *codes = unicodedata.decomposition(character).split() or [""]
    if not kind.startswith("<"):
        return _number(character)
    parts = "".join(chr(int(code, 16)) for code in codes)
    own_meaning = kind in ("<super>", "<sub>", "<fraction>") or character in "℃℉"
    if own_meaning or (parts[0] == " " and len(parts) > 1):
        return character
    if any(map(str.isalnum, parts)):
        parts = parts.strip("().,")  # ⑴ ⒈ ㈠ are numbers, not remarks in parentheses
    return "".join(map(_compatible, parts))


def _number(character: str) -> str:
    """Replace digits of other scripts and of dingbats by 0 to 9; letters and fractions are unchanged."""
    value = unicodedata.numeric(character, None) if unicodedata.category(character)[0] == "N" else None
    known = character in look_alikes()  # 〡, a numeral, is 一
    return character if value is None or known or value != int(value) else str(int(value))


def meant(text: str) -> str:
    """Replace look-alikes by the characters that are meant: ⺅ by 亻, ㄧ by 一, ○ by 〇, Cyrillic А股 by A股.

    Cyrillic and Greek letters count as Latin if all of them in the text have a Latin look-alike, because such
    a text is not in Russian or Greek.
    """
    text = text.translate(_look_alikes_of_han())
    text = _BOPOMOFO_ONE.sub("一", text)
    foreign = {character for character in text if _is_cyrillic_or_greek(character)}
    if foreign and all(ord(character) in _look_alikes_of_latin() for character in foreign):
        text = text.translate(_look_alikes_of_latin())
    text = _CIRCLE_ZERO.sub(lambda match: "〇" * len(match[0]), text)
    return _LETTER_ZERO.sub(lambda match: "〇" * len(match[0]), text)


def _is_cyrillic_or_greek(character: str) -> bool:
    return "\u0370" <= character <= "\u052f" and character.isalpha()


def raised_digits(text: str, report: Report) -> str:
    """Replace raised and lowered digits by plain ones in tones and names; remove and report all others.

    si² and CO₂ become si2 and CO2. Removed are exponents as in km², which are spoken before the unit, and
    numbers after a Han character or a digit, which may be a tone, a footnote or a power.
    """

    def replaced(match: re.Match[str]) -> str:
        before = text[: match.start()]
        word = _LAST_WORD.search(before)
        exponent = match[0] in _EXPONENTS and word and _EXPONENT_BASE.fullmatch(word[0])
        if before and _belongs_to_word(before[-1]) and not exponent:
            return "".join(_SUPERSCRIPT_DIGITS[c] for c in match[0])
        for character in match[0]:
            report("dropped_symbol", described(character))
        return " "

    return _RAISED.sub(replaced, text)


def kept(text: str, report: Report) -> str:
    """Keep letters, marks, tones, digits and apostrophes inside a word; replace all else by spaces."""
    result: list[str] = []
    for i, character in enumerate(text):
        # Some input methods write 丶 for the comma 、 (AliMeeting).
        keeps = (SYLLABIC.match(character) and character != "丶") or (
            character.isascii() and character.isalnum()
        )
        if not keeps and character in _APOSTROPHES and _is_inside_word(text, i):
            character, keeps = "'", True
        if not keeps and _is_part_of_word(text, i, result[-1] if result else " "):
            keeps = True
        if keeps:
            result.append(character)
            if not character.isascii() and _is_unusual(character):
                report("unusual_letter", described(character))
        else:
            result.append(" ")
            _report_dropped(text, i, report)
    return "".join(result)


def joined(text: str) -> str:
    """Put one space between words, and none beside a character that is a syllable by itself."""
    result = ""
    for word in text.split():
        apart = result and not SYLLABIC.match(result[-1]) and not SYLLABIC.match(word)
        result += f" {word}" if apart else word
    return result


def described(character: str) -> str:
    """A character with code point and name, e.g. ``% U+0025 PERCENT SIGN``."""
    name = unicodedata.name(character, "private use" if _PRIVATE.match(character) else "")
    shown = character if character.isprintable() and not unicodedata.combining(character) else ""
    return " ".join(filter(None, (shown, f"U+{ord(character):04X}", name)))


def _is_letter(character: str) -> bool:
    return (
        unicodedata.category(character)[0] == "L" and character not in "ªº" and not SYLLABIC.match(character)
    )


def _belongs_to_word(character: str) -> bool:
    """Whether a character is a letter, or a mark or tone letter on one."""
    return bool(
        _is_letter(character) or unicodedata.category(character)[0] == "M" or TONE_LETTER.match(character)
    )


def _is_inside_word(text: str, i: int) -> bool:
    """Whether position ``i`` is between two letters; an apostrophe does not count as a letter."""
    beside = text[i - 1 : i], text[i + 1 : i + 2]
    if not all(beside) or any(character in _APOSTROPHES for character in beside):
        return False
    return _belongs_to_word(beside[0]) and _is_letter(beside[1])


def _is_part_of_word(text: str, i: int, before: str) -> bool:
    """Whether a character belongs to a word, given what was kept before it.

    A combining mark, a modifier letter or a tone letter needs a letter to stand on.
    """
    character = text[i]
    category = unicodedata.category(character)
    if character in _APOSTROPHES or character == "丶":
        return False
    if character == "ー":  # lengthens a kana; else it is a dash, or 一
        return bool(_KANA.match(before))
    if category[0] == "M" or TONE_LETTER.match(character):
        return _belongs_to_word(before)
    if category == "Lm":
        after = text[i + 1 : i + 2]
        return _belongs_to_word(before) or (
            after != "" and _is_letter(after) and unicodedata.category(after) != "Lm"
        )
    return _is_letter(character) or category == "Nd"


def _is_unusual(character: str) -> bool:
    """Whether it is a letter other than Han, Latin and Bopomofo, a component, or of private use (fonts)."""
    if _PRIVATE.match(character) or COMPONENT.match(character):
        return True
    if SYLLABIC.match(character) or not _is_letter(character) or "\u02b0" <= character <= "\u02ff":
        return False
    return not unicodedata.name(character, "").startswith(_KNOWN_SCRIPTS)


def _report_dropped(text: str, i: int, report: Report) -> None:
    character = text[i]
    category = unicodedata.category(character)
    # C1 control characters come from text that was decoded with the wrong encoding.
    unreadable = category == "Cs" or ("\x80" <= character <= "\x9f" and not character.isspace())
    if character in _PLACE_HOLDERS or unreadable:
        report("untranscribed_speech", described(character))
    elif _may_be_spoken(text, i, category):
        report("dropped_symbol", described(character))


def _may_be_spoken(text: str, i: int, category: str) -> bool:
    character, before, after = text[i], text[i - 1 : i] if i else "", text[i + 1 : i + 2]
    if character in _RANGE_MARKS and _NUMERAL.match(after):
        # 3-5 and 三~五; -5 but not A-1
        return bool(_NUMERAL.match(before)) or (character == "-" and not (before and _is_letter(before)))
    if character in _NUMBER_MARKS:
        return before.isdecimal() and after.isdecimal()
    if character in "·‧•":
        # POJ o͘ typed with a dot of its own, with or without a tone
        return bool(_DOTTED_O.search(unicodedata.normalize("NFD", text[max(0, i - 3) : i])))
    if character in "′″":
        return bool(_NUMERAL.match(before))
    if character in _SPOKEN_PUNCTUATION or _ARROWS.match(character):
        return True
    if character in "`´":
        return character == "´" and bool(before) and _belongs_to_word(before)  # else a quotation mark
    if _UNSPOKEN_SYMBOLS.match(character):
        return False
    return category[0] in "SM" or category in ("No", "Nl", "Lm", "Lo", "Cn")
