"""AsrModel: losses and gradients in training, and directories written and read back."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from zipformer.encoder.zipformer import EncoderConfig
from zipformer.errors import UserError
from zipformer.heads.attention_decoder import AttentionDecoder, AttentionDecoderConfig
from zipformer.heads.ctc import CtcHead
from zipformer.heads.transducer import TransducerHead
from zipformer.model import AsrModel
from zipformer.model_config import AsrModelConfig, config_from_dict

TOKENS = [[3, 5, 4, 7], [8, 2], [6]]
LENGTHS = torch.tensor([90, 70, 45])


def small_config(*, causal: bool = False, transducer: bool = True, ctc: bool = True) -> AsrModelConfig:
    encoder = EncoderConfig(
        num_encoder_layers=[1, 1, 1],
        downsampling_factor=[1, 4, 2],
        encoder_dim=[16, 32, 24],
        encoder_unmasked_dim=[16, 20, 16],
        feedforward_dim=[32],
        num_heads=[4],
        query_head_dim=[8],
        value_head_dim=[4],
        pos_dim=8,
        cnn_module_kernel=[7, 5, 5],
        frontend_channels=[4, 8, 8],
        causal=causal,
        chunk_size=[8, 16, -1],
        left_context_frames=[16, 32, -1],
    )
    return AsrModelConfig(
        vocab_size=11,
        encoder=encoder,
        transducer=transducer,
        predictor_dim=16,
        joiner_dim=16,
        ctc=ctc,
        attention_decoder=AttentionDecoderConfig(
            num_layers=1, dim=16, attention_dim=16, num_heads=2, feedforward_dim=32
        ),
    )


def features() -> Tensor:
    return torch.randn(3, 90, 80, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    AsrModel(small_config()).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("batch", [None, 0.0, 1000.0, 30000.0])
def test_every_parameter_gets_a_finite_gradient_in_training(causal: bool, batch: float | None) -> None:
    # DistributedDataParallel without a search for unused parameters needs one in every step, whatever is
    # drawn.
    torch.manual_seed(1)
    model = AsrModel(small_config(causal=causal)).train()
    model.clock.batch = batch
    for _ in range(6):
        model.zero_grad(set_to_none=True)
        losses = model.losses(features(), LENGTHS, TOKENS)
        assert set(losses) == {"simple", "pruned", "ctc", "attention"}
        torch.stack(list(losses.values())).sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, f"{name} has no gradient"
            assert parameter.grad.isfinite().all(), name


def test_losses_can_be_restricted_and_idle_heads_keep_a_zero_gradient() -> None:
    torch.manual_seed(1)
    model = AsrModel(small_config()).eval()
    everything = model.losses(features(), LENGTHS, TOKENS)
    losses = model.losses(features(), LENGTHS, TOKENS, only=["ctc"])
    assert set(losses) == {"ctc"}
    torch.testing.assert_close(losses["ctc"], everything["ctc"])
    losses["ctc"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        idle = name.startswith(("heads.transducer.", "heads.attention_decoder."))
        assert not (idle and parameter.grad.any()), name


def test_losses_are_sums_over_utterances() -> None:
    model = AsrModel(small_config()).eval()
    with torch.no_grad():
        frames, lengths = model.encode(features(), LENGTHS)
        together = model.losses(features(), LENGTHS, TOKENS)
        # The same frames one utterance at a time; encoding alone would change the frames at the padding.
        log_probs = model.head(CtcHead)(frames)
        ctc = sum(
            torch.nn.functional.ctc_loss(
                log_probs[i, : lengths[i]],
                torch.tensor(tokens),
                lengths[i],
                torch.tensor(len(tokens)),
                reduction="sum",
            )
            for i, tokens in enumerate(TOKENS)
        )
        attention = sum(
            model.head(AttentionDecoder).loss(frames[i : i + 1, : lengths[i]], lengths[i : i + 1], [tokens])
            for i, tokens in enumerate(TOKENS)
        )
    torch.testing.assert_close(together["ctc"], ctc)
    torch.testing.assert_close(together["attention"], attention)


def test_heads_are_there_where_configured() -> None:
    ctc_only = AsrModel(small_config(transducer=False))
    assert ctc_only.find(TransducerHead) is None
    with pytest.raises(UserError, match=r"no transducer head: it needs model\.transducer=true"):
        ctc_only.head(TransducerHead)
    assert set(ctc_only.losses(features(), LENGTHS, TOKENS)) == {"ctc", "attention"}
    transducer_only = AsrModel(small_config(ctc=False))
    assert transducer_only.find(CtcHead) is None
    assert set(transducer_only.losses(features(), LENGTHS, TOKENS)) == {"simple", "pruned", "attention"}


def test_an_encoder_needs_no_heads_and_no_vocabulary(tmp_path: Path) -> None:
    config = small_config(transducer=False, ctc=False)
    config.attention_decoder.num_layers = config.vocab_size = 0
    model = AsrModel(config).eval()
    assert {name.partition(".")[0] for name in model.state_dict()} == {"frontend", "encoder"}
    model.save_pretrained(tmp_path)
    frames, lengths = AsrModel.from_pretrained(tmp_path).encode(features(), LENGTHS)
    torch.testing.assert_close(frames, model.encode(features(), LENGTHS)[0])
    assert lengths.tolist() == [21, 16, 10]


def test_unusable_input_is_refused() -> None:
    model = AsrModel(small_config()).eval()
    with pytest.raises(ValueError, match="2 transcripts for a batch of 3"):
        model.losses(features(), LENGTHS, TOKENS[:2])
    with pytest.raises(ValueError, match="fewer than 9 feature frames"):
        model.encode(features(), torch.tensor([90, 70, 8]))
    with pytest.raises(ValueError, match="vocab_size=0"):
        AsrModel(AsrModelConfig())


@pytest.mark.parametrize("causal", [False, True])
def test_a_saved_model_comes_back_the_same(tmp_path: Path, causal: bool) -> None:
    model = AsrModel(small_config(causal=causal)).eval()
    model.save_pretrained(tmp_path)
    again = AsrModel.from_pretrained(tmp_path)
    assert again.config == model.config
    assert not again.training
    with torch.no_grad():
        for key, value in model.losses(features(), LENGTHS, TOKENS).items():
            assert torch.equal(again.losses(features(), LENGTHS, TOKENS)[key], value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(UserError, match=rf"{name} is missing; .*fangyan average"):
        AsrModel.from_pretrained(directory)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"joiner_dim"', '"joyner_dim"', "lacks joiner_dim"),
        ('"joiner_dim": 16', '"joiner_dim": 16, "extra": 1', "extra"),
        ('"joiner_dim": 16', '"joiner_dim": "wide"', "wide"),
        ('"causal": false', '"causal": false, "stride": 3', "stride"),
        ('"format_version": 2', '"format_version": 99', "format_version 99"),
        ("{", "", "not valid JSON"),
    ],
)
def test_a_wrong_configuration_is_named(directory: Path, old: str, new: str, message: str) -> None:
    path = directory / "config.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message) as caught:
        AsrModel.from_pretrained(directory)
    assert str(path) in str(caught.value)


def test_tensors_that_do_not_fit_are_listed(directory: Path) -> None:
    path = directory / "model.safetensors"
    state = load_file(path)
    state["heads.transducer.joiner.output_linear.bias"] = torch.zeros(12)
    state["heads.ctc.linear9.bias"] = state.pop("heads.ctc.linear.bias")
    save_file(state, path)
    with pytest.raises(ValueError, match="does not fit") as caught:
        AsrModel.from_pretrained(directory)
    message = str(caught.value)
    assert "missing: heads.ctc.linear.bias" in message
    assert "unexpected: heads.ctc.linear9.bias" in message
    assert (
        "misshapen: heads.transducer.joiner.output_linear.bias is (12,), the configuration makes it (11,)"
        in message
    )
    assert message.count("\n") == 3


def test_truncated_weights_are_named(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"model\.safetensors is not a readable"):
        AsrModel.from_pretrained(directory)


def test_configuration_survives_json() -> None:
    config = small_config(causal=True)
    content = json.loads(json.dumps({"encoder": vars(config.encoder)}))
    rebuilt = config_from_dict(vars(config) | content | {"attention_decoder": vars(config.attention_decoder)})
    assert rebuilt == config
