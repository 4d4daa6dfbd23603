import logging
import multiprocessing
import os
import shutil
import signal
from dataclasses import fields
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import numpy as np
import pytest
from lhotse import CutSet
from tiny_corpus import write_tiny_corpus

from zipformer.data import batches, line_index, selection_index
from zipformer.data.batches import TrainingData
from zipformer.data.manifest import read_summaries
from zipformer.data.selection import DataConfig, Selection, select_utterances
from zipformer.data.selection_index import SELECTIONS_FOLDER, indexed_selection
from zipformer.data.tokenizer import Tokenizer

CONFIG = DataConfig(min_utterance_seconds=1.0, max_utterance_seconds=1.7, num_workers=0)
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_corpus(tmp_path_factory.mktemp("prepared"), utterances=120)


@pytest.fixture
def corpus(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus of which even a short manifest gets an index."""
    monkeypatch.setattr(selection_index, "INDEXED_BYTES", 0)
    return Path(shutil.copytree(prepared, tmp_path / "corpus"))


def indexed(corpus: Path, config: DataConfig = CONFIG, kept_out: frozenset[str] = frozenset()) -> Selection:
    manifest, tokenizer = corpus / "cuts_train.jsonl.gz", Tokenizer.load(corpus / "tokens")
    return indexed_selection(manifest, config, tokenizer, repeats_need_blank=True, kept_out=kept_out)


def direct(corpus: Path, config: DataConfig = CONFIG, kept_out: frozenset[str] = frozenset()) -> Selection:
    manifest, tokenizer = corpus / "cuts_train.jsonl.gz", Tokenizer.load(corpus / "tokens")
    return select_utterances(
        read_summaries(manifest), config, tokenizer, repeats_need_blank=True, kept_out=kept_out
    )


def assert_same(found: Selection, expected: Selection) -> None:
    for field in fields(Selection):
        value, other = getattr(found, field.name), getattr(expected, field.name)
        if field.name == "line_index":
            continue  # where the index lies
        if field.name in ("durations", "numbers"):
            assert np.asarray(value).dtype == np.asarray(other).dtype
            np.testing.assert_array_equal(value, other)
        else:
            assert value == other, field.name
    # Sums of floats depend on the order in which dialects appeared.
    assert list(found.seconds_by_dialect.items()) == list(expected.seconds_by_dialect.items())
    assert list(found.dropped) == list(expected.dropped)


def count_passes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Manifests that are read from here on, one entry for each pass."""
    passes: list[Path] = []

    def read(path: Path) -> object:
        passes.append(path)
        return read_summaries(path)

    monkeypatch.setattr(selection_index, "read_summaries", read)
    return passes


def test_second_start_maps_what_the_first_selected(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = count_passes(monkeypatch)
    expected = direct(corpus)
    assert 0 < expected.utterances < 120
    assert_same(indexed(corpus), expected)
    found = indexed(corpus)
    assert_same(found, expected)
    assert isinstance(found.durations, np.memmap)
    assert len(passes) == 1


def test_batches_are_the_same_with_and_without_index(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DataConfig(max_duration=10.0, num_workers=0)
    monkeypatch.setattr(selection_index, "INDEXED_BYTES", 1 << 20)
    manifest, tokenizer = corpus / "cuts_train.jsonl.gz", Tokenizer.load(corpus / "tokens")
    expected = [batch.ids for batch in TrainingData(manifest, tokenizer, config).epoch(2)]
    assert not (corpus / SELECTIONS_FOLDER).exists()  # a short manifest has no index
    monkeypatch.setattr(selection_index, "INDEXED_BYTES", 0)
    for _ in range(2):
        data = TrainingData(manifest, tokenizer, config)
        assert [batch.ids for batch in data.epoch(2)] == expected
        assert [batch.ids for batch in data.epoch(2, first_batch=3)] == expected[3:]
    assert isinstance(data.selection.durations, np.memmap)


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_epoch_is_resumed_from_a_state_with_lines_of_the_middle(
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    index: bool,
    num_workers: int,
) -> None:
    monkeypatch.setattr(selection_index, "INDEXED_BYTES", 0 if index else 1 << 20)
    monkeypatch.setattr(line_index, "_STEP_BYTES", 2000)
    monkeypatch.setattr(batches, "STATE_INTERVAL", 4)
    caplog.set_level(logging.INFO)
    config = DataConfig(max_duration=6.0, num_workers=num_workers, buffer_size=30, num_buckets=3)
    manifest, tokenizer = corpus / "cuts_train.jsonl.gz", Tokenizer.load(corpus / "tokens")
    expected = [batch.ids for batch in TrainingData(manifest, tokenizer, config).epoch(2)]
    used = 11
    first = TrainingData(manifest, tokenizer, config)
    epoch = first.epoch(2)
    assert [next(epoch).ids for _ in range(used)] == expected[:used]
    state = first.state(2, used)
    assert state is not None
    assert state["batch"] == 8
    assert first.state(1, used) is None
    assert first.state(3, used) is None

    second = TrainingData(manifest, tokenizer, config)
    starts: list[int] = []
    lines_from = line_index.LineIndex.lines_from
    monkeypatch.setattr(
        line_index.LineIndex, "lines_from", lambda self, n: (starts.append(n), lines_from(self, n))[1]
    )
    second.restore(state)
    assert [batch.ids for batch in second.epoch(2, first_batch=used)] == expected[used:]
    assert starts == [state["sampler"]["reader"]["next"][0][1]]
    assert starts[0] >= 30
    assert "sampled again" not in caplog.text

    config.num_buckets = 2  # what the state holds are other buckets
    other = TrainingData(manifest, tokenizer, config)
    whole = [batch.ids for batch in other.epoch(2)]
    other = TrainingData(manifest, tokenizer, config)
    other.restore(state)
    assert [batch.ids for batch in other.epoch(2, first_batch=used)] == whole[used:]
    assert "Epoch 2 is sampled again up to batch 11" in caplog.text


def test_other_settings_and_texts_are_selected_anew(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    indexed(corpus)
    passes = count_passes(monkeypatch)
    other = DataConfig(min_utterance_seconds=1.2, max_utterance_seconds=1.7)
    assert_same(indexed(corpus, other), direct(corpus, other))
    text = next(iter(read_summaries(corpus / "cuts_train.jsonl.gz"))).supervisions[0].text or ""
    assert_same(indexed(corpus, kept_out=frozenset([text])), direct(corpus, kept_out=frozenset([text])))
    assert len(passes) == 2
    indexed(corpus, DataConfig(min_utterance_seconds=1.0, max_utterance_seconds=1.7, max_duration=50.0))
    assert len(passes) == 2  # the size of batches selects nothing


def test_rewritten_manifest_is_selected_anew(corpus: Path) -> None:
    """Same name, same time: only what is in the file tells."""
    manifest = corpus / "cuts_train.jsonl.gz"
    indexed(corpus)
    before = manifest.stat()
    old = [entry.name for entry in (corpus / SELECTIONS_FOLDER).iterdir() if entry.is_dir()]
    cuts = CutSet.from_file(manifest).to_eager()
    CutSet.from_cuts(list(cuts)[:60]).to_file(manifest)
    os.utime(manifest, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert_same(indexed(corpus), direct(corpus))
    new = [entry.name for entry in (corpus / SELECTIONS_FOLDER).iterdir() if entry.is_dir()]
    assert len(old) == len(new) == 1
    assert old != new  # the old one is removed


@pytest.mark.parametrize("name", ["selection.json", "durations.npy", "numbers.npy", "places.gzidx"])
@pytest.mark.parametrize("damage", ["changed", "short", "missing"])
def test_damaged_index_is_made_again(
    corpus: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    indexed(corpus)
    (file,) = (corpus / SELECTIONS_FOLDER).glob(f"*/{name}")
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        middle = len(content) // 2
        end = b"" if damage == "short" else bytes([content[middle] ^ 1]) + content[middle + 1 :]
        file.write_bytes(content[:middle] + end)
    with caplog.at_level(logging.WARNING):
        assert_same(indexed(corpus), direct(corpus))
    assert "is damaged" in caplog.text
    caplog.clear()
    assert_same(indexed(corpus), direct(corpus))
    assert not caplog.records


def test_kill_while_the_index_is_written_leaves_none(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed() -> None:
        monkeypatch.setattr(selection_index, "write_json", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        indexed(corpus)

    process = FORK.Process(target=killed)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert not list((corpus / SELECTIONS_FOLDER).glob("[!.]*"))
    assert_same(indexed(corpus), direct(corpus))
    assert [path.name for path in (corpus / SELECTIONS_FOLDER).glob(".*")] == [".lock"]


def _report(corpus: Path, results: "SimpleQueue[tuple[int, str]]") -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        passes = count_passes(monkeypatch)
        digest = indexed(corpus).digest
        results.put((len(passes), digest))


def test_of_several_processes_one_reads_the_manifest(corpus: Path) -> None:
    results: SimpleQueue[tuple[int, str]] = FORK.SimpleQueue()
    processes = [FORK.Process(target=_report, args=(corpus, results)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get() for _ in processes]
    for process in processes:
        process.join(30)
    assert sorted(passes for passes, _ in found) == [0, 0, 1]
    assert {digest for _, digest in found} == {direct(corpus).digest}


def test_folder_that_cannot_be_written_means_no_index(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    (corpus / SELECTIONS_FOLDER).write_text("a file where the folder would be")
    with caplog.at_level(logging.WARNING):
        assert_same(indexed(corpus), direct(corpus))
    assert "no index" in caplog.text
