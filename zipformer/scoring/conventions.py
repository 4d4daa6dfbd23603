"""Conventions of counting errors: the normalisation of both sides, and the units.

A published error rate depends on a convention. Some delete fillers, some read 300 as 三百, some count a Latin
word as one unit and some as its letters. A `Convention` is a name, a list of steps for reference and
hypothesis, and a function that splits the result into units. ``plain``, the default, changes nothing and
counts characters. ``zipformer/scoring/README.md`` has the table of conventions and their sources.

In every convention all utterances count, and an utterance without a hypothesis has as many deletions as
units.
"""

import importlib.util
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

from opencc import OpenCC

from zipformer.errors import UserError
from zipformer.scoring.alignment import characters

Step = Callable[[str], str]

# 々 〆 〇, all CJK ideographs, and the private use areas, where fonts keep characters of dialects.
_HAN = "々〆〇\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd\ue000-\uf8ff\U000f0000-\U0010fffd"
_UNIT = re.compile(rf"[{_HAN}]|[^\s{_HAN}]+")
_HAN_CHARACTER = re.compile(f"[{_HAN}]")

_TAG = re.compile("<[^<>]*>")  # <unk>, <NOISE>, <|HAPPY|>
_M2MET_MARKS = re.compile("<(?:sil|%|-|[$]|#|_|space)>|[`&,，丶。、？]")
_DIGIT = re.compile("[0-9]")
_M2MET_LETTERS = str.maketrans("Ａａｂｃｋｔ", "AABCKT")
_FULL_WIDTH = {0x3000: " "} | {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}

# Punctuation as in SpeechIO's textnorm_zh.py: ASCII, and Chinese marks in their half-width and other forms.
_SPEECHIO_PUNCTUATION = re.compile(
    "[!-/:-@\\[-`{-~｡。！？＂-／：-＠［-｀｛-､〃《》「」『』【】〔〕〖-〟〰〾〿–—‘’‛“”„‟…‧﹏·〈〉、]"
)
# Words whose 儿 is spoken as a syllable; any other 儿 is erhua. The list of SpeechIO's textnorm_zh.py.
_SPOKEN_ER = (
    "儿女|儿子|儿孙|女儿|儿媳|妻儿|胎儿|婴儿|新生儿|婴幼儿|幼儿|少儿|小儿|儿歌|儿童|儿科|托儿所|孤儿|儿戏"
    "|儿化|台儿庄|鹿儿岛|正儿八经|吊儿郎当|生儿育女|托儿带女|养儿防老|痴儿呆女|佳儿佳妇|儿怜兽扰|儿无常父"
    "|儿不嫌母丑|儿行千里母担忧|儿大不由爷|苏乞儿"
)
_ER = re.compile(f"({_SPOKEN_ER})|儿")

_ASCII_RUN = re.compile("[^\x00-\x7f][!-~]*|[!-~]+")
_WENET_PUNCTUATION = frozenset("!,?、。！，；？：「」︰『』《》")


@dataclass(frozen=True)
class Convention:
    """A convention of counting errors.

    Attributes:
        name: value of ``scoring=``.
        about: description in one sentence.
        split: function from a text after all steps to its units.
        steps: functions that are applied to both sides, in this order.
        rate: usual name of the error rate, e.g. ``CER``.
        unit: name of the units in the plural, e.g. ``characters``.
        kind: function from a unit to its kind, for error rates by kind from one alignment; None = no such
            rates.
    """

    name: str
    about: str
    split: Callable[[str], list[str]] = characters
    steps: tuple[Step, ...] = ()
    rate: str = "CER"
    unit: str = "characters"
    kind: Callable[[str], str] | None = None

    def text(self, text: str) -> str:
        """One side of a transcript after all steps."""
        for step in self.steps:
            text = step(text)
        return text

    def units(self, text: str) -> list[str]:
        """Units of one side of a transcript."""
        return self.split(self.text(text))

    def known(self, written: Iterable[str]) -> frozenset[str]:
        """Characters that can occur in the units of a hypothesis, given the characters of the model."""
        written = frozenset(written)
        return written.union(*(self.text(character) for character in written))


def simplified(text: str) -> str:
    """Convert traditional to simplified characters (OpenCC's ``t2s``, which replaces no words)."""
    return _opencc().convert(text)


@cache
def _opencc() -> OpenCC:
    return OpenCC("t2s")


def half_width(text: str) -> str:
    """Convert full-width letters, digits, punctuation and spaces to ASCII."""
    return text.translate(_FULL_WIDTH)


def without_tags(text: str) -> str:
    """Remove marks in angle brackets."""
    return _TAG.sub("", text)


def without_m2met_marks(text: str) -> str:
    """Like M2MeT's text_normalize.pl: delete its marks and punctuation, convert six full-width letters."""
    return _M2MET_MARKS.sub("", text).translate(_M2MET_LETTERS)


def without_fillers(text: str) -> str:
    """Remove all 呃 and 啊."""
    return text.replace("呃", "").replace("啊", "")


def without_erhua(text: str) -> str:
    """Remove 儿 where it only colours the syllable before it: 那边儿 becomes 那边, 女儿 is unchanged."""
    return _ER.sub(lambda match: match[1] or "", text)


def han_numbers(text: str) -> str:
    """Write digits as they are read, by cn2an: 300 as 三百, 2024年 as 二零二四年, 50% as 百分之五十.

    Numbers of more than 16 digits are unchanged, with a warning of cn2an.
    """
    if not _DIGIT.search(text):
        return text
    from cn2an import transform  # an extra package, checked by choose_convention

    return str(transform(text, "an2cn"))


def without_speechio_punctuation(text: str) -> str:
    """Replace each punctuation mark in the list of SpeechIO by a space."""
    return _SPEECHIO_PUNCTUATION.sub(" ", text)


def without_punctuation(text: str) -> str:
    """Replace punctuation and symbols by spaces, except apostrophes inside words and signs of tones."""
    text = unicodedata.normalize("NFC", text).replace("’", "'")
    return "".join(
        " " if _is_punctuation(character) and not _is_inside_word(text, index) else character
        for index, character in enumerate(text)
    )


def _is_punctuation(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "P" or character == "`" or (category[0] == "S" and category != "Sk")


def _is_inside_word(text: str, index: int) -> bool:
    """Whether an apostrophe is between two letters."""
    before, after = text[max(0, index - 1) : index], text[index + 1 : index + 2]
    return text[index] == "'" and before.isalpha() and after.isalpha()


def words_and_characters(text: str) -> list[str]:
    """Split into single Han characters, and everything else at white space."""
    return _UNIT.findall(text)


def wenet_units(text: str) -> list[str]:
    """Units of WeNet's ``compute-wer.py --char=1``: letters without case alone, runs of ASCII as words.

    A run of ASCII ends at a space or another character; punctuation inside it is kept.
    """
    units = []
    for run in _ASCII_RUN.findall(text):
        category = unicodedata.category(run[0])
        if category == "Lo":
            units.append(run[0])
        if category in ("Lo", "Zs", "Cn") or run[0] in _WENET_PUNCTUATION:
            run = run[1:].lstrip("!,?")
        if run:
            units.append(run)
    return units


def kind_of(unit: str) -> str:
    """The kind of a unit of mixed speech, judged by its script."""
    return "Han characters" if _HAN_CHARACTER.match(unit) else "other words"


PLAIN = Convention("plain", "Texts as they are; each character but white space is a unit.")

CONVENTIONS = {
    item.name: item
    for item in (
        PLAIN,
        Convention(
            "wenetspeech",
            "As WeNet's compute-wer.py: upper case, no tags, no punctuation; a Latin word is one unit.",
            wenet_units,
            (without_tags, str.upper),
            unit="characters and words",
        ),
        Convention(
            "wsyue",
            "Simplified, half width, upper case, numbers in Han, no punctuation; a Latin word is a unit.",
            words_and_characters,
            (without_tags, simplified, half_width, str.upper, han_numbers, without_punctuation),
            unit="characters and words",
        ),
        Convention(
            "speechio",
            "Simplified, half width, upper case, numbers in Han, no fillers, no erhua, no punctuation.",
            steps=(
                simplified,
                half_width,
                str.upper,
                without_fillers,
                without_erhua,
                han_numbers,
                without_speechio_punctuation,
            ),
        ),
        Convention(
            "m2met",
            "As M2MeT's text_normalize.pl: its marks and some punctuation deleted, upper case.",
            steps=(without_m2met_marks, str.upper),
        ),
        Convention(
            "mer",
            "Mixed Mandarin and English: Han characters and words, with rates of both from one alignment.",
            words_and_characters,
            (without_tags, half_width, str.upper, without_punctuation),
            rate="MER",
            unit="characters and words",
            kind=kind_of,
        ),
        Convention(
            "syllables",
            "Romanised speech: syllables split at spaces and hyphens, lower case, with their tones.",
            words_and_characters,
            (without_tags, half_width, str.lower, without_punctuation),
            rate="SER",
            unit="syllables",
        ),
    )
}


def choose_convention(name: str) -> Convention:
    """The convention with a name.

    Raises:
        UserError: there is no such convention, or a package that it needs is not installed.
    """
    if name not in CONVENTIONS:
        raise UserError(f"scoring={name} is not known; choose one of {', '.join(CONVENTIONS)}")
    if han_numbers in CONVENTIONS[name].steps and importlib.util.find_spec("cn2an") is None:
        raise UserError(
            f"scoring={name} reads numbers with the package cn2an, which is not installed:"
            " pip install 'fangyan[scoring]'"
        )
    return CONVENTIONS[name]
