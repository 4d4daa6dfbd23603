"""Rules for annotations in transcripts: labels of sounds, remarks in parentheses, composed characters.

Each rule names the corpora it was made for. If a rule removes something that may be spoken, it reports it,
see :mod:`data_prep.text.characters`.
"""

import csv
import html
import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from data_prep.text.characters import COMPONENT, HAN, Report, look_alikes

COMPOSED_FILE = Path(__file__).with_name("composed.tsv")
LABELS_FILE = Path(__file__).with_name("labels.tsv")

_ENTITY = re.compile(r"&(?:#\d+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]*);")
_NASAL = re.compile(r"<sup>n</sup>", re.IGNORECASE)  # POJ on web pages: sa<sup>n</sup>
_INLINE_TAG = re.compile(
    r"</?(?:a|b|big|em|font|i|rb|ruby|small|span|strong|sub|sup|u)(?:\s[^<>]*=[^<>]*)?\s*/?>", re.IGNORECASE
)
_BREAK_TAG = re.compile(r"</?(?:br|div|p|td|tr)(?:\s[^<>]*=[^<>]*)?\s*/?>", re.IGNORECASE)
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")  # 1,000 is one number

_SQUARE = re.compile(r"\[([^\[\]]*)\]")
_OTHER_BRACKETS = re.compile(r"([(【〔〖{<〈「『])([^()【】〔〕〖〗{}<>〈〉「」『』]+)([)】〕〗}>〉」』])")
_TAG = re.compile(r"<\|[A-Za-z0-9_./ -]*\|>")  # WenetSpeech-Yue: <|HAPPY|>
_ANGLE = re.compile(r"<([^<>0-9][^<>]*)>")  # not 3<5>2
_BRACED = re.compile(r"([({【〔〖])([^(){}【】〔〕〖〗]*)([)}】〕〗])")
# Marks around a label, of programs without brackets for it: *noise*, ++breath++. Letters beside them make the
# marks a part of the text: art/music/dance.
_MARKED_LABEL = re.compile(r"(?<![A-Za-z0-9])([*+#$/=~_%-]{1,2})([A-Za-z][A-Za-z_-]{2,}?)\1(?![A-Za-z0-9])")
_COMPARISON = re.compile("[<>]")
_PARENTHESISED = re.compile(r"\(([^()]*)\)")
_PAIRS = {"(": ")", "[": "]", "{": "}", "【": "】", "〔": "〕", "〖": "〗"}
_QUOTATIONS = {"<": ">", "〈": "〉", "「": "」", "『": "』"}

# Unicode's description characters, with the number of components that each takes.
_ARITY = dict.fromkeys("⿰⿱⿴⿵⿶⿷⿸⿹⿺⿻⿼⿽㇯", 2) | dict.fromkeys("⿲⿳", 3) | dict.fromkeys("⿾⿿", 1)
_DESCRIPTION = re.compile("[" + "".join(_ARITY) + "]")
# Signs between components: Unicode's, and those of the Buddhist texts of CBETA ([亻*厓], [亻+厓]).
_COMPOSING_SIGNS = re.compile("[" + "".join(_ARITY) + r"*+/@\s]")
# 【不要】 may also be two words in brackets: only in square brackets are they one character.
_AMBIGUOUS = ("不", "勿", "多角", "衣甲")

_PROSODY = re.compile(r"#[1-4](?![0-9])")  # corpora for synthesis: 卡尔普#2陪外孙#1玩滑梯#4。
_PROSODY_AT_END = re.compile(r"#[1-4]\W*$")
_MARKED_WORD = re.compile(r"#([^#\s0-9]+)#")  # DiaMoE marks words with er: 一#圈儿#


@lru_cache(maxsize=1)
def composed_characters() -> Mapping[str, str]:
    """Character by components (``composed.tsv``)."""
    with COMPOSED_FILE.open(encoding="utf-8", newline="") as stream:
        return {row["components"]: row["character"] for row in csv.DictReader(stream, delimiter="\t")}


@lru_cache(maxsize=1)
def _labels() -> Mapping[str, str]:
    """Kind of each label, in lower case: ``event``, or ``speech`` that could not be written down."""
    with LABELS_FILE.open(encoding="utf-8", newline="") as stream:
        return {row["label"]: row["marks"] for row in csv.DictReader(stream, delimiter="\t")}


@lru_cache(maxsize=1)
def _unclosed_label() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns of a Latin label after an opening bracket, and before a closing one."""
    names = sorted((name for name in _labels() if re.fullmatch("[a-z_-]{3,}", name)), key=len, reverse=True)
    one = "|".join(map(re.escape, names))
    after = re.compile(rf"\s*(?:{one})(?![A-Za-z])", re.IGNORECASE)
    return after, re.compile(rf"(?<![A-Za-z])(?:{one})\s*$", re.IGNORECASE)


def without_markup(text: str) -> str:
    """Remove the markup of web pages (``&amp;`` becomes &, ``<b>好</b>`` 好) and the comma in 1,000."""
    while (plain := _ENTITY.sub(lambda match: html.unescape(match[0]), text)) != text:
        text = plain
    text = _NASAL.sub("ⁿ", text)
    text = _BREAK_TAG.sub(" ", _INLINE_TAG.sub("", text))
    return unicodedata.normalize("NFC", _THOUSANDS.sub("", text))


def without_number_signs(text: str) -> str:
    """Remove the # of prosodic breaks and of marked words; keep any other #."""
    if "#" not in text:
        return text
    if _PROSODY_AT_END.search(text):
        text = _PROSODY.sub("", text)
    return _MARKED_WORD.sub(r"\1", text)


def composed(text: str, known: Mapping[str, str], report: Report) -> str:
    """Replace compositions by their character: ``[亻厓]``, ``【亻厓】``, ``⿰亻厓``, ``[亻*厓]`` become 𠊎.

    Components without a character in ``known`` are kept and reported.
    """
    text = _SQUARE.sub(lambda match: _composed_in_square(match, known, report), text)
    text = _OTHER_BRACKETS.sub(lambda match: _composed_in_other(match, known, report), text)
    return _composed_bare(_described(text, known, report), known)


def _composed_bare(text: str, known: Mapping[str, str]) -> str:
    """Replace components without any sign, if the first can only be a component."""
    if COMPONENT.search(text):
        for components, character in known.items():
            if COMPONENT.match(components):
                text = text.replace(components, character)
    return text


def _composed_in_square(match: re.Match[str], known: Mapping[str, str], report: Report) -> str:
    content = match[1].strip()
    components = _components(content)
    if components in known:
        return known[components]
    if not HAN.search(content) or content.casefold() in _labels():
        return match[0]  # a label
    if len(components) > 1:
        report("unknown_composition", f"[{content}]")
    return components if _DESCRIPTION.search(content) else content


def _composed_in_other(match: re.Match[str], known: Mapping[str, str], report: Report) -> str:
    components = _components(match[2])
    if {**_PAIRS, **_QUOTATIONS}[match[1]] != match[3] or components not in known:
        return match[0]
    if match[2].startswith(_AMBIGUOUS):
        if match[1] in _PAIRS:
            report("unknown_composition", f"{match[0]} can be {known[components]} or two words")
        return match[0]
    return known[components]


def _described(text: str, known: Mapping[str, str], report: Report) -> str:
    """Replace ideographic description sequences without brackets."""
    position = 0
    while found := _DESCRIPTION.search(text, position):
        start, position = found.start(), found.end()
        if end := _end_of_description(text, start):
            components = _components(text[start:end])
            if components not in known:
                report("unknown_composition", f"[{text[start:end]}]")
            character = known.get(components, components)
            text = text[:start] + character + text[end:]
            position = start + len(character)
    return text


def _end_of_description(text: str, start: int) -> int | None:
    missing = 1
    for i in range(start, len(text)):
        if not (text[i] in _ARITY or HAN.match(text[i]) or text[i] in look_alikes()):
            return None
        missing += _ARITY.get(text[i], 0) - 1
        if not missing:
            return i + 1
    return None


def _components(content: str) -> str:
    """Components without signs: ``⿰亻厓``, ``亻*厓`` and ``亻厓`` are the same composition."""
    return _COMPOSING_SIGNS.sub("", content)


def without_labels(text: str, report: Report) -> str:
    """Remove the labels of sounds, in brackets or marks of any kind; report unknown labels."""
    text = _TAG.sub(" ", text)
    text = _MARKED_LABEL.sub(lambda match: _without_label(match[2], match[0], report, marks_words=True), text)
    text = _ANGLE.sub(lambda match: _without_label(match[1], match[1], report, marks_words=False), text)
    text = _SQUARE.sub(lambda match: _without_label(match[1], match[1], report, marks_words=False), text)
    return _BRACED.sub(lambda match: _without_label(match[2], match[0], report, marks_words=True), text)


def _without_label(content: str, otherwise: str, report: Report, *, marks_words: bool) -> str:
    """A space for a label, else ``otherwise``: words in {} are spoken (MDCC marks uncertain words so)."""
    label = content.strip(" /").casefold()
    marks = _labels().get(label)
    if otherwise.startswith("{") and not label:
        marks = "speech"  # MDCC: unintelligible
    elif otherwise.startswith("{") and HAN.search(label):
        marks = None  # MDCC: an uncertain word
    if marks == "speech":
        report("untranscribed_speech", content.strip() or "{}")
    if marks:
        return " "
    if marks_words or HAN.search(content):
        return otherwise
    if content.strip():
        report("unknown_label", content.strip())
    return " "


def without_parentheses(text: str, report: Report) -> str:
    """Remove parentheses with their content, from the inside out; report Han characters in them."""

    def removed(match: re.Match[str]) -> str:
        if HAN.search(match[1]):
            report("dropped_remark", f"({match[1].strip()})")
        return " "

    count = 1
    while count:
        text, count = _PARENTHESISED.subn(removed, text)
    return text


def with_unmatched_reported(text: str, report: Report) -> str:
    """Report brackets without a partner, and remove a label beside one: MDCC has ``(music我哋``."""
    after, before = _unclosed_label()
    for position in reversed(_unmatched(text)):
        bracket = text[position]
        report("unmatched_bracket", f"{bracket} in {text}")
        head, tail = text[:position], text[position + 1 :]
        if bracket in _PAIRS or bracket == "<":
            tail = after.sub("", tail, count=1) if after.match(tail) else tail
        else:
            head = before.sub("", head)
        text = f"{head} {tail}"
    return text


def _unmatched(text: str) -> list[int]:
    """Positions of the brackets without a partner of their kind."""
    unmatched: list[int] = []
    for opening, closing in _PAIRS.items():
        if opening not in text and closing not in text:
            continue
        opened: list[int] = []
        for i, character in enumerate(text):
            if character == opening:
                opened.append(i)
            elif character == closing:
                if opened:
                    opened.pop()
                else:
                    unmatched.append(i)
        unmatched += opened
    # < and > are signs of comparison as well: only those beside a label are brackets.
    after, before = _unclosed_label()
    for match in _COMPARISON.finditer(text):
        i = match.start()
        opens = match[0] == "<" and ">" not in text[i:] and after.match(text, i + 1)
        closes = match[0] == ">" and "<" not in text[:i] and before.search(text[:i])
        if opens or closes:
            unmatched.append(i)
    return sorted(unmatched)
