import csv
import re
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from data_prep.taxonomy import (
    AmbiguousDialectError,
    UnknownDialectError,
    Variety,
    entries,
    groups,
    variety_of,
    variety_of_id,
)

KESPEECH = {
    "Beijing": "mandarin-beijing",
    "Ji-Lu": "mandarin-jilu",
    "Jiang-Huai": "mandarin-jianghuai",
    "Jiao-Liao": "mandarin-jiaoliao",
    "Lan-Yin": "mandarin-lanyin",
    "Northeastern": "mandarin-northeastern",
    "Southwestern": "mandarin-southwestern",
    "Zhongyuan": "mandarin-zhongyuan",
}


def test_groups() -> None:
    assert set(groups()) == {"cmn", "mandarin", "yue", "nan", "wuu", "hak", "hsn", "gan", "cjy", "cdo"}


def test_every_id_and_label_leads_to_its_own_variety() -> None:
    for entry in entries():
        assert variety_of_id(entry.variety.id) == entry.variety
        for label in (entry.variety.id, entry.chinese, entry.english, *entry.labels):
            if label != "mandarin":  # the id of the dialects, but most people's name of the standard language
                assert variety_of(label) == entry.variety, label


@pytest.mark.parametrize(
    "label",
    [
        *("Mandarin", "mandarin", "Chinese", "zh", "zho", "zh-Hant", "中文", "漢語", "方言"),
        *("Min", "閩語", "闽语", "Taiwan", "台灣", "臺灣", "Guangdong", "廣東", "湖南", "Shanxi", "山西"),
        *("Fuzhou", "Taizhou", "Changle"),
    ],
)
def test_ambiguous_labels_are_refused_with_remedies_that_work(label: str) -> None:
    with pytest.raises(AmbiguousDialectError, match=f"{label!r} is ambiguous") as error:
        variety_of(label)
    remedies = re.findall(r"'(\+corpus\.dialect_map=\{[^}]*\})'", str(error.value))
    for remedy in remedies:
        (override,) = OverridesParser.create().parse_overrides([remedy])
        mapping = override.value()
        assert isinstance(mapping, dict)
        assert variety_of(label, {key: str(value) for key, value in mapping.items()})
    lines = re.findall(r"'([^']*)<TAB>([^']*)'", str(error.value))
    for name, target in lines:
        assert name == label
        assert variety_of(label, {name: target}).id == target
    assert len(remedies) == 2 or len(lines) == 2


@pytest.mark.parametrize(
    ("labels", "variety_id"),
    [
        ("cmn 普通话 普通話 國語 国语 华语 Putonghua zh-cmn", "cmn"),
        ("zh-CN zh-Hans-CN cmn_hans_cn", "cmn-mainland"),
        ("zh-TW zh-Hant-TW 台灣國語", "cmn-taiwan"),
        ("官话 官話", "mandarin"),
        ("yue 粤语 粵語 zh-yue", "yue"),
        ("zh-HK yue-HK yue_hant_hk 香港", "yue-hongkong"),
        ("nan Hokkien Minnan 闽南语 閩南話 zh-min-nan", "nan"),
        ("Taiwanese 台語 臺語 nan-tw", "nan-taiwan"),
        ("Teochew 潮州話", "nan-chaoshan"),
        ("wuu Wu 吳語 zh-wuu", "wuu"),
        ("hak Hakka 客家话 客語 zh-hakka", "hak"),
        ("hsn Xiang 湘語", "hsn"),
        ("gan 贛語", "gan"),
        ("cjy Jin 晉語", "cjy"),
        ("cdo 閩東語", "cdo"),
    ],
)
def test_codes_and_names_in_both_scripts(labels: str, variety_id: str) -> None:
    assert {variety_of(label).id for label in labels.split()} == {variety_id}


@pytest.mark.parametrize(("label", "subdialect"), KESPEECH.items())
def test_subdialects_of_kespeech(label: str, subdialect: str) -> None:
    assert variety_of(label) == Variety("mandarin", subdialect)
    assert variety_of(label.replace("-", "").upper()) == Variety("mandarin", subdialect)


@pytest.mark.parametrize(
    ("label", "variety"),
    [
        ("Xi'an", Variety("mandarin", "mandarin-zhongyuan")),
        ("  WUU_Shanghai ", Variety("wuu", "wuu-shanghai")),
        ("粤语", Variety("yue")),
        ("閩南語", Variety("nan")),
        ("Matsu (Eastern Min, Fuzhou type)", Variety("cdo", "cdo-matsu")),
    ],
)
def test_labels_are_matched_loosely(label: str, variety: Variety) -> None:
    assert variety_of(label) == variety


def test_a_mapping_wins_over_the_taxonomy() -> None:
    assert variety_of("Mandarin", {"mandarin": "cmn"}) == Variety("cmn")
    assert variety_of("Mandarin", {"Mandarin": "mandarin"}) == Variety("mandarin")
    assert variety_of("My Village", {"myvillage": "hak-sixian"}) == Variety("hak", "hak-sixian")
    with pytest.raises(UnknownDialectError, match="dialect_map maps 'x' to 'Cantonees'"):
        variety_of("x", {"x": "Cantonees"})


def test_unknown_label_says_what_is_known_and_how_to_map() -> None:
    with pytest.raises(
        UnknownDialectError, match=r"Klingon.*wuu-shanghai.*\+corpus\.dialect_map=\{klingon: <id>\}"
    ):
        variety_of("Klingon")
    with pytest.raises(
        UnknownDialectError, match=r"corpus\.dialect_map_file=FILE with the line '火星話<TAB><id>' in FILE"
    ):
        variety_of("火星話")


def test_varieties_of_the_human_recordings(human_data_dir: Path) -> None:
    with (human_data_dir / "googi" / "manifest.tsv").open(encoding="utf-8") as stream:
        rows = [
            row
            for row in csv.DictReader(stream, delimiter="\t")
            if row["group"] in ("Mandarin", "Min", "Hakka")
        ]
    varieties = {row["dialect"]: variety_of(row["dialect"]) for row in rows}
    assert len(set(varieties.values())) == 10
    assert all(variety_of(row["dialect"]).group == row["lang"] for row in rows)
