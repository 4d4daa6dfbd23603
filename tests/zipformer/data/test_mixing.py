"""Mixtures: shares of seconds, capped repetition, all utterances used equally often, the same on resume."""

import gzip
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import CutSet
from lhotse.dataset.sampling import DynamicBucketingSampler
from tiny_corpus import write_tiny_corpus
from training_runs import assert_same_run, config_for, trained

from zipformer.data.batches import TrainingData
from zipformer.data.cuts import read_cuts
from zipformer.data.manifest import CutLine, read_summaries
from zipformer.data.mixing import CorpusShare, MixingConfig, Mixture, Stream, uses_per_epoch
from zipformer.data.selection import DataConfig, Selection, streams_of
from zipformer.data.tokenizer import Tokenizer
from zipformer.errors import UserError

DATA = DataConfig(max_duration=8.0, num_buckets=3, buffer_size=60, num_workers=0)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three corpora of 24, 60 and 120 utterances."""
    root = tmp_path_factory.mktemp("corpora")
    found = []
    for seed, count in enumerate((24, 60, 120)):
        (root / str(count)).mkdir()
        found.append(write_tiny_corpus(root / str(count), utterances=count, seed=seed))
    return found


def config_with(corpora: list[Path], **mixing: Any) -> DataConfig:
    shares = [
        CorpusShare(str(corpus), weight) for corpus, weight in zip(corpora[1:], (2.0, 0.5), strict=True)
    ]
    return replace(DATA, mixing=MixingConfig(corpora=shares, **mixing))


def data_of(corpora: list[Path], config: DataConfig, **more: Any) -> TrainingData:
    tokenizer = Tokenizer.load(corpora[0] / "tokens")
    return TrainingData(corpora[0] / "cuts_train.jsonl.gz", tokenizer, config, **more)


def test_shares_by_hand() -> None:
    # 900 and 100 hours: with alpha 1/2, 3/4 and 1/4 of 1,000.
    uses = uses_per_epoch([{"cmn": 900.0, "hak": 100.0}], MixingConfig(alpha=0.5))
    assert uses == [pytest.approx({"cmn": 750 / 900, "hak": 250 / 100})]
    # Two corpora of one group: shares 2 * 300 to 1 * 100 of 400.
    config = MixingConfig(corpora=[CorpusShare("b", 1.0)], weight=2.0)
    uses = uses_per_epoch([{"yue": 300.0}, {"yue": 100.0}], config)
    assert uses == [pytest.approx({"yue": 600 / 700 * 400 / 300}), pytest.approx({"yue": 400 / 700})]


def test_what_the_cap_takes_goes_to_the_others() -> None:
    uses = uses_per_epoch([{"cmn": 900.0, "yue": 90.0, "hak": 10.0}], MixingConfig(alpha=0, max_repeats=5))
    # A third each would be 333: hak can have 50; of the other 950 half each is 475, yue can have 450.
    assert uses == [pytest.approx({"cmn": 500 / 900, "yue": 5.0, "hak": 5.0})]


amounts = st.floats(0.1, 1e4)
tables = st.lists(
    st.dictionaries(st.sampled_from(["cmn", "yue", "nan", "hak"]), amounts, min_size=1),
    min_size=1,
    max_size=4,
)


@settings(deadline=None)
@given(tables, st.floats(0, 1), st.floats(0, 1), st.floats(1, 50), st.data())
def test_an_epoch_is_as_long_as_there_is_speech_and_no_use_is_above_the_cap(
    seconds: list[dict[str, float]], alpha: float, corpus_alpha: float, cap: float, data: st.DataObject
) -> None:
    weights = data.draw(st.lists(st.floats(0.1, 10), min_size=len(seconds), max_size=len(seconds)))
    config = MixingConfig(
        corpora=[CorpusShare("x", weight) for weight in weights[1:]],
        weight=weights[0],
        alpha=alpha,
        corpus_alpha=corpus_alpha,
        max_repeats=cap,
    )
    uses = uses_per_epoch(seconds, config)
    cells = [(s, u[g]) for of, u in zip(seconds, uses, strict=True) for g, s in of.items()]
    assert all(0 < use <= cap * (1 + 1e-9) for _, use in cells)
    total = sum(s for s, _ in cells)
    assert sum(s * use for s, use in cells) == pytest.approx(total)  # never all capped: the mean use is 1
    if all(use < cap for _, use in cells):
        by_group: Counter[str] = Counter()
        given_to: Counter[str] = Counter()
        for of, u in zip(seconds, uses, strict=True):
            for group, amount in of.items():
                by_group[group] += amount  # type: ignore[assignment]
                given_to[group] += amount * u[group]  # type: ignore[assignment]
        whole = sum(n**alpha for n in by_group.values())
        for group, n in by_group.items():
            assert given_to[group] / total == pytest.approx(n**alpha / whole)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.01, 7.0), st.integers(1, 12), st.integers(0, 99))
def test_every_utterance_is_used_equally_often(use: float, epochs: int, seed: int) -> None:
    stream = Stream(Path("none"), np.ones(200), np.full(200, use, dtype=np.float32))
    counts = [stream.counts(epoch, (seed, 0)) for epoch in range(1, epochs + 1)]
    total = np.sum(counts, axis=0)
    assert total.max() - total.min() <= 1
    assert all(set(count) <= {int(use), int(use) + 1} for count in counts)
    # Each epoch has its share, and not only all together: 200 times the use, give or take what chance allows.
    assert all(abs(count.sum() - 200 * use) <= 40 for count in counts)


def test_measured_shares_are_those_asked_for(corpora: list[Path]) -> None:
    """By seconds, over many batches: with alpha 0 three dialects of different amounts get a third each."""
    config = replace(config_with(corpora, alpha=0.0), min_utterance_seconds=1.0)
    data = data_of(corpora, config, seed=3)
    available = data.selection.seconds_by_dialect
    assert max(available.values()) > 1.02 * min(available.values())
    seconds: Counter[str] = Counter()
    epochs = 30
    for epoch in range(1, epochs + 1):
        for batch in data.epoch(epoch):
            for dialect, length in zip(batch.dialects, batch.lengths.tolist(), strict=True):
                seconds[dialect] += length
    total = sum(seconds.values()) / 100
    assert total == pytest.approx(epochs * data.selection.seconds, rel=0.01)
    for dialect in available:
        assert seconds[dialect] / 100 / total == pytest.approx(1 / 3, rel=0.01)


def test_corpora_advance_together(corpora: list[Path]) -> None:
    data = data_of(corpora, config_with(corpora))
    whole = data.mixture.seconds_by_corpus()
    done = dict.fromkeys(corpora, 0.0)
    for line in data.mixture:
        done[line.directory] += line.duration
        shares = [used / seconds for used, seconds in zip(done.values(), whole, strict=True)]
        assert max(shares) - min(shares) <= 2 * max(2.0 / seconds for seconds in whole)
    assert list(done.values()) == pytest.approx(whole)


def test_repeated_utterances_come_one_pass_later(corpora: list[Path]) -> None:
    shares = [CorpusShare(str(corpora[2]), 0.05)]
    mixture = data_of(corpora, replace(DATA, mixing=MixingConfig(shares, corpus_alpha=0.0))).mixture
    own = [line.cut().id for line in mixture if line.directory == corpora[0]]
    counts = Counter(own)
    assert min(counts.values()) >= 3
    names = sorted(counts)
    assert sorted(own[:24]) == names  # all once, before any comes again
    assert sorted(own[24:48]) == names


@pytest.mark.parametrize("workers", [0, 2])
def test_the_mixture_resumes_with_the_same_batches(corpora: list[Path], workers: int) -> None:
    config = replace(config_with(corpora, alpha=0.3), num_workers=workers)
    whole = {}
    first = data_of(corpora, config, seed=5)
    for epoch in (1, 2, 3):
        whole[epoch] = [batch.ids for batch in first.epoch(epoch)]
    assert whole[1] != whole[2]
    again = data_of(corpora, config, seed=5)
    assert [batch.ids for batch in again.epoch(2, 4)] == whole[2][4:]
    assert [batch.ids for batch in again.epoch(3)] == whole[3]


def test_features_come_from_the_corpus_of_the_cut(corpora: list[Path]) -> None:
    """All three corpora have utterances of the same names."""
    data = data_of(corpora, config_with(corpora))
    frames = {(line.directory, line.cut().id): line.cut().load_features() for line in data.mixture}
    assert len(frames) > 120
    first = {name for directory, name in frames if directory == corpora[0]}
    for name in first & {name for directory, name in frames if directory == corpora[1]}:
        one, two = frames[corpora[0], name], frames[corpora[1], name]
        assert one.shape != two.shape or not np.array_equal(one, two)


def test_the_processes_share_one_mixture(corpora: list[Path]) -> None:
    config = config_with(corpora, alpha=0.3)
    alone = Counter(name for batch in data_of(corpora, config).epoch(2) for name in batch.ids)
    shared: Counter[str] = Counter()
    for rank in (0, 1):
        data = data_of(corpora, config, rank=rank, world_size=2)
        shared += Counter(name for batch in data.epoch(2) for name in batch.ids)
    # Lhotse gives the last batches of an epoch to one process twice, so that both have equally many.
    assert not alone - shared
    assert sum((shared - alone).values()) <= 16


def test_a_mixture_of_one_corpus_as_it_is_changes_nothing(corpora: list[Path]) -> None:
    plain = [batch.ids for batch in data_of(corpora, DATA).epoch(1)]
    neutral = replace(DATA, mixing=MixingConfig(max_repeats=3.0))
    assert [batch.ids for batch in data_of(corpora, neutral).epoch(1)] == plain


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 1.5}, r"data\.mixing\.alpha=1\.5 is not in"),
        ({"max_repeats": 0.5}, "max_repeats=0.5 is less than 1"),
        ({"weight": -1.0}, "weight of data.mixing is negative"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MixingConfig(**settings)  # type: ignore[arg-type]


def test_a_corpus_that_is_not_prepared_is_named(corpora: list[Path], tmp_path: Path) -> None:
    config = replace(DATA, mixing=MixingConfig(corpora=[CorpusShare(str(tmp_path / "none"))]))
    with pytest.raises(UserError, match=r"no manifest of cuts at .*none/cuts_train"):
        data_of(corpora, config)


def test_sentences_of_a_test_set_are_not_trained_on(corpora: list[Path], tmp_path: Path) -> None:
    """Also where another corpus has them."""
    cuts = list(read_cuts(corpora[2] / "cuts_train.jsonl.gz"))
    CutSet.from_cuts(cuts[:30]).to_file(tmp_path / "cuts_test.jsonl.gz")
    sentences = {cut.supervisions[0].text for cut in cuts[:30]}
    shares = [CorpusShare(str(corpus)) for corpus in corpora[1:]]
    config = replace(DATA, mixing=MixingConfig(shares), keep_out=[str(tmp_path)])
    data = data_of(corpora, config)
    used = [line.cut() for line in data.mixture]
    assert not sentences & {cut.supervisions[0].text for cut in used}
    dropped = data.selection.dropped["with a sentence of a test set (data.keep_out)"]
    assert len(dropped) >= 30
    assert sum(map(len, data.selection.dropped.values())) + len(used) == 24 + 60 + 120
    config.keep_out = [str(corpora[0])]
    with pytest.raises(UserError, match=r"cuts_test.jsonl.gz does not exist"):
        data_of(corpora, config)


def test_speakers_of_a_test_set_are_not_trained_on(corpora: list[Path], tmp_path: Path) -> None:
    """Speakers without a name are kept: nobody knows that they are those of the test set."""
    directories = []
    for name, prefix in (("one", "one-"), ("two", "two-")):
        cuts = list(read_cuts(corpora[1] / "cuts_train.jsonl.gz"))
        for number, cut in enumerate(cuts):
            cut.supervisions[0].speaker = f"{prefix}{number % 6}" if number % 10 else None
        (tmp_path / name).mkdir()
        CutSet.from_cuts(cuts).to_file(tmp_path / name / "cuts_train.jsonl.gz")
        directories.append(tmp_path / name)
    test = [cut for cut in cuts if cut.supervisions[0].speaker in (None, "two-2")]
    for cut in test:
        cut.supervisions[0].text = "no training text"
    CutSet.from_cuts(test).to_file(tmp_path / "two" / "cuts_test.jsonl.gz")
    mixing = MixingConfig([CorpusShare(str(directories[1]))])
    config = replace(DATA, mixing=mixing, keep_out=[str(directories[1])], keep_out_speakers=True)
    tokenizer = Tokenizer.load(corpora[0] / "tokens")
    data = TrainingData(directories[0] / "cuts_train.jsonl.gz", tokenizer, config)
    refused = [n for n in range(60) if n % 6 == 2 and n % 10]
    (ids,) = data.selection.dropped.values()
    assert ids == [cuts[number].id for number in refused]
    assert data.left_out_by_corpus == [
        f"{directories[1]}: left out {len(refused)} utterances, "
        "of a speaker of a test set (data.keep_out_speakers)"
    ]
    config.keep_out_speakers = False
    assert not TrainingData(directories[0] / "cuts_train.jsonl.gz", tokenizer, config).selection.dropped


def test_a_training_on_a_mixture_resumes_bit_by_bit(corpora: list[Path], tmp_path: Path) -> None:
    def run(exp_dir: Path, steps: int) -> None:
        config = config_for(corpora[0], exp_dir, max_steps=steps)
        config.data = config_with(corpora, alpha=0.3)
        trained(config)

    run(tmp_path / "straight", 30)
    for steps in (13, 30):
        torch.rand(3)
        run(tmp_path / "broken", steps)
    assert_same_run(tmp_path / "straight", tmp_path / "broken")


def write_synthetic(directory: Path, group: str, utterances: int, longest: float, seed: int) -> Path:
    """Training cuts without any files: the sampler reads durations only."""
    rng = np.random.default_rng(seed)
    directory.mkdir()
    with gzip.open(directory / "cuts_train.jsonl.gz", "wt", encoding="utf-8", compresslevel=1) as stream:
        for number, seconds in enumerate(rng.uniform(1.0, longest, utterances).round(2).tolist()):
            stream.write(
                f'{{"id": "{directory.name}-{number}", "start": 0, "duration": {seconds}, "channel": 0, '
                f'"supervisions": [{{"id": "s", "language": "{group}"}}], "type": "MonoCut"}}\n'
            )
    return directory / "cuts_train.jsonl.gz"


def sampled(mixture: Mixture, start: int, stop: int) -> Iterator[list[CutLine]]:
    """Batches ``start`` to ``stop`` of the training's sampler, over as many epochs as they need."""
    sampler = DynamicBucketingSampler(
        mixture,
        max_duration=40.0,
        num_buckets=5,
        buffer_size=2000,
        shuffle=True,
        seed=7,
        rank=0,
        world_size=1,
    )
    number = 0
    while number < stop:
        for batch in _epoch(sampler, mixture):
            if start <= number < stop:
                yield list(batch)
            number += 1
        mixture.epoch += 1


def _epoch(sampler: DynamicBucketingSampler, mixture: Mixture) -> Iterator[Any]:
    sampler.set_epoch(mixture.epoch)
    yield from sampler


def test_ten_thousand_batches_have_the_shares_asked_for_also_after_a_kill(tmp_path: Path) -> None:
    """By seconds: sizes 16 to 4 to 1 with alpha 1/2 become 4 to 2 to 1, though one corpus has long cuts."""
    kinds = (("cmn", 16000, 5.0), ("yue", 2000, 11.0), ("hak", 1000, 5.0))
    manifests = [write_synthetic(tmp_path / g, g, n, longest, i) for i, (g, n, longest) in enumerate(kinds)]
    selections = []
    for manifest, (group, _, _) in zip(manifests, kinds, strict=True):
        durations = [cut.duration for cut in read_summaries(manifest)]
        found = Selection(utterances=len(durations), seconds=sum(durations), places=[group])
        found.seconds_by_dialect[group] = found.seconds
        found.durations.extend(durations)
        found.numbers.extend([0] * len(durations))
        selections.append(found)
    config = MixingConfig([CorpusShare("yue"), CorpusShare("hak")], alpha=0.5)

    def mixture() -> Mixture:
        return Mixture(streams_of(manifests, selections, config), seed=7)

    seconds: Counter[str] = Counter()
    again: list[list[bytes]] = []
    for number, batch in enumerate(sampled(mixture(), 0, 10_000)):
        for line in batch:
            seconds[line.directory.name] += line.duration  # type: ignore[assignment]
        if 2_400 <= number < 2_500:
            again.append([line.line for line in batch])
    roots = {group: s.seconds**0.5 for (group, _, _), s in zip(kinds, selections, strict=True)}
    for group, root in roots.items():
        assert seconds[group] / seconds.total() == pytest.approx(root / sum(roots.values()), rel=0.01)
    assert [[line.line for line in batch] for batch in sampled(mixture(), 2_400, 2_500)] == again
