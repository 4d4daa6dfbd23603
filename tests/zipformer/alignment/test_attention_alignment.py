"""Token times from the attention of the decoder."""

import numpy as np
import pytest
import torch

from zipformer.alignment.attention import attention_intervals, cross_attention, upper_half
from zipformer.heads.attention_decoder import AttentionDecoder, AttentionDecoderConfig

BLOCKS = [(0, 4), (4, 6), (6, 11), (11, 15)]  # the last one is that of the end of the sentence
TOKENS = [3, 5, 2]


@pytest.fixture(scope="module")
def decoder() -> AttentionDecoder:
    torch.manual_seed(0)
    config = AttentionDecoderConfig(num_layers=3, dim=16, attention_dim=12, num_heads=2, feedforward_dim=24)
    return AttentionDecoder(config, 13, memory_dim=10).eval()


def planted(heads: int = 3, background: float = 0.02) -> torch.Tensor:
    """Attention (heads, 4, 15) of tokens that each look at one block, a little noise beside it."""
    generator = torch.Generator().manual_seed(1)
    weights = background * torch.rand(heads, len(BLOCKS), 15, generator=generator, dtype=torch.float64)
    for row, (start, stop) in enumerate(BLOCKS):
        weights[:, row, start:stop] += 1.0
    return weights / weights.sum(dim=2, keepdim=True)


@pytest.mark.parametrize("median_frames", [1, 3])
def test_planted_attention(median_frames: int) -> None:
    found = attention_intervals(planted(), median_frames=median_frames)
    assert found.tolist() == [list(block) for block in BLOCKS[:-1]]


def test_a_short_distraction_is_filtered_out() -> None:
    weights = planted(heads=1)
    weights[0, 2, 1] = 30.0  # the third token looks hard at one frame of the first
    assert attention_intervals(weights, median_frames=3).tolist() == [list(block) for block in BLOCKS[:-1]]


def test_more_tokens_than_frames_have_a_frame_each() -> None:
    weights = torch.rand(2, 7, 3, generator=torch.Generator().manual_seed(2))
    found = attention_intervals(weights)
    assert (found[:, 1] > found[:, 0]).all()
    assert (np.diff(found[:, 0]) >= 0).all()


def test_weights_are_those_that_the_decoder_uses(decoder: AttentionDecoder) -> None:
    frames = torch.randn(9, 10, generator=torch.Generator().manual_seed(3))
    outputs: list[torch.Tensor] = []
    handles = [
        layer.src_attn.register_forward_hook(lambda _, __, output: outputs.append(output[0].detach()))
        for layer in decoder.layers
    ]
    weights = cross_attention(decoder, frames, TOKENS)
    for handle in handles:
        handle.remove()
    assert weights.shape == (3, 2, 4, 9)
    torch.testing.assert_close(weights.sum(dim=3), torch.ones(3, 2, 4))
    for layer, layer_weights, output in zip(decoder.layers, weights, outputs, strict=True):
        values = layer.src_attn.linear_v(frames).view(9, 2, 6)  # (T, heads, channels)
        attended = torch.einsum("hst,thc->shc", layer_weights, values).flatten(1)
        torch.testing.assert_close(layer.src_attn.out_proj(attended), output)
    assert not any(layer.src_attn._forward_pre_hooks for layer in decoder.layers)


def test_hooks_go_when_the_decoder_fails(decoder: AttentionDecoder) -> None:
    with pytest.raises(RuntimeError):
        cross_attention(decoder, torch.zeros(9, 4), TOKENS)
    assert not any(layer.src_attn._forward_pre_hooks for layer in decoder.layers)


def test_upper_half_of_the_layers(decoder: AttentionDecoder) -> None:
    weights = cross_attention(decoder, torch.zeros(4, 10), TOKENS)
    assert torch.equal(upper_half(weights), weights[1:].flatten(0, 1))
    assert torch.equal(upper_half(weights[:1]), weights[0])


def test_frames_that_all_tokens_see_alike_say_nothing() -> None:
    weights = planted(heads=2, background=0.0)
    padded = torch.nn.functional.pad(weights, (0, 3))  # three frames that no token attends to
    assert attention_intervals(padded).tolist()[:2] == [[0, 4], [4, 6]]


@pytest.mark.parametrize(("weights", "width"), [(torch.ones(2, 3, 4), 2), (torch.ones(3, 4), 3)])
def test_bad_settings(weights: torch.Tensor, width: int) -> None:
    with pytest.raises(ValueError, match=r"median_frames=2|expected"):
        attention_intervals(weights, median_frames=width)
