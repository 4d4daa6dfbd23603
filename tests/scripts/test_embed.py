"""The embed script from its command line to the store that it leaves."""

import hashlib
import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from small_model import FRAMES, write_cuts, write_model

from retrieval.embedding.store import EmbeddingStore
from zipformer.data.cuts import encoder_frames
from zipformer.model import AsrModel

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "embed.py"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Model directory and data directory."""
    write_cuts(tmp_path / "data", "test")
    write_model(tmp_path / "model")
    return tmp_path / "model", tmp_path / "data"


def run(monkeypatch: pytest.MonkeyPatch, model_dir: Path, data_dir: Path, *more: str) -> None:
    arguments = [f"model_dir={model_dir}", f"data_dir={data_dir}", "device=cpu", *more]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_frames_of_the_encoder(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model_dir, data_dir = folders
    run(monkeypatch, model_dir, data_dir)
    store = EmbeddingStore(model_dir / "results" / "data" / "embeddings-test")
    assert len(store) == len(FRAMES)
    assert store.frames.dtype == np.float32
    model = AsrModel.from_pretrained(model_dir).eval()
    random = np.random.default_rng(0)
    for number, T in enumerate(FRAMES):
        features = torch.from_numpy(random.normal(-8.0, 3.0, size=(T, 80)).astype(np.float32))
        with torch.inference_mode():
            expected, _ = model.encode(features[None], torch.tensor([T]))
        found = store[f"test-{number}"]
        assert len(found) == encoder_frames(T)
        inner = slice(0, len(found) - 2)  # at the very end the front end sees silence here and nothing there
        np.testing.assert_allclose(found[inner], expected[0][inner].numpy(), rtol=0.05, atol=0.05)
    entry = store.utterances["test-0"]
    assert (entry.dialect, entry.subdialect, entry.site, entry.sentence_id) == (
        "yue",
        "yue-guangzhou",
        "yue-0",
        "0",
    )


def test_embeddings_say_which_weights_they_are_of(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir, data_dir = folders

    def weights(folder: str) -> object:
        return EmbeddingStore(model_dir / "results" / "data" / folder).description["weights"]

    digest = hashlib.sha256((model_dir / "model.safetensors").read_bytes()).hexdigest()
    run(monkeypatch, model_dir, data_dir)
    run(monkeypatch, model_dir, data_dir, "embedder=mfcc")
    run(monkeypatch, model_dir, data_dir, "embedder=random")
    assert weights("embeddings-test") == digest
    assert weights("embeddings-test-mfcc") is None
    config = hashlib.sha256((model_dir / "config.json").read_bytes()).hexdigest()
    assert weights("embeddings-test-random") == f"config:{config}"
    written = (model_dir / "results" / "data" / "embeddings-test" / "frames.npy").stat().st_mtime_ns
    run(monkeypatch, model_dir, data_dir)  # whole already
    folder = model_dir / "results" / "data" / "embeddings-test"
    assert (folder / "frames.npy").stat().st_mtime_ns == written


def test_embeddings_do_not_depend_on_the_batch(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir, data_dir = folders
    directory = model_dir / "results" / "data" / "embeddings-test"
    run(monkeypatch, model_dir, data_dir, "batch_seconds=0")
    store = EmbeddingStore(directory)
    alone = {entry.utterance_id: np.array(store[entry.utterance_id]) for entry in store}
    shutil.rmtree(directory)
    run(monkeypatch, model_dir, data_dir, "batch_seconds=100")
    together = EmbeddingStore(directory)
    for name, frames in alone.items():
        np.testing.assert_allclose(together[name], frames, rtol=1e-4, atol=1e-4)


def test_frames_of_a_layer(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model_dir, data_dir = folders
    run(monkeypatch, model_dir, data_dir, "layer=2")
    store = EmbeddingStore(model_dir / "results" / "data" / "embeddings-test-layer02")
    # The second stack runs at 25 frames a second, one for two of (T - 7) // 2.
    expected = [-(-((frames - 7) // 2) // 2) for frames in FRAMES]
    assert [store.utterances[f"test-{number}"].frames for number in range(len(FRAMES))] == expected
    assert store.description["embedder"] == "zipformer"
    model = AsrModel.from_pretrained(model_dir).eval()
    random = np.random.default_rng(0)
    features = torch.from_numpy(random.normal(-8.0, 3.0, size=(FRAMES[0], 80)).astype(np.float32))
    with torch.inference_mode():
        frames, _ = model.encode(features[None], torch.tensor([FRAMES[0]]), layer=2)
    inner = slice(0, len(store["test-0"]) - 4)
    np.testing.assert_allclose(store["test-0"][inner], frames[0][inner].numpy(), rtol=0.05, atol=0.05)
    with pytest.raises(SystemExit, match=r"^error: layer=3 is not there; .* 0 \(front end\) to 2"):
        run(monkeypatch, model_dir, data_dir, "layer=3")
    with pytest.raises(SystemExit, match=r"^error: .*layer=1 is a layer of an encoder"):
        run(monkeypatch, model_dir, data_dir, "layer=1", "embedder=mfcc")


def test_control_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cuts(tmp_path / "data", "test")
    run(
        monkeypatch,
        tmp_path / "nothing",
        tmp_path / "data",
        "embedder=mfcc",
        "mfcc.stride=4",
        "mfcc.coefficients=12",
        "storage=float16",
    )
    store = EmbeddingStore(tmp_path / "nothing" / "results" / "data" / "embeddings-test-mfcc")
    assert store.frames.dtype == np.float16
    assert store.frames.shape == (sum(-(-T // 4) for T in FRAMES), 36)
    assert store.description["embedder"] == "mfcc"


def test_the_untrained_encoder_is_the_model_before_training(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir, data_dir = folders
    directory = model_dir / "results" / "data" / "embeddings-test-random"

    def frames(seed: int) -> np.ndarray:
        run(monkeypatch, model_dir, data_dir, "embedder=random", f"seed={seed}", "batch_seconds=0")
        return np.array(EmbeddingStore(directory)["test-1"])

    first = frames(3)
    config = AsrModel.from_pretrained(model_dir).config
    torch.manual_seed(3)
    model = AsrModel(config).eval()
    features = torch.from_numpy(_features(1))
    silence = torch.full((16, 80), float(np.log(1e-10)))
    with torch.inference_mode():
        expected, lengths = model.encode(torch.cat([features, silence])[None], torch.tensor([len(features)]))
    np.testing.assert_allclose(first, expected[0, : int(lengths)].numpy(), atol=1e-5)
    assert np.abs(frames(4) - first).max() > 1e-2
    np.testing.assert_array_equal(frames(3), first)
    run(monkeypatch, model_dir, data_dir, "batch_seconds=0")
    trained = np.array(EmbeddingStore(model_dir / "results" / "data" / "embeddings-test")["test-1"])
    assert np.abs(trained - first).max() > 1e-2


def _features(number: int) -> np.ndarray:
    """Features of an utterance of ``write_cuts``."""
    random = np.random.default_rng(0)
    drawn = [random.normal(-8.0, 3.0, size=(T, 80)).astype(np.float32) for T in FRAMES]
    return drawn[number]


def test_sounds_and_durations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cuts(tmp_path / "data", "test")
    for embedder in ("fbank", "duration"):
        run(monkeypatch, tmp_path / "model", tmp_path / "data", f"embedder={embedder}")
    results = tmp_path / "model" / "results" / "data"
    fbank = EmbeddingStore(results / "embeddings-test-fbank")
    assert fbank.frames.shape == (sum(-(-T // 4) for T in FRAMES), 80)
    duration = EmbeddingStore(results / "embeddings-test-duration")
    assert duration.frames.shape == (len(FRAMES), 2)
    angles = {entry.utterance_id: np.arctan2(*duration[entry.utterance_id][0, ::-1]) for entry in duration}
    expected = np.pi * np.log(np.array(FRAMES) / 100) / np.log(100)
    np.testing.assert_allclose([angles[f"test-{n}"] for n in range(len(FRAMES))], expected, atol=1e-6)


def test_an_encoder_of_the_hub_hears_the_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
    )
    transformers.Wav2Vec2Model(config).save_pretrained(tmp_path / "tiny-xls-r")
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(tmp_path / "tiny-xls-r")
    cuts = []
    for number, T in enumerate(FRAMES):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, 0.1 * np.random.default_rng(number).standard_normal(T * 80), 8000)
        recording = Recording.from_file(path)
        supervision = SupervisionSegment(f"{number}", f"{number}", 0, T / 100, text="甲", language="yue")
        cuts.append(MonoCut(f"{number}", 0, T / 100, 0, recording=recording, supervisions=[supervision]))
    (tmp_path / "data").mkdir()
    CutSet.from_cuts(cuts).to_file(tmp_path / "data" / "cuts_test.jsonl.gz")
    settings = ("embedder=huggingface", f"huggingface.model={tmp_path / 'tiny-xls-r'}")
    run(monkeypatch, tmp_path / "model", tmp_path / "data", *settings, "layer=1")
    store = EmbeddingStore(tmp_path / "model" / "results" / "data" / "embeddings-test-tiny-xls-r-layer01")
    assert store.description["embedder"] == "tiny-xls-r"
    # 80 samples in 10 ms at 8 kHz become 160 at 16 kHz; a frame sees 400 of them, and the next starts 320
    # later.
    assert [len(store[f"{n}"]) for n in range(len(FRAMES))] == [(T * 160 - 400) // 320 + 1 for T in FRAMES]
    with monkeypatch.context() as hub:
        hub.setattr(transformers.utils, "extract_commit_hash", lambda *_: "0" * 40)
        run(hub, tmp_path / "model", tmp_path / "data", *settings, "layer=1")
    again = EmbeddingStore(store.directory)
    assert again.description["fingerprint"] != store.description["fingerprint"], "the branch has moved on"
    with pytest.raises(SystemExit, match=r"^error: layer=3: tiny-xls-r has layers 0 to 2"):
        run(monkeypatch, tmp_path / "model", tmp_path / "data", *settings, "layer=3")
    with pytest.raises(SystemExit, match=r"^error: .*embedder=huggingface needs huggingface\.model"):
        run(monkeypatch, tmp_path / "model", tmp_path / "data", settings[0])


def test_a_second_run_has_nothing_to_do_until_something_changes(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir, data_dir = folders
    directory = model_dir / "results" / "data" / "embeddings-test"

    def first_frame() -> np.ndarray:
        return np.array(EmbeddingStore(directory)["test-0"][0])

    run(monkeypatch, model_dir, data_dir)
    before, written = first_frame(), (directory / "frames.npy").stat().st_mtime_ns
    run(monkeypatch, model_dir, data_dir)
    assert (directory / "frames.npy").stat().st_mtime_ns == written
    write_model(model_dir, seed=1)
    run(monkeypatch, model_dir, data_dir)
    assert np.abs(first_frame() - before).max() > 1e-3


def test_a_killed_run_goes_on(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model_dir, data_dir = folders
    encode = AsrModel.encode
    calls: list[int] = []

    def dies_in_the_fourth(model: AsrModel, features: torch.Tensor, lengths: torch.Tensor):
        calls.append(len(lengths))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encode(model, features, lengths)

    monkeypatch.setattr(AsrModel, "encode", dies_in_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, model_dir, data_dir, "batch_seconds=0")
    assert not (model_dir / "results" / "data" / "embeddings-test").exists()
    run(monkeypatch, model_dir, data_dir, "batch_seconds=0")
    assert len(calls) == 4 + 3  # the three that were done are not done again
    assert len(EmbeddingStore(model_dir / "results" / "data" / "embeddings-test")) == len(FRAMES)


def test_errors_are_one_message(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model_dir, data_dir = folders
    with pytest.raises(SystemExit, match=r"^error: .*cuts_dev\..* does not exist; the splits there are test"):
        run(monkeypatch, model_dir, data_dir, "split=dev")
    with pytest.raises(SystemExit, match=r"^error: .*storage=int8"):
        run(monkeypatch, model_dir, data_dir, "storage=int8")
    (model_dir / "model.safetensors").unlink()
    with pytest.raises(SystemExit, match=r"^error: .*model\.safetensors"):
        run(monkeypatch, model_dir, data_dir)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), f"data_dir={data_dir}"])
    with pytest.raises(SystemExit, match=r"^error: .*model_dir"):
        runpy.run_path(str(SCRIPT), run_name="__main__")


def test_an_unknown_setting_is_named(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"^error: mfcc\.strid cannot be set: .*did you mean mfcc\.stride\?"):
        run(monkeypatch, *folders, "mfcc.strid=3")
    with pytest.raises(SystemExit, match=r"^error: embedder=whisper: .*expected one of \[zipformer, "):
        run(monkeypatch, *folders, "embedder=whisper")


def test_description_is_written(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model_dir, data_dir = folders
    run(monkeypatch, model_dir, data_dir)
    content = json.loads((model_dir / "results" / "data" / "embeddings-test" / "embeddings.json").read_text())
    assert content["embedder"] == "zipformer"
    assert len(content["fingerprint"]) == 64
