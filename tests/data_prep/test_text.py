import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.text import Digits, LatinCase, Script, TextConfig, TextNormaliser, TextStyle, normalise

YUBAO = TextConfig(style=TextStyle.yubao)

# Any text, but often of the characters that the rules are about.
TEXTS = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("[]()（）/。，'’ aßǰ1①亻厓𠊎\u0301\u0345\ufe00"),
    )
)
CONFIGS = st.builds(
    TextConfig,
    style=st.sampled_from(TextStyle),
    script=st.sampled_from(Script),
    latin_case=st.sampled_from(LatinCase),
    digits=st.sampled_from(Digits),
    keep_parentheses=st.booleans(),
)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("學校附近有什麼好吃的東西？", "學校附近有什麼好吃的東西"),
        ("ＡＢＣ　１２３", "ABC 123"),
        ("我用 iPhone， 你呢", "我用IPHONE你呢"),
        ("hello,world", "HELLO WORLD"),
        ("don’t 走", "DON'T走"),
        ("你'好'", "你好"),
        ("[亻厓]愛[扌老]書", "𠊎愛㧯書"),
        ("[⿰亻厓]愛", "𠊎愛"),
        ("外[广兆斗]天", "外𣂁天"),
        ("請[勿愛]耍", "請勿愛耍"),  # no such character: the components stay
        ("暗餐（夜餐）準備好", "暗餐準備好"),
        ("失禮、（敗勢（歹勢））！", "失禮"),
        ("To-siā--lí!", "TO SIĀ LÍ"),
        ("〇八年，人々", "〇八年人々"),
        ("㍿ﬁ", "株式会社FI"),
        ("\U000e0100好\ufe00", "好"),
        ("", ""),
        ("，。！？", ""),
    ],
)
def test_plain_style(raw: str, expected: str) -> None:
    assert normalise(raw) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("我去/俺去。你去。", "我去你去"),
        ("今日ABC 去123咧！", "今日去咧"),
        ("我去/俺去", "我去俺去"),  # an alternative ends with a full stop
        ("[亻厓]毋知", "𠊎毋知"),
    ],
)
def test_yubao_style(raw: str, expected: str) -> None:
    assert normalise(raw, YUBAO) == expected


def test_compatibility_ideographs_change_no_more_than_nfkc_does() -> None:
    block = "".join(chr(c) for c in range(0xF900, 0xFB00) if unicodedata.category(chr(c)) == "Lo")
    assert normalise(block) == unicodedata.normalize("NFKC", block)
    assert "﨎" in normalise(block)  # one of the twelve that are no duplicates


@pytest.mark.parametrize(
    "code", [0x3400, 0x20000, 0x2A700, 0x2B740, 0x2CEB0, 0x2EBF0, 0x30000, 0x31350, 0xE000]
)
def test_rare_and_private_characters_are_kept(code: int) -> None:
    assert normalise(f"好{chr(code)}，") == f"好{chr(code)}"


def test_digits_and_case_follow_the_config() -> None:
    assert normalise("3個Apple", TextConfig(digits=Digits.chinese, latin_case=LatinCase.lower)) == "三個apple"
    assert normalise("3個Apple", TextConfig(digits=Digits.drop, latin_case=LatinCase.keep)) == "個Apple"


def test_simplified_script_keeps_dialect_words() -> None:
    simplified = TextConfig(script=Script.simplified)
    assert normalise("[亻厓]去學校，佢食飯", simplified) == "𠊎去学校佢食饭"
    assert normalise("𠊎去学校佢食饭", simplified) == "𠊎去学校佢食饭"


def test_own_compositions() -> None:
    assert normalise("[勿愛]耍", TextConfig(composed={"勿愛": "嫑"})) == "嫑耍"
    assert TextNormaliser().unknown_compositions("[勿愛][亻厓]") == ["勿愛"]


def test_parentheses_can_be_kept() -> None:
    assert normalise("暗餐（夜餐）", TextConfig(keep_parentheses=True)) == "暗餐夜餐"


@given(TEXTS, CONFIGS)
def test_normalising_twice_changes_nothing(text: str, config: TextConfig) -> None:
    once = normalise(text, config)
    assert normalise(once, config) == once


@given(TEXTS, CONFIGS)
def test_no_punctuation_symbol_or_double_space_is_left(text: str, config: TextConfig) -> None:
    normal = normalise(text, config)
    assert normal == normal.strip()
    assert "  " not in normal
    categories = {unicodedata.category(c) for c in normal if c not in " '"}
    assert not {c for c in categories if c[0] in "PSZ" or c in ("Cc", "Cf")}


@given(st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF)))
def test_han_text_is_left_alone(text: str) -> None:
    assert normalise(text) == text
    assert normalise(text, YUBAO) == text
