"""Encoders of transformers as embedders, on tiny models with random weights; nothing is downloaded."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retrieval.embedding.huggingface import HuggingFaceConfig, HuggingFaceEmbedder, load, receptive_field
from zipformer.errors import UserError

transformers = pytest.importorskip("transformers")

LENGTHS = (16000, 9000, 12345, 4321)
BLOCKS = 3
TRANSFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
WAVEFORM = TRANSFORMER | {
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "num_codevectors_per_group": 8,
    "codevector_dim": 8,
}


def whisper() -> tuple[Any, Any]:
    config = transformers.WhisperConfig(
        d_model=32,
        encoder_layers=BLOCKS,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        vocab_size=60,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        max_source_positions=100,  # windows of 2 s
    )
    return transformers.WhisperModel(config), transformers.WhisperFeatureExtractor(chunk_length=2)


def waveform(model: str, *, group: bool) -> Callable[[], tuple[Any, Any]]:
    def make() -> tuple[Any, Any]:
        config = getattr(transformers, f"{model}Config")(
            **WAVEFORM, feat_extract_norm="group" if group else "layer", do_stable_layer_norm=not group
        )
        extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=not group, do_normalize=True)
        return getattr(transformers, f"{model}Model")(config), extractor

    return make


def w2v_bert() -> tuple[Any, Any]:
    config = transformers.Wav2Vec2BertConfig(**TRANSFORMER, feature_projection_input_dim=160)
    return transformers.Wav2Vec2BertModel(config), transformers.SeamlessM4TFeatureExtractor()


MAKERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "whisper": whisper,
    "wav2vec2-base": waveform("Wav2Vec2", group=True),
    "xls-r": waveform("Wav2Vec2", group=False),
    "hubert-base": waveform("Hubert", group=True),
    "hubert-large": waveform("Hubert", group=False),
    "wavlm-large": waveform("WavLM", group=False),
    "w2v-bert": w2v_bert,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of each family."""
    folder = tmp_path_factory.mktemp("models")
    for name, make in MAKERS.items():
        torch.manual_seed(0)
        for part in make():
            part.save_pretrained(folder / name)
    return folder


def audio(lengths: tuple[int, ...] = LENGTHS) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise with a beat and an offset, padded with zeros."""
    generator = torch.Generator().manual_seed(0)
    batch = torch.zeros(len(lengths), max(lengths))
    for row, length in zip(batch, lengths, strict=True):
        beat = 0.1 * (1 + torch.sin(torch.arange(length) / 500))
        row[:length] = 0.05 + beat * torch.randn(length, generator=generator)
    return batch, torch.tensor(lengths)


def embedder(folder: Path, layer: int | None = None) -> HuggingFaceEmbedder:
    return load(HuggingFaceConfig(str(folder)), layer=layer)[0]


def expected_frames(name: str, samples: int) -> int:
    """Frames of an utterance by the arithmetic of each front end."""
    if name == "whisper":
        return -(-samples // 320)
    if name == "w2v-bert":
        return ((samples - 400) // 160 + 1) // 2
    for kernel, stride in zip((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


@pytest.mark.parametrize("name", MAKERS)
def test_frames_are_those_of_the_utterance(folders, name):
    found = embedder(folders / name)
    arrays = found.embed(*audio())
    assert found.dimension == 32
    assert found.sampling_rate == 16000
    assert [array.shape for array in arrays] == [(expected_frames(name, samples), 32) for samples in LENGTHS]
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays)
    assert np.abs(arrays[0]).max() > 1e-3


@pytest.mark.parametrize("name", MAKERS)
def test_the_rest_of_the_batch_changes_nothing(folders, name):
    found = embedder(folders / name)
    batch, lengths = audio()
    together = found.embed(batch, lengths)
    for row, length, frames in zip(batch, LENGTHS, together, strict=True):
        (alone,) = found.embed(row[None, :length], torch.tensor([length]))
        np.testing.assert_allclose(frames, alone, atol=2e-5)


def test_first_convolutions_normalised_over_time_are_given_one_utterance(folders):
    for name, one_by_one in (
        ("wav2vec2-base", True),
        ("hubert-base", True),
        ("xls-r", False),
        ("w2v-bert", False),
    ):
        assert embedder(folders / name).one_by_one is one_by_one, name


@pytest.mark.parametrize("name", MAKERS)
def test_layers_are_the_hidden_states_of_the_model(folders, name):
    batch, lengths = audio((8000,))
    model = transformers.AutoModel.from_pretrained(folders / name).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folders / name)
    encoder = model.get_encoder() if name == "whisper" else model
    inputs = extractor(batch[0].numpy(), sampling_rate=16000, return_tensors="pt")
    with torch.inference_mode():
        output = encoder(inputs[extractor.model_input_names[0]], output_hidden_states=True)
    T = expected_frames(name, 8000)
    for layer in range(BLOCKS):
        (found,) = embedder(folders / name, layer).embed(batch, lengths)
        np.testing.assert_allclose(found, output.hidden_states[layer][0, :T].numpy(), atol=1e-5)
    for layer in (None, BLOCKS):
        (found,) = embedder(folders / name, layer).embed(batch, lengths)
        np.testing.assert_allclose(found, output.last_hidden_state[0, :T].numpy(), atol=1e-5)
    with pytest.raises(ValueError, match=f"layer=4: {name} has layers 0 to 3"):
        embedder(folders / name, 4)


def test_normalised_models_end_with_the_normalisation(folders):
    for name in ("whisper", "xls-r"):
        (frames,) = embedder(folders / name, BLOCKS).embed(*audio((8000,)))
        np.testing.assert_allclose(frames.mean(axis=1), 0, atol=1e-5)  # its weights are still 1 and 0
        np.testing.assert_allclose(frames.std(axis=1), 1, atol=1e-2)


@pytest.mark.parametrize("name", ["xls-r", "w2v-bert"])
def test_the_extractor_normalises_loudness(folders, name):
    found = embedder(folders / name)
    batch, lengths = audio()
    for quiet, loud in zip(found.embed(batch, lengths), found.embed(7 * batch, lengths), strict=True):
        np.testing.assert_allclose(loud, quiet, atol=2e-3)


def test_whisper_keeps_no_frame_of_its_padding(folders):
    found = embedder(folders / "whisper")
    assert found.maximum_frames == 200
    batch, lengths = audio((321, 320, 1, 32000))
    assert [len(array) for array in found.embed(batch, lengths)] == [2, 1, 1, 100]


def test_whisper_takes_as_many_windows_at_a_time_as_the_batch_has_audio(folders, monkeypatch):
    found = embedder(folders / "whisper")
    sizes: list[int] = []
    forward = found.encoder.forward

    def counted(features: torch.Tensor, **more: Any) -> Any:
        sizes.append(len(features))
        return forward(features, **more)

    monkeypatch.setattr(found.encoder, "forward", counted)
    found.embed(*audio())  # 4 x 1 s are two windows of 2 s
    assert sizes == [2, 2]


@pytest.mark.parametrize("name", ["wav2vec2-base", "xls-r", "w2v-bert"])
def test_the_shortest_utterance_has_a_frame(folders, name):
    found = embedder(folders / name)
    samples = found.minimum_frames * 160
    (frames,) = found.embed(*audio((samples,)))
    assert len(frames) >= 1


def test_receptive_field_of_wav2vec2_is_25_ms():
    assert receptive_field(transformers.Wav2Vec2Config()) == 400


def test_weights_in_half_precision_compute_in_single(folders, tmp_path):
    transformers.AutoModel.from_pretrained(folders / "xls-r").half().save_pretrained(tmp_path)
    transformers.AutoFeatureExtractor.from_pretrained(folders / "xls-r").save_pretrained(tmp_path)
    found = embedder(tmp_path)
    assert next(found.encoder.parameters()).dtype == torch.float32


def test_files_of_a_folder_are_what_it_is_made_from(folders):
    _, files = load(HuggingFaceConfig(str(folders / "whisper")))
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= {path.name for path in files}


def test_the_last_part_of_the_name_names_the_results(tmp_path):
    assert HuggingFaceConfig("openai/whisper-small").short_name == "whisper-small"
    assert HuggingFaceConfig(f"{tmp_path}/xls-r/").short_name == "xls-r"
    with pytest.raises(ValueError, match="would be called mfcc"):
        _ = HuggingFaceConfig("me/mfcc").short_name


def test_what_cannot_be_loaded_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"huggingface\.model=.*nothing cannot be loaded"):
        load(HuggingFaceConfig(str(tmp_path / "nothing")))


def test_a_model_that_hears_nothing_is_named(tmp_path):
    config = transformers.ASTConfig(**TRANSFORMER, max_length=32, num_mel_bins=16)
    transformers.ASTModel(config).save_pretrained(tmp_path / "ast")
    transformers.ASTFeatureExtractor(max_length=32, num_mel_bins=16).save_pretrained(tmp_path / "ast")
    with pytest.raises(ValueError, match="family audio-spectrogram-transformer; embedder=huggingface knows"):
        embedder(tmp_path / "ast")


def test_the_commit_of_the_hub_is_known(folders, tmp_path):
    # In its cache, the snapshot of a commit is a folder of that name.
    snapshot = tmp_path / "snapshots" / ("0123456789" * 4)
    shutil.copytree(folders / "xls-r", snapshot)
    assert embedder(snapshot).commit == "0123456789" * 4
    assert embedder(folders / "xls-r").commit is None
