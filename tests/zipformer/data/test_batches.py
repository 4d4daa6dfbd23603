import errno
import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet, LilcomChunkyWriter
from lhotse.utils import fastcopy
from tiny_corpus import make_cut, tiny_model_config, write_tiny_corpus

from zipformer.data.augment import SpecAugmentConfig
from zipformer.data.batches import PADDING_VALUE, Batch, TrainingData, evaluation_batches
from zipformer.data.cuts import encoder_frames, read_cuts
from zipformer.data.selection import DataConfig, select_utterances
from zipformer.data.tokenizer import Tokenizer
from zipformer.errors import UserError
from zipformer.model import AsrModel


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_corpus(tmp_path_factory.mktemp("corpus"))


def training_data(corpus: Path, *, rank: int = 0, world_size: int = 1, **settings: object) -> TrainingData:
    config = DataConfig(**{"max_duration": 8.0, "num_workers": 0, **settings})  # type: ignore[arg-type]
    return TrainingData(
        corpus / "cuts_train.jsonl.gz",
        Tokenizer.load(corpus / "tokens"),
        config,
        rank=rank,
        world_size=world_size,
    )


def same(left: Batch, right: Batch) -> bool:
    return (
        left.ids == right.ids and torch.equal(left.features, right.features) and left.tokens == right.tokens
    )


def test_an_epoch_has_every_utterance_once_and_epochs_differ(corpus: Path) -> None:
    data = training_data(corpus)
    first, second = ([name for batch in data.epoch(epoch) for name in batch.ids] for epoch in (1, 2))
    assert sorted(first) == sorted(second) == [f"train-{index:03d}" for index in range(24)]
    assert first != second


def test_batches_hold_padded_features_and_tokens(corpus: Path) -> None:
    data = training_data(corpus, spec_augment=SpecAugmentConfig(probability=0.0))
    tokenizer = Tokenizer.load(corpus / "tokens")
    cuts = {cut.id: cut for cut in read_cuts(corpus / "cuts_train.jsonl.gz")}
    for batch in data.epoch(1):
        assert sum(cuts[name].duration for name in batch.ids) <= 8.0
        assert batch.seconds == pytest.approx(sum(cuts[name].duration for name in batch.ids))
        for row, name in enumerate(batch.ids):
            length = int(batch.lengths[row])
            assert torch.equal(batch.features[row, :length], torch.from_numpy(cuts[name].load_features()))
            assert torch.all(batch.features[row, length:] == PADDING_VALUE)
            assert batch.texts[row] == cuts[name].supervisions[0].text
            assert batch.dialects[row] == cuts[name].supervisions[0].language
            assert tokenizer.decode(batch.tokens[row]) == batch.texts[row]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_skipping_gives_the_rest_of_the_same_epoch(corpus: Path, num_workers: int) -> None:
    expected = list(training_data(corpus).epoch(3))
    data = training_data(corpus, num_workers=num_workers)
    next(iter(data.epoch(1)))  # an epoch that was left early must not matter
    rest = list(data.epoch(3, first_batch=2))
    assert len(rest) == len(expected) - 2
    assert all(same(*pair) for pair in zip(rest, expected[2:], strict=True))
    whole = list(data.epoch(3))
    assert all(same(*pair) for pair in zip(whole, expected, strict=True))


def test_batches_travel_by_value(corpus: Path) -> None:
    """Not as names of shared memory, of which containers have little: the message holds all the numbers."""
    batch = next(training_data(corpus).epoch(1))
    message = bytes(ForkingPickler.dumps(batch))
    assert len(message) > batch.features.nbytes
    copy = pickle.loads(message)
    assert same(copy, batch)
    assert torch.equal(copy.lengths, batch.lengths)
    copy.features += 1  # its own memory, and writable


def test_without_room_for_workers_the_remedy_is_named(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    data = training_data(corpus, num_workers=1)
    monkeypatch.setattr(data._loader, "_get_iterator", full)
    with pytest.raises(UserError, match=r"No space left on device.*/dev/shm.*data.num_workers=0"):
        data.epoch(1)


def test_the_digest_tells_texts_apart(corpus: Path) -> None:
    def digest(change: str) -> str:
        cuts = list(read_cuts(corpus / "cuts_train.jsonl.gz"))
        if change == "text":
            cuts[5].supervisions[0].text = "一"
        if change == "order":
            cuts[0], cuts[1] = cuts[1], cuts[0]
        tokenizer = Tokenizer.load(corpus / "tokens")
        return select_utterances(cuts, DataConfig(), tokenizer, repeats_need_blank=True).digest

    assert digest("nothing") == training_data(corpus).selection.digest
    assert len({digest(change) for change in ("nothing", "text", "order")}) == 3


def test_iterating_draws_nothing_from_the_global_generator(corpus: Path) -> None:
    data = training_data(corpus)
    before = torch.get_rng_state()
    list(data.epoch(1))
    assert torch.equal(before, torch.get_rng_state())


def test_processes_share_an_epoch(corpus: Path) -> None:
    parts = [list(training_data(corpus, rank=rank, world_size=2).epoch(1)) for rank in range(2)]
    assert len(parts[0]) == len(parts[1])
    names = [name for part in parts for batch in part for name in batch.ids]
    assert len(set(names)) == 24


def test_unusable_utterances_are_counted_by_reason(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kinds = {  # name: frames, text
        "good": (100, "一二三"),
        "short": (30, "一"),
        "long": (900, "一"),
        "silent": (100, ""),
        "crowded": (60, "一二三四五六七八九十一二三四五"),
        "exact": (71, "一二三四五六七八九十一二三四五六"),
        "repeats": (71, "一一三四五六七八九十一二三四五六"),
    }
    with LilcomChunkyWriter(str(tmp_path / "feats")) as storage:
        cuts = [
            make_cut(name, rng.normal(size=(frames, 80)).astype(np.float32), text, "cmn", storage)
            for name, (frames, text) in kinds.items()
        ]
    cuts.append(fastcopy(cuts[0], id="bare", features=None))
    cuts.append(fastcopy(cuts[0], id="unlabelled", supervisions=[]))
    write_tiny_corpus(tmp_path)
    config = DataConfig(min_utterance_seconds=0.5, max_utterance_seconds=5.0)
    tokenizer = Tokenizer.load(tmp_path / "tokens")
    selection = select_utterances(CutSet.from_cuts(cuts), config, tokenizer, repeats_need_blank=True)
    assert encoder_frames(71) == 16
    assert dict(selection.dropped) == {
        "shorter than 0.5 s (data.min_utterance_seconds)": ["short"],
        "longer than 5 s (data.max_utterance_seconds)": ["long"],
        "not exactly one transcript": ["silent", "unlabelled"],
        "fewer encoder frames than tokens": ["crowded", "repeats"],
        "no features": ["bare"],
    }
    assert selection.utterances == 2
    assert selection.seconds == pytest.approx(1.71)
    assert selection.seconds_by_dialect["cmn"] == pytest.approx(1.71)
    without_ctc = select_utterances(CutSet.from_cuts(cuts), config, tokenizer, repeats_need_blank=False)
    assert without_ctc.dropped["fewer encoder frames than tokens"] == ["crowded"]


def test_dropped_utterances_are_not_in_batches(corpus: Path) -> None:
    cuts = {cut.id: cut.duration for cut in read_cuts(corpus / "cuts_train.jsonl.gz")}
    data = training_data(corpus, max_utterance_seconds=1.5)
    names = {name for batch in data.epoch(1) for name in batch.ids}
    assert names == {name for name, duration in cuts.items() if duration <= 1.5}
    assert sum(map(len, data.selection.dropped.values())) == 24 - len(names) > 0


def test_dialects_can_be_left_out(corpus: Path) -> None:
    data = training_data(corpus, left_out_dialects=["yue", "nan"])
    assert {dialect for batch in data.epoch(1) for dialect in batch.dialects} == {"cmn"}
    assert set(data.selection.seconds_by_dialect) == {"cmn"}
    assert [reason for reason in data.selection.dropped if "left out" in reason] == [
        "of a dialect that is left out (data.left_out_dialects)"
    ]


def test_a_dialect_to_leave_out_must_be_there(corpus: Path) -> None:
    with pytest.raises(ValueError, match=r"left_out_dialects names yueh, .* groups among cmn, nan, yue"):
        training_data(corpus, left_out_dialects=["cmn", "yueh"])


def test_every_utterance_must_have_the_fields_that_are_learnt(corpus: Path, tmp_path: Path) -> None:
    cuts = list(read_cuts(corpus / "cuts_train.jsonl.gz"))
    for index, cut in enumerate(cuts):
        cut.supervisions[0].custom = {} if index == 20 else {"translation": "一"}
    manifest = tmp_path / "cuts_train.jsonl.gz"
    CutSet.from_cuts(cuts).to_file(manifest)
    tokenizer, config = Tokenizer.load(corpus / "tokens"), DataConfig(num_workers=0)
    with pytest.raises(ValueError, match=r"utterance train-020 has no 'translation'"):
        TrainingData(manifest, tokenizer, config, translation="translation")
    with pytest.raises(ValueError, match=r"utterance train-000 has no 'english'"):
        TrainingData(manifest, tokenizer, config, fields=["english"])
    assert TrainingData(manifest, tokenizer, config, fields=["text"]).selection.utterances == 24


def test_nothing_left_is_an_error(corpus: Path) -> None:
    with pytest.raises(ValueError, match=r"24 shorter than 10 s \(data.min_utterance_seconds\)"):
        training_data(corpus, min_utterance_seconds=10.0)


def test_missing_manifest_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cuts_train.jsonl.gz.*prepare"):
        read_cuts(tmp_path / "cuts_train.jsonl.gz")


def test_evaluation_has_every_utterance_once_longest_first(corpus: Path) -> None:
    cuts = read_cuts(corpus / "cuts_valid.jsonl.gz")
    batches = list(evaluation_batches(cuts, margin=20, max_duration=4.0))
    assert sorted(name for batch in batches for name in batch.ids) == [
        f"valid-{index:03d}" for index in range(6)
    ]
    lengths = torch.cat([batch.lengths for batch in batches]).tolist()
    assert lengths == sorted(lengths, reverse=True)
    assert all(len(batch.ids) == 1 or batch.seconds <= 4.0 for batch in batches)
    assert batches[0].tokens == [[]] * len(batches[0].ids)


def test_an_utterance_is_encoded_the_same_whatever_is_beside_it(corpus: Path) -> None:
    cuts = read_cuts(corpus / "cuts_valid.jsonl.gz")
    torch.manual_seed(0)
    encoder = AsrModel(tiny_model_config(vocab_size=5)).eval().encode
    together, alone = {}, {}
    for encoded, max_duration in ((together, 300.0), (alone, 0.01)):
        for batch in evaluation_batches(cuts, margin=20, max_duration=max_duration):
            frames, lengths = encoder(batch.features, batch.lengths)
            for name, row, length in zip(batch.ids, frames, lengths.tolist(), strict=True):
                encoded[name] = row[:length].detach()
    assert len(alone) == len(together) == 6
    for name, frames in alone.items():
        torch.testing.assert_close(together[name], frames, rtol=1e-4, atol=1e-4)


def test_encoder_frames_is_what_the_model_gives() -> None:
    lengths = torch.arange(9, 40)
    model = AsrModel(tiny_model_config(vocab_size=5)).eval()
    _, frame_lengths = model.encode(torch.randn(len(lengths), 39, 80), lengths)
    assert frame_lengths.tolist() == [encoder_frames(length) for length in lengths.tolist()]
