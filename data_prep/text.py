"""Normalisation of Chinese transcripts.

Two styles are known. ``plain`` keeps what is spoken (Han characters, Latin words, digits) and drops how it is
written down (width, case, punctuation, remarks in parentheses). ``yubao`` applies the rules of the YuBao
benchmark: lower case, alternatives ``/...。`` deleted, then Han characters only.

Both understand transcripts of dialects, where a character without a code point is written as its components
in brackets: ``[亻厓]`` is 𠊎. ``composed.tsv`` lists the compositions that have a code point.
"""

import csv
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from pathlib import Path

from opencc import OpenCC

COMPOSED_FILE = Path(__file__).with_name("composed.tsv")

# By range and not by unicodedata, which does not know the extensions that are younger than the Python it came
# with. The iteration mark 々, the numeral 〇 and the private use area (where fonts of dialects keep their own
# characters) stand for syllables as well.
_HAN_RANGES = "々〇\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"
_PRIVATE_RANGES = "\ue000-\uf8ff"
_HAN = re.compile(f"[{_HAN_RANGES}]")
_SYLLABIC = re.compile(f"[{_HAN_RANGES}{_PRIVATE_RANGES}]")
_LETTER = re.compile(f"[^\\W\\d_{_HAN_RANGES}{_PRIVATE_RANGES}]")
_VARIATION_SELECTOR = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")

_COMPOSED = re.compile(r"\[([^\[\]]+)\]")
_IDEOGRAPHIC_DESCRIPTION = re.compile("[\u2ff0-\u2fff]")
_PARENTHESISED = re.compile(r"\([^()]*\)")
_YUBAO_ALTERNATIVE = re.compile(r"/[^。]*。")
_CHINESE_DIGITS = str.maketrans("0123456789", "零一二三四五六七八九")


class TextStyle(Enum):
    """Set of rules: see the module's description."""

    plain = "plain"
    yubao = "yubao"


class LatinCase(Enum):
    """What happens to Latin letters in the style ``plain``."""

    upper = "upper"
    lower = "lower"
    keep = "keep"


class Digits(Enum):
    """What happens to the digits in the style ``plain``; ``chinese`` reads them one by one (3 is 三)."""

    keep = "keep"
    chinese = "chinese"
    drop = "drop"


class Script(Enum):
    """Whether traditional characters are rewritten as simplified ones."""

    keep = "keep"
    simplified = "simplified"


@dataclass
class TextConfig:
    """How transcripts are normalised.

    Attributes:
        style: ``plain`` or ``yubao``.
        script: ``keep`` or ``simplified``. Corpora that are trained on together, or a model and the corpus it
            is fine-tuned on, should be in one script, so that a character is one token. Words are not
            exchanged: dialect words stay as they are.
        latin_case: case of Latin letters (``yubao`` drops them).
        digits: treatment of 0 to 9 (``yubao`` drops them).
        keep_parentheses: keep what stands in parentheses, full or half width. It is dropped by default,
            because transcripts of dialects use parentheses for alternatives that were not spoken.
        composed: further compositions, from the components (``亻厓``) to the character (``𠊎``).
    """

    style: TextStyle = TextStyle.plain
    script: Script = Script.keep
    latin_case: LatinCase = LatinCase.upper
    digits: Digits = Digits.keep
    keep_parentheses: bool = False
    composed: dict[str, str] = field(default_factory=dict)


class TextNormaliser:
    """Callable ``raw transcript -> normalised transcript``; applying it twice is like applying it once."""

    def __init__(self, config: TextConfig | None = None) -> None:
        self.config = config or TextConfig()
        self._composed = {**_composed_characters(), **self.config.composed}
        self._converter = None if self.config.script is Script.keep else OpenCC("t2s")

    def __call__(self, text: str) -> str:
        # Removing one mark can bring two others together (a letter and an accent, two parentheses), so that a
        # single pass is not always final.
        while (normal := self._once(text)) != text:
            text = normal
        return text

    def unknown_compositions(self, text: str) -> list[str]:
        """Bracketed compositions that have no character; only their brackets are removed from the text."""
        contents = _COMPOSED.findall(unicodedata.normalize("NFKC", text))
        return [content for content in contents if _components(content) not in self._composed]

    def _once(self, text: str) -> str:
        text = _compatible(text)
        text = _COMPOSED.sub(lambda match: self._compose(match[1]), text)
        if not self.config.keep_parentheses:
            text = _without_parentheses(text)
        if self._converter is not None:
            text = self._converter.convert(text)
        if self.config.style is TextStyle.yubao:
            return "".join(_HAN.findall(_YUBAO_ALTERNATIVE.sub("", text.lower())))
        text = _compatible(_in_case(text, self.config.latin_case))
        text = _with_digits(text, self.config.digits)
        return unicodedata.normalize("NFC", _joined(_kept(text)))

    def _compose(self, content: str) -> str:
        return self._composed.get(_components(content), content)


def normalise(text: str, config: TextConfig | None = None) -> str:
    """Normalise one transcript; for many, make one ``TextNormaliser``.

    >>> normalise("[亻厓]去學校（學堂），好無？")
    '𠊎去學校好無'
    """
    return TextNormaliser(config)(text)


@lru_cache(maxsize=1)
def _composed_characters() -> Mapping[str, str]:
    with COMPOSED_FILE.open(encoding="utf-8", newline="") as stream:
        return {row["components"]: row["character"] for row in csv.DictReader(stream, delimiter="\t")}


def _components(content: str) -> str:
    """``⿰亻厓`` and ``亻厓`` name the same composition."""
    return _IDEOGRAPHIC_DESCRIPTION.sub("", content).strip()


def _compatible(text: str) -> str:
    """Compatibility composition: full-width forms, ligatures, circled numbers become plain characters."""
    text = _VARIATION_SELECTOR.sub("", text)
    return unicodedata.normalize("NFKC", text.replace("’", "'"))


def _without_parentheses(text: str) -> str:
    removed = 1
    while removed:  # from the inside out
        text, removed = _PARENTHESISED.subn(" ", text)
    return text


def _in_case(text: str, case: LatinCase) -> str:
    if case is LatinCase.upper:
        return text.upper()
    return text.lower() if case is LatinCase.lower else text


def _with_digits(text: str, digits: Digits) -> str:
    if digits is Digits.chinese:
        return text.translate(_CHINESE_DIGITS)
    return re.sub("[0-9]", " ", text) if digits is Digits.drop else text


def _kept(text: str) -> str:
    """Letters, marks and numbers stay; an apostrophe stays inside a word; anything else becomes a space."""
    return "".join(
        character if _SYLLABIC.match(character) or _is_part_of_word(text, i) else " "
        for i, character in enumerate(text)
    )


def _is_part_of_word(text: str, i: int) -> bool:
    if text[i] == "'":
        return bool(_LETTER.match(text[i - 1 : i]) and _LETTER.match(text[i + 1 : i + 2]))
    return unicodedata.category(text[i])[0] in "LMN"


def _joined(text: str) -> str:
    """Words are separated by one space; there is none beside a character that is a syllable by itself."""
    joined = ""
    for word in text.split():
        apart = joined and not _SYLLABIC.match(joined[-1]) and not _SYLLABIC.match(word)
        joined += f" {word}" if apart else word
    return joined
