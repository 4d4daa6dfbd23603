"""What a user sees of lists with errors: one message with file and line, or a named problem."""

import re
from pathlib import Path

import pytest
from miniatures import MINIATURES
from test_readers import config_of, dropped, final_cuts, run

from data_prep.corpora import corpora
from zipformer.errors import UserError
from zipformer.scoring import CONVENTIONS

_HEADER = re.compile(rb"path|Utterance|UTTRANS|AUDIO|sound_length|\xe6\xaa\x94\xe5\x90\x8d")  # the last: 檔名

# Readers whose lists give the ids. Those of the others are names of files or numbers of lines. KeSpeech, with
# four lists, has a test of its own in test_corpus_lists.py.
WITH_IDS = [
    "common_voice",
    "mdcc",
    "wenetspeech_yue",
    "wenetspeech_chuan",
    "magichub_cities",
    "aishell",
    "aishell2",
    "aishell3",
    "fleurs",
    "aidatatang",
    "magicdata",
    "talcs",
    "speechio",
    "hat",
    "teochew_wild",
    "xiangyin",
]


@pytest.mark.parametrize("name", WITH_IDS)
def test_lines_that_come_twice_are_used_once(name: str, tmp_path: Path) -> None:
    miniature = MINIATURES[name](tmp_path / "corpus")
    path = miniature.texts[0]
    lines = path.read_bytes().splitlines(keepends=True)
    again = lines[1:] if _HEADER.search(lines[0]) else lines
    path.write_bytes(b"".join(lines + again))
    run(config_of(miniature, tmp_path / "data"))
    twice = {utterance for utterance, problem in dropped(tmp_path / "data") if problem == "duplicate_id"}
    assert twice
    found = {split: {cut.id for cut in cuts} for split, cuts in final_cuts(tmp_path / "data").items()}
    assert found == {split: set(cuts) for split, cuts in miniature.cuts.items()}
    assert twice <= set().union(*found.values())
    problems = (tmp_path / "data" / "problems.tsv").read_text(encoding="utf-8")
    for utterance in twice:  # the line of the second time
        row = next(
            row for row in problems.splitlines() if row.startswith(utterance) and "duplicate_id" in row
        )
        assert int(re.findall(r":(\d+)", row)[-1]) > len(lines)


def test_a_dialogue_in_two_splits(tmp_path: Path) -> None:
    miniature = MINIATURES["ramc"](tmp_path / "corpus")
    first, _, last = miniature.lists
    last.write_bytes(last.read_bytes() + first.read_bytes().splitlines(keepends=True)[-1])
    with pytest.raises(UserError, match=rf"{last}:3: .*is in train.tsv:2 too; remove one"):
        run(config_of(miniature, tmp_path / "data"))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("ramc", "[0.500,2.000]", "[0.500;2.000]", r"-1\.txt:2: .*is not '\[start,end\]', speaker"),
        ("magichub_conversation", "[0.500,2.000]\t", "[0.500,2.000] ", r"A0001\.txt:2: .*correct or remove"),
        ("aishell4", "xmin = 1.0", "xmin = 1,0", r"TextGrid:15: damaged .*1,0 is no time|no xmin before"),
        ("alimeeting", "item [1]", "thing [1]", r"TextGrid:15: damaged .*before the first tier"),
        ("seame", "ni02m-ni02max_0101-00251", "ni02max_0101-00251", r"text:1: .*speaker-recording-start-end"),
        ("seame", "500\t2000\t我", "0.5s\t2000\t我", r"0101\.txt:1: time is '0\.5s', which is no number"),
        ("xiangyin", ",1.5,", ",1;5,", r"Metadata\.CSV:2: sound_length is '1;5', which is no number"),
        ("xiangyin", "sound_length", "length", r"Metadata\.CSV:1: no column sound_length; the columns are"),
        ("hat", "客語漢字", "漢字", r"\.csv:1: no column 客語漢字; the columns are"),
        ("teochew_wild", "|spk1|汝好|le2 ho2", "|spk1", r"annotation\.txt:1: 2 values, no text, pinyin"),
        ("teochew_wild", '"audio"', '"sound"', r"test\.jsonl:1: no value audio; copy"),
        ("tat", '"漢羅台文"', "漢羅台文", r"1-1\.1\.json:2: damaged or cut off JSON"),
    ],
)
def test_a_value_that_cannot_be_read(name: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    miniature = MINIATURES[name](tmp_path / "corpus")
    changed = 0
    for path in sorted((tmp_path / "corpus").rglob("*")):
        if path.is_file() and path.suffix in (".txt", ".csv", ".CSV", ".json", ".jsonl", ".TextGrid", ""):
            content = path.read_bytes()
            if old.encode() in content and not changed:
                path.write_bytes(content.replace(old.encode(), new.encode()))
                changed += 1
    assert changed
    with pytest.raises(UserError, match=message):
        run(config_of(miniature, tmp_path / "data"))


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("tat", "corpus.text=poj", "corpus.text is 'poj'; it must be one of han, tailo"),
        ("tat", "corpus.microphones=[phone]", "no phone in TAT; the microphones are condenser"),
        ("hat", "corpus.text=poj", "corpus.text is 'poj'; it must be one of han, pinyin"),
        ("hat", "corpus.dialect=Klingon", "unknown dialect label 'Klingon'"),
        ("alimeeting", "corpus.microphone=phone", "corpus.microphone is 'phone'; it must be far or near"),
        ("aishell4", "corpus.max_overlap=2", "corpus.max_overlap is 2.*share from 0 to 1"),
    ],
)
def test_settings_of_readers(name: str, setting: str, message: str, tmp_path: Path) -> None:
    miniature = MINIATURES[name](tmp_path / "corpus")
    with pytest.raises(Exception, match=message) as caught:
        run(config_of(miniature, tmp_path / "data", setting))
    assert isinstance(caught.value, UserError) or isinstance(caught.value.__cause__, UserError)


@pytest.mark.parametrize(
    ("name", "missing", "message"),
    [
        ("tat", "TAT-Vol1-eval-key", "TAT-Vol1-eval/json does not exist; unpack the transcripts"),
        ("ascend", "main/test-00000-of-00001.parquet", "there is no such table; download the corpus"),
        ("aishell4", "train_M/wav/20200616_M_R001S01C01.flac", ""),
        ("alimeeting", "Train_Ali_far/audio_dir/R0015_M0151_MS002.wav", ""),
        ("ramc", "MDT2021S003/TXT/CTS-CN-F2F-2019-11-11-2.txt", "11-2.txt does not exist; unpack the corpus"),
    ],
)
def test_parts_that_are_missing(name: str, missing: str, message: str, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    miniature = MINIATURES[name](root)
    (root / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=message or "no usable utterance is left in train"):
        run(config_of(miniature, tmp_path / "data"))
    (tmp_path / "elsewhere").rename(root / missing)
    run(config_of(miniature, tmp_path / "data"))  # it is put right and goes on


def test_conventions_of_the_corpora() -> None:
    assert {corpus.scoring for corpus in corpora().values()} <= set(CONVENTIONS)
    known = {name: corpora()[name].scoring for name in ("tat", "seame", "alimeeting", "speechio", "aishell")}
    assert known == {
        "tat": "syllables",
        "seame": "mer",
        "alimeeting": "m2met",
        "speechio": "speechio",
        "aishell": "plain",
    }
