"""A published encoder with its published weights, as an embedder and as a control."""

import json
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet, Recording
from lhotse.utils import fastcopy
from small_model import write_cuts, write_model

from data_prep.corpora.mini.acoustics import Room
from data_prep.corpora.mini.unit import Line, Unit
from data_prep.corpora.mini.voices import Speaker
from data_prep.corpora.mini.workers import run_units
from retrieval.embedding import speech_embedding
from retrieval.embedding.cuts import EmbedConfig, collate_audio
from retrieval.embedding.embedder import EmbedderKind
from retrieval.embedding.speech_embedding import SpeechEmbeddingEmbedder, load
from retrieval.embedding.store import EmbeddingStore, fingerprint
from retrieval.similarity.seqsim import pack, seqsim_packed
from zipformer.data.dataset import read_dataset

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
INSTALL = r"pip install 'fangyan\[speech-embedding\]'"
SENTENCES = ("ts.A55N s.i.51 xo-35", "ni214 xAu214", "s.i.51 tsh@55N tA51")
SPEAKERS = {"yue": Speaker("m3", 160, 50, 80), "wuu": Speaker("f3", 175, 55, 80)}
ROOM = Room(reverberation_seconds=0.2, wet=0.2, snr_decibels=30.0, noise_tilt=0.5, seed=3)


@pytest.fixture(scope="module")
def embedder() -> SpeechEmbeddingEmbedder:
    pytest.importorskip("onnxruntime")
    if find_spec("openwakeword") is None:
        pytest.skip("openwakeword is not installed")
    return load()[0]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three sentences by two voices, 16 kHz: ``yue-0``, ``wuu-0``, ``yue-1``, ..."""
    pytest.importorskip("espeakng_loader")
    folder = tmp_path_factory.mktemp("speech")
    lines = [
        Line(f"{site}-{number}", phonemes, speaker)
        for number, phonemes in enumerate(SENTENCES)
        for site, speaker in SPEAKERS.items()
    ]
    run_units({folder / "unit": Unit("cmn", ROOM, 5, tuple(lines))}, 1)
    return {line.id: folder / "unit" / f"{line.id}.wav" for line in lines}


@pytest.fixture(scope="module")
def data_dir(recordings: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recordings as a corpus: two sites, three sentences, random features of the same duration."""
    folder = tmp_path_factory.mktemp("corpus") / "data"
    folder.mkdir()
    recorded = [Recording.from_file(path) for path in recordings.values()]
    drawn = write_cuts(folder, "test", [int(100 * recording.duration) for recording in recorded])
    cuts = []
    for name, recording, cut in zip(recordings, recorded, sorted(drawn, key=lambda cut: cut.id), strict=True):
        site, number = name.split("-")
        supervision = fastcopy(
            cut.supervisions[0],
            language=site,
            custom={"subdialect": site, "site": site, "sentence_id": number},
        )
        cuts.append(fastcopy(cut, id=name, recording=recording, supervisions=[supervision]))
    CutSet.from_cuts(cuts).to_file(folder / "cuts_test.jsonl.gz")
    return folder


def frames_of(embedder: SpeechEmbeddingEmbedder, samples: np.ndarray) -> np.ndarray:
    """Embeddings (T',96) of one utterance (T,)."""
    batch = torch.from_numpy(samples.astype(np.float32))[None]
    return embedder.embed(batch, torch.tensor([len(samples)]))[0]


def sound(samples: int, seed: int = 0) -> np.ndarray:
    """Noise with a beat, at the level of speech."""
    beat = 1 + np.sin(np.arange(samples) / 500)
    return 0.05 * beat * np.random.default_rng(seed).standard_normal(samples)


def test_a_frame_for_every_80_ms_begun(embedder: SpeechEmbeddingEmbedder) -> None:
    for samples, frames in ((1, 1), (160, 1), (1280, 1), (1281, 2), (16000, 13), (160000, 125)):
        found = frames_of(embedder, sound(samples))
        assert found.shape == (frames, embedder.dimension) == (frames, 96)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
    assert np.isfinite(frames_of(embedder, np.zeros(8000))).all()


def test_the_package_itself_makes_the_same_embeddings(embedder: SpeechEmbeddingEmbedder) -> None:
    peer = pytest.importorskip("openwakeword.utils").AudioFeatures()
    samples = np.round(32768 * sound(40000)).astype(np.int16)
    found = frames_of(embedder, samples / 32768)
    silence = 5616  # half of 12512 samples, less half of 1280
    padded = np.pad(samples, (silence, 31 * 1280 + 12512 - silence - len(samples)))
    np.testing.assert_allclose(found, peer._get_embeddings(padded), atol=1e-3)


def test_frames_lie_around_their_80_ms(embedder: SpeechEmbeddingEmbedder) -> None:
    """A click in the middle of the 80 ms of frame 25 is heard from 20 to 30 or less, and evenly so."""
    samples = np.zeros(51 * 1280)
    samples[25 * 1280 + 600 : 25 * 1280 + 680] = sound(80)
    frames = frames_of(embedder, samples)
    heard = np.flatnonzero(np.abs(frames - frames[0]).max(axis=1) > 1e-2)
    assert 20 <= heard[0] < heard[-1] <= 30
    assert heard[0] + heard[-1] == 50


def test_the_rest_of_the_batch_changes_nothing(
    embedder: SpeechEmbeddingEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = (48000, 16001, 700)
    batch = torch.from_numpy(np.stack([sound(max(lengths), seed) for seed in range(3)]).astype(np.float32))
    together = embedder.embed(batch, torch.tensor(lengths))
    monkeypatch.setattr(speech_embedding, "AT_ONCE", 7)
    for row, length, frames in zip(batch, lengths, together, strict=True):
        np.testing.assert_allclose(frames_of(embedder, row[:length].numpy()), frames, atol=1e-3)


def test_80_ms_later_is_a_frame_later(embedder: SpeechEmbeddingEmbedder) -> None:
    samples = sound(64000)
    frames = frames_of(embedder, samples)
    np.testing.assert_allclose(
        frames_of(embedder, np.concatenate([np.zeros(1280), samples]))[1:], frames, atol=1e-3
    )
    later = frames_of(embedder, samples[1280:])
    edge = 5  # frames that hear where the sound begins
    np.testing.assert_allclose(later[edge:], frames[1 + edge :], atol=1e-3)
    assert np.abs(later[0] - frames[1]).max() > 1


def test_the_same_words_by_two_voices_are_nearest(embedder: SpeechEmbeddingEmbedder, data_dir: Path) -> None:
    cuts = sorted(CutSet.from_file(data_dir / "cuts_test.jsonl.gz"), key=lambda cut: cut.id)
    assert [cut.id for cut in cuts] == ["wuu-0", "wuu-1", "wuu-2", "yue-0", "yue-1", "yue-2"]
    frames = [torch.from_numpy(array) for array in embedder.embed(*collate_audio(cuts, 16000))]
    scores = seqsim_packed(pack(frames[:3]), pack(frames[3:]))  # (3,3)
    assert scores.argmax(dim=1).tolist() == scores.argmax(dim=0).tolist() == [0, 1, 2]


def run(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: str) -> None:
    path = SCRIPTS / script
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    runpy.run_path(str(path), run_name="__main__")


def test_it_is_embedded_and_compared_with_the_model(
    embedder: SpeechEmbeddingEmbedder, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir = tmp_path / "model"
    write_model(model_dir)
    common = (f"model_dir={model_dir}", f"data_dir={data_dir}", "device=cpu")
    run(monkeypatch, "embed.py", *common, "embedder=speech_embedding")
    folder = model_dir / "results" / "data" / "embeddings-test-speech_embedding"
    store, written = EmbeddingStore(folder), (folder / "frames.npy").stat().st_mtime_ns
    for cut in CutSet.from_file(data_dir / "cuts_test.jsonl.gz"):
        assert store[cut.id].shape == (-(-cut.num_samples // 1280), 96)
    # The weights are part of what the embeddings are made from.
    options = EmbedConfig(str(model_dir), str(data_dir), embedder=EmbedderKind.speech_embedding).options
    digest = read_dataset(data_dir, "test").digest
    assert store.description["fingerprint"] == fingerprint(load()[1], options | {"data": digest})

    controls = "controls=[speech_embedding,speech_embedding-dtw]"
    run(monkeypatch, "controls.py", *common, "resamples=20", controls)
    assert (folder / "frames.npy").stat().st_mtime_ns == written  # not embedded again
    content = json.loads((model_dir / "results" / "data" / "controls-test" / "controls.json").read_text())
    recall = {row["name"]: row["recall_at_1"] for row in content["rows"] if row["pairs"] == "all"}
    assert list(recall) == ["zipformer", "speech_embedding", "speech_embedding-dtw"]
    assert recall["speech_embedding"] == recall["speech_embedding-dtw"] == 100
    labels = [row["label"] for row in content["rows"]]
    assert labels[-1] == "speech_embedding (Google), DTW"


def test_no_layer_can_be_chosen() -> None:
    with pytest.raises(ValueError, match="layer=1 is a layer of an encoder; embedder=speech_embedding has"):
        EmbedConfig("model", "data", embedder=EmbedderKind.speech_embedding, layer=1)


def test_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        context.setattr(speech_embedding, "find_spec", lambda _: None)
        with pytest.raises(ValueError, match=f"needs openwakeword, which is not installed: {INSTALL}"):
            load()
    package = tmp_path / "openwakeword"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "openwakeword", raising=False)
    with pytest.raises(ValueError, match=rf"no melspectrogram.* version 0\.4\.0 comes with .*{INSTALL}"):
        load()


def test_the_package_without_its_runtime(
    embedder: SpeechEmbeddingEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=f"needs onnxruntime, which is not installed: {INSTALL}"):
        load()
