import unicodedata
from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.text.characters import HAN, SYLLABIC, TONE_LETTER
from data_prep.text.normaliser import (
    Digits,
    LatinCase,
    Script,
    TextConfig,
    TextNormaliser,
    TextStyle,
    normalise,
)
from zipformer.errors import UserError

YUBAO = TextConfig(style=TextStyle.yubao)

# Any text, but often of the characters that the rules are about.
TEXTS = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("[]()（）/。，'’ aßǰ1①亻厓𠊎\u0301\u0345\ufe00"),
        st.sampled_from(
            "{}<>【】|&;#%*-~.,:=0²½㈠⑴○〇ㄧ一二⺅⿰ⁿᴺˇ˥ーニЖАоμKm·ʼ`´¨ﾞｶ\u200b\u0358\u030d\ufffd\ue705"
        ),
    )
)
LATIN_CASES = st.sampled_from(LatinCase)
CONFIGS = st.builds(
    TextConfig,
    style=st.sampled_from(TextStyle),
    script=st.sampled_from(Script),
    latin_case=LATIN_CASES,
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
    assert TextNormaliser().examine("[勿愛][亻厓]").findings == {"unknown_composition": ["[勿愛]"]}


def test_parentheses_can_be_kept() -> None:
    assert normalise("暗餐（夜餐）", TextConfig(keep_parentheses=True)) == "暗餐夜餐"


def test_replacements_come_first_in_half_and_full_width() -> None:
    config = TextConfig(replace={"℃": "度", "%": "巴仙", "hó--ah": "好矣"})
    examined = TextNormaliser(config).examine("25℃ 50％（hó--ah）")
    assert examined.text == "25度50巴仙"
    assert TextNormaliser(config).examine("hó--ah 啦").text == "好矣啦"  # NFD in the transcript
    assert examined.findings == {"dropped_remark": ["(好矣)"]}


@pytest.mark.parametrize("replace", [{"一": "一一"}, {"": "好"}, {"a": "b", "b": "c"}])
def test_replacements_without_an_end_are_refused(replace: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"text\.replace"):
        TextNormaliser(TextConfig(replace=replace))


def test_yubao_reports_what_concerns_han_characters_only() -> None:
    examined = TextNormaliser(YUBAO).examine("渠#56去過50%上海，[勿愛]我（music冇去過。/我。")
    assert examined.text == "渠去過上海勿愛我冇去過"
    assert set(examined.findings) == {"unknown_composition", "unmatched_bracket"}


@given(TEXTS, CONFIGS)
def test_normalising_twice_changes_nothing(text: str, config: TextConfig) -> None:
    once = normalise(text, config)
    assert normalise(once, config) == once


@given(TEXTS, CONFIGS)
def test_only_letters_marks_digits_and_single_spaces_are_left(text: str, config: TextConfig) -> None:
    normal = normalise(text, config)
    assert normal == normal.strip()
    assert "  " not in normal
    tone_letters = "\u02e5\u02e6\u02e7\u02e8\u02e9"
    for character in normal:
        category = unicodedata.category(character)
        allowed = category[0] in "LM" or category == "Co" or character in " '0123456789〇" + tone_letters
        assert allowed or SYLLABIC.match(character) or TONE_LETTER.match(character), character


@given(TEXTS, CONFIGS)
def test_no_combining_mark_stands_alone(text: str, config: TextConfig) -> None:
    normal = f" {normalise(text, config)}"
    for before, character in pairwise(normal):
        assert not unicodedata.combining(character) or not (before in " '" or SYLLABIC.match(before)), normal


@given(TEXTS, CONFIGS)
def test_composed_and_decomposed_writing_give_the_same(text: str, config: TextConfig) -> None:
    normaliser = TextNormaliser(config)
    assert normaliser.examine(unicodedata.normalize("NFD", text)) == normaliser.examine(
        unicodedata.normalize("NFC", text)
    )


@given(
    st.text(st.sampled_from("我去佢食(){}<>（）［］《》「」|/ａa1,。 %#○ㄧ一⺅Жㄚ\u200b\u0301")), LATIN_CASES
)
def test_no_han_character_is_lost_unless_it_is_reported(text: str, case: LatinCase) -> None:
    examined = TextNormaliser(TextConfig(latin_case=case)).examine(text)
    if "dropped_remark" not in examined.findings:
        assert [c for c in examined.text if HAN.match(c) and c in "我去佢食"] == [
            c for c in text if c in "我去佢食"
        ]


@given(st.text(st.sampled_from("好2½²³%‰°℃+=&@$¥€£/×÷<>±⺀★§^~-－％＋＆"), max_size=8))
def test_no_symbol_is_lost_unless_it_is_reported(text: str) -> None:
    examined = TextNormaliser().examine(text)
    reported = " ".join(chain.from_iterable(examined.findings.values()))
    for symbol in "½²³%‰°℃+=&@$¥€£/×÷±⺀§^":
        if symbol in text:
            assert symbol in reported, (text, examined)


@given(st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF, exclude_characters="丶亻扌衤")))
def test_han_text_is_left_alone(text: str) -> None:
    assert normalise(text) == text
    assert normalise(text, YUBAO) == text
