"""What a data set is: its name, its digest, and the folder of its results."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_model import write_cuts

from zipformer.data.dataset import (
    DataSet,
    choose_dataset,
    claimed,
    dataset_behind,
    name_of,
    read_dataset,
    record_name,
)
from zipformer.errors import UserError

FIRST = DataSet("my", "test", "1" * 64, "1" * 64)


def cuts_of(data_dir: Path) -> list[dict[str, Any]]:
    with gzip.open(data_dir / "cuts_test.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def rewrite(data_dir: Path, cuts: list[dict[str, Any]]) -> None:
    with gzip.open(data_dir / "cuts_test.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(cut) + "\n" for cut in cuts)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Six utterances whose features lie in Lhotse's chunks, as fangyan prepare leaves them."""
    write_cuts(tmp_path / "data", "test")
    cuts = cuts_of(tmp_path / "data")
    for number, cut in enumerate(cuts):
        cut["features"] |= {"storage_type": "lilcom_chunky", "storage_key": f"{1000 * number},700,300"}
        cut["recording"] = {
            "id": cut["id"],
            "sources": [{"type": "file", "channels": [0], "source": f"/here/{number}.wav"}],
            "sampling_rate": 16000,
            "num_samples": 17600,
            "duration": 1.1,
        }
    rewrite(tmp_path / "data", cuts)
    return tmp_path / "data"


def test_moved_and_prepared_again_it_is_the_same(data_dir: Path, tmp_path: Path) -> None:
    before = read_dataset(data_dir, "test")
    cuts = cuts_of(data_dir)
    for number, cut in enumerate(cuts):
        # Other places, another size of shards, and another line of the corpus's table.
        cut["features"] |= {"storage_path": "/there/feats.lca", "storage_key": f"{7 * number},700,300"}
        cut["recording"]["sources"][0]["source"] = f"/there/{number}.wav"
        cut["supervisions"][0]["custom"] |= {"origin": f"table.tsv:{number}", "raw_text": "！"}
    moved = tmp_path / "elsewhere" / "data"
    moved.mkdir(parents=True)
    rewrite(moved, cuts[::-1])
    assert read_dataset(moved, "test") == before


@pytest.mark.parametrize(
    ("change", "same_recordings"),
    [
        (lambda cut: cut["supervisions"][0].update(text="別"), True),
        (lambda cut: cut["supervisions"][0]["custom"].update(translation="別"), True),
        (lambda cut: cut["supervisions"][0]["custom"].update(site="elsewhere"), False),
        (lambda cut: cut["supervisions"][0]["custom"].update(sentence_id="99"), False),
        (lambda cut: cut["supervisions"][0].update(language="cmn"), False),
        (lambda cut: cut.update(id="other"), False),
        (lambda cut: cut.update(duration=1.0), False),
        (lambda cut: cut["features"].update(storage_key="0,701,300"), False),  # the sound is another one
    ],
)
def test_whatever_results_depend_on_changes_it(data_dir: Path, change: Any, same_recordings: bool) -> None:
    before = read_dataset(data_dir, "test")
    cuts = cuts_of(data_dir)
    change(cuts[2])
    rewrite(data_dir, cuts)
    after = read_dataset(data_dir, "test")
    assert after.digest != before.digest
    assert (after.recordings == before.recordings) == same_recordings


def test_an_utterance_more_or_less_changes_it(data_dir: Path) -> None:
    cuts = cuts_of(data_dir)
    digests = {read_dataset(data_dir, "test").digest}
    for other in (cuts[:-1], [*cuts, cuts[0]]):
        rewrite(data_dir, other)
        digests.add(read_dataset(data_dir, "test").digest)
    assert len(digests) == 3


def test_a_damaged_manifest_is_named(data_dir: Path) -> None:
    manifest = data_dir / "cuts_test.jsonl.gz"
    content = manifest.read_bytes()
    for damaged in (content[: len(content) // 2], b"no gzip", gzip.compress(b"[1]\n"), gzip.compress(b"{\n")):
        manifest.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"cuts_test\.jsonl\.gz, after line .* prepare the data again"):
            read_dataset(data_dir, "test")


def test_the_name_is_the_given_or_the_recorded_one_or_that_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "我的 corpus"
    folder.mkdir()
    assert name_of(folder) == "我的_corpus"
    assert record_name(folder, "mine") == "mine"
    moved = folder.rename(tmp_path / "moved")
    assert name_of(moved) == "mine"
    assert record_name(moved, None) == "mine"
    assert name_of(moved, "given") == "given"
    for wrong in ("", "a/b", "..", ".hidden", "-x", "a b"):
        with pytest.raises(ValueError, match=r"dataset=.* cannot be the name of a folder"):
            name_of(moved, wrong)


def test_other_data_of_the_same_name_replace_nothing(tmp_path: Path) -> None:
    folder = FIRST.claim(tmp_path)
    assert folder == tmp_path / "results" / "my"
    assert claimed(tmp_path, "my", "test") == FIRST
    second = DataSet("my", "test", "2" * 64, "1" * 64)
    second.claim(tmp_path)  # nothing is there yet that could be of the first
    FIRST.claim(tmp_path)
    (folder / "decode-test-ctc").mkdir()
    with pytest.raises(ValueError, match=r"results/my holds .*1{12} there, 2{12} now.*dataset=NAME"):
        second.claim(tmp_path)
    assert claimed(tmp_path, "my", "test") == FIRST
    other = DataSet("my", "valid", "3" * 64, "3" * 64)
    assert other.claim(tmp_path) == FIRST.claim(tmp_path) == folder
    assert DataSet("other", "test", second.digest, second.recordings).claim(tmp_path).name == "other"


def test_the_only_data_set_is_taken_and_one_of_several_has_to_be_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no results; make them with fangyan decode"):
        choose_dataset(tmp_path, None)
    FIRST.claim(tmp_path)
    assert choose_dataset(tmp_path, None) == "my"
    DataSet("other", "test", "2" * 64, "2" * 64).claim(tmp_path)
    assert choose_dataset(tmp_path, "other") == "other"
    with pytest.raises(ValueError, match=r"results of my, other: choose one of them with dataset=NAME"):
        choose_dataset(tmp_path, None)
    with pytest.raises(UserError, match=r"no results of the data set mine; there are my, other"):
        choose_dataset(tmp_path, "mine")


def test_results_that_lie_outside_a_data_set_are_named(tmp_path: Path) -> None:
    (tmp_path / "results" / "decode-test-ctc").mkdir(parents=True)
    with pytest.raises(UserError, match=r"decode-test-ctc in .* do not say which data"):
        choose_dataset(tmp_path, None)
    shutil.rmtree(tmp_path / "results")
    # A data set may be called what it likes.
    DataSet("decode-it", "test", "2" * 64, "2" * 64).claim(tmp_path)
    assert choose_dataset(tmp_path, None) == "decode-it"


def test_records_come_back() -> None:
    assert dataset_behind(FIRST.record()) == FIRST
    for nothing in (None, "my", {}, FIRST.record() | {"digest": None}):
        assert dataset_behind(nothing) is None
