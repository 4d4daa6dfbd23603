"""Single characters: what they become, and what is said of those that are left out."""

import unicodedata

import pytest

from data_prep.text.characters import look_alikes
from data_prep.text.normaliser import TextConfig, TextNormaliser, normalise


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        # Nasalisation, tones and vowels of romanisations; typed composed or not.
        ("Goá ū saⁿ ê kiáⁿ", "GOÁ Ū SAⁿ Ê KIÁⁿ"),
        ("SAᴺ", "SAⁿ"),
        ("chit ê chin san", "CHIT Ê CHIN SAN"),
        ("to\u0304\u0358 chi\u030dt", "TŌ͘ CHI̍T"),
        ("taⁿ'a o͘'a", "TAⁿ'A O͘'A"),
        ("ta˥˩ ngaiˇ kʰa", "TA˥˩ NGAIˇ KʰA"),
        ("si² hoo⁵ nei₅", "SI2 HOO5 NEI5"),
        ("CO₂同H₂O", "CO2同H2O"),
        ("ㄌㄧˊㄅㄧㄢˋ", "ㄌㄧˊㄅㄧㄢˋ"),
        # Look-alikes.
        ("ㄧ個人", "一個人"),
        ("⼀個", "一個"),
        ("三㇐四", "三一四"),
        ("⻅⻢⺠", "见马民"),
        ("二○一九年", "二〇一九年"),
        ("二◯◯八年", "二〇〇八年"),
        ("第一⭕三回", "第一〇三回"),
        ("二⚪一八", "二〇一八"),
        ("二Ｏ一八年，一O一大樓", "二〇一八年一〇一大樓"),
        ("А股升咗，МТR", "A股升咗MTR"),
        ("〡〥蚊", "一五蚊"),
        ("時〻", "時々"),
        # Widths, circles, squares, digits of other scripts.
        ("①❶⑴⒈㈠㊀㊣Ⓐ㋿", "1111一一正A令和"),
        ("Ⅳ號㎏", "IV號KG"),
        ("１２３ ٣ ｶﾞ", "123 3 ガ"),
        # Invisible characters, controls, selectors.
        ("\ufeff好\u200b啊\u2060呀", "好啊呀"),
        ("Tai\u00adoan x\u200dy", "TAIOAN XY"),
        ("\u202a好\u202c\u0000啊\u3000呀\u2028", "好啊呀"),
        ("葛\U000e0100城1\ufe0f\u20e3", "葛城1"),
        # Apostrophes and hyphens.
        *((f"播Let{mark}s go呀", "播LET'S GO呀") for mark in "'’‘‵ʼʻ`´＇′ꞌ"),
        ("不断'拉抽屉'了，‘好’`啊`", "不断拉抽屉了好啊"),
        *((f"x{dash}ray", "X RAY") for dash in "-‐‑–—－﹣"),
        # Accents that stand alone.
        ("´好 ¨ ¯啊", "好啊"),
        # A syllable of its own.
        ("二〆", "二〆"),
        ("好\U000f0001", "好\U000f0001"),
    ],
)
def test_characters(raw: str, text: str) -> None:
    assert normalise(raw) == text
    assert normalise(unicodedata.normalize("NFD", raw)) == text


@pytest.mark.parametrize(
    ("raw", "text", "left_out"),
    [
        ("50%嘅人", "50嘅人", "%"),
        ("１％", "1", "%"),
        ("25°C", "25 C", "°"),
        ("25℃", "25", "℃"),
        ("1+1=2", "1 1 2", "+="),
        ("AT&T", "AT T", "&"),
        ("a@b", "A B", "@"),
        ("$5同¥6同€7", "5同6同7", "$¥€"),
        ("和/或", "和或", "/"),
        ("½杯", "杯", "½"),
        ("5km²", "5KM", "²"),
        ("㎡", "M", "²"),
        ("x²", "X", "²"),
        ("字³", "字", "³"),
        ("3×4÷2", "3 4 2", "×÷"),
        ("3.14", "3 14", "."),
        ("10：30", "10 30", ":"),
        ("3-5個", "3 5個", "-"),
        ("三～五個", "三五個", "~"),
        ("-5度", "5度", "-"),
        ("−5度", "5度", "−"),
        ("陳○○", "陳", "○"),
        ("同〃", "同", "〃"),
        ("三ー四", "三四", "ー"),
        ("ko·", "KO", "·"),
        ("hô·", "HÔ", "·"),
        ("o\u030d·", "O\u030d", "·"),
        ("x\u30fcray", "X RAY", "ー"),
        ("好丶啊", "好啊", "丶"),
        ("1➕1", "1 1", "➕"),
        ("A→B", "A B", "→"),
        ("cafe´", "CAFE", "´"),
        ("5′", "5", "′"),
        ("好́", "好", "\u0301"),
        ("⺀", "", "⺀"),
    ],
)
def test_symbols_that_may_be_spoken_are_reported(raw: str, text: str, left_out: str) -> None:
    examined = TextNormaliser().examine(raw)
    assert examined.text == text
    names = [f"U+{ord(c):04X} {unicodedata.name(c)}" for c in left_out]
    assert [detail[detail.index("U+") :] for detail in examined.findings["dropped_symbol"]] == names


@pytest.mark.parametrize(
    "raw", ["好～", "好——啊", "A-1", "To-siā--lí", "好…", "★好♪🙂", "列奧·托爾", "A.I.", "「好」"]
)
def test_punctuation_and_decoration_are_not_reported(raw: str) -> None:
    assert TextNormaliser().examine(raw).findings == {}


@pytest.mark.parametrize("raw", ["好□啊", "好\ufffd", "好*啊", "好〓", "好\x85\x9d"])
def test_marks_of_unwritten_speech_are_reported(raw: str) -> None:
    assert list(TextNormaliser().examine(raw).findings) == ["untranscribed_speech"]


@pytest.mark.parametrize("raw", ["ニ十", "力カ", "αβ", "Вова", "μm", "の", "한", "亻木", "我愛\ue705山"])
def test_letters_of_other_scripts_stay_and_are_reported(raw: str) -> None:
    examined = TextNormaliser(TextConfig()).examine(raw)
    assert examined.text == raw.upper()
    assert list(examined.findings) == ["unusual_letter"]


def test_radicals_are_the_ideographs_of_unicode() -> None:
    # EquivalentUnifiedIdeograph.txt of Unicode 14 has 115 radicals of the supplement and 20 strokes.
    radicals = {c for c in map(chr, range(0x2E81, 0x2EF4)) if unicodedata.name(c, "")}
    for radical in radicals:
        assert unicodedata.name(normalise(radical)).startswith("CJK UNIFIED IDEOGRAPH"), radical
    assert all(unicodedata.normalize("NFKC", typed) != meant for typed, meant in look_alikes().items())
