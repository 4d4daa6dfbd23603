"""The configuration of a model, and strict reading and writing of ``config.json`` beside the weights."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zipformer.encoder.zipformer import EncoderConfig
from zipformer.errors import UserError
from zipformer.heads import heads
from zipformer.heads.attention_decoder import AttentionDecoderConfig
from zipformer.heads.ctc import CtcConfig
from zipformer.heads.text_alignment import TextAlignmentConfig
from zipformer.heads.transducer import TransducerConfig
from zipformer.model_dir import CONFIG_FILE

_FORMAT_VERSION = 2


@dataclass
class AsrModelConfig:
    """Configuration of an :class:`~zipformer.model.AsrModel`.

    Attributes:
        feature_dim: channels of the features, 80 mel bins.
        vocab_size: number of tokens including blank 0, sos/eos 1 and unk 2; 0 = filled in from the tokens.
        encoder: sizes of front end and encoder.
        transducer: give the model a transducer: predictor, joiner and the linear layers of the simple loss.
        predictor_dim: channels of the predictor, a multiple of 4.
        joiner_dim: channels in which encoder and predictor are added.
        context_size: number of tokens that the predictor sees.
        ctc: give the model a CTC head.
        attention_decoder: sizes of the attention decoder; ``num_layers`` 0 = none.
        text_alignment: settings of the head that learns from a text encoder; off by default.
        heads: settings of further heads by their registered name (:mod:`zipformer.heads`).
    """

    feature_dim: int = 80
    vocab_size: int = 0
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    transducer: bool = True
    predictor_dim: int = 512
    joiner_dim: int = 512
    context_size: int = 2
    ctc: bool = True
    attention_decoder: AttentionDecoderConfig = field(default_factory=AttentionDecoderConfig)
    text_alignment: TextAlignmentConfig = field(default_factory=TextAlignmentConfig)
    heads: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.head_settings()  # raises an error for invalid settings

    def head_settings(self) -> dict[str, Any]:
        """Settings of every head that the model has, by name, in the order in which they are built.

        Raises:
            UserError: a head or a setting does not exist, or a value is invalid.
        """
        transducer = TransducerConfig(self.predictor_dim, self.joiner_dim, self.context_size)
        own: dict[str, tuple[bool, Any]] = {
            "transducer": (self.transducer, transducer),
            "ctc": (self.ctc, CtcConfig()),
            "attention_decoder": (self.attention_decoder.num_layers > 0, self.attention_decoder),
            "text_alignment": (self.text_alignment.enabled, self.text_alignment),
        }
        further = {name: _typed(name, settings, own) for name, settings in self.heads.items()}
        return {name: settings for name, (there, settings) in own.items() if there} | further

    @property
    def has_tokens(self) -> bool:
        """Whether a head uses tokens; an encoder alone needs no vocabulary."""
        return any(heads()[name].head_class.vocabulary_modules for name in self.head_settings())

    def without_heads(self) -> "AsrModelConfig":
        """The configuration of the same front end and encoder without heads."""
        return replace(
            self,
            vocab_size=0,
            transducer=False,
            ctc=False,
            attention_decoder=replace(self.attention_decoder, num_layers=0, translation=False),
            text_alignment=replace(self.text_alignment, enabled=False),
            heads={},
        )


def _typed(name: str, settings: Any, own: Collection[str]) -> Any:
    """The settings of a further head as an object of its config class."""
    if name not in heads() or name in own:
        names = ", ".join(sorted(heads().keys() - set(own))) or "none"
        remedy = f"set {heads()[name].head_class.setting}" if name in own else f"registered are {names}"
        raise UserError(f"model.heads.{name} is not a further head: {remedy}")
    try:
        return OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(heads()[name].config_class), settings)
        )
    except OmegaConfBaseException as error:
        raise UserError(f"model.heads.{name}: {error}") from error


def write_config(config: AsrModelConfig, directory: Path) -> None:
    """Write ``config.json`` into a directory that exists."""
    content = {"format_version": _FORMAT_VERSION, "model": asdict(config)}
    (directory / CONFIG_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_config(directory: Path) -> AsrModelConfig:
    """Read a configuration from :func:`write_config`.

    Raises:
        UserError: there is no ``config.json``, it cannot be read, has another format version, or an unknown
            or missing key.
    """
    path = directory / CONFIG_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); write the model directory again") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != _FORMAT_VERSION or not isinstance(content.get("model"), dict):
        raise UserError(
            f"{path} has format_version {version!r} where this version of the toolkit reads "
            f"{_FORMAT_VERSION}; write the model directory again with fangyan average, or install the "
            "version that wrote it"
        )
    try:
        return config_from_dict(content["model"])
    except ValueError as error:
        raise UserError(
            f"{path}: {error}; correct that key, or write the model directory again with fangyan average"
        ) from error


def config_from_dict(content: dict[str, Any]) -> AsrModelConfig:
    """Typed configuration from plain values, strict in both directions.

    Raises:
        UserError: an unknown or missing key, or a value of the wrong type.
    """
    missing = _missing_keys(asdict(AsrModelConfig()), content)
    if missing:
        raise UserError(f"model configuration lacks {', '.join(missing)}")
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(AsrModelConfig), content))
    except OmegaConfBaseException as error:
        raise UserError(f"model configuration: {error}") from error
    assert isinstance(config, AsrModelConfig)
    return config


def _missing_keys(expected: dict[str, Any], given: dict[str, Any], prefix: str = "") -> list[str]:
    missing = []
    for key, value in expected.items():
        if key not in given:
            missing.append(prefix + key)
        elif isinstance(value, dict) and isinstance(given[key], dict):
            missing += _missing_keys(value, given[key], f"{prefix}{key}.")
    return missing
