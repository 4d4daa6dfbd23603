"""What the model asks of a head, and the heads by name.

A head is a module on top of the encoder that learns something from its frames. The recogniser has any number
of them; each brings its own losses.
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
    """What a head is built from besides its own settings.

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
    """A batch as heads see it: encoder frames, and what they are to learn from them.

    Attributes:
        frames: (N, T', D) encoder output.
        lengths: (N,) int64, valid frames.
        tokens: N transcripts, without blank and sos/eos.
        translations: tokens of the translations of the N utterances; None where there are none.
        sentences: (M, E) text embeddings of the different sentences of the batch; None where no text
            encoder teaches.
        spoken: (N,) int64, which of these sentences each utterance says.
        supervisions: everything that is known about each utterance; empty where the caller has only tokens.
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
        """The number of tokens (N,) int64 of each transcript, on the device of the frames."""
        return upload(torch.tensor([len(utterance) for utterance in self.tokens]), self.frames.device)


class Head(nn.Module, ABC):
    """A head of the model.

    Attributes:
        name: the name under which it is registered.
        setting: what a user sets to have this head, for messages.
        vocabulary_modules: its submodules whose parameters have one row for every token. A head without any
            needs no tokens.
        repeats_need_blank: whether a transcript needs one more frame for every token that equals the one
            before it, as with CTC.
        loss_names: the losses that :meth:`losses` gives.
        loss_weight: weight of these losses, where the training has no setting of its own for them.
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
        """The head with these settings, of the class that it is registered with."""

    @abstractmethod
    def losses(self, batch: EncodedBatch, wanted: Collection[str]) -> dict[str, Tensor]:
        """The ``wanted`` ones of its losses for which the batch has what they need.

        Returns:
            By the names in ``loss_names``, each summed over the batch, in nats and fp32.
        """


H = TypeVar("H", bound=type[Head])


@dataclass(frozen=True)
class RegisteredHead:
    """A head by its name in the configuration of a model.

    Attributes:
        config_class: dataclass of its settings.
        head_class: builds the head from the settings.
    """

    config_class: type
    head_class: type[Head]


registered: dict[str, RegisteredHead] = {}


def register_head(name: str, config_class: type) -> Callable[[H], H]:
    """Class decorator that makes a head known by a name, with a config class of its own."""

    def register(head_class: H) -> H:
        assert name not in registered, f"two heads are named {name}"
        head_class.name = name
        if "setting" not in vars(head_class):
            head_class.setting = f"+model.heads.{name}={{}}"
        registered[name] = RegisteredHead(config_class, head_class)
        return head_class

    return register
