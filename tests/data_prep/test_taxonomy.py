import csv
from pathlib import Path

import pytest

from data_prep.taxonomy import UnknownDialectError, Variety, entries, groups, variety_of

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
        for label in (entry.variety.id, entry.chinese, entry.english, *entry.labels):
            assert variety_of(label) == entry.variety, label


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
    assert variety_of("My Village", {"myvillage": "hak-sixian"}) == Variety("hak", "hak-sixian")


def test_unknown_label_says_what_is_known_and_how_to_map() -> None:
    with pytest.raises(
        UnknownDialectError, match=r"Klingon.*wuu-shanghai.*\+corpus\.dialect_map=\{klingon: <id>\}"
    ):
        variety_of("Klingon")
    with pytest.raises(
        UnknownDialectError, match=r"\(dialect_map: \{火星話: <id>\} in a file conf/corpus/NAME"
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
