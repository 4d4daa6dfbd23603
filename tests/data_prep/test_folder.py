from pathlib import Path

import pytest
from sound_folder import WriteTable, good_rows, write_noise

from data_prep.corpora import corpora, corpus_of
from data_prep.corpora.folder import FolderConfig, prepare_folder
from data_prep.errors import PreparationError
from data_prep.splitting import SplitConfig
from data_prep.tables import Columns


def test_the_corpus_is_registered() -> None:
    assert corpora()["folder"].prepare is prepare_folder
    assert corpus_of(FolderConfig()).name == "folder"


def test_fields_of_the_table_reach_the_manifests(tmp_path: Path, write_table: WriteTable) -> None:
    config = write_table(good_rows(tmp_path))
    manifests = prepare_folder(config, tmp_path / "prepared")
    assert {split: len(found[1]) for split, found in manifests.items()} == {"train": 6, "valid": 3, "test": 3}
    recordings, supervisions = manifests["train"]
    first = next(iter(supervisions))
    assert (first.id, first.text, first.language, first.speaker) == (
        "good0",
        "第一句，帀。",
        "yue",
        "train-speaker",
    )
    assert first.custom == {"subdialect": "yue-guangzhou", "sentence_id": "000", "origin": "table.tsv:2"}
    recording = next(iter(recordings))
    assert (recording.id, recording.num_samples, recording.sampling_rate) == ("good0", 8000, 16000)


def test_audio_dir_ids_and_dialect_map(tmp_path: Path, write_table: WriteTable) -> None:
    rows = good_rows(tmp_path)
    write_noise(tmp_path / "elsewhere" / "day 1" / "x.y.wav", seed=99)
    row = {**rows[0], "path": "day 1/x.y.wav", "dialect": "My Village", "split": "dev"}
    config = write_table([row])
    config.audio_dir = str(tmp_path / "elsewhere")
    config.dialect_map = {"my village": "wuu-suzhou"}
    config.split_map = {"dev": "valid"}
    config.id_prefix = "mine-"
    ((_, supervisions),) = prepare_folder(config, tmp_path).values()
    (found,) = supervisions
    assert (found.id, found.language) == ("mine-day 1-x.y", "wuu")
    assert found.custom["subdialect"] == "wuu-suzhou"
    assert found.duration == 0.5


def test_unknown_split_is_named_with_its_line(tmp_path: Path, write_table: WriteTable) -> None:
    rows = good_rows(tmp_path)
    rows[2]["split"] = "dev"
    with pytest.raises(
        PreparationError, match=r"table\.tsv:4: split 'dev' is not one of train, valid, test; map it"
    ):
        prepare_folder(write_table(rows), tmp_path)


def test_without_split_column_sentences_are_held_out(tmp_path: Path, write_table: WriteTable) -> None:
    rows = good_rows(tmp_path)
    rows[1]["text"] = rows[0]["text"].replace("，", "")  # the same sentence, punctuated otherwise
    config = write_table(rows, columns=("path", "text", "dialect"))
    for seed in range(5):
        config.split = SplitConfig(valid=2, test=3, seed=seed)
        manifests = prepare_folder(config, tmp_path)
        split_of = {s.id: split for split, (_, supervisions) in manifests.items() for s in supervisions}
        assert len(split_of) == 12
        assert split_of["good0"] == split_of["good1"]


def test_human_recordings_are_read_through_the_config_alone(human_data_dir: Path, tmp_path: Path) -> None:
    config = FolderConfig(
        tsv=str(human_data_dir / "googi" / "manifest.tsv"),
        columns=Columns(sentence_id="parallel_id", translation="translation_cmn", site="dialect"),
        keep={"group": ["Mandarin", "Min", "Hakka"]},
        split=SplitConfig(valid=8, test=40, complete_first=True),
    )
    manifests = prepare_folder(config, tmp_path)
    varieties: dict[str, int] = {}
    for supervision in manifests["test"][1]:
        variety = supervision.custom["subdialect"]
        varieties[variety] = varieties.get(variety, 0) + 1
    assert varieties == {
        **dict.fromkeys(("cmn-taiwan", "nan-taiwan", "nan-kinmen", "cdo-matsu"), 40),
        **dict.fromkeys(
            (f"hak-{v}" for v in ("sixian", "hailu", "dapu", "raoping", "zhaoan", "changle")), 40
        ),
    }
    sentences = {split: {s.custom["sentence_id"] for s in found[1]} for split, found in manifests.items()}
    assert not sentences["train"] & sentences["test"]
    assert not sentences["train"] & sentences["valid"]
    assert sum(len(found[1]) for found in manifests.values()) == 1596
