"""Lhotse Shar as training data: the same batches as from manifests, from a folder, a URL or a command."""

import gzip
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from file_server import Served, serving
from lhotse import CutSet, LilcomChunkyWriter, MonoCut, Recording, SupervisionSegment
from lhotse.utils import fastcopy
from tiny_corpus import make_cut, write_tiny_corpus

from zipformer.data import remote
from zipformer.data.batches import Batch, TrainingData
from zipformer.data.cuts import read_cuts
from zipformer.data.distortion import DistortionConfig
from zipformer.data.features import fbank_extractor
from zipformer.data.loader_workers import explaining_dead_workers
from zipformer.data.mixing import CorpusShare, MixingConfig
from zipformer.data.remote import CacheConfig
from zipformer.data.selection import DataConfig
from zipformer.data.shar import open_data
from zipformer.data.tar import TarFile
from zipformer.data.tokenizer import Tokenizer
from zipformer.errors import UserError

UTTERANCES = 60
LILCOM_ERROR = 2**-6 + 1e-5  # half of a step of its quantisation


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared corpus, and the same as Shar of Lhotse in ``shar``: six shards of ten."""
    directory = write_tiny_corpus(tmp_path_factory.mktemp("corpus"), utterances=UTTERANCES)
    cuts = CutSet.from_jsonl_lazy(directory / "cuts_train.jsonl.gz")
    to_shar(cuts, directory / "shar", {"features": "numpy"}, 10)
    return directory


@pytest.fixture
def cache(tmp_path: Path) -> CacheConfig:
    return CacheConfig(str(tmp_path / "cache"))


@pytest.fixture
def shar(corpus: Path, tmp_path: Path) -> Path:
    """A copy of the Shar, to be spoilt."""
    return Path(shutil.copytree(corpus / "shar", tmp_path / "shar"))


@pytest.fixture
def served(shar: Path) -> Iterator[Served]:
    with serving(shar) as server:
        yield server


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)


def to_shar(cuts: CutSet, folder: Path, fields: dict[str, str], size: int) -> None:
    """Write Shar as Lhotse does, in shards of some cuts."""
    folder.mkdir()
    cuts.to_shar(folder, fields, shard_size=size)


def data_of(
    corpus: Path, directory: Path, *, rank: int = 0, world_size: int = 1, **more: object
) -> TrainingData:
    config = DataConfig(**{"max_duration": 8.0, "num_workers": 0, **more})  # type: ignore[arg-type]
    tokenizer = Tokenizer.load(corpus / "tokens")
    manifest = directory / "cuts_train.jsonl.gz"
    return TrainingData(manifest, tokenizer, config, rank=rank, world_size=world_size, seed=5)


def assert_same(left: list[Batch], right: list[Batch], error: float = 0.0) -> None:
    assert [batch.ids for batch in left] == [batch.ids for batch in right]
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one.features, other.features, rtol=0, atol=error)
        assert one.tokens == other.tokens


@pytest.mark.parametrize(("coding", "error"), [("numpy", 0.0), ("lilcom", LILCOM_ERROR)])
def test_batches_are_those_of_the_manifest(
    coding: str, error: float, corpus: Path, cache: CacheConfig, tmp_path: Path
) -> None:
    """Order, lengths, SpecAugment, and features but for what lilcom rounds."""
    folder = corpus / "shar"
    if coding == "lilcom":
        folder = tmp_path / "lilcom"
        cuts = CutSet.from_jsonl_lazy(corpus / "cuts_train.jsonl.gz")
        to_shar(cuts, folder, {"features": "lilcom"}, 7)
    data = data_of(corpus, open_data(str(folder), cache))
    expected = data_of(corpus, corpus)
    for epoch in (1, 2):
        assert_same(list(data.epoch(epoch)), list(expected.epoch(epoch)), error)
    assert data.selection.seconds_by_dialect == expected.selection.seconds_by_dialect
    assert data.selection.digest == expected.selection.digest


@pytest.mark.parametrize("num_workers", [0, 2])
def test_processes_and_workers_share_an_epoch_and_resume_in_the_middle(
    num_workers: int, corpus: Path, cache: CacheConfig
) -> None:
    directory = open_data(str(corpus / "shar"), cache)
    names: Counter[str] = Counter()
    for rank in (0, 1):
        whole = list(data_of(corpus, directory, rank=rank, world_size=2).epoch(3))
        names.update(name for batch in whole for name in batch.ids)
        again = data_of(corpus, directory, rank=rank, world_size=2, num_workers=num_workers)
        assert_same(list(again.epoch(3, first_batch=3)), whole[3:])
    assert set(names) == {f"train-{index:03d}" for index in range(UTTERANCES)}
    assert names.total() == UTTERANCES


def test_from_a_url_every_file_is_fetched_once(corpus: Path, served: Served, cache: CacheConfig) -> None:
    directory = open_data(served.url, cache)
    assert not [name for name in served.requests if name.endswith(".tar") and name.startswith("GET")]
    assert_same(list(data_of(corpus, directory).epoch(1)), list(data_of(corpus, corpus).epoch(1)))
    assert [served.count(f"features.{index:06d}.tar") for index in range(6)] == [1] * 6
    assert open_data(served.url, cache) == directory
    assert [served.count(f"cuts.{index:06d}.jsonl.gz") for index in range(1, 5)] == [1] * 4


def test_the_cache_is_bounded(corpus: Path, served: Served, tmp_path: Path) -> None:
    size = (corpus / "shar" / "features.000000.tar").stat().st_size
    cache = CacheConfig(str(tmp_path / "cache"), gib=2.5 * size / 2**30)
    directory = open_data(served.url, cache)
    assert_same(list(data_of(corpus, directory).epoch(1)), list(data_of(corpus, corpus).epoch(1)))
    kept = sum(path.stat().st_size for path in directory.glob("*.tar"))
    assert 0 < kept <= 2.5 * size


def test_from_a_command(corpus: Path, shar: Path, cache: CacheConfig) -> None:
    directory = open_data(f"pipe:cat '{shar}'/{{}}", cache)
    assert_same(list(data_of(corpus, directory).epoch(1)), list(data_of(corpus, corpus).epoch(1)))
    with pytest.raises(UserError, match=r"pipe:cat x has no \{\}"):
        open_data("pipe:cat x", cache)
    with pytest.raises(UserError, match=r"neither a prepared directory nor Lhotse Shar.*No such file"):
        open_data("pipe:cat /nowhere/{}", cache)


def test_several_are_mixed_by_weight(
    corpus: Path, served: Served, cache: CacheConfig, tmp_path: Path
) -> None:
    """A manifest, a folder and a URL, with shares of seconds 1 : 2 : 3."""
    for name in ("other", "main"):
        (tmp_path / name).mkdir()
    other = write_tiny_corpus(tmp_path / "other", utterances=UTTERANCES, seed=1)
    cuts = [fastcopy(cut, id=f"other-{cut.id}") for cut in read_cuts(other / "cuts_train.jsonl.gz")]
    to_shar(CutSet.from_cuts(cuts), tmp_path / "a", {"features": "lilcom"}, 15)
    shares = [CorpusShare(str(tmp_path / "a"), 2.0), CorpusShare(served.url, 3.0)]
    main = write_tiny_corpus(tmp_path / "main", utterances=UTTERANCES, seed=2)
    renamed = [fastcopy(cut, id=f"main-{cut.id}") for cut in read_cuts(main / "cuts_train.jsonl.gz")]
    CutSet.from_cuts(renamed).to_file(main / "cuts_train.jsonl.gz")
    data = data_of(corpus, main, mixing=MixingConfig(corpora=shares), cache=cache)
    seconds: Counter[str] = Counter()
    for epoch in range(1, 9):
        for batch in data.epoch(epoch):
            for name, length in zip(batch.ids, batch.lengths.tolist(), strict=True):
                seconds[name.split("-")[0]] += length
    total = seconds.total()
    # Shares are of each dialect, of which the corpora have more or less.
    assert [seconds[name] / total for name in ("main", "other", "train")] == pytest.approx(
        [1 / 6, 2 / 6, 3 / 6], abs=0.03
    )


def test_unusable_utterances_are_counted_by_the_same_reasons(corpus: Path, cache: CacheConfig) -> None:
    limits = {"min_utterance_seconds": 1.0, "max_utterance_seconds": 1.6, "left_out_dialects": ["nan"]}
    found = data_of(corpus, open_data(str(corpus / "shar"), cache), **limits)
    expected = data_of(corpus, corpus, **limits)
    assert found.selection.dropped == expected.selection.dropped
    assert len(expected.selection.dropped) == 3
    names = {name for batch in found.epoch(1) for name in batch.ids}
    assert len(names) == found.selection.utterances


def test_shar_that_changed_is_read_anew(corpus: Path, shar: Path, served: Served, cache: CacheConfig) -> None:
    directories = [open_data(place, cache) for place in (str(shar), served.url)]
    cuts = CutSet.from_jsonl_lazy(corpus / "cuts_train.jsonl.gz").subset(first=20)
    shutil.rmtree(shar)
    to_shar(cuts, shar, {"features": "lilcom"}, 5)
    assert open_data(str(shar), cache) == directories[0]
    assert len(list(read_cuts(directories[0] / "cuts_train.jsonl.gz"))) == 20
    with pytest.raises(UserError, match=r"changed since they were fetched into .*remove that folder"):
        open_data(served.url, cache)
    shutil.rmtree(directories[1])
    assert open_data(served.url, cache) == directories[1]


def test_files_that_are_missing_or_cut_off(shar: Path, cache: CacheConfig) -> None:
    def spoilt(name: str, content: bytes | None, message: str) -> None:
        before = (shar / name).read_bytes()
        (shar / name).unlink()
        if content is not None:
            (shar / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            open_data(str(shar), cache)
        (shar / name).write_bytes(before)

    tar = (shar / "features.000002.tar").read_bytes()
    spoilt("features.000002.tar", None, r"not complete: features\.000002\.tar of 6 shards is missing; copy")
    spoilt("cuts.000005.jsonl.gz", None, r"not complete: cuts\.000005\.jsonl\.gz of 6 shards is missing")
    spoilt("features.000002.tar", tar[:5000], r"features\.000002\.tar is cut off: it has 5000 bytes.*copy it")
    spoilt("features.000002.tar", b"", r"features\.000002\.tar is cut off")
    cuts = gzip.decompress((shar / "cuts.000001.jsonl.gz").read_bytes())
    half = gzip.compress(cuts)[:-20]
    spoilt("cuts.000001.jsonl.gz", half, r"cuts\.000001\.jsonl\.gz, after line \d+, is damaged")
    spoilt("cuts.000001.jsonl.gz", gzip.compress(cuts[:-30]), r"after line 9, is damaged.*copy it there")
    open_data(str(shar), cache)


def test_a_tar_that_lacks_an_utterance_or_is_no_tar(tmp_path: Path, shar: Path) -> None:
    with pytest.raises(UserError, match=r"features\.000000\.tar holds nothing of the utterance nobody"):
        TarFile(shar / "features.000000.tar").read("nobody")
    (tmp_path / "a.tar").write_bytes(b"x" * 512 + bytes(1024))
    with pytest.raises(UserError, match=r"a\.tar is damaged"):
        TarFile(tmp_path / "a.tar")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_remote_tar_that_vanished_is_one_message(
    num_workers: int, corpus: Path, shar: Path, served: Served, cache: CacheConfig
) -> None:
    data = data_of(corpus, open_data(served.url, cache), num_workers=num_workers)
    (shar / "features.000004.tar").unlink()
    with pytest.raises(UserError) as caught, explaining_dead_workers():
        list(data.epoch(1))
    assert str(caught.value) == (
        f"{served.url}/features.000004.tar is not there (HTTP 404): put the file there, or correct the URL"
    )


def test_a_transfer_that_breaks_is_tried_again(
    corpus: Path, shar: Path, served: Served, cache: CacheConfig
) -> None:
    directory = open_data(served.url, cache)
    served.broken = {"/features.000001.tar": 2, "/features.000003.tar": 99}
    TarFile(directory / "features.000001.tar")
    with pytest.raises(UserError, match=r"features\.000003\.tar cannot be fetched .*4 attempts"):
        TarFile(directory / "features.000003.tar")
    assert not list(directory.glob("*-part*"))
    (shar / "features.000005.tar").write_bytes((shar / "features.000005.tar").read_bytes()[:5120])
    with pytest.raises(UserError, match=r"000005\.tar is cut off.*remove .* replace it at http://127"):
        TarFile(directory / "features.000005.tar")


def test_a_remote_shard_that_is_not_there(shar: Path, served: Served, cache: CacheConfig) -> None:
    (shar / "cuts.000003.jsonl.gz").unlink()
    with pytest.raises(UserError, match=r"not complete: cuts\.000003\.jsonl\.gz is missing"):
        open_data(served.url, cache)
    shutil.copy(shar / "cuts.000002.jsonl.gz", shar / "cuts.000003.jsonl.gz")
    (shar / "features.000001.tar").unlink()
    with pytest.raises(UserError, match=r"not complete: features\.000001\.tar is missing"):
        open_data(served.url, cache)


def test_a_server_that_is_not_there(cache: CacheConfig) -> None:
    with pytest.raises(
        UserError, match=r"127\.0\.0\.1:9/prepare\.json cannot be fetched .*refused.*server runs"
    ):
        open_data("http://127.0.0.1:9", cache)


def test_sound_in_shar(corpus: Path, cache: CacheConfig, tmp_path: Path) -> None:
    """Features that are computed in training are those that were computed of the same sound."""
    samples = {}
    cuts = []
    for index in range(6):
        name = f"a-{index}"
        noise = np.random.default_rng(index).normal(0, 0.1, 16000 + 1600 * index)
        samples[name] = np.round(noise * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
        soundfile.write(tmp_path / f"{name}.wav", samples[name], 16000)
        recording = Recording.from_file(tmp_path / f"{name}.wav")
        supervision = SupervisionSegment(name, name, 0, recording.duration, text="一二", language="cmn")
        cuts.append(MonoCut(name, 0, recording.duration, 0, [supervision], recording=recording))
    with LilcomChunkyWriter(str(tmp_path / "feats")) as storage:
        stored = make_cut("x", np.zeros((100, 80), np.float32), "一", "cmn", storage).features
        cuts = [fastcopy(cut, features=fastcopy(stored, num_frames=cut.num_samples // 160)) for cut in cuts]
    to_shar(CutSet.from_cuts(cuts), tmp_path / "a", {"recording": "flac"}, 4)
    for cut in cuts:
        (tmp_path / f"{cut.id}.wav").unlink()
    directory = open_data(str(tmp_path / "a"), cache)
    data = data_of(corpus, directory, distortion=DistortionConfig(compute=True))
    data._loader.dataset.augment = None  # type: ignore[attr-defined]
    by_lhotse = {cut.id: cut.load_audio() for cut in CutSet.from_shar(in_dir=tmp_path / "a")}
    seen = set()
    for batch in data.epoch(1):
        for name, row, length in zip(batch.ids, batch.features, batch.lengths.tolist(), strict=True):
            np.testing.assert_allclose(by_lhotse[name][0], samples[name] / 2**15, atol=2 / 2**15)
            expected = fbank_extractor(16000).extract(by_lhotse[name], 16000)
            np.testing.assert_array_equal(row[:length].numpy(), expected)
            seen.add(name)
    assert seen == set(samples)
