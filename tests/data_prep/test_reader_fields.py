"""What readers keep beside the transcript, and how they choose microphones, channels and splits."""

import logging
from pathlib import Path

import pytest
from meeting_miniatures import textgrid
from miniature import write
from miniatures import MINIATURES
from test_readers import config_of, final_cuts, run, supervision

from data_prep.corpora.seame import speaker_of
from data_prep.corpora.textgrid import Segment, overlapped, read_textgrid
from data_prep.corpora.turns import read_turns
from data_prep.corpora.xiangyin import place_variety, without_ending
from data_prep.taxonomy import Variety
from zipformer.errors import UserError


def prepared(name: str, tmp_path: Path, *settings: str) -> Path:
    run(config_of(MINIATURES[name](tmp_path / "corpus"), tmp_path / "data", *settings))
    return tmp_path / "data"


def test_two_writings_of_taiwanese(tmp_path: Path) -> None:
    name = "tat-Vol1-train-TAM0001-1-1.1-condenser"
    han = supervision(prepared("tat", tmp_path), name)
    assert (han.custom["raw_text"], han.custom["romanisation"]) == ("阿媽--ê 冊", "a1-ma2--e5 tsheh4")
    assert (han.speaker, han.gender, han.custom["part"]) == ("tat-TAM0001", "female", "TAT-Vol1-train")
    miniature = MINIATURES["tat"](tmp_path / "again")
    run(config_of(miniature, tmp_path / "tailo", "corpus.text=tailo"))
    tailo = supervision(tmp_path / "tailo", name)
    assert tailo.text == "A1 MA2 E5 TSHEH4"
    assert tailo.custom["sentence_id"] == han.custom["sentence_id"]


def test_microphones_of_an_utterance_stay_in_its_split(tmp_path: Path) -> None:
    directory = prepared(
        "tat", tmp_path, "corpus.microphones=[ios,lavalier]", "corpus.test_microphone=android"
    )
    found = {
        split: sorted(
            (cut.id.rsplit("-", 1)[1], Path(cut.recording.sources[0].source).parts[-4]) for cut in cuts
        )
        for split, cuts in final_cuts(directory).items()
    }
    assert found == {
        "train": [("ios", "ios"), ("lavalier", "lavalier")],
        "valid": [("android", "android")],
        "test": [("android", "android")],
    }


def test_fields_of_hakka(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        directory = prepared("hat", tmp_path)
    old, new = supervision(directory, "hat-F0010001A2007_1_07"), supervision(directory, "hat-DM1010001A")
    assert (old.speaker, old.gender) == ("hat-F001", "female")
    assert (new.speaker, new.gender) == ("hat-DM101", "male")
    assert new.custom["romanisation"] == "gim33 bu33 ngid21 ho31"
    assert "1 rows are marked as misread" in caplog.text


def test_parallel_sentences_of_xiangyin(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        directory = prepared("xiangyin", tmp_path)
    first, second = supervision(directory, "xiangyin-1"), supervision(directory, "xiangyin-2")
    assert first.custom["sentence_id"] == second.custom["sentence_id"] == "xiangyin-7"
    assert (first.custom["site"], second.custom["site"]) == ("长沙", "南昌")
    assert first.gender == "male"
    assert "1 recordings have other words than their prompts" in caplog.text


@pytest.mark.parametrize(
    ("province", "city", "variety"),
    [
        ("广东省", "佛山市", "yue"),
        ("广东省", "梅州市", "hak-meixian"),
        ("广东省", "汕头市", "nan-chaoshan"),
        ("福建省", "福州市", "cdo-fuzhou"),
        ("江西省", "抚州市", "gan-fuzhou"),
        ("江苏省", "苏州市", "wuu-suzhou"),
        ("江苏省", "泰州市", "mandarin-jianghuai"),
        ("浙江省", "台州市", "wuu-taizhou"),
        ("山西省", "运城市", "mandarin-zhongyuan"),
        ("山西省", "忻州市", "cjy"),
        ("陕西省", "榆林市", "cjy"),
        ("陕西省", "", "mandarin-zhongyuan"),
        ("上海市", "浦东新区", "wuu-shanghai"),
        ("重庆市", "", "mandarin-southwestern"),
        ("内蒙古自治区", "包头市", "cjy"),
        ("内蒙古自治区", "", None),
        ("广西壮族自治区", "桂林市", "mandarin-southwestern"),
        ("广东省", "韶关市", None),
        ("", "", None),
    ],
)
def test_groups_of_places(province: str, city: str, variety: str | None) -> None:
    found = place_variety(province, city, {})
    assert (found.id if isinstance(found, Variety) else None) == variety


def test_names_of_places() -> None:
    assert without_ending(" 新疆维吾尔自治区 ") == "新疆"
    assert without_ending("沙市") == "沙市"  # a name of two characters is whole
    assert place_variety("广东省", "韶关市", {"韶关": "hak"}) == Variety("hak")


def test_translations_of_wu(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        directory = prepared("wu_bench", tmp_path)
    custom = supervision(directory, "wubench-w1").custom
    assert (custom["translation"], custom["raw_translation"]) == ("你好", "你好。")
    assert "translation" not in supervision(directory, "wubench-w2").custom
    assert "1 utterances of understanding/ast.parquet have no transcript" in caplog.text


def test_test_sets_of_seame(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        directory = prepared("seame", tmp_path)
    parts = {
        cut.id.split("-")[1]: cut.supervisions[0].custom["part"] for cut in final_cuts(directory)["test"]
    }
    assert parts == {"NI02MAX_0101": "devman", "UI03FAZ_0101": "devsge"}
    assert "1 lines of the transcripts have no text" in caplog.text
    assert "test lists are in no transcript" not in caplog.text
    assert [speaker_of(name) for name in ("01NC01FBX_0101", "NI01MAX_0101")] == ["NC01F", "NI01M"]


def test_the_channel_of_an_array(tmp_path: Path) -> None:
    directory = prepared("alimeeting", tmp_path)
    cuts = {cut.id: cut for cut in final_cuts(directory)["test"]}
    parts = {name: cut.supervisions[0].custom["part"] for name, cut in cuts.items()}
    assert parts == {
        "alimeeting-R0010_M0100-F_SPK0200-00001": "single",
        "alimeeting-R0010_M0100-F_SPK0200-00002": "overlap",
        "alimeeting-R0010_M0100-M_SPK0201-00001": "overlap",
    }
    first = cuts["alimeeting-R0010_M0100-F_SPK0200-00001"]
    assert (first.supervisions[0].speaker, first.supervisions[0].gender) == ("alimeeting-SPK0200", "female")
    assert abs(first.load_audio()).max() > 0.09  # the mean of the array would be an eighth
    miniature = MINIATURES["alimeeting"](tmp_path / "again")
    run(config_of(miniature, tmp_path / "alone", "corpus.max_overlap=0"))
    assert [cut.id for cut in final_cuts(tmp_path / "alone")["test"]] == [first.id]


def test_a_textgrid_is_read_as_it_is_written(tmp_path: Path) -> None:
    path = textgrid(
        tmp_path / "a.TextGrid",
        {
            'a "b"'.replace('"', '""'): [(0, 1, ""), (1.25, 2, 'x ""y""'), (2, 3, "two\nlines")],
            "c": [(0.5, 9, "= z")],
        },
    )
    found = [(one.tier, one.number, one.start, one.end, one.text) for one in read_textgrid(path)]
    assert found == [
        ("c", 1, 0.5, 9.0, "= z"),
        ('a "b"', 2, 1.25, 2.0, 'x "y"'),
        ('a "b"', 3, 2.0, 3.0, "two\nlines"),
    ]
    lines = path.read_text(encoding="utf-8").splitlines()
    for one in read_textgrid(path):
        number = int(one.origin.removeprefix("a.TextGrid:"))
        assert one.text.split("\n")[0].replace('"', '""') in lines[number - 1]


def _read(path: Path) -> tuple[list[Segment], str]:
    try:
        return read_textgrid(path), ""
    except UserError as error:
        return [], str(error)


def test_a_textgrid_that_ends_anywhere(tmp_path: Path) -> None:
    path = textgrid(tmp_path / "a.TextGrid", {"a": [(0, 1, "x"), (1, 2, "y")], "b": [(0, 2, "z")]})
    whole = read_textgrid(path)
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        found, message = _read(path)
        assert f"{path}:" in message or all(one in whole for one in found)  # cut between two intervals


def test_overlap_by_brute_force(tmp_path: Path) -> None:
    tiers: dict[str, list[tuple[float, float, str]]] = {
        "a": [(0, 10, "x"), (12, 20, "x")],
        "b": [(2, 4, "x"), (9, 13, "x")],
        "c": [(3, 5, "x"), (30, 40, "x")],
    }
    segments = read_textgrid(textgrid(tmp_path / "a.TextGrid", tiers))
    for one, share in zip(segments, overlapped(segments), strict=True):
        seconds = range(int(one.start), int(one.end))
        others = [other for other in segments if other.tier != one.tier]
        shared = sum(any(other.start <= second < other.end for other in others) for second in seconds)
        assert share == pytest.approx(shared / len(seconds))


def test_turns_without_a_speaker(tmp_path: Path) -> None:
    names = ("0", "G00000000", "", "G00000001")
    path = write(tmp_path / "a.txt", *(f"[1.5,2]\t{name}\tnone\tx\ty" for name in names))
    (turn,) = read_turns(path)
    assert (turn.number, turn.origin, turn.start, turn.end, turn.text) == (4, "a.txt:4", 1.5, 2.0, "x\ty")
