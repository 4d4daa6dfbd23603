"""Outputs of layers and stacks against a pass by hand, and exits against an encoder without the rest."""

import copy

import pytest
import torch
from torch import Tensor, nn

from zipformer.encoder.taps import layer_places
from zipformer.encoder.zipformer import EncoderConfig
from zipformer.layers.schedule import Clock
from zipformer.model import AsrModel
from zipformer.model_config import AsrModelConfig

LAYERS, FACTORS, DIMS = [1, 2, 1], [1, 4, 2], [16, 32, 24]
LENGTHS = torch.tensor([101, 64])


def small_model(**changes: object) -> AsrModel:
    torch.manual_seed(0)
    sizes = {
        "num_encoder_layers": LAYERS,
        "downsampling_factor": FACTORS,
        "encoder_dim": DIMS,
        "encoder_unmasked_dim": [16],
        "feedforward_dim": [32],
        "num_heads": [4],
        "query_head_dim": [8],
        "value_head_dim": [4],
        "pos_dim": 8,
        "cnn_module_kernel": [7, 5, 5],
        "frontend_channels": [4, 8, 8],
    }
    encoder = EncoderConfig(**(sizes | changes))
    model = AsrModel(AsrModelConfig(vocab_size=11, encoder=encoder, predictor_dim=16, joiner_dim=16)).eval()
    with torch.no_grad():
        for stack in model.encoder.stacks:
            if stack.downsampling_factor != 1:
                stack.downsample.bias.normal_()
                stack.out_combiner.bypass_scale.uniform_(0.2, 0.9)
    return model


@pytest.fixture(scope="module")
def model() -> AsrModel:
    return small_model()


@pytest.fixture(scope="module")
def features() -> Tensor:
    return torch.randn(2, 101, 80, generator=torch.Generator().manual_seed(1))


def by_hand(model: AsrModel, features: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Layer outputs, stack outputs and the encoder's output, module by module."""
    x, lengths = model.frontend(features, LENGTHS)
    layers, stacks = [x], []
    for stack, dim, factor in zip(model.encoder.stacks, DIMS, FACTORS, strict=True):
        x = torch.nn.functional.pad(x, (0, dim - x.shape[2])) if dim > x.shape[2] else x[:, :, :dim]
        inside, before = x, x
        T = x.shape[1]
        if factor > 1:
            missing = -T % factor
            padded = torch.cat([x, x[:, -1:].repeat(1, missing, 1)], dim=1)
            weights = stack.downsample.bias.softmax(0)
            inside = sum(weights[i] * padded[:, i::factor] for i in range(factor))
        mask = torch.arange(inside.shape[1]) * factor >= lengths[:, None]
        for layer in stack.layers:
            inside = layer(inside, stack.encoder_pos(inside.shape[1], inside.device), padding_mask=mask)
            layers.append(inside)
        x = inside
        if factor > 1:
            up = inside.repeat_interleave(factor, dim=1)[:, :T]
            x = before + (up - before) * stack.out_combiner.bypass_scale
        stacks.append(x)
    # 24 channels of the last stack, 8 more of the widest
    full = torch.cat([stacks[2], stacks[1][:, :, 24:]], dim=2)
    if full.shape[1] % 2:
        full = torch.cat([full, full[:, -1:]], dim=1)
    weights = model.encoder.downsample_output.bias.softmax(0)
    return layers, stacks, weights[0] * full[:, ::2] + weights[1] * full[:, 1::2]


@torch.no_grad()
def test_outputs_are_those_of_a_pass_by_hand(model: AsrModel, features: Tensor) -> None:
    layers, stacks, output = by_hand(model, features)
    found = model.encode_layers(features, LENGTHS)
    assert len(layers) == len(found.places) == 1 + sum(LAYERS)
    for number, expected in enumerate(layers):
        torch.testing.assert_close(found.layer(number)[0], expected, rtol=1e-4, atol=1e-5)
    for number, expected in enumerate(stacks, start=1):
        torch.testing.assert_close(found.stack(number)[0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.exit(4)[0], output, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_every_layer_has_the_lengths_of_its_frame_rate(model: AsrModel, features: Tensor) -> None:
    found = model.encode_layers(features, LENGTHS)
    # (101 - 7) // 2 = 47 and (64 - 7) // 2 = 28 at 50 a second: 12 and 7 groups of 4, 24 and 14 of 2
    assert [found.layer(n)[1].tolist() for n in range(5)] == [[47, 28], [47, 28], [12, 7], [12, 7], [24, 14]]
    assert [found.layer(n)[0].shape[1:] for n in range(5)] == [
        (47, 16),
        (47, 16),
        (12, 32),
        (12, 32),
        (24, 24),
    ]
    assert [place.frame_rate for place in found.places] == [50, 50, 12.5, 12.5, 25]
    assert [place.stack for place in found.places] == [0, 1, 2, 2, 3]
    assert [place.dim for place in found.places] == [16, 16, 32, 32, 24]
    assert found.stack(2)[1].tolist() == [47, 28]
    assert found.exit(0)[1].tolist() == [24, 14]


@torch.no_grad()
def test_encode_gives_a_layer_on_request(model: AsrModel, features: Tensor) -> None:
    found = model.encode_layers(features, LENGTHS)
    for number in range(5):
        frames, lengths = model.encode(features, LENGTHS, layer=number)
        assert torch.equal(frames, found.layer(number)[0])
        assert torch.equal(lengths, found.layer(number)[1])


@torch.no_grad()
def test_the_exit_after_the_last_layer_is_the_encoder(model: AsrModel, features: Tensor) -> None:
    frames, lengths = model.encode_layers(features, LENGTHS).exit(4)
    expected, expected_lengths = model.encode(features, LENGTHS)
    assert torch.equal(frames, expected)
    assert torch.equal(lengths, expected_lengths)


class Skipped(nn.Module):
    """A layer that lets everything by."""

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor:
        return x


@torch.no_grad()
@pytest.mark.parametrize("exit_", range(5))
def test_an_exit_is_an_encoder_whose_later_layers_let_everything_by(
    model: AsrModel, features: Tensor, exit_: int
) -> None:
    cut = copy.deepcopy(model)
    number = 0
    for stack in cut.encoder.stacks:
        for index in range(len(stack.layers)):
            number += 1
            if number > exit_:
                stack.layers[index] = Skipped()
    frames, _ = model.encode_layers(features, LENGTHS).exit(exit_)
    assert torch.equal(frames, cut.encode(features, LENGTHS)[0])


@torch.no_grad()
def test_an_exit_is_what_training_does_when_it_skips_a_layer(features: Tensor) -> None:
    # A layer whose bypass scale is 0 is one that training skips for a sequence.
    model = small_model()
    skipped = copy.deepcopy(model)
    skipped.encoder.stacks[2].layers[0].bypass.bypass_scale.zero_()
    frames, _ = model.encode_layers(features, LENGTHS).exit(3)
    torch.testing.assert_close(frames, skipped.encode(features, LENGTHS)[0])


@torch.no_grad()
def test_valid_frames_do_not_depend_on_the_padding(model: AsrModel) -> None:
    features = torch.randn(1, 64, 80, generator=torch.Generator().manual_seed(2))
    silence = torch.full((1, 120, 80), -23.0)
    outputs = [
        model.encode_layers(torch.cat([features, silence[:, :more]], dim=1), torch.tensor([64]))
        for more in (16, 120)
    ]
    for number in range(5):
        (first, lengths), (second, _) = (output.layer(number) for output in outputs)
        valid = slice(0, int(lengths[0]))
        torch.testing.assert_close(first[:, valid], second[:, valid], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_chunks_of_a_causal_model(features: Tensor) -> None:
    model = small_model(causal=True, chunk_size=[8, -1], left_context_frames=[16, -1])
    found = model.encode_layers(features, LENGTHS, chunk_size=16, left_context_frames=32)
    expected, _ = model.encode(features, LENGTHS, chunk_size=16, left_context_frames=32)
    assert torch.equal(found.exit(4)[0], expected)
    whole = model.encode_layers(features, LENGTHS, chunk_size=-1)
    assert (found.layer(1)[0] - whole.layer(1)[0]).abs().max() > 1e-3


@torch.no_grad()
def test_what_is_not_there_is_refused(model: AsrModel, features: Tensor) -> None:
    with pytest.raises(ValueError, match=r"layer 5 is not there; .* 0 \(front end\) to 4"):
        model.encode(features, LENGTHS, layer=5)
    with pytest.raises(ValueError, match="layer -1 is not there"):
        model.encode(features, LENGTHS, layer=-1)
    found = model.encode_layers(features, LENGTHS)
    with pytest.raises(ValueError, match="stack 0 is not there; the encoder has stacks 1 to 3"):
        found.stack(0)
    with pytest.raises(ValueError, match="layer 9"):
        found.exit(9)
    with pytest.raises(ValueError, match=r"model\.eval"):
        small_model().train().encode_layers(features, LENGTHS)


def test_nothing_is_left_behind(model: AsrModel, features: Tensor) -> None:
    with torch.no_grad():
        before, _ = model.encode(features, LENGTHS)
        model.encode_layers(features, LENGTHS)
        assert torch.equal(model.encode(features, LENGTHS)[0], before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_places_of_the_large_encoder() -> None:
    config = EncoderConfig(
        num_encoder_layers=[2, 2, 4, 5, 4, 2],
        encoder_dim=[192, 256, 512, 768, 512, 256],
        encoder_unmasked_dim=[192],
    )
    places = layer_places(config)
    assert len(places) == 20
    assert [place.number for place in places] == list(range(20))
    assert [place.frame_rate for place in places[8:14]] == [12.5, 6.25, 6.25, 6.25, 6.25, 6.25]
    assert (places[19].stack, places[19].dim) == (6, 256)


def test_layers_reach_the_caller_in_training_too() -> None:
    model = small_model().train()
    model.encoder.clock.batch = 5000.0
    assert isinstance(model.encoder.clock, Clock)
    outputs: list[Tensor] = []
    frames, _ = model.encoder(torch.randn(2, 40, 16), torch.tensor([40, 30]), layer_outputs=outputs)
    assert len(outputs) == 5
    frames.sum().backward()
