"""Labels by a random quantiser: against their definition, and aligned with the encoder's frames."""

import numpy as np
import pytest
import torch
from reference import best_rq as reference
from torch import nn

from zipformer.data.batches import PADDING_VALUE
from zipformer.data.cuts import encoder_frames
from zipformer.encoder.frontend import ConvFrontend
from zipformer.layers.resampling import Downsample
from zipformer.layers.schedule import Clock
from zipformer.tasks.quantiser import (
    FIRST_FRAME,
    STACK,
    RandomQuantiser,
    Statistics,
    stack_frames,
)


def padded(utterances: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(utterance) for utterance in utterances])
    features = torch.full((len(utterances), int(lengths.max()), utterances[0].shape[1]), PADDING_VALUE)
    for row, utterance in zip(features, utterances, strict=True):
        row[: len(utterance)] = torch.from_numpy(utterance)
    return features, lengths


def test_labels_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    utterances = [(rng.normal(size=(n, 8)) * 3 - 8).astype(np.float32) for n in (61, 40, 9)]
    features, lengths = padded(utterances)
    torch.manual_seed(0)
    quantiser = RandomQuantiser(4 * 8, num_codebooks=3, codebook_size=50, code_dim=16)
    x = Statistics.of(features, lengths).normalise(features)
    stacks = stack_frames(x, encoder_frames(int(lengths.max())))
    for row, utterance in zip(stacks, utterances, strict=True):
        expected = reference.stacks(utterance)
        np.testing.assert_allclose(row[: len(expected)].numpy(), expected, rtol=1e-4, atol=1e-4)
        labels = quantiser(row[: len(expected)])
        assert labels.shape == (len(expected), 3)
        for book in range(3):
            projection, codes = quantiser.projections[book].numpy(), quantiser.codes[book].numpy()
            for frame, stack in enumerate(expected):
                nearest, margin = reference.label(stack, projection, codes)
                assert labels[frame, book] == nearest or margin < 1e-5


def test_padding_changes_no_statistics_and_silence_gives_finite_numbers() -> None:
    rng = np.random.default_rng(1)
    speech = rng.normal(size=(30, 4)).astype(np.float32)
    speech[:, 2] = -15.0  # a bin that never changes
    alone = Statistics.of(*padded([speech]))
    beside = Statistics.of(*padded([speech, rng.normal(size=(90, 4)).astype(np.float32)]))
    torch.testing.assert_close(beside.mean[:1], alone.mean)
    torch.testing.assert_close(beside.deviation[:1], alone.deviation)
    features, lengths = padded([speech])
    x = Statistics.of(features, lengths).normalise(features)[0]
    torch.testing.assert_close(x.mean(dim=0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(dim=0, correction=0), torch.tensor([1.0, 1.0, 0.0, 1.0]))


@pytest.mark.parametrize("frames", range(9, 40))
def test_stacks_lie_in_the_middle_of_what_their_encoder_frame_sees(frames: int) -> None:
    """The gradient of an output frame says which feature frames it depends on.

    The residual block of the front end is taken out: it looks three frames further to both sides.
    """
    assert encoder_frames(frames) == reference.encoder_frames(frames)
    torch.manual_seed(0)
    frontend = ConvFrontend(20, 8, clock=Clock(), channels=(2, 3, 4))
    frontend.convnext = nn.Identity()  # type: ignore[assignment]
    downsample = Downsample(2)
    features = torch.randn(1, frames, 20, requires_grad=True)
    x, lengths = frontend.eval()(features, torch.tensor([frames]))
    outputs = downsample(x)
    count = encoder_frames(frames)
    assert outputs.shape[1] == count == int((lengths + 1) // 2)
    assert stack_frames(features, count).shape == (1, count, STACK * 20)
    numbers = torch.arange(frames).view(1, frames, 1)
    for i in range(count):
        (gradient,) = torch.autograd.grad(outputs[0, i].sum(), features, retain_graph=True)
        seen = gradient[0].abs().sum(dim=1).nonzero().flatten().tolist()
        last_half = 2 * (i + 1) > x.shape[1]  # only one frame at 50/s is left for this one
        assert seen == list(range(4 * i, 4 * i + (9 if last_half else 11)))
        assert stack_frames(numbers, count)[0, i].tolist() == [4 * i + FIRST_FRAME + k for k in range(STACK)]


def test_it_is_saved_and_never_trained() -> None:
    quantiser = RandomQuantiser(16, num_codebooks=2, codebook_size=7, code_dim=5)
    assert set(quantiser.state_dict()) == {"projections", "codes"}
    assert not list(quantiser.parameters())
    assert not quantiser(torch.randn(3, 16, requires_grad=True)).requires_grad
    torch.testing.assert_close(quantiser.codes.norm(dim=-1), torch.ones(2, 7))
