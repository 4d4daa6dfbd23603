import gzip
import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lhotse.dataset.sampling import DynamicBucketingSampler

from zipformer.data.bucketing import BucketingSampler
from zipformer.data.manifest import CutLine
from zipformer.data.mixing import Mixture, Stream


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Mixture]:
    """Mixtures of one and of three streams, with cuts that are left out and cuts used several times."""
    directory = tmp_path_factory.mktemp("streams")
    draw = np.random.default_rng(3)
    streams = []
    for name, count in (("a", 1500), ("b", 600), ("c", 40)):
        path = directory / name / "cuts_train.jsonl.gz"
        path.parent.mkdir()
        path.write_bytes(gzip.compress(b"".join(b"%s%d\n" % (name.encode(), n) for n in range(count))))
        durations = np.round(draw.gamma(3.0, 1.5, count) + 0.3, 2)
        durations[draw.random(count) < 0.1] = np.nan
        streams.append(Stream(path, durations, draw.choice([0.4, 1.0, 2.3], count).astype(np.float32)))
    once = Stream(streams[0].manifest, streams[0].durations)
    return {1: Mixture([once], 7), 3: Mixture(streams, 7)}


class _Cut:
    """What Lhotse's sampler needs of a cut, also where it repeats one."""

    def __init__(self, cut: CutLine, name: str) -> None:
        self.cut, self.id, self.duration = cut, name, cut.duration

    def with_id(self, name: str) -> "_Cut":
        return _Cut(self.cut, name)


class _Cuts:
    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture

    def __iter__(self) -> Iterator[_Cut]:
        return (_Cut(cut, f"{cut.stream}-{cut.number}-{cut.before}") for cut in self.mixture)


def names(batches: Any) -> list[list[str]]:
    return [[cut.line.decode() for cut in batch] for batch in batches]


def expected_batches(mixture: Mixture, epoch: int, **settings: Any) -> list[list[str]]:
    mixture.epoch = 1
    sampler = DynamicBucketingSampler(_Cuts(mixture), shuffle=True, **settings)
    mixture.epoch = epoch
    sampler.set_epoch(epoch)
    return [[cut.cut.line.decode() for cut in batch] for batch in sampler]


def sampler_of(mixture: Mixture, **settings: Any) -> BucketingSampler:
    mixture.epoch = 1
    return BucketingSampler(mixture, **settings)


SETTINGS: list[dict[str, Any]] = [
    {"max_duration": 60.0, "num_buckets": 10, "buffer_size": 400},
    {"max_duration": 25.0, "num_buckets": 30, "buffer_size": 3000, "max_cuts": 5},
    {"max_duration": 60.0, "num_buckets": 5, "buffer_size": 200, "quadratic_duration": 15.0},
    {"max_duration": 200.0, "num_buckets": 8, "buffer_size": 90},  # buckets are rarely full
    {"max_duration": 9.0, "num_buckets": 4, "buffer_size": 300},  # less than some cuts
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_batches_are_those_of_lhotse(
    mixtures: dict[int, Mixture], number: int, world_size: int, drop_last: bool
) -> None:
    draw = random.Random(number * 100 + world_size)
    shared = {"drop_last": drop_last, "world_size": world_size, **SETTINGS[number]}
    for rank in {0, world_size - 1}:
        settings = {"seed": draw.randrange(1000), "rank": rank, **shared}
        mixture, epoch = mixtures[draw.choice([1, 3])], draw.choice([1, 2, 5])
        found = names(sampler_of(mixture, **settings).batches(epoch))
        assert found == expected_batches(mixture, epoch, **settings)
        assert drop_last or len(found) > 3


@pytest.mark.filterwarnings("ignore")
def test_fewer_cuts_than_processes_are_repeated(tmp_path: Path) -> None:
    path = tmp_path / "cuts.jsonl"
    path.write_bytes(b"a\nb\nc\n")
    mixture = Mixture([Stream(path, np.array([1.0, 2.0, 3.0]))])
    settings = {"max_duration": 100.0, "num_buckets": 2, "buffer_size": 10, "world_size": 8}
    parts = []
    for rank in range(8):
        parts.append(names(sampler_of(mixture, **settings, rank=rank).batches(1)))
        assert parts[-1] == expected_batches(mixture, 1, **settings, rank=rank)
    assert all(len(part) == len(part[0]) == 1 for part in parts)


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("world_size", [1, 3])
def test_every_state_gives_the_rest_of_the_epoch(
    mixtures: dict[int, Mixture], streams: int, world_size: int
) -> None:
    """The state goes through a file, as in a checkpoint, and into a new sampler."""
    settings = {**SETTINGS[0], "world_size": world_size, "rank": world_size - 1}
    mixture = mixtures[streams]
    batches = sampler_of(mixture, **settings).batches(2)
    expected, files = [], []
    while True:
        files.append(io.BytesIO())
        torch.save(batches.state(), files[-1])
        batch = next(batches, None)
        if batch is None:
            break
        expected.append([cut.line.decode() for cut in batch])
    assert len(expected) > 20
    for place in (0, 1, 10, len(expected) - 3, len(expected) - 1, len(expected)):
        files[place].seek(0)
        state = torch.load(files[place], weights_only=True)
        sampler = sampler_of(mixture, **settings)
        assert sampler.can_restore(state)
        rest = sampler.batches(2, state)
        assert names(rest) == expected[place:]
    assert not sampler_of(mixtures[4 - streams], **settings).can_restore(state)
    assert not sampler_of(mixture, **{**settings, "num_buckets": 4}).can_restore(state)
