"""Labels, remarks, brackets and compositions in raw transcripts, and the findings that they give."""

import csv

import pytest

from data_prep.text.annotations import LABELS_FILE
from data_prep.text.normaliser import TextConfig, TextNormaliser, TextStyle, normalise

Findings = dict[str, list[str]]


@pytest.mark.parametrize(
    ("raw", "text", "findings"),
    [
        # MDCC: labels before sentences, uncertain words in braces, empty braces for what was not heard.
        ("(music)我哋去街市", "我哋去街市", {}),
        ("(MUSIC) 我哋去街市", "我哋去街市", {}),
        ("{阿明}去咗邊度", "阿明去咗邊度", {}),
        ("佢{笑}我", "佢笑我", {}),
        ("{}去咗邊度", "去咗邊度", {"untranscribed_speech": ["{}"]}),
        # Common Voice nan-tw: readings in parentheses of any width.
        ("攕血（tshiam-hueh | tshiam-huih）", "攕血", {}),
        ("好啊(hó--ah）緊來", "好啊緊來", {}),
        ("暗餐（夜餐）備好", "暗餐備好", {"dropped_remark": ["(夜餐)"]}),
        # KeSpeech, SEAME, AISHELL-4, MagicData, WenetSpeech-Yue.
        ("<SPOKEN_NOISE>去公園", "去公園", {}),
        ("okay<v-noise>啦", "OKAY啦", {}),
        ("好<%>的<->呀<$>啦<#>", "好的呀啦", {}),
        ("[FIL]打开音乐[SPK]", "打开音乐", {}),
        ("＜SIL＞打开音乐", "打开音乐", {}),
        ("<|HAPPY|><|zh|>好嘢", "好嘢", {}),
        ("去<unk>公園", "去公園", {"untranscribed_speech": ["unk"]}),
        ("（笑）我話〔笑聲〕好【掌聲】", "我話好", {}),
        ("[聽不清]好", "好", {"untranscribed_speech": ["聽不清"]}),
        ("[OVERLAP]好", "好", {"unknown_label": ["OVERLAP"]}),
        ("好[1]啊", "好啊", {"unknown_label": ["1"]}),
        # Titles and quotations are spoken.
        ("睇《紅樓夢》同<三國>", "睇紅樓夢同三國", {}),
        ("【快訊】「颱風」來襲", "快訊颱風來襲", {}),
        # The markup of web pages.
        ("<b>好</b>啊&nbsp;tom&#39;s<br/>cat", "好啊TOM'S CAT", {}),
        ('sa<sup>n</sup> <span lang="nan">mn̂g</span>', "SAⁿ MN̂G", {}),
        # Prosodic breaks of corpora for synthesis, marked words of DiaMoE.
        ("卡尔普#2陪外孙#1玩滑梯#4。", "卡尔普陪外孙玩滑梯", {}),
        ("风#景儿#好", "风景儿好", {}),
        ("住#3號房", "住3號房", {"dropped_symbol": ["# U+0023 NUMBER SIGN"]}),
        ("1,000,000人", "1000000人", {}),
    ],
)
def test_annotations(raw: str, text: str, findings: Findings) -> None:
    examined = TextNormaliser().examine(raw)
    assert (examined.text, examined.findings) == (text, findings)


@pytest.mark.parametrize(
    ("raw", "text", "findings"),
    [
        ("你*noise*好", "你好", {}),
        ("你 #noise# 好", "你好", {}),
        ("你++Breath++好", "你好", {}),
        ("你/unk/好", "你好", {"untranscribed_speech": ["unk"]}),
        ("art/music/dance", "ART MUSIC DANCE", {"dropped_symbol": ["/ U+002F SOLIDUS"]}),
        ("3<5>2", "3 5 2", {"dropped_symbol": ["< U+003C LESS-THAN SIGN", "> U+003E GREATER-THAN SIGN"]}),
        ("你❨笑❩⦅笑⦆｟笑｠⟦noise⟧〘笑〙好", "你好", {}),
        ("❴阿明❵去", "阿明去", {}),
        ("你⸨真係⸩好", "你好", {"dropped_remark": ["(真係)"]}),
    ],
)
def test_labels_between_marks_and_in_rare_brackets(raw: str, text: str, findings: Findings) -> None:
    examined = TextNormaliser().examine(raw)
    assert (examined.text, examined.findings) == (text, findings)


def test_labels_go_from_kept_parentheses_too() -> None:
    normaliser = TextNormaliser(TextConfig(keep_parentheses=True))
    assert normaliser.examine("(music)我哋（真係）去").text == "我哋真係去"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("(music我哋今日去", "我哋今日去"),
        ("（music 我哋今日去", "我哋今日去"),
        ("music)聽日再講", "聽日再講"),
        ("[FIL打开", "打开"),
        ("你<noise好", "你好"),
        ("noise>你好", "你好"),
        ("(musical我哋", "MUSICAL我哋"),  # another word
        ("熱天（jua̍h", "熱天JUA̍H"),
        ("{阿明去咗", "阿明去咗"),
        ("[亻厓去", "𠊎去"),
        ("(甲]乙", "甲乙"),
    ],
)
def test_unmatched_brackets_are_reported_and_take_their_label_with_them(raw: str, text: str) -> None:
    examined = TextNormaliser().examine(raw)
    assert examined.text == text
    assert list(examined.findings) == ["unmatched_bracket"]


@pytest.mark.parametrize(
    "raw",
    [
        "[亻厓]",
        "［亻厓］",
        "【亻厓】",
        "〔亻厓〕",
        "（亻厓）",
        "{亻厓}",
        "⿰亻厓",
        "[⿰亻厓]",
        "【⿰亻厓】",
        "「亻厓」",
        "＜亻厓＞",
        "亻厓",
        "[亻*厓]",
        "[亻+厓]",
        "[亻\u3000厓]",
        "[⺅厓]",
        "⿰⺅厓",
        "[亻\u200b厓]",
    ],
)
def test_a_composition_is_one_character_however_it_is_written(raw: str) -> None:
    for style in TextStyle:
        assert normalise(f"{raw}去", TextConfig(style=style)) == "𠊎去"


@pytest.mark.parametrize(
    ("raw", "text", "reported"),
    [
        ("⿰虫牙去", "虫牙去", "[⿰虫牙]"),  # no such character is known
        ("⿱竹⿰木虫去", "竹木虫去", "[⿱竹⿰木虫]"),  # a description in a description
        ("[⿰虫牙]去", "虫牙去", "[⿰虫牙]"),
        ("【不要】去", "不要去", "【不要】 can be 嫑 or two words"),
    ],
)
def test_compositions_without_a_certain_character_are_reported(raw: str, text: str, reported: str) -> None:
    examined = TextNormaliser().examine(raw)
    assert (examined.text, examined.findings) == (text, {"unknown_composition": [reported]})


def test_quoted_words_are_no_compositions() -> None:
    examined = TextNormaliser().examine("「不要」講「多角」")
    assert (examined.text, examined.findings) == ("不要講多角", {})


def test_an_unfinished_description_is_reported() -> None:
    examined = TextNormaliser().examine("⿰木")
    assert list(examined.findings) == ["dropped_symbol"]


def test_every_label_is_left_out_and_those_of_speech_are_reported() -> None:
    with LABELS_FILE.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    for row in rows:
        for raw in (f"<{row['label']}>好", f"[{row['label'].upper()}]好"):
            examined = TextNormaliser().examine(raw)
            assert examined.text == "好", raw
            assert ("untranscribed_speech" in examined.findings) == (row["marks"] == "speech"), raw
            assert len(examined.findings) == (row["marks"] == "speech"), raw
