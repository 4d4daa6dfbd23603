"""The interface of heads, and the heads by name.

A head is a module on top of the encoder that learns something from its frames. A model has any number of
heads, each with its own losses.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import torch
from lhotse import SupervisionSegment
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from zipformer.device import upload
from zipformer.layers.schedule import Clock


@dataclass(frozen=True)
class HeadSizes:
    """Sizes that a head needs besides its own settings.

    Attributes:
        frame_dim: channels of the encoder frames.
        vocab_size: tokens, blank included.
        clock: the model's clock, for training schedules.
    """

    frame_dim: int
    vocab_size: int
    clock: Clock


@dataclass(frozen=True)
class EncodedBatch:
    """A batch for the heads: encoder frames and their targets.

    Attributes:
        frames: encoder output (N, T', D).
        lengths: number of valid frames, (N,) int64.
        tokens: tokens of the N transcripts, without blank and sos/eos.
        translations: tokens of the translations of the N utterances; None if there are none.
        sentences: text embeddings of the distinct sentences of the batch (M, E); None without text encoder.
        spoken: index of the sentence of each utterance, (N,) int64.
        supervisions: supervision of each utterance; empty if the caller has only tokens.
    """

    frames: Tensor
    lengths: Tensor
    tokens: Sequence[Sequence[int]]
    translations: Sequence[Sequence[int]] | None = None
    sentences: Tensor | None = None
    spoken: Tensor | None = None
    supervisions: Sequence[SupervisionSegment] = ()

    @cached_property
    def symbols(self) -> Tensor:
        """The transcripts (N, U) int64 on the device of the frames, padded with 0."""
        rows = [torch.tensor(utterance, dtype=torch.int64) for utterance in self.tokens]
        return upload(pad_sequence(rows, batch_first=True), self.frames.device)

    @cached_property
    def symbol_lengths(self) -> Tensor:
        """Number of tokens of each transcript, (N,) int64 on the device of the frames."""
        return upload(torch.tensor([len(utterance) for utterance in self.tokens]), self.frames.device)


class Head(nn.Module, ABC):
    """A head of the model.

    Attributes:
        name: name under which the head is registered.
        setting: setting that gives a model this head, for messages.
        vocabulary_modules: names of submodules whose parameters have one row for every token. A head without
            any needs no tokens.
        repeats_need_blank: True if a transcript needs one more frame for every token that equals the token
            before it, as with CTC.
        loss_names: names of the losses of :meth:`losses`.
        loss_weight: weight of these losses if the training has no setting for them.
    """

    name: ClassVar[str]
    setting: ClassVar[str]
    vocabulary_modules: ClassVar[tuple[str, ...]] = ()
    repeats_need_blank: ClassVar[bool] = False
    loss_names: tuple[str, ...]
    loss_weight: float = 1.0

    @classmethod
    @abstractmethod
    def build(cls, settings: Any, sizes: HeadSizes) -> "Head":
        """Build the head from its settings, an object of the registered config class."""

    @abstractmethod
    def losses(self, batch: EncodedBatch, wanted: Collection[str]) -> dict[str, Tensor]:
        """Compute the ``wanted`` losses for which the batch has targets.

        Returns:
            Losses by the names in ``loss_names``, each summed over the batch, in nats and fp32.
        """


H = TypeVar("H", bound=type[Head])


@dataclass(frozen=True)
class RegisteredHead:
    """A registered head.

    Attributes:
        config_class: dataclass of the settings.
        head_class: class of the head.
    """

    config_class: type
    head_class: type[Head]


registered: dict[str, RegisteredHead] = {}


def register_head(name: str, config_class: type) -> Callable[[H], H]:
    """Class decorator that registers a head by a name, with its config class."""

    def register(head_class: H) -> H:
        assert name not in registered, f"two heads are named {name}"
        head_class.name = name
        if "setting" not in vars(head_class):
            head_class.setting = f"+model.heads.{name}={{}}"
        registered[name] = RegisteredHead(config_class, head_class)
        return head_class

    return register
