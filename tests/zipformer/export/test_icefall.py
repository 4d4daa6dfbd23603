"""Agreement with icefall's recipe: outputs, losses, gradients and parameter names of the same weights."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from icefall_draws import ACTED
from omegaconf import OmegaConf
from torch import Tensor

from zipformer.export.icefall import (
    config_from_icefall,
    icefall_name,
    model_from_icefall,
    state_dict_to_icefall,
)
from zipformer.layers.schedule import Clock
from zipformer.model import AsrModel
from zipformer.model_config import AsrModelConfig

CONF = Path(__file__).resolve().parents[3] / "conf" / "model"
SMALL_OPTIONS = {
    "num_encoder_layers": "1,1",
    "downsampling_factor": "1,2",
    "encoder_dim": "16,24",
    "encoder_unmasked_dim": "16,16",
    "feedforward_dim": "16,24",
    "num_heads": "4",
    "query_head_dim": "4",
    "value_head_dim": "4",
    "pos_dim": 8,
    "cnn_module_kernel": "7,5",
    "decoder_dim": 12,
    "joiner_dim": 12,
    "vocab_size": 11,
}


def assert_near(actual: Tensor, expected: Tensor, relative: float) -> None:
    """Largest deviation within ``relative`` of the largest value."""
    assert actual.shape == expected.shape
    error = (actual - expected).abs().max().item()
    assert error <= relative * expected.abs().max().item() + 1e-7, f"deviates by {error}"


@pytest.mark.parametrize("name", ["model_full", "model_causal"])
def test_outputs_and_losses_of_a_model_with_all_heads(golden_dir: Path, name: str) -> None:
    with np.load(golden_dir / f"{name}.npz") as arrays:
        golden = {key: torch.from_numpy(arrays[key]) for key in arrays if key != "config"}
        options = json.loads(str(arrays["config"]))
    parameters = {key.removeprefix("p::"): value for key, value in golden.items() if key.startswith("p::")}
    model = model_from_icefall(options, parameters)
    tokens = [[token for token in row if token >= 0] for row in golden["y"].tolist()]
    with torch.no_grad():
        embedded, embedded_lengths = model.frontend(golden["x"], golden["x_lens"])
        frames, lengths = model.encode(golden["x"], golden["x_lens"])
        losses = model.losses(golden["x"], golden["x_lens"], tokens)

    assert embedded_lengths.tolist() == golden["subsampled_lens"].tolist()
    assert lengths.tolist() == golden["encoder_out_lens"].tolist()
    assert_near(embedded, golden["subsampled"], 1e-4)
    for utterance, length in enumerate(lengths.tolist()):
        assert_near(frames[utterance, :length], golden["encoder_out"][utterance, :length], 1e-4)
    assert set(losses) == {"simple", "pruned", "ctc", "attention"}
    for loss, value in losses.items():
        assert_near(value, golden[f"{loss}_loss"], 1e-4)


@pytest.mark.parametrize("name", ["tiny_offline", "tiny_causal"])
def test_gradients_of_every_parameter(golden_dir: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    golden: dict[str, Any] = torch.load(golden_dir / f"{name}.pt", weights_only=True)
    options = golden["config"]
    if options["causal"]:
        options = options | {"chunk_size": "-1"}
    model = model_from_icefall(options, golden["state_dict"])
    x, x_lens = golden["x"], golden["x_lens"]
    with torch.no_grad():
        assert_near(model.frontend(x, x_lens)[0], golden["embed"][0], 1e-4)
        _assert_frames_near(model.encode(x, x_lens), golden["encoder_out"])
        if options["causal"]:
            chunked = model.encode(x, x_lens, chunk_size=8, left_context_frames=32)
            _assert_frames_near(chunked, golden["encoder_out_chunk8_left32"])

    monkeypatch.setattr(Clock, "chance", lambda clock, probability: True)
    for regulariser in ACTED[name]:
        model.get_submodule(regulariser).train()
    losses = model.losses(x, x_lens, golden["y"])
    assert_near(losses["simple"], golden["losses"]["simple"], 1e-4)
    assert_near(losses["pruned"], golden["losses"]["pruned"], 1e-4)
    (0.5 * losses["simple"] + losses["pruned"]).backward()
    gradients = {icefall_name(name, model.config.encoder): p.grad for name, p in model.named_parameters()}
    expected = golden["grads_of_0.5simple_plus_pruned_eval_mode"]
    assert set(gradients) == set(expected)
    for parameter, gradient in gradients.items():
        assert gradient is not None, f"{parameter} has no gradient"
        # Below an activation of the front end icefall has k2's derivative, rounded at random to 8 bits.
        rounded = parameter.startswith("encoder_embed.conv") and "pointwise_conv2" not in parameter
        assert_near(gradient, expected[parameter], 1e-2 if rounded else 1e-3)


def _assert_frames_near(actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    assert actual[1].tolist() == expected[1].tolist()
    for utterance, length in enumerate(actual[1].tolist()):
        assert_near(actual[0][utterance, :length], expected[0][utterance, :length], 1e-4)


@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_configurations_have_icefalls_tensors(golden_dir: Path, size: str) -> None:
    expected = json.loads((golden_dir / "icefall_parameters.json").read_text())[size]
    merged = OmegaConf.merge(OmegaConf.structured(AsrModelConfig), OmegaConf.load(CONF / f"{size}.yaml"))
    merged.vocab_size = 500
    with torch.device("meta"):
        state = state_dict_to_icefall(AsrModel(OmegaConf.to_object(merged)))
    assert {name: list(tensor.shape) for name, tensor in state.items()} == dict(expected["tensors"])
    assert sum(tensor.numel() for tensor in state.values()) == expected["num_params"]
    encoder = sum(tensor.numel() for name, tensor in state.items() if name.startswith("encoder"))
    assert encoder == expected["encoder_params"]


def test_options_not_given_have_icefalls_defaults() -> None:
    merged = OmegaConf.merge(OmegaConf.structured(AsrModelConfig), OmegaConf.load(CONF / "medium.yaml"))
    merged.vocab_size = 500
    medium = OmegaConf.to_object(merged)
    options = {"vocab_size": 500, "use_ctc": True, "use_attention_decoder": True, "base_lr": 0.045}
    assert config_from_icefall(options) == medium
    bare = config_from_icefall({"vocab_size": 500})
    assert (bare.transducer, bare.ctc, bare.attention_decoder.num_layers) == (True, False, 0)


def test_round_trip_restores_every_tensor() -> None:
    options = SMALL_OPTIONS | {
        "use_ctc": True,
        "use_attention_decoder": True,
        "attention_decoder_num_layers": 1,
    }
    model = AsrModel(config_from_icefall(options))
    again = model_from_icefall(options, state_dict_to_icefall(model))
    assert not again.training
    for (name, tensor), (name_again, tensor_again) in zip(
        model.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert name == name_again
        assert torch.equal(tensor, tensor_again)


def test_all_tensors_that_do_not_fit_are_listed() -> None:
    state = state_dict_to_icefall(AsrModel(config_from_icefall(SMALL_OPTIONS)))
    del state["joiner.output_linear.bias"]
    state["ctc_output.1.bias"] = torch.zeros(11)
    state["decoder.embedding.weight"] = torch.zeros(12, 12)
    with pytest.raises(ValueError, match="does not fit") as caught:
        model_from_icefall(SMALL_OPTIONS, state)
    message = str(caught.value)
    assert "missing: joiner.output_linear.bias" in message
    assert "unexpected: ctc_output.1.bias" in message
    assert "misshapen: decoder.embedding.weight is (12, 12), the configuration makes it (11, 12)" in message
    assert message.count("\n") == 3


def test_unsupported_options_are_refused() -> None:
    with pytest.raises(ValueError, match="vocab_size"):
        config_from_icefall({})
    with pytest.raises(ValueError, match="blank_id=5"):
        config_from_icefall({"vocab_size": 11, "blank_id": 5})
    with pytest.raises(ValueError, match="'maybe' is neither true nor false"):
        config_from_icefall({"vocab_size": 11, "causal": "maybe"})


def test_flags_are_read_as_the_command_line_spells_them() -> None:
    config = config_from_icefall({"vocab_size": 11, "use_ctc": "1", "use_attention_decoder": "False"})
    assert (config.ctc, config.attention_decoder.num_layers) == (True, 0)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model": state, "optimizer": {}, "epoch": 3, "model_avg": None},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {name: tensor.double() for name, tensor in state.items()},  # model_avg
    ],
)
def test_checkpoints_of_icefall_are_taken_as_they_are(wrap: Any) -> None:
    torch.manual_seed(0)
    model = AsrModel(config_from_icefall(SMALL_OPTIONS))
    loaded = model_from_icefall(SMALL_OPTIONS, wrap(state_dict_to_icefall(model)))
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ({"model_avg": {}, "epoch": 3}, 'give the parameters, torch.load(...)["model"]'),
        ({"encoder.layer.0.weight": torch.zeros(2)}, "none of the 1 names is one of icefall's zipformer"),
        ([torch.zeros(2)], "a list holds no parameters by name"),
    ],
)
def test_what_is_no_checkpoint_of_icefall_gets_one_line(content: Any, hint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(hint)) as caught:
        model_from_icefall(SMALL_OPTIONS, content)
    assert "\n" not in str(caught.value)


def test_options_of_another_size_are_answered_briefly() -> None:
    torch.manual_seed(0)
    state = state_dict_to_icefall(AsrModel(config_from_icefall(SMALL_OPTIONS)))
    with pytest.raises(ValueError, match="give the options that the checkpoint was trained with") as caught:
        model_from_icefall({**SMALL_OPTIONS, "encoder_dim": "32,48"}, state)
    lines = str(caught.value).splitlines()
    assert len(lines) == 12
    assert lines[-1].endswith("more")
