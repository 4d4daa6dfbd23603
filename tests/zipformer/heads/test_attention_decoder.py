"""Attention decoder: masks, positions and the label-smoothed loss."""

import math

import pytest
import torch
from torch import Tensor

from zipformer.heads.attention_decoder import (
    SOS_EOS,
    AttentionDecoder,
    AttentionDecoderConfig,
    MultiHeadAttention,
    sinusoidal_positions,
)

VOCAB = 13
TOKENS = [[3, 5, 2], [7], []]
LENGTHS = torch.tensor([6, 9, 4])


@pytest.fixture
def decoder() -> AttentionDecoder:
    torch.manual_seed(0)
    config = AttentionDecoderConfig(num_layers=2, dim=16, attention_dim=12, num_heads=3, feedforward_dim=24)
    return AttentionDecoder(config, VOCAB, memory_dim=10).eval()


@pytest.fixture
def memory() -> Tensor:
    return torch.randn(3, 9, 10, generator=torch.Generator().manual_seed(1))


def test_positions_are_sines_and_cosines() -> None:
    table = sinusoidal_positions(5, 6)
    for position in range(5):
        for k in range(3):
            angle = position / 10000 ** (2 * k / 6)
            assert table[position, 2 * k].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[position, 2 * k + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_attention_equals_a_loop_over_heads_and_positions() -> None:
    torch.manual_seed(2)
    attention = MultiHeadAttention(dim=8, attention_dim=6, num_heads=2, memory_dim=5).eval()
    query, memory = torch.randn(1, 4, 8), torch.randn(1, 7, 5)
    mask = torch.rand(1, 4, 7) < 0.4
    mask[..., 0] = False
    q, k, v = attention.linear_q(query)[0], attention.linear_k(memory)[0], attention.linear_v(memory)[0]
    context = torch.zeros(4, 6)
    for head in (slice(0, 3), slice(3, 6)):
        for target in range(4):
            seen = [source for source in range(7) if not mask[0, target, source]]
            weights = torch.stack([q[target, head] @ k[s, head] / math.sqrt(3) for s in seen]).softmax(0)
            context[target, head] = sum(w * v[s, head] for w, s in zip(weights, seen, strict=True))
    torch.testing.assert_close(attention(query, memory, mask)[0], attention.out_proj(context))


def test_a_token_sees_only_the_tokens_before_it(decoder: AttentionDecoder, memory: Tensor) -> None:
    tokens = torch.tensor([[SOS_EOS, 3, 5, 2]] * 3)
    changed = tokens.clone()
    changed[:, 2] = 8
    before, after = (decoder.logits(memory, LENGTHS, t) for t in (tokens, changed))
    torch.testing.assert_close(before[:, :2], after[:, :2])
    assert (before[:, 2:] - after[:, 2:]).abs().amax(dim=-1).min() > 1e-4


def test_padding_frames_do_not_count(decoder: AttentionDecoder, memory: Tensor) -> None:
    disturbed = memory.clone()
    disturbed[0, 6:] = 1e3
    disturbed[2, 4:] = -1e3
    torch.testing.assert_close(
        decoder.loss(disturbed, LENGTHS, TOKENS), decoder.loss(memory, LENGTHS, TOKENS)
    )


def test_loss_is_the_smoothed_cross_entropy_of_every_utterance(
    decoder: AttentionDecoder, memory: Tensor
) -> None:
    expected = 0.0
    for utterance, transcript in enumerate(TOKENS):
        length = int(LENGTHS[utterance])
        logits = decoder.logits(
            memory[utterance : utterance + 1, :length],
            LENGTHS[utterance : utterance + 1],
            torch.tensor([[SOS_EOS, *transcript]]),
        )
        for log_probs, target in zip(logits[0].log_softmax(-1), [*transcript, SOS_EOS], strict=True):
            distribution = torch.full((VOCAB,), 0.1 / VOCAB)
            distribution[target] += 0.9
            expected -= (distribution @ log_probs).item()
    assert decoder.loss(memory, LENGTHS, TOKENS).item() == pytest.approx(expected, rel=1e-5)


def test_sizes_that_do_not_fit_name_the_setting() -> None:
    with pytest.raises(ValueError, match="num_heads=5"):
        AttentionDecoderConfig(attention_dim=512, num_heads=5)
    with pytest.raises(ValueError, match=r"attention_decoder\.dim=7"):
        AttentionDecoderConfig(dim=7)
