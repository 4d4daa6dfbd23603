"""Converts models of icefall's ``zipformer`` recipe, options and tensors, to an :class:`AsrModel` and back.

Both models have the same tensors. Ours has one class for stacks at all frame rates, other names for the front
end, the predictor and the CTC head, and no parameter ``bypass_scale``, which is in every layer of icefall but
not used.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zipformer.data.tokenizer import BLANK, SOS_EOS
from zipformer.encoder.zipformer import EncoderConfig
from zipformer.errors import UserError
from zipformer.heads.attention_decoder import AttentionDecoderConfig
from zipformer.model import AsrModel, shortened, tensor_mismatches
from zipformer.model_config import AsrModelConfig

# Options of train.py in the recipe that determine the model, with their defaults; strings with commas have a
# value for each stack.
_DEFAULT_OPTIONS: dict[str, Any] = {
    "num_encoder_layers": "2,2,3,4,3,2",
    "downsampling_factor": "1,2,4,8,4,2",
    "feedforward_dim": "512,768,1024,1536,1024,768",
    "num_heads": "4,4,4,8,4,4",
    "encoder_dim": "192,256,384,512,384,256",
    "query_head_dim": "32",
    "value_head_dim": "12",
    "pos_head_dim": "4",
    "pos_dim": 48,
    "encoder_unmasked_dim": "192,192,256,256,256,192",
    "cnn_module_kernel": "31,31,15,15,15,31",
    "decoder_dim": 512,
    "joiner_dim": 512,
    "context_size": 2,
    "attention_decoder_dim": 512,
    "attention_decoder_num_layers": 6,
    "attention_decoder_attention_dim": 512,
    "attention_decoder_num_heads": 8,
    "attention_decoder_feedforward_dim": 2048,
    "causal": False,
    "chunk_size": "16,32,64,-1",
    "left_context_frames": "64,128,256,-1",
    "use_transducer": True,
    "use_ctc": False,
    "use_attention_decoder": False,
    "feature_dim": 80,
    "label_smoothing": 0.1,
}
_FIXED_OPTIONS = {"blank_id": BLANK, "sos_id": SOS_EOS, "eos_id": SOS_EOS}
_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")  # prefixes of DistributedDataParallel and torch.compile
_UNUSED_TENSOR = re.compile(r"encoder\.encoders\.\d+\.(?:encoder\.)?layers\.\d+\.bypass_scale")


def model_from_icefall(options: Mapping[str, Any], state_dict: Mapping[str, Any]) -> AsrModel:
    """Build the model that icefall's options describe and give it icefall's parameters.

    Args:
        options: options of icefall's ``zipformer/train.py`` under their own names
            (``encoder_dim="192,256,..."``). Missing options have icefall's defaults, except ``vocab_size``,
            which is required; options that do not affect the model are ignored.
            state_dict: parameters under icefall's names, or a checkpoint of icefall with the entry ``model``
            (``pretrained.pt``, ``epoch-30.pt``). Names may begin with ``module.`` from a training in several
            processes. To load the running average of a checkpoint, give its entry ``model_avg``.

    Returns:
        The model, in evaluation mode.

    Raises:
        UserError: an option is not supported, ``state_dict`` has no parameters of icefall's model, or tensors
            are missing, unexpected or misshapen; the message lists the first ones.
    """
    model = AsrModel(config_from_icefall(options))
    own_state = model.state_dict()
    own_names = {icefall_name(name, model.config.encoder): name for name in own_state}
    given = {
        name: tensor
        for name, tensor in _parameters_of(state_dict).items()
        if not _UNUSED_TENSOR.fullmatch(name)
    }
    if not own_names.keys() & given.keys():
        raise UserError(
            f"none of the {len(given)} names is one of icefall's zipformer recipe, they are like "
            f"{', '.join(list(given)[:3])}: give torch.load(...) of a checkpoint of that recipe"
        )
    problems = tensor_mismatches({name: own_state[own] for name, own in own_names.items()}, given)
    if problems:
        raise UserError(
            f"the state_dict does not fit the icefall options ({len(problems)} tensors); give the options "
            "that the checkpoint was trained with:\n  " + "\n  ".join(shortened(problems))
        )
    model.load_state_dict({own: given[name] for name, own in own_names.items()})
    return model.eval()


def _parameters_of(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors by name, without prefixes of wrappers; they may be inside a checkpoint.

    Raises:
        UserError: the checkpoint has no parameters.
    """
    if not isinstance(content, Mapping):
        raise UserError(
            f"a {type(content).__name__} holds no parameters by name: give torch.load(...) of a checkpoint "
            "of icefall, such as pretrained.pt or epoch-30.pt, not of an exported model"
        )
    if isinstance(content.get("model"), Mapping):
        content = content["model"]
    others = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise UserError(
            f"{', '.join(others[:3])} {'is' if len(others) == 1 else 'are'} no tensor: give the parameters, "
            'torch.load(...)["model"] of a checkpoint of icefall'
        )
    return {_WRAPPERS.sub("", name): tensor for name, tensor in content.items()}


def state_dict_to_icefall(model: AsrModel) -> dict[str, Tensor]:
    """Parameters under icefall's names, for icefall's ``AsrModel`` with the same options."""
    state = {icefall_name(name, model.config.encoder): tensor for name, tensor in model.state_dict().items()}
    unused = {}
    for name, scale in state.items():
        if name.endswith(".bypass.bypass_scale"):
            unused[name.removesuffix("bypass.bypass_scale") + "bypass_scale"] = torch.full_like(scale, 0.5)
    return state | unused


def config_from_icefall(options: Mapping[str, Any]) -> AsrModelConfig:
    """Configuration from icefall's options; see :func:`model_from_icefall`."""
    if "vocab_size" not in options:
        raise UserError("icefall options have no vocab_size; give the number of tokens, blank included")
    for name, value in _FIXED_OPTIONS.items():
        if int(options.get(name, value)) != value:
            raise UserError(f"icefall option {name}={options[name]}; only {value} is supported")
    known = {name: options.get(name, default) for name, default in _DEFAULT_OPTIONS.items()}
    encoder = EncoderConfig(
        num_encoder_layers=_integers(known["num_encoder_layers"]),
        downsampling_factor=_integers(known["downsampling_factor"]),
        encoder_dim=_integers(known["encoder_dim"]),
        encoder_unmasked_dim=_integers(known["encoder_unmasked_dim"]),
        feedforward_dim=_integers(known["feedforward_dim"]),
        num_heads=_integers(known["num_heads"]),
        query_head_dim=_integers(known["query_head_dim"]),
        value_head_dim=_integers(known["value_head_dim"]),
        pos_head_dim=_integers(known["pos_head_dim"]),
        pos_dim=int(known["pos_dim"]),
        cnn_module_kernel=_integers(known["cnn_module_kernel"]),
        causal=_boolean(known["causal"]),
        chunk_size=_integers(known["chunk_size"]),
        left_context_frames=_integers(known["left_context_frames"]),
    )
    return AsrModelConfig(
        feature_dim=int(known["feature_dim"]),
        vocab_size=int(options["vocab_size"]),
        encoder=encoder,
        transducer=_boolean(known["use_transducer"]),
        predictor_dim=int(known["decoder_dim"]),
        joiner_dim=int(known["joiner_dim"]),
        context_size=int(known["context_size"]),
        ctc=_boolean(known["use_ctc"]),
        attention_decoder=AttentionDecoderConfig(
            num_layers=int(known["attention_decoder_num_layers"]) * _boolean(known["use_attention_decoder"]),
            dim=int(known["attention_decoder_dim"]),
            attention_dim=int(known["attention_decoder_attention_dim"]),
            num_heads=int(known["attention_decoder_num_heads"]),
            feedforward_dim=int(known["attention_decoder_feedforward_dim"]),
            label_smoothing=float(known["label_smoothing"]),
        ),
    )


def _boolean(value: Any) -> bool:
    """A flag, as a boolean or as on icefall's command line ("True", "0")."""
    spellings = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    key = str(value).lower()
    if key not in spellings:
        raise UserError(f"icefall option value {value!r} is neither true nor false")
    return spellings[key]


def _integers(value: Any) -> list[int]:
    """icefall's "192,256" (or an int, or a sequence of ints) as a list."""
    if isinstance(value, str):
        return [int(item) for item in value.split(",")]
    return [value] if isinstance(value, int) else [int(item) for item in value]


def icefall_name(name: str, encoder: EncoderConfig) -> str:
    """icefall's name of the tensor ``name`` of an :class:`AsrModel` with this encoder."""
    match = re.fullmatch(r"encoder\.stacks\.(\d+)\.(.+)", name)
    if match:
        stack, rest = int(match[1]), match[2]
        # icefall wraps a stack with a lower frame rate into a second module named "encoder".
        wrapped = rest.startswith("layers.") and encoder.downsampling_factor[stack] != 1
        return f"encoder.encoders.{stack}.{'encoder.' if wrapped else ''}{rest}"
    for own, theirs in (
        ("frontend.", "encoder_embed."),
        ("heads.transducer.predictor.", "decoder."),
        ("heads.transducer.", ""),
        ("heads.ctc.linear.", "ctc_output.1."),
        ("heads.attention_decoder.", "attention_decoder.decoder."),
    ):
        if name.startswith(own):
            return theirs + name.removeprefix(own)
    return name
