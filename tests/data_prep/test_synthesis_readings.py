"""Readings: romanised syllables -> phonemes, checked against readings that dictionaries print."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.corpora.mini.lexicon import entries
from data_prep.corpora.mini.phonemes import CODAS, ONSETS, TONES, VOWELS, Syllable, parse_syllable
from data_prep.corpora.mini.readings import READERS, reader_of
from data_prep.corpora.mini.romanisations import (
    jyutping_phonemes,
    jyutping_syllable,
    pinyin_syllable,
    sichuan_syllable,
    tailo_syllable,
    xian_syllable,
)

pytest.importorskip("espeakng_loader")

# Words with the readings that dictionaries of the variety give.
PUBLISHED = [
    ("cmn-mainland", "今天", "jin1 tian1"),
    ("cmn-mainland", "长", "chang2"),
    ("mandarin-southwestern", "没得", "mo2 de1"),
    ("yue-guangzhou", "佢", "keoi5"),
    ("yue-guangzhou", "返屋企", "faan1 uk1 kei2"),
    ("nan-taiwan", "今仔日", "kin1 a2 jit8"),
    ("nan-taiwan", "啥人", "siann2 lang5"),
    ("wuu-shanghai", "饭", "vᴇ6"),
    ("wuu-shanghai", "读书", "doʔ8 sɿ1"),
    ("hak-sixian", "𠊎", "ŋ-ai_11"),
    ("hak-hailu", "𠊎", "ŋ-ai_24"),
]


@pytest.mark.parametrize(("variety", "word", "reading"), PUBLISHED)
def test_words_read_as_in_a_dictionary(variety: str, word: str, reading: str) -> None:
    assert reader_of(variety).romanise(word) == reading.split()


@pytest.mark.parametrize("variety", READERS)
def test_every_word_of_the_lexicon_is_read_one_syllable_a_character(variety: str) -> None:
    reader = reader_of(variety)
    for entry in entries().values():
        word = entry.word(variety)
        assert len(reader.read(word)) == len(word)


@pytest.mark.parametrize("variety", READERS)
def test_different_syllables_stay_different(variety: str) -> None:
    """At most four in a hundred syllables of a variety fall together with another one."""
    reader = reader_of(variety)
    syllables = {s for entry in entries().values() for s in reader.romanise(entry.word(variety))}
    phonemes = {reader.phonemes(syllable) for syllable in syllables}
    assert len(phonemes) >= 0.96 * len(syllables)


def test_varieties_sound_different() -> None:
    """The words that are written alike in all varieties are not spoken alike in any two."""
    shared = [e.word("cmn") for e in entries().values() if len(e.words) == 1]
    spoken = {v: [p for word in shared for p in reader_of(v).read(word)] for v in READERS}
    for one in spoken:
        for other in spoken:
            if one < other:
                same = sum(a == b for a, b in zip(spoken[one], spoken[other], strict=True))
                assert same < 0.5 * len(spoken[one]), (one, other)


def test_phonemes_of_single_syllables() -> None:
    assert pinyin_syllable("zh", "ang1").phonemes() == "ts.A55N"
    assert pinyin_syllable("s", "i4").phonemes() == "si[51"
    assert pinyin_syllable("sh", "i4").phonemes() == "s.i.51"
    assert pinyin_syllable("", "ve4").phonemes() == "yE51"
    assert xian_syllable("sh", "u1").phonemes() == "fu21"  # 书: retroflex before u is labiodental
    assert xian_syllable("", "e4").phonemes() == "No-44"  # 饿: a nasal before an open vowel
    assert sichuan_syllable("cɿan2").phonemes() == "tshiE21n"  # 钱: a sharp sound
    assert sichuan_syllable("ŋo3").phonemes() == "Nuo53"
    assert tailo_syllable("tsiah8").phonemes() == "tsiA44?"
    assert tailo_syllable("siann2").phonemes() == "siA51n^"
    assert tailo_syllable("siang2").phonemes() == "siA51N"
    assert tailo_syllable("png7").phonemes() == "pN-33"
    assert tailo_syllable("m7").phonemes() == "m-33"
    assert tailo_syllable("kong1").phonemes() == "ko55N"
    assert tailo_syllable("ho2").phonemes() == "ho-51"
    assert jyutping_phonemes("goeng1") == "goe1N"
    assert jyutping_phonemes("seoi2") == "seoi2"
    assert jyutping_phonemes("ngo5") == "No5"
    assert jyutping_phonemes("m4") == "m-4"
    assert jyutping_phonemes("jyut6") == "jyu6t"


def test_ipa_of_single_syllables() -> None:
    assert pinyin_syllable("zh", "ang1").ipa() == "tʂɑŋ55"
    assert xian_syllable("sh", "u1").ipa() == "fu21"
    assert sichuan_syllable("cɿan2").ipa() == "tsʰiɛn21"  # a sharp sound
    assert tailo_syllable("siann2").ipa() == "sia\u030351"
    assert tailo_syllable("png7").ipa() == "pŋ̍33"
    assert jyutping_syllable("goeng1").ipa() == "kœŋ55"
    assert jyutping_syllable("gwok3").ipa() == "kʷɔk33"
    assert jyutping_syllable("seoi2").ipa() == "sɵy35"
    assert jyutping_syllable("m4").ipa() == "m̩21"


@pytest.mark.parametrize("variety", READERS)
def test_every_word_of_the_lexicon_has_an_ipa_syllable_a_character(variety: str) -> None:
    reader = reader_of(variety)
    for entry in entries().values():
        word = entry.word(variety)
        transcribed = reader.transcribe(word)
        assert len(transcribed) == len(word)
        assert all(syllable[-1].isdigit() and not syllable[0].isdigit() for syllable in transcribed)


def test_unknown_syllables_are_errors_that_name_them() -> None:
    with pytest.raises(ValueError, match="'q9'"):
        tailo_syllable("q9")
    with pytest.raises(ValueError, match="'xyz1'"):
        jyutping_phonemes("xyz1")
    with pytest.raises(ValueError, match="'ʘa'"):
        parse_syllable("ʘa", "55")
    with pytest.raises(ValueError, match="'99'"):
        parse_syllable("ma", "99")
    with pytest.raises(ValueError, match="cmn-mainland"):
        reader_of("cmn-mainland").read("Ω")
    with pytest.raises(ValueError, match="cmn-mainland: cannot transcribe"):
        reader_of("cmn-mainland").transcribe("Ω")
    with pytest.raises(ValueError, match="'xyz1'"):
        jyutping_syllable("xyz1")
    with pytest.raises(ValueError, match="wuu-shanghai"):
        reader_of("klingon")


@given(
    st.sampled_from(sorted(ONSETS)),
    st.sampled_from(sorted(VOWELS)),
    st.sampled_from(sorted(CODAS)),
    st.sampled_from(sorted(TONES)),
)
def test_parsing_undoes_spelling(onset: str, vowel: str, coda: str, tone: str) -> None:
    """Joined and cut again, a syllable has the same phonemes; each carries its tone exactly once."""
    syllable = Syllable(onset, vowel, coda, tone)
    parsed = parse_syllable(onset + vowel + coda, tone)
    assert parsed.onset + parsed.vowel + parsed.coda == onset + vowel + coda
    assert "*" not in syllable.phonemes()
    assert sum(character.isdigit() for character in parsed.phonemes()) == len(tone)
