"""Words -> phonemes, for every variety that the corpus can speak.

The readings come from offline packages (pypinyin, ToJyutping, taibun, formog2p, ngungu); ``readings.tsv``
corrects single words where a package reads a character out of its context.
"""

import csv
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Final, Literal

from data_prep.corpora.mini import romanisations as roman
from data_prep.corpora.mini.phonemes import Syllable
from data_prep.foreign_warnings import without_jieba_warnings, without_native_stderr
from zipformer.errors import UserError

CORRECTIONS_FILE: Final = Path(__file__).with_name("readings.tsv")


@dataclass
class Reader:
    """Reads the words of one variety.

    Attributes:
        variety: id of the taxonomy, e.g. ``wuu-shanghai``.
        table: espeak-ng's phoneme table.
        syllables: word -> romanised syllables, one a character, by a package.
        phonemes: romanised syllable -> phoneme mnemonics of ``table``.
        ipa: romanised syllable -> IPA with the tone in Chao digits.
        corrections: romanised syllables of words that the package reads out of their context.
    """

    variety: str
    table: str
    syllables: Callable[[str], list[str]]
    phonemes: Callable[[str], str]
    ipa: Callable[[str], str]
    corrections: dict[str, list[str]] = field(default_factory=dict)

    def romanise(self, word: str) -> list[str]:
        """Romanised syllables of a word, one a character.

        Raises:
            UserError: a character has no reading.
        """
        syllables = self.corrections.get(word) or self.syllables(word)
        if len(syllables) != len(word):
            raise UserError(
                f"{self.variety}: {word!r} has {len(word)} characters but its reading is {syllables}; "
                f"give one in {CORRECTIONS_FILE.name}"
            )
        return syllables

    def read(self, word: str) -> list[str]:
        """Phonemes of a word, one string a character.

        Raises:
            UserError: a character has no reading, or the reading has a sound that no phoneme stands for.
        """
        try:
            return [self.phonemes(syllable) for syllable in self.romanise(word)]
        except ValueError as error:
            raise UserError(f"{self.variety}: cannot speak {word!r}: {error}") from error

    def transcribe(self, word: str) -> list[str]:
        """A word in IPA, one string a character; errors as in :meth:`read`."""
        try:
            return [self.ipa(syllable) for syllable in self.romanise(word)]
        except ValueError as error:
            raise UserError(f"{self.variety}: cannot transcribe {word!r}: {error}") from error


@cache
def reader_of(variety: str) -> Reader:
    """The reader of a variety.

    Raises:
        UserError: the corpus cannot speak the variety.
    """
    if variety not in READERS:
        raise UserError(f"no reader for variety {variety!r}; choose from {', '.join(READERS)}")
    reader = READERS[variety]()
    reader.corrections = {word: reading for name, word, reading in _corrections() if name == variety}
    return reader


@cache
def _corrections() -> list[tuple[str, str, list[str]]]:
    with CORRECTIONS_FILE.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t")
        return [(row["variety"], row["word"], row["reading"].split()) for row in rows]


def _reader(variety: str, syllables: Callable[[str], list[str]], parse: Callable[[str], Syllable]) -> Reader:
    """A reader whose syllables are spoken with the ``cmn`` table."""
    return Reader(
        variety, "cmn", syllables, lambda text: parse(text).phonemes(), lambda text: parse(text).ipa()
    )


def _pinyin_reader(variety: str, parse: Callable[[str, str], Syllable]) -> Reader:
    from pypinyin import Style, lazy_pinyin
    from pypinyin.contrib.tone_convert import to_finals_tone3, to_initials

    def split_and_parse(syllable: str) -> Syllable:
        final = to_finals_tone3(syllable, neutral_tone_with_five=True)
        return parse(to_initials(syllable), final.replace("ü", "v"))

    syllables = partial(lazy_pinyin, style=Style.TONE3, neutral_tone_with_five=True)
    return _reader(variety, syllables, split_and_parse)


def _jyutping_reader(variety: str) -> Reader:
    import ToJyutping

    def syllables(word: str) -> list[str]:
        return [reading for _, reading in ToJyutping.get_jyutping_list(word) if reading]

    return Reader(
        variety, "yue", syllables, roman.jyutping_phonemes, lambda text: roman.jyutping_syllable(text).ipa()
    )


def _tailo_reader(variety: str) -> Reader:
    from taibun import Converter

    converter = Converter(system="Tailo", format="number", sandhi="none")

    def syllables(word: str) -> list[str]:
        return str(converter.get(word)).lower().replace("-", " ").split()

    return _reader(variety, syllables, roman.tailo_syllable)


def _hakka_reader(variety: str, lexicon: Literal["hak_sx", "hak_hl"], tones: dict[str, str]) -> Reader:
    # The segmenter underneath announces its cache on the first call.
    logging.getLogger("jieba").setLevel(logging.WARNING)
    import opencc

    with without_jieba_warnings():
        from formog2p.hakka import g2p

    traditional = opencc.OpenCC("s2t")

    def syllables(word: str) -> list[str]:
        words = g2p(traditional.convert(word), lexicon).pronunciations
        return [syllable for word in words for syllable in word.split()]

    return _reader(variety, syllables, partial(roman.hakka_syllable, tones=tones))


def _ngungu_reader(variety: str, dialect: str, parse: Callable[[str], Syllable]) -> Reader:
    import ngungu

    with (
        without_native_stderr()
    ):  # OpenCC warns of the package's dictionary, whose form is older than its schema
        ngungu.convert("", dialect)

    def syllables(word: str) -> list[str]:
        return [s for s in ngungu.convert(word, dialect).replace("-", "$").split("$") if s]

    return _reader(variety, syllables, parse)


READERS: Final[dict[str, Callable[[], Reader]]] = {
    "cmn-mainland": partial(_pinyin_reader, "cmn-mainland", roman.pinyin_syllable),
    "mandarin-southwestern": partial(
        _ngungu_reader, "mandarin-southwestern", "sichuan", roman.sichuan_syllable
    ),
    "mandarin-zhongyuan": partial(_pinyin_reader, "mandarin-zhongyuan", roman.xian_syllable),
    "yue-guangzhou": partial(_jyutping_reader, "yue-guangzhou"),
    "nan-taiwan": partial(_tailo_reader, "nan-taiwan"),
    "wuu-shanghai": partial(
        _ngungu_reader, "wuu-shanghai", "shanghai", partial(roman.ipa_syllable, tones=roman.SHANGHAI_TONES)
    ),
    "wuu-suzhou": partial(
        _ngungu_reader, "wuu-suzhou", "suzhou", partial(roman.ipa_syllable, tones=roman.SUZHOU_TONES)
    ),
    "hak-sixian": partial(_hakka_reader, "hak-sixian", "hak_sx", roman.SIXIAN_TONES),
    "hak-hailu": partial(_hakka_reader, "hak-hailu", "hak_hl", roman.HAILU_TONES),
}
