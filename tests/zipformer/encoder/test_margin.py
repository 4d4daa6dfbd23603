"""What the encoder makes of an utterance does not depend on the batch that the utterance is in."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from zipformer.data.batches import PADDING_VALUE
from zipformer.encoder.margin import padding_margin
from zipformer.encoder.zipformer import EncoderConfig
from zipformer.model import AsrModel
from zipformer.model_config import AsrModelConfig

LENGTHS = range(9, 27)  # feature frames: every place of the end within groups of 8 at 50 frames/s
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {"downsampling_factor": [1]},
    "two": {"downsampling_factor": [1, 2]},
    "four": {"downsampling_factor": [4, 1]},
    "tiny": {"downsampling_factor": [2, 4, 8, 4]},
    "paper": {"downsampling_factor": [1, 2, 4, 8, 4, 2]},
    "no multiples": {"downsampling_factor": [2, 3]},
    "no multiples, turned": {"downsampling_factor": [3, 2]},
    "causal, short chunks": {"downsampling_factor": [1, 2], "causal": True, "chunk_size": [8]},
    "causal, long chunks": {"downsampling_factor": [2, 4], "causal": True, "chunk_size": [64]},
    "causal, no chunks": {"downsampling_factor": [1, 4], "causal": True, "chunk_size": [-1]},
}


def random_model(**settings: Any) -> AsrModel:
    """A small model, no parameter of which is at a neutral value."""
    encoder = EncoderConfig(
        num_encoder_layers=[1],
        encoder_dim=[16],
        encoder_unmasked_dim=[16],
        feedforward_dim=[16],
        num_heads=[2],
        query_head_dim=[8],
        value_head_dim=[8],
        cnn_module_kernel=[5],
        frontend_channels=[4, 4, 8],
        left_context_frames=[-1],
        **settings,
    )
    torch.manual_seed(0)
    model = AsrModel(AsrModelConfig(vocab_size=8, encoder=encoder, transducer=False)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


@torch.inference_mode()
def encoded(model: AsrModel, features: Tensor, padding: int) -> list[Tensor]:
    """Output of every layer, every stack and the encoder for one utterance (T, F) with padding after it."""
    silence = torch.full((padding, features.shape[1]), PADDING_VALUE)
    outputs = model.encode_layers(torch.cat([features, silence])[None], torch.tensor([len(features)]))
    last = outputs.places[-1]
    pairs = [outputs.layer(place.number) for place in outputs.places]
    pairs += [outputs.stack(number) for number in range(1, last.stack + 1)]
    pairs.append(outputs.exit(last.number))
    return [frames[0, : int(lengths[0])] for frames, lengths in pairs]


def largest_difference(model: AsrModel, margin: int) -> float:
    """Over all utterances, between the longest of a batch and one that a much longer one is beside."""
    generator = torch.Generator().manual_seed(1)
    largest = 0.0
    for length in LENGTHS:
        features = torch.randn(length, 80, generator=generator) * 3 - 8
        alone, beside = encoded(model, features, margin), encoded(model, features, margin + 203)
        largest = max(
            largest, *(float((a - b).abs().max()) for a, b in zip(alone, beside, strict=True) if len(a))
        )
    return largest


@pytest.mark.parametrize("name", CONFIGS)
def test_frames_do_not_depend_on_the_batch(name: str) -> None:
    model = random_model(**CONFIGS[name])
    assert model.margin == padding_margin(model.config.encoder)
    assert largest_difference(model, model.margin) < 1e-4
    # Two feature frames less are one encoder frame less: the margin is not larger than it must be. That of a
    # causal model is a bound; there, what would do without the causal convolutions is too small.
    config = model.config.encoder
    smaller = padding_margin(replace(config, causal=False)) if config.causal else model.margin - 2
    assert largest_difference(model, smaller) > 1e-3


def test_margin_of_the_published_sizes() -> None:
    assert random_model(**CONFIGS["tiny"]).margin == 20
    assert padding_margin(EncoderConfig()) == 20
