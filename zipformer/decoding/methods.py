"""The decoding methods by name, and the settings of ``fangyan decode``.

A method is a function from a head and the settings to a search. It is registered in the file of the search::

    @decoding_method("greedy", TransducerHead)
    def greedy(head: TransducerHead, config: DecodeConfig) -> Search:
        ...
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from zipformer.data.batches import EVALUATION_SECONDS
from zipformer.data.dataset import name_of, plain_name
from zipformer.data.tokenizer import UNKNOWN
from zipformer.errors import UserError
from zipformer.heads.head import Head
from zipformer.model import AsrModel
from zipformer.model_dir import trained_translation_field
from zipformer.scoring import PLAIN, choose_convention

REFERENCES = ("text", "translation")

Search = Callable[[Tensor, Tensor], list[list[int]]]  # frames (N, T', D), lengths (N,) -> token ids


@dataclass
class DecodeConfig:
    """Settings of fangyan decode: data, model and decoding method.

    Attributes:
        model_dir: self-contained model directory, as fangyan average writes it.
        data_dir: prepared corpus that holds ``cuts_{split}.jsonl.gz``.
        split: name of the split.
        dataset: name of the corpus, for the folder of its results; null = the name from preparation.
        method: ``greedy`` or ``beam`` (transducer), ``ctc`` (greedy on the CTC head), or ``attention``
            (greedy with the attention decoder).
        reference: text that the hypotheses are scored against: ``text``, the transcript, or ``translation``.
            For the latter the attention decoder writes the translation; the other methods still write the
            transcript, so that their error rate is a baseline without translation.
        scoring: convention by which errors are counted: ``plain``, ``wenetspeech``, ``wsyue``, ``speechio``,
            ``m2met``, ``mer`` or ``syllables``; see zipformer/scoring/README.md.
        translation_field: field in ``custom`` of the supervisions with the translation; null = the field of
            the training.
        beam: number of hypotheses that ``beam`` keeps; larger beams are slower and slightly more accurate.
        blank_penalty: number subtracted from the score of blank; larger values trade deletions for
            insertions. Not for ``attention``.
        skip_unknown: skip the token ``<unk>`` like blank. Not for ``attention``.
        chunk_size: frames of a chunk at 50 per second, for a causal model; -1 = the whole utterance; null =
            as in the configuration of the model.
        left_context_frames: frames at 50 per second that attention sees left of the chunk; -1 = all; null =
            as in the configuration of the model.
        max_duration: seconds of padded audio in a batch; larger batches are faster and need more memory.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for CUDA where there is one.
        results_dir: folder for the results of a model directory that is read-only, see
            :func:`zipformer.results_place.results_place`; null = ``results`` in ``model_dir``.
    """

    model_dir: str
    data_dir: str
    split: str = "test"
    dataset: str | None = None
    method: str = "greedy"
    reference: str = "text"
    scoring: str = PLAIN.name
    translation_field: str | None = None
    beam: int = 4
    blank_penalty: float = 0.0
    skip_unknown: bool = False
    chunk_size: int | None = None
    left_context_frames: int | None = None
    max_duration: float = EVALUATION_SECONDS
    device: str = "auto"
    results_dir: str | None = None

    def __post_init__(self) -> None:
        if self.method not in methods:
            raise UserError(f"method={self.method} is not known; choose one of {', '.join(sorted(methods))}")
        if self.reference not in REFERENCES:
            raise UserError(f"reference={self.reference} is not known; choose one of {', '.join(REFERENCES)}")
        choose_convention(self.scoring)
        if self.beam < 1:
            raise UserError(f"beam={self.beam} keeps no hypothesis; give 1 or more")

    @property
    def unk(self) -> int | None:
        """Id of the token to skip; None = none."""
        return UNKNOWN if self.skip_unknown else None

    @property
    def reference_field(self) -> str:
        """``text``, or the field of ``custom`` with the reference.

        Raises:
            UserError: ``provenance.json`` of the model cannot be read.
        """
        if self.reference == "text":
            return "text"
        return self.translation_field or trained_translation_field(Path(self.model_dir))

    @property
    def folder(self) -> Path:
        """Folder of the results. Errors against translations have a folder of their own."""
        kind = "decode" if self.reference == "text" else plain_name(self.reference_field)
        name = name_of(Path(self.data_dir), self.dataset)
        return Path(self.model_dir) / "results" / name / f"{kind}-{self.split}-{self.method}"


@dataclass(frozen=True)
class DecodingMethod:
    """A decoding method.

    Attributes:
        head_class: class of the head that the method uses.
        build: function from a head of that class and the settings to the search.
    """

    head_class: type[Head]
    build: Callable[[Any, DecodeConfig], Search]


methods: dict[str, DecodingMethod] = {}

B = TypeVar("B", bound=Callable[[Any, DecodeConfig], Search])


def decoding_method(name: str, head_class: type[Head]) -> Callable[[B], B]:
    """Decorator that registers a function as ``method=NAME``."""

    def register(build: B) -> B:
        assert name not in methods, f"two methods are named {name}"
        methods[name] = DecodingMethod(head_class, build)
        return build

    return register


def methods_of(model: AsrModel) -> list[str]:
    """Names of the methods whose head the model has."""
    return [name for name, method in sorted(methods.items()) if model.find(method.head_class) is not None]


def choose_search(model: AsrModel, config: DecodeConfig) -> Search:
    """The search of the configured method on a model.

    Raises:
        UserError: the model has no head for the method, or the head has not learnt the task.
    """
    method = methods[config.method]
    head = model.find(method.head_class)
    if head is None:
        raise UserError(
            f"method={config.method} needs a model with {method.head_class.setting}; use method="
            + " or ".join(methods_of(model))
        )
    return method.build(head, config)
