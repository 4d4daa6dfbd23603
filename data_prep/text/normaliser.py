"""Normalisation of Chinese transcripts.

There are two styles. ``plain`` keeps what is spoken (Han characters, Latin words, digits) and drops
properties of the writing (width, case, punctuation, labels, remarks in parentheses). ``yubao`` applies the
rules of the YuBao
benchmark: lower case, alternatives ``/...。`` deleted, then Han characters only.

Both handle transcripts of dialects, which may write a rare character as its components in brackets:
``[亻厓]`` is 𠊎. ``composed.tsv`` lists the compositions that have a code point.

The rules are in :mod:`data_prep.text.annotations` (brackets and labels) and :mod:`data_prep.text.characters`
(single characters). If ``plain`` drops something that may be spoken, such as %, this is a finding, which the
checks report.
"""

import re
import unicodedata
from dataclasses import dataclass, field
from enum import Enum

from opencc import OpenCC

from data_prep.text import annotations, characters
from data_prep.text.characters import Report
from zipformer.errors import UserError

# Characters that no rule changes: without the comma 丶 and components such as 亻.
_FINAL = re.compile(f"(?:(?!丶|{characters.COMPONENT.pattern})[\u4e00-\u9fff])*")
_YUBAO_ALTERNATIVE = re.compile(r"/[^。]*。")
_CHINESE_DIGITS = str.maketrans("0123456789", "零一二三四五六七八九")

# The benchmark drops all but Han characters on purpose: only problems of Han characters are findings.
_YUBAO_FINDINGS = ("unknown_composition", "unmatched_bracket")
# Findings about text that is kept: every pass would report them again.
_FINDINGS_OF_FIRST_PASS = ("unusual_letter",)


class TextStyle(Enum):
    """Set of rules: see the module's description."""

    plain = "plain"
    yubao = "yubao"


class LatinCase(Enum):
    """Case of Latin letters in the style ``plain``."""

    upper = "upper"
    lower = "lower"
    keep = "keep"


class Digits(Enum):
    """Treatment of digits in the style ``plain``; ``chinese`` replaces each by its character (3 by 三)."""

    keep = "keep"
    chinese = "chinese"
    drop = "drop"


class Script(Enum):
    """Script of the result: as in the transcript, or traditional characters converted to simplified ones."""

    keep = "keep"
    simplified = "simplified"


@dataclass
class TextConfig:
    """How transcripts are normalised.

    Attributes:
        style: ``plain`` or ``yubao``.
        script: ``keep`` or ``simplified``. Corpora of one training, or a model and the corpus it is
            fine-tuned on, should share a script, so that a character is one token. Only characters are
            converted: dialect words stay.
        latin_case: case of Latin letters (``yubao`` drops them).
        digits: treatment of 0 to 9 (``yubao`` drops them).
        keep_parentheses: keep the content of parentheses, full or half width. It is dropped by default,
            because transcripts of dialects use parentheses for alternatives that were not spoken.
        composed: characters of further compositions, by components: ``{亻厓: 𠊎}``.
        replace: replacements for characters or strings of the raw transcript, e.g. ``{℃: 度}``. They are made
            before all other rules.
    """

    style: TextStyle = TextStyle.plain
    script: Script = Script.keep
    latin_case: LatinCase = LatinCase.upper
    digits: Digits = Digits.keep
    keep_parentheses: bool = False
    composed: dict[str, str] = field(default_factory=dict)
    replace: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Examined:
    """A normalised transcript with its possible problems.

    Attributes:
        text: the normalised transcript.
        findings: characters or remarks by kind of problem (:class:`data_prep.problems.Severities`).
    """

    text: str
    findings: dict[str, list[str]]


class TextNormaliser:
    """Callable ``raw transcript -> normalised transcript``; applying it twice gives the same as once.

    The composed and decomposed forms (NFC, NFD) of a transcript give the same result.

    Raises:
        UserError: a value of ``text.replace`` contains a key, so that replacing would not end.
    """

    def __init__(self, config: TextConfig | None = None) -> None:
        self.config = config or TextConfig()
        self._composed = {**annotations.composed_characters(), **self.config.composed}
        self._converter = None if self.config.script is Script.keep else OpenCC("t2s")
        self._replace = _replacements(self.config.replace)

    def __call__(self, text: str) -> str:
        return self.examine(text).text

    def examine(self, raw: str) -> Examined:
        """Normalise a transcript and report what was dropped although it may be spoken."""
        findings: dict[str, dict[str, None]] = {}
        if self._is_final(raw):
            return Examined(raw, {})

        def report(kind: str, detail: str) -> None:
            if self.config.style is TextStyle.plain or kind in _YUBAO_FINDINGS:
                findings.setdefault(kind, {})[detail] = None

        def report_later(kind: str, detail: str) -> None:
            if kind not in _FINDINGS_OF_FIRST_PASS:
                report(kind, detail)

        text = self._once(self._replaced(raw), report)
        # Removing one character can bring two others together (a letter and an accent, two parentheses), so
        # that one pass is not always enough.
        while (normal := self._once(text, report_later)) != text:
            text = normal
        return Examined(text, {kind: list(details) for kind, details in findings.items()})

    def _is_final(self, text: str) -> bool:
        """Whether no rule can change a text: most transcripts have only Han characters."""
        return not self._replace and self._converter is None and bool(_FINAL.fullmatch(text))

    def _replaced(self, text: str) -> str:
        if not self._replace:
            return text
        text = unicodedata.normalize("NFC", text)
        for old, new in self._replace.items():
            text = text.replace(old, new)
        return text

    def _once(self, text: str, report: Report) -> str:
        text = annotations.without_markup(unicodedata.normalize("NFC", text))
        text = characters.meant(characters.compatible(text))
        text = annotations.composed(text, self._composed, report)
        if self.config.style is TextStyle.plain:
            text = annotations.without_number_signs(annotations.without_labels(text, report))
        if not self.config.keep_parentheses:
            text = annotations.without_parentheses(text, report)
        text = annotations.with_unmatched_reported(text, report)
        if self._converter is not None:
            text = self._converter.convert(text)
        if self.config.style is TextStyle.yubao:
            return "".join(characters.HAN.findall(_YUBAO_ALTERNATIVE.sub("", text.lower())))
        text = characters.kept(characters.raised_digits(text, report), report)
        text = _with_digits(_in_case(text, self.config.latin_case), self.config.digits)
        return unicodedata.normalize("NFC", characters.joined(text))


def normalise(text: str, config: TextConfig | None = None) -> str:
    """Normalise one transcript; for many, make one ``TextNormaliser``.

    >>> normalise("[亻厓]去學校（學堂），好無？")
    '𠊎去學校好無'
    """
    return TextNormaliser(config)(text)


def _replacements(replace: dict[str, str]) -> dict[str, str]:
    """Replacements in NFC, longest key first; also for the full-width form of a character."""
    replacements: dict[str, str] = {}
    for old, new in sorted(replace.items(), key=lambda item: -len(item[0])):
        old = unicodedata.normalize("NFC", old)
        if not old or any(key and key in new for key in replace):
            raise UserError(
                f"text.replace: {old!r} -> {new!r} replaces nothing, or gives text that is replaced again"
            )
        replacements[old] = new
        if len(old) == 1 and "!" <= old <= "~":
            replacements[chr(ord(old) + 0xFEE0)] = new
    return replacements


def _in_case(text: str, case: LatinCase) -> str:
    if case is LatinCase.upper:
        return text.upper()
    return text.lower() if case is LatinCase.lower else text


def _with_digits(text: str, digits: Digits) -> str:
    if digits is Digits.chinese:
        return text.translate(_CHINESE_DIGITS)
    return re.sub("[0-9]", " ", text) if digits is Digits.drop else text
