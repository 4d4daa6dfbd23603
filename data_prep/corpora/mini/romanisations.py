"""Romanised syllables, as the reading packages give them, -> IPA, -> phonemes.

One function a notation. Each takes one syllable and returns its parts in IPA; an unknown part is an error.
Tones become Chao digits: the citation tones of the variety, moved to the nearest contour that the
synthesiser has where two tones of the variety would otherwise fall together. There is no tone sandhi. For
Cantonese the synthesiser has phonemes of its own, so that jyutping has a function for them and one for IPA.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

from data_prep.corpora.mini.phonemes import Syllable, parse_syllable

PINYIN_ONSETS: Final = {
    "b": "p", "p": "pʰ", "m": "m", "f": "f", "d": "t", "t": "tʰ", "n": "n", "l": "l", "g": "k", "k": "kʰ",
    "h": "x", "j": "tɕ", "q": "tɕʰ", "x": "ɕ", "zh": "tʂ", "ch": "tʂʰ", "sh": "ʂ", "r": "ʐ", "z": "ts",
    "c": "tsʰ", "s": "s",
}  # fmt: skip
PINYIN_RIMES: Final = {
    "a": "a", "o": "uo", "e": "ɤ", "ê": "ɛ", "ai": "ai", "ei": "ei", "ao": "au", "ou": "ou", "an": "an",
    "en": "ən", "ang": "ɑŋ", "eng": "əŋ", "ong": "uŋ", "er": "ɚ", "i": "i", "ia": "ia", "ie": "iɛ",
    "iao": "iau", "iou": "iou", "ian": "iɛn", "in": "in", "iang": "iaŋ", "ing": "iŋ", "iong": "iuŋ", "u": "u",
    "ua": "ua", "uo": "uo", "uai": "uai", "uei": "uei", "uan": "uɑn", "uen": "uən", "uang": "uɑŋ",
    "ueng": "uəŋ", "v": "y", "ve": "yɛ", "van": "yan", "vn": "yn",
}  # fmt: skip
MANDARIN_TONES: Final = {"1": "55", "2": "35", "3": "214", "4": "51", "5": "11"}

# Xi'an beside the standard: retroflexes before u become labiodentals, n codas nasalise the vowel, open vowels
# at the beginning get a nasal, and the four tones are 21, 24, 53, 44.
XIAN_TONES: Final = {"1": "21", "2": "35", "3": "53", "4": "44", "5": "11"}
XIAN_LABIODENTALS: Final = {"tʂ": "pf", "tʂʰ": "pfʰ", "ʂ": "f", "ʐ": "v"}
XIAN_NASAL_VOWELS: Final = {
    "an": "ɛⁿ", "iɛn": "iæⁿ", "uɑn": "uæⁿ", "yan": "yæⁿ", "ən": "eiⁿ", "in": "iɛⁿ", "uən": "ueiⁿ",
    "yn": "yɛⁿ",
}  # fmt: skip

# ngungu writes Sichuanese much like pinyin, with ɿ before a vowel for i after a dental.
SICHUAN_RIMES: Final = {
    "a": "a", "o": "uo", "e": "ɛ", "eo": "ɤ", "ai": "ai", "ei": "ei", "au": "au", "ou": "ou", "an": "an",
    "ən": "ən", "aŋ": "ɑŋ", "oŋ": "uŋ", "ə`": "ɚ", "i": "i", "ia": "ia", "ie": "iɛ", "io": "io", "iu": "iou",
    "iau": "iau", "iou": "iou", "ian": "iɛn", "in": "in", "iaŋ": "iaŋ", "ioŋ": "iuŋ", "u": "u", "ua": "ua",
    "uai": "uai", "ui": "uei", "uei": "uei", "ue": "uɛ", "uan": "uɑn", "uən": "uən", "uaŋ": "uɑŋ", "ü": "y",
    "üe": "yɛ", "üan": "yan", "ün": "yn", "üən": "yn", "ɿ": "ɿ",
}  # fmt: skip
SICHUAN_TONES: Final = {"1": "55", "2": "21", "3": "53", "4": "214", "5": "33"}

TAILO_ONSETS: Final = {
    "": "", "p": "p", "ph": "pʰ", "b": "b", "m": "m", "t": "t", "th": "tʰ", "n": "n", "l": "l", "k": "k",
    "kh": "kʰ", "g": "g", "ng": "ŋ", "h": "h", "ts": "ts", "tsh": "tsʰ", "s": "s", "j": "dz",
}  # fmt: skip
TAILO_VOWELS: Final = {
    "a": "a", "ai": "ai", "au": "au", "e": "e", "i": "i", "ia": "ia", "iau": "iau", "io": "iɤ", "iu": "iu",
    "o": "ɤ", "oo": "ɔ", "u": "u", "ua": "ua", "uai": "uai", "ue": "ue", "ui": "ui", "m": "m̩", "ng": "ŋ̍",
}  # fmt: skip
TAILO_CODAS: Final = {
    "": "", "m": "m", "n": "n", "ng": "ŋ", "p": "p", "t": "t", "k": "k", "h": "ʔ", "nn": "ⁿ", "nnh": "ʔ",
}  # fmt: skip
TAILO_TONES: Final = {"1": "55", "2": "51", "3": "21", "4": "22", "5": "35", "7": "33", "8": "44"}
TAILO_SYLLABLE: Final = re.compile(
    r"(tsh|ts|ph|th|kh|ng(?=[aeiou])|[pbmtnlkghsj]?)(.*?)(nnh|nn|ng|[mnptkh]?)([1-8])"
)

JYUTPING_SYLLABLE: Final = re.compile(
    r"(ng(?=[aeiou])|gw|kw|[bpmfdtnlgkhwzcsj]?)(aa|oe|eo|yu|[aeiou])([iumnptk]|ng)?([1-6])"
)
JYUTPING_DIPHTHONGS: Final = frozenset({"aai", "aau", "ai", "au", "ei", "eu", "iu", "oi", "ou", "ui", "eoi"})
JYUTPING_ONSETS: Final = {
    "": "", "b": "p", "p": "pʰ", "m": "m", "f": "f", "d": "t", "t": "tʰ", "n": "n", "l": "l", "g": "k",
    "k": "kʰ", "ng": "ŋ", "h": "h", "gw": "kʷ", "kw": "kʷʰ", "w": "w", "z": "ts", "c": "tsʰ", "s": "s",
    "j": "j",
}  # fmt: skip
JYUTPING_VOWELS: Final = {
    "aa": "a", "a": "ɐ", "e": "ɛ", "i": "i", "o": "ɔ", "u": "u", "oe": "œ", "eo": "ɵ", "yu": "y", "aai": "ai",
    "aau": "au", "ai": "ɐi", "au": "ɐu", "ei": "ei", "eu": "ɛu", "iu": "iu", "oi": "ɔi", "ou": "ou",
    "ui": "ui", "eoi": "ɵy",
}  # fmt: skip
JYUTPING_TONES: Final = {"1": "55", "2": "35", "3": "33", "4": "21", "5": "13", "6": "22"}

# Signs that the Wu dictionaries of ngungu and the Hakka ones of formog2p write differently from ``phonemes``.
IPA_SPELLINGS: Final = (
    ("\u0361", ""), ("ʦ", "ts"), ("ʨ", "tɕ"), ("ʥ", "dʑ"), ("ʈʂ", "tʂ"), ("\u0303", "~"), ("ŋ\u0329", "ŋ̍"),
    ("ᴀ", "ɑ"), ("ᴇ", "ɛ"), ("ɥ", "ʮ"), ("ˀ", "ʔ"), ("kh", "kʰ"), ("ph", "pʰ"), ("tsh", "tsʰ"), ("əl", "ɚ"),
    ("w", "u"), ("yⱼ", "y"), ("ɨ", "ɿ"),
)  # fmt: skip
SHANGHAI_TONES: Final = {"1": "53", "5": "35", "6": "214", "7": "55", "8": "22", "": "33"}
SUZHOU_TONES: Final = {
    "˦": "44", "˥": "44", "˨˨˧": "22", "˥˩": "51", "˥˨˧": "53", "˨˧˩": "35", "˧˩": "21", "˦˧": "55",
    "˨˧": "214", "˧": "33", "˨˩": "11", "˨": "11", "": "33",
}  # fmt: skip
SIXIAN_TONES: Final = {"24": "35", "11": "11", "31": "21", "55": "55", "2": "22", "5": "44"}
HAILU_TONES: Final = {"53": "53", "55": "55", "24": "35", "11": "11", "33": "33", "5": "44", "2": "22"}


def pinyin_syllable(initial: str, final: str) -> Syllable:
    """A syllable of standard Mandarin: ``("zh", "ang1")`` -> ``tʂɑŋ55``."""
    return parse_syllable(*_pinyin(initial, final, MANDARIN_TONES))


def xian_syllable(initial: str, final: str) -> Syllable:
    """The same syllable in the accent of Xi'an."""
    segments, tone = _pinyin(initial, final, XIAN_TONES)
    onset = PINYIN_ONSETS.get(initial, "")
    rime = segments[len(onset) :]
    if onset in XIAN_LABIODENTALS and rime.startswith("u") and rime != "uŋ":
        onset, rime = XIAN_LABIODENTALS[onset], rime[1:] if len(rime) > 1 else rime
        rime = {"ɑn": "an", "ɛi": "ei", "o": "ɤ"}.get(rime, rime)
    if not onset and rime[0] in "aɤəɑ":
        onset = "ŋ"
    return parse_syllable(onset + XIAN_NASAL_VOWELS.get(rime, rime), tone)


def _pinyin(initial: str, final: str, tones: Mapping[str, str]) -> tuple[str, str]:
    rime, tone = _look_up(PINYIN_RIMES, final[:-1], final), _look_up(tones, final[-1], final)
    if rime == "i" and initial in ("z", "c", "s"):
        rime = "ɿ"
    elif rime == "i" and initial in ("zh", "ch", "sh", "r"):
        rime = "ʅ"
    return (PINYIN_ONSETS[initial] if initial else "") + rime, tone


def sichuan_syllable(syllable: str) -> Syllable:
    """A syllable of Sichuanese as ngungu writes it, e.g. ``niaŋ3``, ``cɿan2``."""
    body, tone = syllable[:-1], _look_up(SICHUAN_TONES, syllable[-1], syllable)
    onset, rime = ("", body) if body[0] not in "bpmfdtnlgkhjqxzcsrŋ" else (body[0], body[1:])
    if len(rime) > 1 and rime.startswith("ɿ"):
        rime = "i" + rime[1:]
    ipa = onset if onset == "ŋ" else PINYIN_ONSETS.get(onset, "")
    return parse_syllable(ipa + _look_up(SICHUAN_RIMES, rime, syllable), tone)


def tailo_syllable(syllable: str) -> Syllable:
    """A syllable of Taiwanese in Tâi-lô with a tone number, e.g. ``tsiah8``, ``suann1``, ``mng5``."""
    match = TAILO_SYLLABLE.fullmatch(syllable.lower())
    if match is None:
        raise ValueError(f"{syllable!r} is not a syllable of Tâi-lô with a tone number")
    onset, vowel, coda, tone = match.groups()
    if not vowel and coda in TAILO_VOWELS:  # mng, hm: the nasal carries the syllable
        vowel, coda = coda, ""
    elif not vowel and onset in TAILO_VOWELS:  # m, ng
        onset, vowel = "", onset
    ipa_vowel = _look_up(TAILO_VOWELS, vowel, syllable)
    if coda in ("ng", "k", "p", "m"):
        ipa_vowel = ipa_vowel.replace("ɤ", "ɔ")
    return parse_syllable(TAILO_ONSETS[onset] + ipa_vowel + TAILO_CODAS[coda], TAILO_TONES[tone])


def jyutping_phonemes(syllable: str) -> str:
    """A syllable of Cantonese, e.g. ``goeng1``; the phonemes of espeak-ng's ``yue`` table follow jyutping."""
    if syllable[:-1] in ("m", "ng"):
        return f"{'m-' if syllable[0] == 'm' else 'ng'}{syllable[-1]}"
    onset, vowel, coda, tone = _jyutping(syllable)
    onset = {"ng": "N"}.get(onset, onset)
    return f"{onset}{vowel}{tone}{'N' if coda == 'ng' else coda}"


def jyutping_syllable(syllable: str) -> Syllable:
    """The same syllable in IPA: ``goeng1`` -> ``kœŋ55``."""
    if syllable[:-1] in ("m", "ng"):
        nasal, tone = {"m": "m̩", "ng": "ŋ̍"}[syllable[:-1]], syllable[-1]
        return Syllable("", nasal, "", _look_up(JYUTPING_TONES, tone, syllable))
    onset, vowel, coda, tone = _jyutping(syllable)
    return Syllable(
        JYUTPING_ONSETS[onset], JYUTPING_VOWELS[vowel], "ŋ" if coda == "ng" else coda, JYUTPING_TONES[tone]
    )


def _jyutping(syllable: str) -> tuple[str, str, str, str]:
    """Onset, vowel or diphthong, coda and tone."""
    match = JYUTPING_SYLLABLE.fullmatch(syllable)
    if match is None:
        raise ValueError(f"{syllable!r} is not a syllable of jyutping with a tone number")
    onset, vowel, coda, tone = match.groups(default="")
    if vowel + coda in JYUTPING_DIPHTHONGS:
        vowel, coda = vowel + coda, ""
    return onset, vowel, coda, tone


def ipa_syllable(syllable: str, tones: Mapping[str, str]) -> Syllable:
    """A syllable in the IPA of ngungu or formog2p, its tone at the end, e.g. ``tɕʰiɪʔ7``, ``k-im_24``."""
    decomposed = unicodedata.normalize("NFD", syllable.replace("-", "").replace("_", ""))
    segments = decomposed.rstrip("0123456789˥˦˧˨˩")
    mark = decomposed[len(segments) :]
    for spelling, plain in IPA_SPELLINGS:
        segments = segments.replace(spelling, plain)
    return parse_syllable(segments, _look_up(tones, mark, syllable))


def hakka_syllable(syllable: str, tones: Mapping[str, str]) -> Syllable:
    """A syllable of Hakka in the IPA of formog2p; its o is open, unlike that of Wu."""
    return ipa_syllable(syllable.replace("o", "ɔ"), tones)


def _look_up(table: Mapping[str, str], key: str, syllable: str) -> str:
    try:
        return table[key]
    except KeyError:
        raise ValueError(f"syllable {syllable!r}: {key!r} is none of {' '.join(table)}") from None
