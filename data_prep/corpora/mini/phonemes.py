"""Syllables in IPA -> phoneme mnemonics of the synthesiser.

espeak-ng speaks what stands between ``[[`` and ``]]`` with the phonemes of the current voice. Its ``cmn``
table has the aspirated and retroflex series, the apical vowels, the diphthongs and ten tone contours named by
Chao digits; it inherits voiced consonants, final stops and syllabic nasals from the base table. That is
enough to keep the syllables of one variety apart from each other. Where a sound has no phoneme, a free one
takes its place (the rounded apical vowel becomes the retroflex one, a nasal vowel is followed by a nasal), so
a speaker would call the result a heavy accent: it is meant to be distinct and regular, not authentic.
"""

from dataclasses import dataclass
from typing import Final

ONSETS: Final = {
    "": "", "ʔ": "", "ɦ": "", "p": "p", "pʰ": "ph", "b": "b", "m": "m", "f": "f", "v": "v", "pf": "pf",
    "pfʰ": "phf", "t": "t", "tʰ": "th", "d": "d", "n": "n", "l": "l", "k": "k", "kʰ": "kh", "g": "g",
    "ŋ": "N", "x": "x", "h": "h", "ts": "ts", "tsʰ": "tsh", "dz": "dz", "s": "s", "z": "z", "tʂ": "ts.",
    "tʂʰ": "ts.h", "ʂ": "s.", "ʐ": "z.", "tɕ": "tS;", "tɕʰ": "tS;h", "dʑ": "dZ;", "ɕ": "S;", "ʑ": "z;",
    "ȵ": "n^",
}  # fmt: skip

# The star marks where the tone goes: after the phoneme that carries the syllable.
VOWELS: Final = {
    "a": "a*", "ɑ": "A*", "æ": "a*", "ɛ": "E*", "e": "e*", "ə": "@*", "ɤ": "o-*", "ɔ": "o*", "o": "uo*",
    "ø": "yE*", "i": "i*", "u": "u*", "y": "y*", "ɿ": "i[*", "ʅ": "i.*", "ʮ": "i.*", "iⱼ": "i[*", "ɚ": "@r*",
    "ʏ": "yu*", "ai": "ai*", "au": "Au*", "ei": "ei*", "ou": "ou*", "əu": "ou*", "øʏ": "ei*", "ɔi": "o*j",
    "eu": "e*w", "ia": "iA*", "iɑ": "iA*", "iæ": "ja*", "ie": "iE*", "iɛ": "iE*", "iɪ": "iE*", "iə": "iE*",
    "iɔ": "io*", "io": "io*", "iɤ": "jo-*", "iau": "iAu*", "iai": "jai*", "iou": "iou*", "iʏ": "iou*",
    "iu": "ju*", "ieu": "je*w", "iø": "y@*", "ua": "uA*", "uɑ": "uA*", "uæ": "wa*", "uai": "uai*",
    "ue": "we*", "uɛ": "wE*", "uei": "uei*", "ui": "wi*", "uə": "u@*", "uo": "uo*", "uɔ": "uo*", "uø": "u@*",
    "ya": "y&*", "yæ": "y&*", "ye": "yE*", "yɛ": "yE*", "yø": "y@*", "yə": "y@*", "yɪ": "y@*", "yo": "yu*",
    "yi": "yi*", "m̩": "m-*", "n̩": "n-*", "ŋ̍": "N-*",
}  # fmt: skip

CODAS: Final = {
    "": "",
    "m": "m",
    "n": "n",
    "ŋ": "N",
    "p": "p",
    "t": "t",
    "k": "k",
    "ʔ": "?",
    "~": "N",
    "ⁿ": "n^",
}

# Rimes whose vowel changes with the coda in the synthesiser's table.
RIMES: Final = {
    ("a", "ŋ"): "A*N", ("uɑ", "~"): "wA*N",
    ("ua", "ŋ"): "wA*N", ("uɑ", "ŋ"): "wA*N", ("u", "ŋ"): "ong*", ("o", "ŋ"): "ong*", ("io", "ŋ"): "jong*",
    ("iu", "ŋ"): "jong*", ("ɔ", "ŋ"): "o*N", ("iɔ", "ŋ"): "jo*N", ("y", "n"): "yi*n", ("o", "ʔ"): "o*?",
}  # fmt: skip

TONES: Final = frozenset({"55", "51", "53", "44", "35", "33", "22", "21", "214", "11"})


@dataclass(frozen=True)
class Syllable:
    """One syllable: what a character sounds like.

    Attributes:
        onset: initial consonant in IPA. To be spoken by ``phonemes``, all four parts must be in the tables
            above: here a key of ``ONSETS``.
        vowel: medial and nucleus, a key of ``VOWELS``.
        coda: a key of ``CODAS``; nasality of the vowel is ``~`` where the variety has no such vowel before ŋ,
            and ``ⁿ`` where it has.
        tone: tone in Chao digits, 5 high and 1 low, a member of ``TONES``.
    """

    onset: str
    vowel: str
    coda: str
    tone: str

    def ipa(self) -> str:
        """The syllable in IPA with its tone in Chao digits, e.g. ``tʂɑŋ55`` for 张."""
        coda = "\u0303" if self.coda in ("~", "ⁿ") else self.coda
        return f"{self.onset}{self.vowel}{coda}{self.tone}"

    def phonemes(self) -> str:
        """The syllable in mnemonics of espeak-ng's ``cmn`` table, e.g. ``ts.A55N`` for 张."""
        rime = RIMES.get((self.vowel, self.coda)) or VOWELS[self.vowel] + CODAS[self.coda]
        return ONSETS[self.onset] + rime.replace("*", self.tone)


def parse_syllable(segments: str, tone: str) -> Syllable:
    """Cut a syllable in IPA (without its tone) into onset, vowel and coda.

    Args:
        segments: e.g. ``tsʰiaŋ``, ``kuɑ̃`` or ``ŋ̍``.
        tone: a member of ``TONES``.

    Raises:
        ValueError: the syllable has a part that the tables do not know, or the tone is none of ``TONES``.
    """
    if tone not in TONES:
        raise ValueError(f"syllable {segments!r}: tone {tone!r} is none of {sorted(TONES)}")
    for end in range(min(len(segments) - 1, 3), -1, -1):
        onset, rime = segments[:end], segments[end:]
        if onset not in ONSETS:
            continue
        if rime in VOWELS:
            return Syllable(onset, rime, "", tone)
        if rime[:-1] in VOWELS and rime[-1] in CODAS:
            return Syllable(onset, rime[:-1], rime[-1], tone)
    raise ValueError(f"syllable {segments!r}: no onset, vowel and coda of {__name__} make it up")
