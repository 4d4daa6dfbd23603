import gzip
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet
from lhotse.cut import MixedCut
from lhotse.dataset.sampling import DynamicBucketingSampler
from tiny_corpus import write_tiny_corpus

from zipformer.data.batches import TrainingData, evaluation_batches
from zipformer.data.cuts import read_cuts
from zipformer.data.manifest import read_summaries, with_present_paths
from zipformer.data.mixing import Mixture, Stream
from zipformer.data.selection import DataConfig, select_utterances
from zipformer.data.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_corpus(tmp_path_factory.mktemp("corpus"), utterances=120)


def test_cuts_of_a_relative_directory_name_absolute_paths_once(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With data_dir=data/my, a path that was put below data/my twice would be data/my/data/my/..."""
    data_dir = tmp_path / "data" / "my"
    shutil.copytree(corpus, data_dir)
    cuts = CutSet.from_file(data_dir / "cuts_train.jsonl.gz").to_eager()
    for cut in cuts:
        cut.features.storage_path = str(Path(cut.features.storage_path).relative_to(corpus))
    cuts.to_file(data_dir / "cuts_train.jsonl.gz")
    monkeypatch.chdir(tmp_path)
    relative = Path("data") / "my"
    placed = list(read_cuts(relative / "cuts_train.jsonl.gz"))
    assert {Path(cut.features.storage_path).parent for cut in placed} == {data_dir}
    assert [with_present_paths(cut, relative) for cut in placed] == placed
    monkeypatch.chdir("/")
    batch = next(evaluation_batches(CutSet.from_cuts(placed), margin=20))
    expected = next(evaluation_batches(read_cuts(corpus / "cuts_train.jsonl.gz"), margin=20))
    assert batch.ids == expected.ids
    assert torch.equal(batch.features, expected.features)


def test_summaries_select_what_whole_cuts_select(corpus: Path) -> None:
    manifest, tokenizer = corpus / "cuts_train.jsonl.gz", Tokenizer.load(corpus / "tokens")
    config = DataConfig(min_utterance_seconds=1.0, max_utterance_seconds=1.7)
    expected = select_utterances(read_cuts(manifest), config, tokenizer, repeats_need_blank=True)
    found = select_utterances(read_summaries(manifest), config, tokenizer, repeats_need_blank=True)
    assert found.dropped == expected.dropped
    assert 0 < found.utterances == expected.utterances < 120
    assert found.seconds_by_dialect == expected.seconds_by_dialect
    dropped = {name for names in expected.dropped.values() for name in names}
    assert [math.isnan(d) for d in found.durations] == [cut.id in dropped for cut in read_cuts(manifest)]


def test_lines_become_the_cuts_that_lhotse_reads(corpus: Path) -> None:
    manifest = corpus / "cuts_train.jsonl.gz"
    cuts = list(read_cuts(manifest))
    durations = [math.nan if n % 3 == 0 else cut.duration for n, cut in enumerate(cuts)]
    lines = Mixture([Stream(manifest, np.array(durations))])
    expected = [cut for n, cut in enumerate(cuts) if n % 3]
    for _ in range(2):
        assert [line.cut() for line in lines] == expected
    assert [line.duration for line in lines] == [cut.duration for cut in expected]


@pytest.mark.parametrize("world_size", [1, 2])
def test_batches_are_those_of_a_sampler_of_whole_cuts(corpus: Path, world_size: int) -> None:
    manifest, tokenizer = corpus / "cuts_train.jsonl.gz", Tokenizer.load(corpus / "tokens")
    config = DataConfig(max_duration=8.0, num_buckets=3, buffer_size=30, num_workers=0)
    for rank in range(world_size):
        data = TrainingData(manifest, tokenizer, config, seed=5, rank=rank, world_size=world_size)
        plain = DynamicBucketingSampler(
            read_cuts(manifest),
            max_duration=8.0,
            num_buckets=3,
            buffer_size=30,
            shuffle=True,
            seed=5,
            rank=rank,
            world_size=world_size,
        )
        for epoch in (1, 2):
            plain.set_epoch(epoch)
            expected = [[cut.id.removesuffix("_dup0") for cut in cuts] for cuts in plain]
            assert [batch.ids for batch in data.epoch(epoch)] == expected


def test_cuts_mixed_of_several_are_read_as_a_whole(corpus: Path, tmp_path: Path) -> None:
    cuts = list(read_cuts(corpus / "cuts_train.jsonl.gz"))
    mixed = cuts[0].append(cuts[1])
    CutSet.from_cuts([cuts[2], mixed]).to_file(tmp_path / "cuts.jsonl.gz")
    single, found = read_summaries(tmp_path / "cuts.jsonl.gz")
    assert single.num_frames == cuts[2].num_frames
    assert isinstance(found, MixedCut)
    assert found.duration == mixed.duration


@pytest.mark.parametrize("bad", [b"not json", b"[]", b'{"id": "a", "type": "MonoCut", "duration": "long"}'])
def test_a_line_that_is_no_cut_is_named(corpus: Path, tmp_path: Path, bad: bytes) -> None:
    good = gzip.decompress((corpus / "cuts_train.jsonl.gz").read_bytes()).splitlines()[0]
    (tmp_path / "cuts.jsonl").write_bytes(good + b"\n" + bad + b"\n")
    with pytest.raises(ValueError, match=r"cuts\.jsonl, line 2, is not a cut .*prepare the data again"):
        list(read_summaries(tmp_path / "cuts.jsonl"))


def test_files_in_several_parts_and_without_a_last_line_end(corpus: Path, tmp_path: Path) -> None:
    lines = gzip.decompress((corpus / "cuts_train.jsonl.gz").read_bytes()).splitlines(keepends=True)
    text = b"".join(lines)
    parts = (text[:100], text[100:-1])
    (tmp_path / "cuts.jsonl.gz").write_bytes(b"".join(map(gzip.compress, parts)))
    found = [summary.id for summary in read_summaries(tmp_path / "cuts.jsonl.gz")]
    assert found == [f"train-{index:03d}" for index in range(120)]


def test_a_manifest_that_changed_is_noticed(corpus: Path) -> None:
    with pytest.raises(ValueError, match="longer than"):
        list(Mixture([Stream(corpus / "cuts_train.jsonl.gz", np.ones(121))]))
