"""The stages together: what they leave on disk, and what happens when they are started again."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from lhotse import MonoCut, load_manifest
from rich.console import Console
from sound_folder import WriteTable, good_rows

from data_prep import pipeline
from data_prep.corpora.folder import FolderConfig
from data_prep.fbank import FeatureShard, extract_shard
from data_prep.manifests import probe_shard
from data_prep.pipeline import PrepareConfig, prepare
from data_prep.text.normaliser import LatinCase
from data_prep.tokens import train_token_model, write_tokens
from zipformer.data.batches import evaluation_batches
from zipformer.data.cuts import read_cuts
from zipformer.data.dataset import read_dataset
from zipformer.data.manifest import check_feature_files, with_present_paths
from zipformer.data.tokenizer import Tokenizer
from zipformer.errors import UserError

MakeConfig = Callable[[FolderConfig], PrepareConfig]


class KilledError(Exception):
    """Stands for whatever ends a run."""


@pytest.fixture
def config(tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig) -> PrepareConfig:
    config = prepare_config(write_table(good_rows(tmp_path)))
    config.fbank.shard_size = 2
    return config


def run(config: PrepareConfig) -> None:
    prepare(config, Console(quiet=True))


def final_cuts(config: PrepareConfig, split: str) -> list[MonoCut]:
    directory = Path(config.data_dir)
    return [with_present_paths(cut, directory) for cut in load_manifest(directory / f"cuts_{split}.jsonl.gz")]


def dying_after(count: int, function: Callable[[object], object]) -> Callable[[object], object]:
    calls = 0

    def dying(job: object) -> object:
        nonlocal calls
        calls += 1
        if calls > count:
            raise KilledError
        return function(job)

    return dying


def test_what_is_on_disk(config: PrepareConfig) -> None:
    run(config)
    directory = Path(config.data_dir)
    training = [cut.id for cut in final_cuts(config, "train")]
    corpus_order = [f"good{i}" for i in (0, 1, 4, 5, 8, 9)]
    assert sorted(training) == corpus_order
    assert training != corpus_order  # neighbours of the corpus are not neighbours in training
    cut = {cut.id: cut for cut in final_cuts(config, "test")}["good3"]
    (supervision,) = cut.supervisions
    assert (supervision.text, supervision.language) == ("第七句布", "yue")
    assert supervision.custom["raw_text"] == "第七句，布。"
    assert cut.load_features().shape == (cut.num_frames, 80)
    assert cut.num_frames == round(cut.duration * 100)
    tokenizer = Tokenizer.load(directory / "tokens")
    training_text = "".join(cut.supervisions[0].text for cut in final_cuts(config, "train"))
    assert set(tokenizer.pieces[259:]) == set(training_text)
    state = json.loads((directory / "prepare.json").read_text(encoding="utf-8"))
    assert list(state["stages"]) == ["manifests", "checks", "fbank", "tokens", "cuts"]
    assert not list(directory.rglob("*-part*"))


def test_speed_perturbation_is_for_training_only(config: PrepareConfig) -> None:
    config.fbank.speed_factors = [0.9, 1.0]
    run(config)
    assert {cut.id for cut in final_cuts(config, "train")} >= {"good0", "good0_sp0.9"}
    assert len(final_cuts(config, "train")) == 12
    assert len(final_cuts(config, "test")) == 3


def test_several_processes_give_the_same(config: PrepareConfig, tmp_path: Path) -> None:
    run(config)
    alone = [(cut.id, cut.load_features().sum()) for cut in final_cuts(config, "train")]
    config.data_dir, config.num_workers = str(tmp_path / "parallel"), 2
    run(config)
    assert [(cut.id, cut.load_features().sum()) for cut in final_cuts(config, "train")] == alone


def test_features_go_on_after_the_finished_shards(
    config: PrepareConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pipeline, "extract_shard", dying_after(2, extract_shard))
    with pytest.raises(KilledError):
        run(config)
    folder = Path(config.data_dir) / "fbank" / "train"
    finished = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(finished) == 4  # two shards of two files

    made: list[tuple[str, int]] = []

    def noting(shard: FeatureShard) -> float:
        made.append((shard.directory.name, shard.index))
        return extract_shard(shard)

    monkeypatch.setattr(pipeline, "extract_shard", noting)
    with caplog.at_level(logging.INFO):
        run(config)
    assert made == [("train", 2), ("valid", 0), ("valid", 1), ("test", 0), ("test", 1)]
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert "manifests, checks finished before, resuming with fbank" in caplog.text
    assert "2 of 3 shards of train are finished" in caplog.text
    assert len(final_cuts(config, "train")) == 6


def test_decoding_goes_on_after_the_finished_shards(
    config: PrepareConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_PROBE_SHARD", 1)
    monkeypatch.setattr(pipeline, "probe_shard", dying_after(4, probe_shard))
    with pytest.raises(KilledError):
        run(config)
    monkeypatch.setattr(pipeline, "probe_shard", dying_after(8, probe_shard))
    run(config)  # twelve recordings, four were decoded before
    assert len(final_cuts(config, "train")) == 6


@pytest.mark.parametrize("stage", ["train_token_model", "write_manifests", "_summary"])
def test_the_other_stages_are_done_again(
    stage: str, config: PrepareConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*args: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, stage, die)
        with pytest.raises(KilledError):
            run(config)
    run(config)
    assert len(final_cuts(config, "train")) == 6


def test_a_finished_directory_is_left_alone(config: PrepareConfig, caplog: pytest.LogCaptureFixture) -> None:
    run(config)
    files = {
        path: path.stat().st_mtime_ns
        for path in Path(config.data_dir).rglob("*")
        if path.name != "prepare.json"
    }
    config.num_workers = 0  # does not change what is prepared
    with caplog.at_level(logging.INFO):
        run(config)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert "nothing is left to do" in caplog.text


def test_other_settings_are_an_error_that_names_them(config: PrepareConfig) -> None:
    run(config)
    config.text.latin_case = LatinCase.lower
    config.checks.max_duration = 20.0
    with pytest.raises(UserError) as error:
        run(config)
    assert "checks.max_duration: 30.0 then, 20.0 now" in str(error.value)
    assert "text.latin_case: 'upper' then, 'lower' now" in str(error.value)
    assert "choose another data_dir" in str(error.value)
    assert "min_duration" not in str(error.value)


def test_another_table_is_an_error_that_names_it(
    config: PrepareConfig, tmp_path: Path, write_table: WriteTable
) -> None:
    run(config)
    write_table(good_rows(tmp_path, count=13))
    with pytest.raises(UserError, match=r"content of .*table\.tsv"):
        run(config)


def test_settings_are_free_until_something_is_finished(config: PrepareConfig, tmp_path: Path) -> None:
    table = Path(config.corpus.tsv)
    sound = table.read_text(encoding="utf-8")
    table.write_text(sound + "one value\n", encoding="utf-8")
    with pytest.raises(UserError, match="14: 1 values instead of 6"):
        run(config)
    table.write_text(sound, encoding="utf-8")
    config.checks.max_duration = 20.0
    run(config)
    assert len(final_cuts(config, "train")) == 6


def test_tokens_can_be_reused_or_counted_over_two_corpora(config: PrepareConfig, tmp_path: Path) -> None:
    run(config)
    first = config.data_dir
    corpus = config.corpus
    corpus.keep = {"split": ["test"]}
    config.data_dir = str(tmp_path / "without train")
    run(config)
    assert not (tmp_path / "without train" / "tokens").exists()

    config.data_dir, config.tokens.reuse = str(tmp_path / "reuse"), str(Path(first) / "tokens")
    run(config)
    assert (
        Tokenizer.load(tmp_path / "reuse" / "tokens").pieces == Tokenizer.load(Path(first) / "tokens").pieces
    )

    corpus.keep, corpus.split_map = {"split": ["test"]}, {"test": "train"}
    config.data_dir, config.tokens.reuse = str(tmp_path / "both"), None
    config.tokens.further_data_dirs = [first]
    run(config)
    both = Tokenizer.load(tmp_path / "both" / "tokens")
    texts = [cut.supervisions[0].text for cut in load_manifest(Path(first) / "cuts_train.jsonl.gz")]
    texts += [cut.supervisions[0].text for cut in final_cuts(config, "train")]
    assert set(both.pieces[259:]) == set("".join(texts))

    config.data_dir, config.tokens.further_data_dirs = str(tmp_path / "none"), [str(tmp_path / "nowhere")]
    with pytest.raises(UserError, match=r"prepare .*nowhere first"):
        run(config)


def test_a_prepared_directory_can_be_moved(config: PrepareConfig, tmp_path: Path) -> None:
    run(config)
    before = [cut.load_features() for cut in final_cuts(config, "test")]
    moved = tmp_path / "elsewhere" / "renamed"
    moved.parent.mkdir()
    Path(config.data_dir).rename(moved)
    manifest = moved / "cuts_test.jsonl.gz"
    after = {
        name: row[:length]
        for batch in evaluation_batches(read_cuts(manifest), margin=0)
        for name, row, length in zip(batch.ids, batch.features, batch.lengths.tolist(), strict=True)
    }
    config.data_dir = str(moved)
    for cut, features in zip(final_cuts(config, "test"), before, strict=True):
        assert (after[cut.id].numpy() == features).all()
    run(config)  # nothing is left to do
    (moved / "fbank" / "train" / "feats-00000.lca").unlink()
    with pytest.raises(UserError, match=r"1 of the 3 files .* prepare the data again"):
        check_feature_files(
            (c.features.storage_path for c in read_cuts(moved / "cuts_train.jsonl.gz")), moved
        )


def test_a_directory_that_moved_before_it_was_complete_is_refused(
    config: PrepareConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "extract_shard", dying_after(1, extract_shard))
        with pytest.raises(KilledError):
            run(config)
    Path(config.data_dir).rename(tmp_path / "renamed")
    config.data_dir = str(tmp_path / "renamed")
    with pytest.raises(UserError, match=r"was begun as .*prepared and moved before it was complete"):
        run(config)


def test_the_same_corpus_is_the_same_data_set_wherever_it_is_prepared(
    config: PrepareConfig, tmp_path: Path
) -> None:
    run(config)
    first = {split: read_dataset(Path(config.data_dir), split) for split in ("train", "test")}
    assert first["test"].name == Path(config.data_dir).name
    config.data_dir, config.dataset = str(tmp_path / "again"), "named"
    config.fbank.shard_size = 1  # other shards, and another order of the training cuts
    run(config)
    for split, before in first.items():
        after = read_dataset(Path(config.data_dir), split)
        assert after == replace(before, name="named")
    config.dataset = "renamed"  # nothing is prepared again
    run(config)
    assert read_dataset(Path(config.data_dir), "test").name == "renamed"


def test_characters_that_are_no_tokens_are_named(
    config: PrepareConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tokens(train_token_model(["第一二三四五六七八九十句"]), tmp_path / "tokens")
    config.tokens.reuse = str(tmp_path / "tokens")
    run(config)
    (warning,) = (record.message for record in caplog.records if "of the split test" in record.message)
    assert "are no tokens of the model" in warning
    assert "布 (1)" in warning
