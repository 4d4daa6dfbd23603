"""Encoder: lengths, padding, causality, masks, output combination and checks of its configuration."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zipformer.encoder.zipformer import EncoderConfig, Zipformer, _combine
from zipformer.layers.schedule import Clock
from zipformer.model import AsrModel
from zipformer.model_config import AsrModelConfig

FRONTEND_LOOKAHEAD = 6  # features that a frame at 50 per second sees right of its own two
CONVNEXT_REACH = 3  # frames at 50 per second


def small_config(**changes: object) -> EncoderConfig:
    sizes = {
        "num_encoder_layers": [1, 2, 1],
        "downsampling_factor": [1, 4, 2],
        "encoder_dim": [16, 32, 24],
        "encoder_unmasked_dim": [16, 20, 16],
        "feedforward_dim": [32],
        "num_heads": [4],
        "query_head_dim": [8],
        "value_head_dim": [4],
        "pos_dim": 8,
        "cnn_module_kernel": [7, 5, 5],
        "frontend_channels": [4, 8, 8],
    }
    return EncoderConfig(**(sizes | changes))


def small_model(**changes: object) -> AsrModel:
    torch.manual_seed(0)
    config = AsrModelConfig(vocab_size=11, encoder=small_config(**changes), predictor_dim=16, joiner_dim=16)
    return AsrModel(config).eval()


@pytest.fixture(scope="module")
def model() -> AsrModel:
    return small_model()


@pytest.fixture(scope="module")
def causal_model() -> AsrModel:
    return small_model(causal=True, chunk_size=[8, -1], left_context_frames=[16, -1])


def random_features(frames: int, count: int = 1, seed: int = 3) -> Tensor:
    return torch.randn(count, frames, 80, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=15, deadline=None)
@given(frames=st.integers(9, 70))
def test_number_of_frames(frames: int) -> None:
    model = small_model()
    with torch.no_grad():
        output, lengths = model.encode(random_features(frames), torch.tensor([frames]))
    expected = ((frames - 7) // 2 + 1) // 2
    assert output.shape == (1, expected, 32)
    assert lengths.tolist() == [expected]


def test_frames_depend_neither_on_the_amount_of_padding_nor_on_the_other_utterances(model: AsrModel) -> None:
    short, length = random_features(61), torch.tensor([61])
    with torch.no_grad():
        outputs = []
        for padded_to in (97, 123, 200):
            batch = random_features(padded_to, count=2, seed=padded_to)
            batch[0] = 0
            batch[0, :61] = short
            frames, lengths = model.encode(batch, torch.tensor([61, padded_to]))
            outputs.append(frames[0, : lengths[0]])
    for other in outputs[1:]:
        torch.testing.assert_close(other, outputs[0], rtol=1e-4, atol=1e-5)
    assert model.encode(short, length)[1].tolist() == [outputs[0].shape[0]]


def test_content_of_padding_reaches_only_through_the_front_end(model: AsrModel) -> None:
    x = torch.randn(1, 40, 16, generator=torch.Generator().manual_seed(5))
    disturbed = x.clone()
    disturbed[:, 32:] += 10.0  # 32 is a multiple of every downsampling factor
    lengths = torch.tensor([32])
    with torch.no_grad():
        before, after = (model.encoder(item, lengths)[0][:, :16] for item in (x, disturbed))
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk", [4, 8, 16])
def test_chunks_to_come_do_not_change_earlier_frames(causal_model: AsrModel, chunk: int) -> None:
    frames = 180
    features = random_features(frames)
    boundary = 2 * 16  # frames at 50 per second, a multiple of every chunk
    disturbed = features.clone()
    disturbed[:, 2 * (boundary + CONVNEXT_REACH) + FRONTEND_LOOKAHEAD :] += 3.0
    with torch.no_grad():
        before, after = (
            causal_model.encode(item, torch.tensor([frames]), chunk_size=chunk, left_context_frames=32)[0]
            for item in (features, disturbed)
        )
    torch.testing.assert_close(before[:, : boundary // 2], after[:, : boundary // 2], rtol=1e-4, atol=1e-5)
    assert (before - after)[:, boundary // 2 :].abs().max() > 1e-2


def test_left_context_limits_what_attention_reaches() -> None:
    # Convolutions carry the past on for a few frames a layer; with kernel 1 only attention reaches further.
    model = small_model(
        causal=True, num_encoder_layers=[1], cnn_module_kernel=[1], downsampling_factor=[1, 2, 2]
    )
    features = random_features(260)
    disturbed = features.clone()
    disturbed[:, :20] += 3.0  # within the first two chunks of 8 frames

    def change(left_context_frames: int) -> Tensor:
        with torch.no_grad():
            before, after = (
                model.encode(
                    item, torch.tensor([260]), chunk_size=8, left_context_frames=left_context_frames
                )[0]
                for item in (features, disturbed)
            )
        return (before - after).abs().amax(dim=(0, 2))

    # Each of the three layers reaches one chunk (4 output frames) further back.
    assert change(8)[(2 + 3) * 4 :].max() < 1e-5
    assert change(-1)[-1] > 1e-5


def test_evaluation_uses_the_first_configured_chunk_size(causal_model: AsrModel) -> None:
    features, lengths = random_features(120), torch.tensor([120])
    with torch.no_grad():
        default = causal_model.encode(features, lengths)[0]
        given_ = causal_model.encode(features, lengths, chunk_size=8, left_context_frames=16)[0]
        whole = causal_model.encode(features, lengths, chunk_size=-1)[0]
    assert torch.equal(default, given_)
    assert (default - whole).abs().max() > 1e-3


def test_training_draws_chunk_sizes(causal_model: AsrModel) -> None:
    encoder = Zipformer(causal_model.config.encoder, clock=Clock())
    drawn = {encoder._chunking(None, None) for _ in range(50)}
    assert drawn == {(8, 2), (8, -1), (-1, -1)}


def test_chunk_sizes_that_cannot_run_are_refused(model: AsrModel, causal_model: AsrModel) -> None:
    features, lengths = random_features(60), torch.tensor([60])
    with pytest.raises(ValueError, match="causal=true"):
        model.encode(features, lengths, chunk_size=8)
    with pytest.raises(ValueError, match="chunk_size 6 is not a multiple of the downsampling factor 4"):
        causal_model.encode(features, lengths, chunk_size=6)
    with pytest.raises(ValueError, match="left_context_frames 4 in chunks of 4"):
        causal_model.encode(features, lengths, chunk_size=4, left_context_frames=4)


def test_feature_masks_agree_between_stacks() -> None:
    torch.manual_seed(1)
    encoder = Zipformer(small_config(), clock=Clock())
    masks = encoder._feature_masks(torch.zeros(4000, 1, 16))
    assert masks[0] is None  # nothing maskable
    assert masks[1] is not None
    assert masks[2] is not None
    assert masks[1].shape == (4000, 1, 32)
    assert masks[2].shape == (4000, 1, 24)
    for mask, unmasked, half in ((masks[1], 20, 26), (masks[2], 16, 20)):
        assert mask[..., :unmasked].min() == 1
        first, second = mask[:, 0, unmasked], mask[:, 0, half]
        assert torch.equal(mask[:, 0, unmasked:half], first[:, None].expand(-1, half - unmasked))
        assert (second <= first).all()
        assert first.mean().item() == pytest.approx(0.875, abs=0.03)
        assert second.mean().item() == pytest.approx(0.875**2, abs=0.03)
    assert torch.equal(masks[1][:, 0, 20], masks[2][:, 0, 16])


def test_layers_are_skipped_until_their_turn() -> None:
    clock = Clock()
    encoder = Zipformer(small_config(warmup_batches=4000.0), clock=clock)
    rates = [layer.bypass.skip_rate for stack in encoder.stacks for layer in stack.layers]
    for batch, expected in (
        (1000.0, [0.5, 0.5, 0.5, 0.5]),
        (2000.0, [0.035, 0.5, 0.5, 0.5]),
        (2500.0, [0.035, 0.07, 0.5, 0.5]),
        (3000.0, [0.035, 0.07, 0.07, 0.5]),
        (4000.0, [0.035, 0.07, 0.07, 0.035 * 2**0.5]),
    ):
        clock.batch = batch
        assert [rate() for rate in rates] == pytest.approx(expected)


def test_output_takes_each_channel_from_the_latest_stack_that_has_it() -> None:
    outputs = [torch.full((1, 1, width), value) for width, value in ((2, 1.0), (6, 2.0), (4, 3.0), (3, 4.0))]
    assert _combine(outputs).flatten().tolist() == [4.0, 4.0, 4.0, 3.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": [4, 4]}, r"encoder\.num_heads=\[4, 4\] has 2 entries"),
        ({"encoder_unmasked_dim": [32]}, "encoder_unmasked_dim=32 of stack 0 is greater"),
        ({"cnn_module_kernel": [6]}, "cnn_module_kernel=6 of stack 0 is even"),
        ({"encoder_dim": [18, 32, 24]}, "encoder_dim=18 of stack 0 is not a multiple of 4"),
        ({"frontend_channels": [8, 32]}, "frontend_channels"),
    ],
)
def test_wrong_sizes_name_the_setting(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_config(**changes)
