"""Preparation with storage=shar: what is on disk, Lhotse reads it, it resumes, moves and is read by URL."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from file_server import serving
from hypothesis import given
from hypothesis import strategies as st
from lhotse import CutSet, MonoCut
from rich.console import Console
from sound_folder import MakeConfig, WriteTable, good_rows

from data_prep import shar
from data_prep.manifests import grouped
from data_prep.pipeline import PrepareConfig, prepare
from data_prep.shar import AudioFormat, FeatureFormat, SharConfig, SharShard, Storage, write_shard
from zipformer.data.batches import TrainingData
from zipformer.data.cuts import read_cuts
from zipformer.data.remote import CacheConfig
from zipformer.data.selection import DataConfig
from zipformer.data.shar import open_data
from zipformer.data.tokenizer import Tokenizer
from zipformer.errors import UserError

SPLITS = ("train", "valid", "test")


def run(config: PrepareConfig) -> Path:
    prepare(config, Console(quiet=True))
    return Path(config.data_dir)


def features(directory: Path, split: str) -> dict[str, np.ndarray]:
    return {cut.id: cut.load_features() for cut in read_cuts(directory / f"cuts_{split}.jsonl.gz")}


@pytest.fixture
def files(tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig) -> PrepareConfig:
    """A corpus prepared with storage=files: 2 speeds, 12 training cuts."""
    config = prepare_config(write_table(good_rows(tmp_path)))
    config.fbank.speed_factors = [0.9, 1.0]
    run(config)
    return config


@pytest.fixture
def config(files: PrepareConfig) -> PrepareConfig:
    """The same, to become Shar."""
    settings = SharConfig(shard_size=5, features=FeatureFormat.numpy)
    return replace(files, storage=Storage.shar, shar=settings)


def test_a_prepared_corpus_becomes_shar(config: PrepareConfig, tmp_path: Path) -> None:
    directory = Path(config.data_dir)
    before = {split: features(directory, split) for split in SPLITS}
    run(config)
    assert not (directory / "fbank").exists()
    assert not list(directory.rglob("*-part*"))
    assert sorted(path.name for path in (directory / "shar" / "train").iterdir()) == [
        f"{name}.{number:06d}.{suffix}"
        for name, suffix in (("cuts", "jsonl.gz"), ("features", "tar"))
        for number in range(3)
    ]
    for split in SPLITS:
        now = features(directory, split)
        assert list(now) == list(before[split])
        by_lhotse = {
            cut.id: cut.load_features() for cut in CutSet.from_shar(in_dir=directory / "shar" / split)
        }
        assert list(by_lhotse) == list(now)
        for name, expected in before[split].items():
            np.testing.assert_array_equal(now[name], expected)
            np.testing.assert_array_equal(by_lhotse[name], expected)
    moved = Path(shutil.move(directory, tmp_path / "moved"))
    assert list(features(moved, "train")) == list(before["train"])
    report = json.loads((moved / "prepare.json").read_text(encoding="utf-8"))["stages"]["shar"]
    assert [report[split]["shards"] for split in SPLITS] == [3, 1, 1]


def test_batches_are_the_same_as_before(config: PrepareConfig) -> None:
    directory = Path(config.data_dir)
    found = []
    for _ in range(2):
        data = TrainingData(
            directory / "cuts_train.jsonl.gz",
            Tokenizer.load(directory / "tokens"),
            DataConfig(max_duration=2.0, num_workers=0),
        )
        found.append([(batch.ids, batch.features) for batch in data.epoch(1)])
        run(config)
    assert len(found[0]) > 2
    for (ids, matrix), (other_ids, other) in zip(*found, strict=True):
        assert ids == other_ids
        np.testing.assert_array_equal(matrix.numpy(), other.numpy())


def test_lilcom_rounds_features_once_more(config: PrepareConfig) -> None:
    directory = Path(config.data_dir)
    before = features(directory, "train")
    run(replace(config, shar=SharConfig()))
    for name, matrix in features(directory, "train").items():
        np.testing.assert_allclose(matrix, before[name], rtol=0, atol=2**-6 + 1e-5)


def test_a_killed_run_goes_on_after_its_shards(
    config: PrepareConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[tuple[str, int]] = []

    def noting(job: SharShard) -> int:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append((job.directory.name, job.index))
        return write_shard(job)

    directory = Path(config.data_dir)
    expected = features(directory, "train")
    monkeypatch.setattr(shar, "write_shard", noting)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    for name, matrix in features(directory, "train").items():  # until all is written, the old features count
        np.testing.assert_array_equal(matrix, expected[name])
    made.append(("", 0))
    with caplog.at_level(logging.INFO):
        run(config)
    assert made[3:] == [("train", 2), ("valid", 0), ("test", 0)]
    for name, matrix in features(directory, "train").items():
        np.testing.assert_array_equal(matrix, expected[name])
    with caplog.at_level(logging.INFO):
        run(config)
    assert "nothing is left to do" in caplog.text
    with pytest.raises(UserError, match="stored as Shar with other settings"):
        run(replace(config, shar=replace(config.shar, shard_size=4)))


def test_sound_is_stored_where_that_is_wanted(config: PrepareConfig) -> None:
    directory = Path(config.data_dir)
    before = {cut.id: cut.load_audio() for cut in read_cuts(directory / "cuts_train.jsonl.gz")}
    run(replace(config, shar=replace(config.shar, audio=AudioFormat.flac)))
    shutil.rmtree(directory / "manifests")
    cuts = list(read_cuts(directory / "cuts_train.jsonl.gz"))
    assert [cut.id for cut in cuts] == list(before)
    for cut in cuts:
        np.testing.assert_allclose(cut.load_audio(), before[cut.id], atol=2**-15)
        assert cut.load_features().shape == (cut.num_frames, 80)


def test_a_prepared_directory_is_read_by_its_url(config: PrepareConfig, tmp_path: Path) -> None:
    directory = Path(config.data_dir)
    cache = CacheConfig(str(tmp_path / "cache"))
    with serving(directory) as served:
        with pytest.raises(UserError, match=r"storage=files.*once more with storage=shar"):
            open_data(served.url, cache)
        shutil.rmtree(tmp_path / "cache")
        run(config)
        opened = open_data(served.url, cache)
        assert Tokenizer.load(opened / "tokens").pieces == Tokenizer.load(directory / "tokens").pieces
        with pytest.raises(UserError, match="no split dev"):
            open_data(served.url, cache, "dev")
        for split in SPLITS:
            expected = features(directory, split)
            found = features(opened, split)
            assert list(found) == list(expected)
            assert all(np.array_equal(found[name], matrix) for name, matrix in expected.items())


def test_sound_that_is_gone_is_named(config: PrepareConfig, tmp_path: Path) -> None:
    for path in tmp_path.glob("good*.wav"):
        path.unlink()
    with pytest.raises(
        UserError, match=r"utterance good\S+: what was prepared of it cannot be read any more"
    ):
        run(replace(config, shar=SharConfig(audio=AudioFormat.flac)))
    run(config)


@given(st.lists(st.integers(1, 9), max_size=30), st.integers(1, 6), st.none() | st.integers(1, 20))
def test_groups_are_neighbours_within_both_limits(lengths: list[int], size: int, seconds: int | None) -> None:
    cuts = [MonoCut(str(n), 0, float(length), 0) for n, length in enumerate(lengths)]
    groups = list(grouped(cuts, size, seconds))
    assert [cut for group in groups for cut in group] == cuts
    limit = float("inf") if seconds is None else seconds
    for group, following in zip(groups, [*groups[1:], []], strict=False):
        total = sum(cut.duration for cut in group)
        assert 1 <= len(group) <= size
        assert total <= limit or len(group) == 1
        if following:  # as large as possible
            assert len(group) == size or total + following[0].duration > limit


def test_features_in_shards_of_seconds(
    tmp_path: Path, write_table: WriteTable, prepare_config: MakeConfig
) -> None:
    table = write_table(good_rows(tmp_path))
    by_count = prepare_config(table)
    expected = features(run(by_count), "train")
    config = replace(by_count, data_dir=str(tmp_path / "by-seconds"))
    config.fbank = replace(config.fbank, shard_seconds=1.2)
    found = features(run(config), "train")
    folder = Path(config.data_dir) / "fbank" / "train"
    # 0.50, 0.51, 0.54, 0.55, 0.58, 0.59 s: two fit.
    assert len(list(folder.glob("feats-*.lca"))) == 3
    assert set(found) == set(expected)
    assert all(np.array_equal(found[name], matrix) for name, matrix in expected.items())
    with pytest.raises(UserError, match=r"shard_seconds is 0"):
        replace(config.fbank, shard_seconds=0)
