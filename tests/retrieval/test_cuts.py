from itertools import pairwise

import numpy as np
import pytest
import soundfile
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.utils import fastcopy
from stored_cuts import Spoken, write_cuts

from retrieval.embedding import cuts as cuts_module
from retrieval.embedding.cuts import (
    EmbedConfig,
    batches,
    collate,
    collate_audio,
    embed_cuts,
    labels_of,
)
from retrieval.embedding.embedder import Embedder, EmbedderKind
from retrieval.embedding.huggingface import HuggingFaceConfig
from retrieval.embedding.store import EmbeddingStore, EmbeddingWriter
from zipformer.data.cuts import find_manifest, read_cuts
from zipformer.errors import UserError


class SumsEmbedder(Embedder):
    """Every second frame, first two bins; remembers its batches."""

    name = "sums"
    dimension = 2
    minimum_frames = 3

    def __init__(self):
        self.batches = []

    def embed(self, features, lengths):
        self.batches.append((tuple(features.shape), lengths.tolist()))
        return [row[:length:2, :2].numpy() for row, length in zip(features, lengths.tolist(), strict=True)]


class LevelEmbedder(Embedder):
    """One frame an utterance: mean and greatest sample."""

    name = "level"
    dimension = 2
    sampling_rate = 16000
    minimum_frames = 3
    maximum_frames = 300

    def embed(self, batch, lengths):
        rows = [row[:length] for row, length in zip(batch, lengths.tolist(), strict=True)]
        return [np.array([[row.mean(), row.max()]], dtype=np.float32) for row in rows]


def recorded(folder, seconds, *, rate=16000, level=0.5, name="r"):
    """A cut of a constant tone of samples, with a supervision and no features."""
    path = folder / f"{name}.wav"
    soundfile.write(path, np.full(round(seconds * rate), level), rate, subtype="FLOAT")
    recording = Recording.from_file(path, recording_id=name)
    supervision = SupervisionSegment(name, name, 0, recording.duration, text="甲", language="yue")
    return MonoCut(name, 0, recording.duration, 0, recording=recording, supervisions=[supervision])


def spoken(count=6, **labels):
    random = np.random.default_rng(0)
    return [
        Spoken(f"u{n}", random.standard_normal((10 + 7 * ((5 * n) % count), 80)), **labels)
        for n in range(count)
    ]


def writer(directory):
    return EmbeddingWriter(directory, dimension=2, dtype="float32", embedder="sums", fingerprint="x")


def test_every_utterance_with_its_labels(tmp_path):
    items = spoken(subdialect="cmn-x", site="here", sentence_id="s1")
    cuts = read_cuts(find_manifest(write_cuts(tmp_path, "test", items), "test"))
    embedder = SumsEmbedder()
    with writer(tmp_path / "store") as store:
        assert embed_cuts(cuts, embedder, store, batch_seconds=1.0) == 6
    assert len(embedder.batches) > 1
    read = EmbeddingStore(tmp_path / "store")
    for item in items:
        np.testing.assert_allclose(
            read[item.utterance_id], item.features[::2, :2].astype(np.float32), rtol=1e-6
        )
        entry = read.utterances[item.utterance_id]
        assert (entry.dialect, entry.subdialect, entry.site, entry.sentence_id) == (
            "cmn",
            "cmn-x",
            "here",
            "s1",
        )


def test_ids_may_be_numbers_and_0_is_one():
    for given, read in ((0, "0"), (7, "7"), ("0", "0"), ("", ""), (None, "")):
        custom = {"sentence_id": given, "site": given}
        supervision = SupervisionSegment("u", "u", 0, 1, text="甲", language="yue", custom=custom)
        labels = labels_of(MonoCut("u", 0, 1, 0, supervisions=[supervision]))
        assert (labels.sentence_id, labels.site, labels.subdialect) == (read, read, "")


def test_only_what_is_left_is_embedded(tmp_path):
    cuts = read_cuts(find_manifest(write_cuts(tmp_path, "test", spoken()), "test"))
    with writer(tmp_path / "store") as store:
        store.add("u2", np.zeros((1, 2)), dialect="cmn")
        assert embed_cuts(cuts, SumsEmbedder(), store) == 5
    read = EmbeddingStore(tmp_path / "store")
    assert set(read.utterances) == {f"u{n}" for n in range(6)}
    np.testing.assert_array_equal(read["u2"], np.zeros((1, 2)))


@pytest.mark.parametrize(("seconds", "sizes"), [(0, {1}), (0.5, {1, 2}), (1000, {6})])
def test_batches_are_within_the_limit_and_of_like_length(tmp_path, seconds, sizes):
    cuts = read_cuts(find_manifest(write_cuts(tmp_path, "test", spoken()), "test"))
    result = list(batches(cuts, seconds))
    assert {len(batch) for batch in result} == sizes
    durations = [cut.duration for batch in result for cut in batch]
    assert durations == sorted(durations)
    assert all(len(batch) == 1 or len(batch) * batch[-1].duration <= seconds for batch in result)


def test_batches_read_a_window_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(cuts_module, "WINDOW", 4)
    cuts = read_cuts(find_manifest(write_cuts(tmp_path, "test", spoken()), "test"))
    read = 0

    def counted():
        nonlocal read
        for cut in cuts:
            read += 1
            yield cut

    stream = batches(counted(), 0)
    first = [next(stream)[0] for _ in range(4)]
    assert read == 4
    assert {cut.id for cut in first} == {"u0", "u1", "u2", "u3"}
    assert {batch[0].id for batch in stream} == {"u4", "u5"}


def test_collated_features_are_padded_with_silence(tmp_path):
    items = spoken(3)
    cuts = read_cuts(find_manifest(write_cuts(tmp_path, "test", items), "test"))
    features, lengths = collate(sorted(cuts, key=lambda cut: cut.id), margin=20)
    assert features.shape[1] == max(lengths) + 20
    assert lengths.tolist() == [len(item.features) for item in items]
    for row, item in zip(features.numpy(), items, strict=True):
        np.testing.assert_allclose(row[: len(item.features)], item.features, rtol=1e-6)
        assert (row[len(item.features) :] == np.float32(np.log(1e-10))).all()
    assert all(a <= b for a, b in pairwise(sorted(lengths.tolist())))


def embed_one(tmp_path, items, change=lambda cuts: cuts):
    cuts = read_cuts(find_manifest(write_cuts(tmp_path, "test", items), "test"))
    embedder = SumsEmbedder()
    try:
        with writer(tmp_path / "store") as store:
            embed_cuts(change(cuts), embedder, store)
    finally:
        assert not embedder.batches  # found before any work


def test_utterances_that_cannot_be_embedded_are_named(tmp_path):
    short = [*spoken(2), Spoken("tiny", np.zeros((2, 80)))]
    with pytest.raises(ValueError, match="cut tiny has 2 frames of features, sums needs 3"):
        embed_one(tmp_path / "a", short)
    with pytest.raises(ValueError, match="cut u0 has no stored features"):
        embed_one(tmp_path / "b", spoken(2), lambda cuts: [fastcopy(cut, features=None) for cut in cuts])
    with pytest.raises(ValueError, match="cut u0 is there twice"):
        embed_one(tmp_path / "c", spoken(2), lambda cuts: [*cuts, *cuts])
    with pytest.raises(ValueError, match="cut u0 has no dialect"):
        embed_one(tmp_path / "d", spoken(1, dialect=None))
    with pytest.raises(ValueError, match="cut u0 has 0 supervisions"):
        embed_one(tmp_path / "e", spoken(1), lambda cuts: [cut.drop_supervisions() for cut in cuts])
    with pytest.raises(ValueError, match="there are no cuts"):
        embed_one(tmp_path / "f", spoken(1), lambda cuts: [])


def test_missing_split_lists_those_there_are(tmp_path):
    write_cuts(tmp_path, "valid", spoken(1))
    with pytest.raises(UserError, match=r"cuts_test\.jsonl\.gz does not exist; the splits there are valid "):
        find_manifest(tmp_path, "test")


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="storage=int8 is not known; choose one of float32, float16"):
        EmbedConfig(model_dir="m", data_dir="d", storage="int8")
    with pytest.raises(ValueError, match="batch_seconds=-1 is negative"):
        EmbedConfig(model_dir="m", data_dir="d", batch_seconds=-1)


def test_audio_is_resampled_and_padded_with_silence(tmp_path):
    cuts = [recorded(tmp_path, 0.5, rate=8000, name="a"), recorded(tmp_path, 0.25, level=0.25, name="b")]
    samples, lengths = collate_audio(cuts, 16000)
    assert lengths.tolist() == [8000, 4000]
    assert samples.shape == (2, 8000)
    np.testing.assert_allclose(samples[0, 1000:-1000].numpy(), 0.5, atol=1e-3)
    np.testing.assert_allclose(samples[1, :4000].numpy(), 0.25, atol=1e-6)
    assert not samples[1, 4000:].any()


def test_part_of_a_recording_is_that_part_of_its_audio(tmp_path):
    samples = np.concatenate([np.full(16000, 0.25), np.full(16000, -0.5)])
    soundfile.write(tmp_path / "two.wav", samples, 16000, subtype="FLOAT")
    whole = MonoCut("two", 0, 2.0, 0, recording=Recording.from_file(tmp_path / "two.wav"))
    audio, lengths = collate_audio([whole.truncate(offset=1.0, duration=0.5)], 16000)
    assert lengths.tolist() == [8000]
    np.testing.assert_allclose(audio[0].numpy(), -0.5)


def test_audio_is_embedded_without_features(tmp_path):
    cuts = [recorded(tmp_path, 0.1 * n, level=0.1 * n, name=f"u{n}") for n in range(1, 5)]
    with writer(tmp_path / "store") as store:
        assert embed_cuts(cuts, LevelEmbedder(), store, batch_seconds=0.5) == 4
    read = EmbeddingStore(tmp_path / "store")
    for n in range(1, 5):
        np.testing.assert_allclose(read[f"u{n}"], [[0.1 * n, 0.1 * n]], rtol=1e-5)
    assert read.utterances["u1"].dialect == "yue"


def test_recordings_that_cannot_be_heard_are_named(tmp_path):
    def attempt(cut, folder):
        with writer(tmp_path / folder) as store:
            embed_cuts([cut], LevelEmbedder(), store)

    with pytest.raises(ValueError, match="cut r has no recording, which level needs"):
        attempt(fastcopy(recorded(tmp_path, 1), recording=None), "a")
    with pytest.raises(ValueError, match=r"cut r lasts 3\.5 s, level hears 3 s at a time"):
        attempt(recorded(tmp_path, 3.5), "b")
    with pytest.raises(ValueError, match="cut r has 2 frames of features, level needs 3"):
        attempt(recorded(tmp_path, 0.02), "c")
    gone = recorded(tmp_path, 1)
    (tmp_path / "r.wav").unlink()
    with pytest.raises(ValueError, match="the recording of cut r cannot be read"):
        attempt(gone, "d")


def test_folders_and_options_of_embedders(tmp_path):
    def config(**settings):
        return EmbedConfig(model_dir="m", data_dir="d", **settings)

    assert config().folder.name == "embeddings-test"
    assert config(embedder=EmbedderKind.duration).folder.name == "embeddings-test-duration"
    whisper = HuggingFaceConfig("openai/whisper-small")
    hugging = config(embedder=EmbedderKind.huggingface, huggingface=whisper, layer=3)
    assert hugging.folder.name == "embeddings-test-whisper-small-layer03"
    assert hugging.options["model"] == "openai/whisper-small"
    # Settings of other embedders make no embeddings stale.
    assert config(seed=1).options == config(seed=2).options
    random = EmbedderKind.random
    assert config(embedder=random, seed=1).options != config(embedder=random, seed=2).options
    with pytest.raises(ValueError, match=r"embedder=huggingface needs huggingface\.model=NAME"):
        config(embedder=EmbedderKind.huggingface)
    assert config(layer=3).folder.name == "embeddings-test-layer03"
    with pytest.raises(ValueError, match="layer=3 is a layer of an encoder; embedder=mfcc has none"):
        config(embedder=EmbedderKind.mfcc, layer=3)
