"""Reading of lists, and what readers derive from them."""

import json
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
import soundfile
from miniature import Miniature, noise, write
from miniatures import MINIATURES
from test_readers import config_of, dropped, final_cuts, run

from data_prep.corpora import lists
from data_prep.corpora.clips import Clip, CutJob, cut
from data_prep.corpora.lists import joined, read_fields, read_json_array, read_lines
from data_prep.corpora.magichub import city_name
from data_prep.corpora.utterances import sentence_id_of, split_of_speaker
from data_prep.taxonomy import variety_of
from zipformer.errors import UserError


def test_lists_in_different_orders_are_joined_by_key(tmp_path: Path) -> None:
    keys = [f"k{i}" for i in range(20)]
    first = write(tmp_path / "first", *(f"{key} a {key}" for key in keys))
    same = write(tmp_path / "same", *(f"{key}\tb" for key in keys if key != "k3"))
    reverse = write(tmp_path / "reverse", *(f"{key} c{key}" for key in reversed(keys)))
    found = list(joined(first, [same, reverse]))
    assert found == [
        (f"first:{i + 1}", key, f"a {key}", ["" if key == "k3" else "b", f"c{key}"])
        for i, key in enumerate(keys)
    ]


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_is_read_like_the_whole_file(
    block: int, indent: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "_BLOCK", block)
    items = [{"aid": f"a{i}", "segments": [{"text": '"],}{[' + "字" * i}] * i} for i in range(12)]
    file = tmp_path / "all.json"
    text = json.dumps({"version": "[1]", "audios": items, "more": [1]}, ensure_ascii=False, indent=indent)
    file.write_text(text, encoding="utf-8")
    found = list(read_json_array(file, "audios"))
    assert [one.values for one in found] == items
    numbers = [text[: text.index(f'"aid": "a{i}"')].count("\n") + (0 if indent else 1) for i in range(12)]
    assert [one.origin for one in found] == [f"all.json:{number}" for number in numbers]


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "_BLOCK", 1 << 16)
    item = json.dumps({"aid": "a", "segments": [{"text": "字" * 50}] * 20}, ensure_ascii=False)
    file = tmp_path / "all.json"
    file.write_text('{"audios": [' + ",".join([item] * 5_000) + "]}", encoding="utf-8")
    size = file.stat().st_size
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_json_array(file, "audios")) == 5_000
        assert tracemalloc.get_traced_memory()[1] < size / 5
    finally:
        tracemalloc.stop()


def test_an_empty_array_and_one_without_key(tmp_path: Path) -> None:
    file = write(tmp_path / "list.json", "[ ]")
    assert list(read_json_array(file)) == []
    with pytest.raises(UserError, match=r'list\.json:\d+: damaged or cut off JSON \(no "audios"\)'):
        list(read_json_array(file, "audios"))


def test_lines_of_mixed_encodings(tmp_path: Path) -> None:
    file = tmp_path / "mixed.txt"
    file.write_bytes("\ufeff你好\r\n\n".encode() + "长沙话\r\n".encode("gb18030"))
    lines = [(line.origin, line.text) for line in read_lines(file, fallback="gb18030")]
    assert lines == [("mixed.txt:1", "你好"), ("mixed.txt:3", "长沙话")]
    with pytest.raises(UserError, match=r"mixed\.txt:3: not UTF-8; .*iconv -f gb18030"):
        list(read_lines(file))


def test_tables_without_a_column_or_a_value(tmp_path: Path) -> None:
    table = write(tmp_path / "t.tsv", "a\tb\tc", "1\t2")
    assert [(row["a"], row["c"]) for row in read_fields(table, ("a", "b"))] == [("1", "")]
    with pytest.raises(UserError, match=r"t\.tsv:1: no column d; the columns are a, b, c"):
        list(read_fields(table, ("a", "d")))
    with pytest.raises(UserError, match=r"t\.tsv:2: 2 values, no c"):
        list(read_fields(table, ("a", "c")))


def test_a_value_that_should_be_a_number(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "name,duration", "x,1.5s")
    (row,) = read_fields(table, ("name", "duration"), ",", quoted=True)
    with pytest.raises(UserError, match=r"t\.csv:2: duration is '1\.5s', which is no number"):
        row.number("duration")


def test_sentences_that_differ_in_marks_only() -> None:
    same = {sentence_id_of(text) for text in ("你好，ＡＢ", "<SPOKEN_NOISE>你好 ab。", "[FIL]你好AB")}
    assert len(same) == 1
    assert sentence_id_of("你好") not in same
    assert sentence_id_of("<NOISE>。") is None


def test_shares_of_speakers() -> None:
    splits = Counter(split_of_speaker(f"speaker {i}", 0.1, 0.2) for i in range(4000))
    assert splits["valid"] / 4000 == pytest.approx(0.1, abs=0.02)  # about four standard deviations
    assert splits["test"] / 4000 == pytest.approx(0.2, abs=0.03)


def test_city_names_of_archives_in_gbk() -> None:
    for name in ("泸州", "成都", "西昌"):
        as_bytes = name.encode("gb18030")
        assert city_name(name) == name
        assert city_name(as_bytes.decode("cp437")) == name
        assert city_name(as_bytes.decode("utf-8", "surrogateescape")) == name
    assert city_name("Guangzhou") == "Guangzhou"


@pytest.mark.parametrize(
    "city",
    ["成都", "重庆", "乐山", "宜宾", "泸州", "自贡", "内江", "雅安", "西昌", "南充", "达州", "广安", "云南"],
)
def test_places_of_southwestern_mandarin(city: str) -> None:
    assert variety_of(city).id == "mandarin-southwestern"


def test_clips_are_cut_where_they_are_asked_for(tmp_path: Path) -> None:
    audio = noise(tmp_path / "long.wav", 40.0)  # several blocks of the decoder
    times = [(0.0, 1.0), (15.9, 17.1), (16.0, 33.5), (39.0, 40.5), (39.5, 40.0)]
    clips = [Clip(tmp_path / f"{i}.flac", start, end) for i, (start, end) in enumerate(times)]
    assert cut(CutJob(audio, clips)) == 4
    samples, _ = soundfile.read(audio)
    for clip in (*clips[:3], clips[4]):
        found, rate = soundfile.read(clip.file)
        assert rate == 16000
        assert abs(found - samples[round(clip.start * 16000) : round(clip.end * 16000)]).max() < 1e-4
    assert not clips[3].file.exists()
    assert cut(CutJob(audio, clips[:3])) == 0


def test_duplicate_ids_and_unknown_labels_are_reported_with_their_line(tmp_path: Path) -> None:
    miniature = MINIATURES["kespeech"](tmp_path / "corpus")
    folder = tmp_path / "corpus" / "Tasks" / "ASR" / "train_phase1"
    for name, value in (
        ("wav.scp", "Audio/1001/phase1/1001_a1.wav"),
        ("text", "又一次"),
        ("utt2spk", "1001"),
        ("utt2subdialect", "Southwestern"),
    ):
        with (folder / name).open("a", encoding="utf-8") as stream:
            stream.write(f"1001_a1 {value}\n")
    noise(tmp_path / "corpus" / "Audio" / "1001" / "x.wav")
    for name, value in (
        ("wav.scp", "Audio/1001/x.wav"),
        ("text", "没有这种话"),
        ("utt2spk", "1001"),
        ("utt2subdialect", "Klingon"),
    ):
        with (folder / name).open("a", encoding="utf-8") as stream:
            stream.write(f"1001_a9 {value}\n")
    with pytest.raises(UserError, match=r"1 of 9 utterances have a dialect label .*\n.*'Klingon'"):
        run(config_of(miniature, tmp_path / "data"))
    config = config_of(miniature, tmp_path / "data", "checks.max_unknown_dialects=1")
    run(config)
    assert dropped(tmp_path / "data") == {
        ("kespeech-1001_a1", "duplicate_id"),
        ("kespeech-1001_a2", "empty_text"),
        ("kespeech-1001_a9", "unknown_dialect"),
    }
    problems = (tmp_path / "data" / "problems.tsv").read_text(encoding="utf-8")
    assert "train_phase1/wav.scp:3" in problems
    assert "train_phase1/wav.scp:4" in problems
    assert {cut.id for cut in final_cuts(tmp_path / "data")["train"]} == {
        "kespeech-1001_a1",
        "kespeech-1001_b1",
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["corpus=common_voice", "corpus.root=x", "corpus.locale=zh"],
            "corpus.locale is 'zh'; it must be one of",
        ),
        (["corpus=wenetspeech", "corpus.root=x", "corpus.train=XL"], "corpus.train is 'XL'"),
        (["corpus=wenetspeech_yue"], "set corpus.root .* corpus.eval_root"),
    ],
)
def test_settings_out_of_range(settings: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=message) as caught:
        run(config_of(Miniature(settings, {}), tmp_path / "data"))
    assert isinstance(caught.value, UserError) or isinstance(caught.value.__cause__, UserError)
