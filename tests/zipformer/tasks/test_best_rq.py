"""BEST-RQ: loss against its definition, what the encoder hears, and training with the trainer."""

import pytest
import torch
from reference import best_rq as reference
from tiny_corpus import tiny_model_config

from zipformer.data.batches import PADDING_VALUE
from zipformer.errors import UserError
from zipformer.model import AsrModel
from zipformer.tasks.best_rq import BestRqConfig, MaskedPrediction

SMALL = BestRqConfig(num_codebooks=2, codebook_size=20, code_dim=4, mask_span=3, mask_start=0.1)


def features_of(*frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Utterances of random features, padded as batches are."""
    lengths = torch.tensor(frames)
    features = torch.full((len(frames), max(frames), 80), PADDING_VALUE)
    generator = torch.Generator().manual_seed(0)
    for row, length in zip(features, frames, strict=True):
        row[:length] = torch.randn(length, 80, generator=generator) * 3 - 8
    return features, lengths


def small_prediction() -> MaskedPrediction:
    torch.manual_seed(0)
    return MaskedPrediction(AsrModel(tiny_model_config(10)), SMALL, seed=(42, 0)).eval()


def heard_by(prediction: MaskedPrediction, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Receives what the encoder hears and its frames at every step."""
    heard: list[torch.Tensor] = []
    encode = prediction.model.encode

    def listen(features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frames, frame_lengths = encode(features, lengths)
        heard.extend([features, frames])
        return frames, frame_lengths

    monkeypatch.setattr(prediction.model, "encode", listen)
    return heard


def test_loss_is_that_of_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    prediction = small_prediction()
    heard = heard_by(prediction, monkeypatch)
    features, lengths = features_of(120, 47, 9)
    logits, labels, places = prediction(features, lengths, step=7)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")

    hidden, frames = heard
    weight = prediction.head.weight.detach().numpy().reshape(2, 20, -1)
    bias = prediction.head.bias.detach().numpy().reshape(2, 20)
    expected, found = 0.0, []
    for n, length in enumerate(lengths.tolist()):
        assert torch.equal(hidden[n, length:], features[n, length:])  # padding is left as it is
        for i, stack in enumerate(reference.stacks(features[n, :length].numpy())):
            changed = (hidden[n] != features[n]).any(dim=1)[4 * i + 3 : 4 * i + 7]
            assert changed.all() or not changed.any()  # hidden wholly or not at all
            if not changed.any():
                continue
            found.append(n * frames.shape[1] + i)
            for book in range(2):
                projection = prediction.quantiser.projections[book].numpy()
                target, margin = reference.label(stack, projection, prediction.quantiser.codes[book].numpy())
                assert margin > 1e-5
                expected += reference.cross_entropy(
                    frames[n, i].detach().numpy(), weight[book], bias[book], target
                )
    assert places.tolist() == found
    assert labels.shape == (len(found), 2)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_masks_and_noise_depend_on_seed_and_step_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    prediction = small_prediction()
    heard = heard_by(prediction, monkeypatch)
    features, lengths = features_of(200, 150)
    for step in (5, 5, 6):
        torch.manual_seed(step + len(heard))
        prediction(features, lengths, step)
    prediction.seed = (42, 1)  # another process
    prediction(features, lengths, 5)
    first, again, later, other = heard[::2]
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_codebooks", 0),
        ("codebook_size", 1),
        ("code_dim", 0),
        ("mask_span", 0),
        ("mask_start", 1.5),
        ("noise", -1.0),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: str, value: float) -> None:
    with pytest.raises(UserError, match=f"best_rq.{setting}="):
        BestRqConfig(**{setting: value})
