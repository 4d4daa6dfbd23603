"""Stateless predictor and joiner against their definitions."""

import pytest
import torch

from zipformer.heads.joiner import Joiner
from zipformer.heads.predictor import Predictor
from zipformer.layers.schedule import Clock


@pytest.fixture
def predictor() -> Predictor:
    torch.manual_seed(0)
    return Predictor(vocab_size=9, dim=8, context_size=2, clock=Clock()).eval()


def test_state_is_a_grouped_convolution_of_the_last_two_embeddings(predictor: Predictor) -> None:
    assert predictor.conv is not None
    states = predictor(torch.tensor([[0, 4, 7]]))
    previous, last = predictor.embedding.weight[4], predictor.embedding.weight[7]
    expected = torch.zeros(8)
    for channel in range(8):
        group = slice(channel // 4 * 4, channel // 4 * 4 + 4)
        weight = predictor.conv.weight[channel]  # (4, 2)
        expected[channel] = (weight[:, 0] @ previous[group] + weight[:, 1] @ last[group]).clamp(min=0)
    torch.testing.assert_close(states[0, 2], expected)


def test_training_and_decoding_give_the_same_states(predictor: Predictor) -> None:
    whole = predictor(torch.tensor([[0, 4, 7]]))
    assert whole.shape == (1, 3, 8)
    for position, context in enumerate([[-1, 0], [0, 4], [4, 7]]):
        step = predictor(torch.tensor([context]), pad=False)
        torch.testing.assert_close(step, whole[:, position : position + 1])


def test_a_context_of_one_is_the_embedding() -> None:
    predictor = Predictor(vocab_size=9, dim=8, context_size=1, clock=Clock()).eval()
    tokens = torch.tensor([[3, -1]])
    torch.testing.assert_close(predictor(tokens)[0, 0], predictor.embedding.weight[3])
    assert predictor(tokens)[0, 1].abs().max() == 0


def test_joiner_adds_projections_and_broadcasts() -> None:
    torch.manual_seed(1)
    joiner = Joiner(encoder_dim=6, predictor_dim=8, joiner_dim=5, vocab_size=9)
    am, lm = torch.randn(2, 4, 1, 6), torch.randn(2, 1, 3, 8)
    logits = joiner(am, lm)
    assert logits.shape == (2, 4, 3, 9)
    hidden = (joiner.encoder_proj(am[1, 2, 0]) + joiner.decoder_proj(lm[1, 0, 1])).tanh()
    torch.testing.assert_close(logits[1, 2, 1], joiner.output_linear(hidden))
    projected = joiner(joiner.encoder_proj(am), joiner.decoder_proj(lm), project=False)
    torch.testing.assert_close(projected, logits)
