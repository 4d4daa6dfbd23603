import logging
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from sound_folder import WriteTable, good_rows, write_noise

from data_prep.corpora import corpora, corpus_of
from data_prep.corpora.folder import FolderConfig, prepare_folder
from data_prep.splitting import SplitConfig
from data_prep.tables import Columns
from fangyan.commands import CONF_DIR, register
from zipformer.errors import UserError


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
        UserError, match=r"table\.tsv:4: split 'dev' is not one of train, valid, test; map it"
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


def test_labels_of_any_kind_are_mapped_on_the_command_line(tmp_path: Path, write_table: WriteTable) -> None:
    rows = good_rows(tmp_path, count=8)
    labels = ["Mandarin", "官話（北京）", "Min", "My [village]", "4th site", "閩語", "Cantonese", "nan"]
    for row, label in zip(rows, labels, strict=True):
        row["dialect"] = label
    write_table(rows)
    mapping = tmp_path / "labels, = and 中文.tsv"
    lines = ("官話（北京）\tmandarin-beijing", "My [village]\thak", "4th site\tgan", "闽语\tcdo", "")
    mapping.write_text("\n".join(lines), encoding="utf-8")
    overrides = [
        *("corpus=folder", f"corpus.tsv={tmp_path / 'table.tsv'}", "data_dir=d"),
        *("+corpus.dialect_map={mandarin: cmn, min: nan}", f'corpus.dialect_map_file="{mapping}"'),
    ]
    register("prepare")
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = OmegaConf.to_object(compose("prepare", overrides))
    varieties = {
        supervision.id: supervision.custom.get("subdialect", supervision.language)
        for _, supervisions in prepare_folder(config.corpus, tmp_path).values()  # type: ignore[union-attr]
        for supervision in supervisions
    }
    assert list(map(varieties.get, (f"good{i}" for i in range(8)))) == [
        *("cmn", "mandarin-beijing", "nan", "hak", "gan", "cdo", "yue-guangzhou", "nan"),
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("official yue\n", r"map\.tsv:1: 'official yue' is not a label, a tab and an id"),
        ("\nx\tyeu\n", r"corpus\.dialect_map maps 'x' to 'yeu': unknown dialect label 'yeu'.*yue-guangzhou"),
        (
            "x\tMandarin\n",
            "corpus.dialect_map maps 'x' to 'Mandarin': the dialect label 'Mandarin' is ambiguous",
        ),
    ],
)
def test_mappings_that_lead_nowhere(
    lines: str, message: str, tmp_path: Path, write_table: WriteTable
) -> None:
    config = write_table(good_rows(tmp_path))
    (tmp_path / "map.tsv").write_text(lines, encoding="utf-8")
    config.dialect_map_file = str(tmp_path / "map.tsv")
    with pytest.raises(UserError, match=message):
        prepare_folder(config, tmp_path)


def test_names_of_splits_in_any_case(tmp_path: Path, write_table: WriteTable) -> None:
    rows = good_rows(tmp_path)
    for row in rows:
        row["split"] = row["split"].title()
    assert set(prepare_folder(write_table(rows), tmp_path)) == {"train", "valid", "test"}


def test_a_small_test_set_comes_with_the_width_of_its_interval(
    tmp_path: Path, write_table: WriteTable, caplog: pytest.LogCaptureFixture
) -> None:
    config = write_table(good_rows(tmp_path), columns=("path", "text", "dialect"))
    with caplog.at_level(logging.WARNING):
        manifests = prepare_folder(config, tmp_path)
    assert {split: len(found[1]) for split, found in manifests.items()} == {"train": 7, "valid": 2, "test": 3}
    # 3 sentences of 4 characters: 1.96 sqrt(2 0.2 0.8 / 12) = 0.32
    assert "only 3 different sentences" in caplog.text
    assert "plus or minus 32 points" in caplog.text
