import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zipformer.layers.attention import (
    NonlinAttention,
    RelPositionAttentionWeights,
    RelPositionEncoding,
    SelfAttention,
    relative_positions,
    uniform_attention,
)
from zipformer.layers.schedule import Clock

H, D, P, POS = 3, 4, 2, 8  # heads, query size, position size, position features


def make_weights(clock: Clock, dim: int = 6) -> RelPositionAttentionWeights:
    return RelPositionAttentionWeights(
        dim, clock=clock, pos_dim=POS, num_heads=H, query_head_dim=D, pos_head_dim=P
    ).double()


def reference_weights(
    layer: RelPositionAttentionWeights, x: Tensor, pos_emb: Tensor, mask: Tensor | None, use_positions: bool
) -> Tensor:
    """One score at a time; mask (N, T, T)."""
    N, T, _ = x.shape
    projected = layer.in_proj(x)
    q, k, p = (part.unflatten(2, (H, -1)) for part in projected.split((H * D, H * D, H * P), dim=2))
    e = layer.linear_pos(pos_emb[0]).unflatten(1, (H, P))
    rows = []
    for h in range(H):
        for n in range(N):
            for i in range(T):
                scores = []
                for j in range(T):
                    score = (q[n, i, h] * k[n, j, h]).sum()
                    if use_positions:
                        score = score + (p[n, i, h] * e[j - i + T - 1, h]).sum()
                    if mask is not None and mask[n, i, j]:
                        score = score * 0.0 - 1000.0
                    scores.append(score)
                rows.append(torch.stack(scores).softmax(dim=0))
    return torch.stack(rows).view(H, N, T, T)


@pytest.mark.parametrize("masks", ["none", "padding", "chunks", "both"])
def test_weights_and_gradients_equal_an_explicit_loop(masks: str) -> None:
    N, T = 2, 6
    layer = make_weights(Clock()).eval()
    layer.linear_pos.weight.data.normal_()
    x = torch.randn(N, T, 6, dtype=torch.float64, requires_grad=True)
    pos_emb = torch.randn(1, 2 * T - 1, POS, dtype=torch.float64, requires_grad=True)
    padding = torch.tensor([[False] * 6, [False] * 3 + [True] * 3])
    chunk = torch.arange(T) // 2
    # Targets see their own chunk only, so in utterance 1 the last ones see nothing but padding.
    chunks = chunk[:, None] != chunk
    padding_mask = padding if masks in ("padding", "both") else None
    attn_mask = chunks if masks in ("chunks", "both") else None
    mask = torch.zeros(N, T, T, dtype=torch.bool)
    if padding_mask is not None:
        mask |= padding_mask[:, None]
    if attn_mask is not None:
        mask |= attn_mask

    weights = layer(x, pos_emb, padding_mask, attn_mask)
    expected = reference_weights(layer, x, pos_emb, mask, use_positions=True)
    torch.testing.assert_close(weights, expected)
    grad = torch.randn_like(weights)
    inputs = [x, pos_emb, *layer.parameters()]
    gradients = torch.autograd.grad(weights, inputs, grad)
    for gradient, correct in zip(gradients, torch.autograd.grad(expected, inputs, grad), strict=True):
        torch.testing.assert_close(gradient, correct)


def test_a_mask_of_its_own_for_every_utterance() -> None:
    layer = make_weights(Clock()).eval()
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    mask = torch.rand(2, 4, 4) < 0.4
    weights = layer(x, torch.zeros(1, 7, POS, dtype=torch.float64), attn_mask=mask)
    expected = reference_weights(layer, x, torch.zeros(1, 7, POS, dtype=torch.float64), mask, True)
    torch.testing.assert_close(weights, expected)


class ForcedClock(Clock):
    """Answers every question of chance in the same way."""

    def __init__(self, answers: dict[float, bool]) -> None:
        super().__init__(batch=0.0)
        self.answers = answers

    def chance(self, probability: float) -> bool:
        return self.answers.get(probability, False)


def test_positions_are_left_out_when_drawn_and_still_get_a_gradient() -> None:
    layer = make_weights(ForcedClock({0.5: True}))
    layer.linear_pos.weight.data.normal_()
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    pos_emb = torch.randn(1, 9, POS, dtype=torch.float64)
    weights = layer(x, pos_emb)
    torch.testing.assert_close(weights, reference_weights(layer, x, pos_emb, None, use_positions=False))
    weights.square().sum().backward()
    # Training in several processes waits for a gradient of every parameter.
    assert layer.linear_pos.weight.grad is not None
    assert not layer.linear_pos.weight.grad.any()
    assert not torch.allclose(layer.eval()(x, pos_emb), weights)


def test_large_scores_are_penalised_when_drawn() -> None:
    layer = make_weights(ForcedClock({0.1: True}))
    x = 30.0 * torch.randn(2, 5, 6, dtype=torch.float64)
    pos_emb = torch.zeros(1, 9, POS, dtype=torch.float64)
    gradients = {}
    for training in (True, False):
        layer.train(training)
        layer.zero_grad()
        layer(x, pos_emb).sum().backward()  # a constant, so the penalty alone has a gradient
        assert layer.in_proj.weight.grad is not None
        gradients[training] = layer.in_proj.weight.grad.clone()
    q, k, _ = layer.in_proj(x).split((H * D, H * D, H * P), dim=2)
    scores = torch.einsum("nihd,njhd->hnij", q.unflatten(2, (H, D)), k.unflatten(2, (H, D)))
    assert (scores.abs() > 25.0).any()
    (penalty,) = torch.autograd.grad(1e-4 * (scores.abs() - 25.0).relu().sum(), layer.in_proj.weight)
    torch.testing.assert_close(gradients[True], penalty)
    assert gradients[False].abs().max() < 1e-12


def test_uniform_attention_keeps_the_mask() -> None:
    weights = torch.tensor([[0.7, 0.3, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    assert uniform_attention(weights).tolist() == [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]


def test_self_attention_is_a_weighted_sum_per_head() -> None:
    layer = SelfAttention(6, clock=Clock(), num_heads=H, value_head_dim=5).double().eval()
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    weights = torch.rand(H, 2, 4, 4, dtype=torch.float64)
    values = layer.in_proj(x).unflatten(2, (H, 5))
    sums = torch.einsum("hnij,njhd->nihd", weights, values).flatten(2)
    torch.testing.assert_close(layer(x, weights), layer.out_proj(sums))


def test_nonlin_attention_formula() -> None:
    layer = NonlinAttention(8, clock=Clock()).double().eval()
    assert layer.in_proj.out_features == 3 * 6
    x = torch.randn(2, 4, 8, dtype=torch.float64)
    weights = torch.rand(1, 2, 4, 4, dtype=torch.float64)
    s, u, v = layer.in_proj(x).chunk(3, dim=2)
    expected = layer.out_proj((weights[0] @ (u * s.tanh())) * v)
    torch.testing.assert_close(layer(x, weights), expected)


def test_initial_scales() -> None:
    torch.manual_seed(0)
    layer = RelPositionAttentionWeights(
        64, clock=Clock(), pos_dim=48, num_heads=4, query_head_dim=32, pos_head_dim=4
    )
    assert layer.in_proj.weight.abs().max().item() == pytest.approx(32**-0.25 / 8, rel=0.01)
    assert layer.linear_pos.weight.abs().max().item() == pytest.approx(0.05 / math.sqrt(48), rel=0.02)
    assert layer.linear_pos.bias is None


@settings(max_examples=25, deadline=None)
@given(num_frames=st.integers(1, 40), left_context=st.integers(0, 20), half=st.integers(2, 30))
def test_relative_positions_formula(num_frames: int, left_context: int, half: int) -> None:
    dim = 2 * half
    table = relative_positions(dim, num_frames, left_context)
    offsets = range(-(left_context + num_frames - 1), num_frames)
    assert table.shape == (len(offsets), dim)
    c = math.sqrt(dim)
    for row, offset in zip(table.tolist(), offsets, strict=True):
        compressed = math.copysign(c * (math.log(abs(offset) + c) - math.log(c)), offset)
        angle = math.atan(compressed / (dim / (2 * math.pi)))
        for k in range(half):
            assert row[2 * k] == pytest.approx(math.cos(angle * (k + 1)), abs=1e-4)
            if k < half - 1:
                assert row[2 * k + 1] == pytest.approx(math.sin(angle * (k + 1)), abs=1e-4)
        assert row[-1] == 1.0


def test_position_encoding_has_dropout_in_training_only() -> None:
    encoding = RelPositionEncoding(8)
    table = relative_positions(8, 50)[None]
    assert torch.equal(encoding.eval()(50, table.device), table)
    share = (encoding.train()(50, table.device) == 0).float().mean().item()
    assert share == pytest.approx(0.15, abs=0.05)
    with pytest.raises(ValueError, match="even"):
        RelPositionEncoding(7)


def test_golden_positions(modules: dict[str, Any]) -> None:
    torch.testing.assert_close(relative_positions(48, 10)[None], modules["pos_48_T10"])
    torch.testing.assert_close(relative_positions(48, 10, left_context=6)[None], modules["pos_48_T10_left6"])
