"""Viterbi over the transducer's lattice against all paths, and the scores of its arcs against the joiner."""

from itertools import combinations_with_replacement

import numpy as np
import pytest
import torch
from torch import Tensor

from zipformer.alignment.transducer import lattice_scores, viterbi
from zipformer.encoder.zipformer import EncoderConfig
from zipformer.heads.attention_decoder import AttentionDecoderConfig
from zipformer.heads.transducer import TransducerHead
from zipformer.model import AsrModel
from zipformer.model_config import AsrModelConfig

TOKENS = [5, 3, 3, 9]


@pytest.fixture(scope="module")
def head() -> TransducerHead:
    torch.manual_seed(0)
    encoder = EncoderConfig(
        num_encoder_layers=[1],
        downsampling_factor=[1],
        encoder_dim=[16],
        encoder_unmasked_dim=[16],
        feedforward_dim=[16],
        num_heads=[2],
        cnn_module_kernel=[3],
        frontend_channels=[2, 2, 4],
    )
    config = AsrModelConfig(
        vocab_size=12,
        encoder=encoder,
        predictor_dim=8,
        joiner_dim=8,
        attention_decoder=AttentionDecoderConfig(0),
    )
    model = AsrModel(config).eval()
    with torch.no_grad():
        model.head(TransducerHead).joiner.output_linear.weight.mul_(8.0)
    return model.head(TransducerHead)


def best_of_all(label: Tensor, blank: Tensor) -> tuple[list[int], float]:
    """The best emission frames and their score by trying all."""
    T, U = label.shape
    scores = {}
    for frames in combinations_with_replacement(range(T), U):
        emitted = [sum(frame <= t for frame in frames) for t in range(T)]  # tokens by the end of frame t
        scores[frames] = float(
            sum(label[frame, u] for u, frame in enumerate(frames))
            + sum(blank[t, emitted[t]] for t in range(T))
        )
    best = max(scores, key=lambda frames: scores[frames])
    return list(best), scores[best]


@pytest.mark.parametrize(("T", "U"), [(1, 0), (1, 3), (4, 0), (4, 1), (3, 3), (5, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_best_of_all_paths(T: int, U: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randn(T, U, generator=generator, dtype=torch.float64)
    blank = torch.randn(T, U + 1, generator=generator, dtype=torch.float64)
    frames, score = viterbi(label, blank)
    expected, best = best_of_all(label, blank)
    assert frames.tolist() == expected
    assert score == pytest.approx(best, abs=1e-12)


def test_of_equal_paths_the_later_emission() -> None:
    frames, score = viterbi(torch.zeros(4, 2), torch.zeros(4, 3))
    assert frames.tolist() == [3, 3]
    assert score == 0


def test_planted_alignment() -> None:
    planted = [1, 4, 4, 7]
    label, blank = torch.full((9, 4), -8.0), torch.full((9, 5), -0.1)
    for u, frame in enumerate(planted):
        label[frame, u] = -0.1
    assert viterbi(label, blank)[0].tolist() == planted


def test_arcs_are_the_joiners_whatever_the_block(head: TransducerHead) -> None:
    frames = torch.randn(7, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        states = head.predictor(torch.tensor([[0, *TOKENS]]))[0]  # (U+1, D)
        expected = head.joiner(frames[:, None], states[None]).double().log_softmax(dim=2)  # (T, U+1, V)
    for block_bytes in (1, 700, 1 << 20):
        label, blank = lattice_scores(head, frames, TOKENS, block_bytes=block_bytes)
        torch.testing.assert_close(blank.double(), expected[:, :, 0], atol=1e-5, rtol=0)
        for u, token in enumerate(TOKENS):
            torch.testing.assert_close(label[:, u].double(), expected[:, u, token], atol=1e-5, rtol=0)


def test_alignment_of_a_model_is_the_best_of_all(head: TransducerHead) -> None:
    frames = torch.randn(5, 16, generator=torch.Generator().manual_seed(2))
    label, blank = lattice_scores(head, frames, TOKENS)
    found, score = viterbi(label, blank)
    expected, best = best_of_all(label.double(), blank.double())
    assert found.tolist() == expected
    assert score == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize(
    ("label", "blank", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 2), "expected"),
        (torch.zeros(2, 1), torch.full((2, 2), torch.nan), "not a number"),
        (torch.full((2, 1), -torch.inf), torch.zeros(2, 2), "no path"),
    ],
)
def test_lattices_without_an_answer(label: Tensor, blank: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        viterbi(label, blank)


def test_frames_of_a_batch_are_refused(head: TransducerHead) -> None:
    with pytest.raises(ValueError, match="of one utterance"):
        lattice_scores(head, torch.zeros(1, 5, 16), TOKENS)


def test_empty_transcript(head: TransducerHead) -> None:
    label, blank = lattice_scores(head, torch.zeros(4, 16), [])
    assert label.shape == (4, 0)
    assert viterbi(label, blank)[0].shape == (0,)
    assert np.isfinite(viterbi(label, blank)[1])
