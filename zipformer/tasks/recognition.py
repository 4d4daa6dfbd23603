"""Recognition: trains the encoder with all heads of the model on transcribed speech."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zipformer.data.batches import Batch
from zipformer.data.cuts import encoder_frames, sentence_of
from zipformer.data.tokenizer import TOKEN_TABLE_FILE, TOKENS_FILE, Tokenizer
from zipformer.device import upload
from zipformer.distributed import World
from zipformer.errors import UserError
from zipformer.heads.sentence_encoders import (
    SentenceEncoder,
    TeacherConfig,
    build_sentence_encoder,
    different_sentences,
    encoder_problem,
)
from zipformer.heads.transducer import LatticeSettings, TransducerHead
from zipformer.layers.schedule import Clock
from zipformer.losses.backend import backend_problem
from zipformer.model import AsrModel
from zipformer.model_config import AsrModelConfig
from zipformer.tasks.initialise import initialise_from
from zipformer.tasks.validation import ValidationConfig, Validator
from zipformer.tasks.windows import CerScorer
from zipformer.training.config import TrainConfig, missing_data
from zipformer.training.state import seed_everything
from zipformer.training.task import Loss, Needs, Rates, Task, register_task

if TYPE_CHECKING:
    from zipformer.training.checkpoint import Checkpoint

logger = logging.getLogger(__name__)


@dataclass
class LossConfig:
    """Weights of the losses of all heads of the model.

    The simple transducer loss learns where to prune, and must have learnt this before the pruned loss is
    useful: over ``warm_steps`` its weight falls from ``simple_start`` to ``simple``, and that of the pruned
    loss rises from ``pruned_start`` to ``pruned``. The other weights are constant.

    On a small corpus this is not enough: the transducer and the attention decoder can lower their losses by
    learning only a language model, and the encoder learns little. Therefore the first ``ctc_first_steps``
    train only CTC, which has no internal language model; ``warm_steps`` are counted from there.
    """

    simple_start: float = 1.0  # weight of the simple transducer loss before the warm steps
    simple: float = 0.5  # weight of the simple transducer loss after the warm steps
    pruned_start: float = 0.1  # weight of the pruned transducer loss before the warm steps
    pruned: float = 1.0  # weight of the pruned transducer loss after the warm steps
    warm_steps: int = 2000  # steps over which these weights change
    ctc_first_steps: int = 0  # steps at the start that train CTC alone
    ctc: float = 0.2  # weight of CTC
    attention: float = 0.8  # weight of the attention decoder
    translation: float = 0.8  # weight of the translations of the attention decoder
    text_alignment: float = 1.0  # weight of the alignment with a text encoder
    prune_range: int = LatticeSettings.prune_range  # label positions per frame in the pruned loss
    lm_scale: float = LatticeSettings.lm_scale  # smoothing of the simple loss towards the predictor alone
    am_scale: float = LatticeSettings.am_scale  # smoothing towards the encoder alone
    # code that sums over the transducer's lattice; k2 needs k2 installed
    backend: str = LatticeSettings.backend

    def weights(self, step: int) -> dict[str, float]:
        """Weights of these losses at a step, counted from 0; a loss that is absent is not computed."""
        if step < self.ctc_first_steps:
            return {"ctc": 1.0}
        done = min(1.0, (step - self.ctc_first_steps) / self.warm_steps) if self.warm_steps else 1.0
        return {
            "simple": self.simple_start + done * (self.simple - self.simple_start),
            "pruned": self.pruned_start + done * (self.pruned - self.pruned_start),
            "ctc": self.ctc,
            "attention": self.attention,
            "translation": self.translation,
            "text_alignment": self.text_alignment,
        }


@dataclass
class RecognitionConfig(TrainConfig):
    """Training of a recogniser."""

    task: str = "recognition"
    model: AsrModelConfig = field(default_factory=AsrModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)  # teacher of model.text_alignment
    # Field in ``custom`` of the supervisions with the translation, for model.attention_decoder.translation.
    # The decoder learns it unchanged, so it should be normalised like the transcripts.
    translation_field: str = "translation"


@register_task("recognition", RecognitionConfig)
class Recognition(Task):
    """The task of recognition: model with heads, tokens, and the text encoder for text alignment.

    Raises:
        UserError: the number of tokens or dimensions in the settings differs from that of the data.
    """

    model: AsrModel

    def __init__(self, config: RecognitionConfig, world: World) -> None:
        super().__init__()
        self.config = config
        self.world = world
        data_dir = Path(config.data_dir)
        self.tokens = data_dir / "tokens"
        self.tokenizer = Tokenizer.load(self.tokens)
        if config.model.vocab_size not in (0, self.tokenizer.size):
            raise UserError(
                f"model.vocab_size={config.model.vocab_size}, but {self.tokens} has {self.tokenizer.size} "
                "tokens: leave the setting out"
            )
        config.model.vocab_size = self.tokenizer.size
        self.sentence_encoder: SentenceEncoder | None = None
        alignment = config.model.text_alignment
        if alignment.enabled:
            self.sentence_encoder = build_sentence_encoder(config.teacher, world.device)
            if alignment.text_dim not in (0, self.sentence_encoder.dim):
                raise UserError(
                    f"model.text_alignment.text_dim={alignment.text_dim}, but the text encoder has "
                    f"{self.sentence_encoder.dim} dimensions: leave the setting out"
                )
            alignment.text_dim = self.sentence_encoder.dim
        seed_everything(config.seed)  # the same first weights in every process
        self.model = AsrModel(config.model)
        self.model.encoder.checkpointing = config.activation_checkpointing
        if transducer := self.model.find(TransducerHead):
            loss = config.loss
            transducer.lattice = LatticeSettings(loss.prune_range, loss.lm_scale, loss.am_scale, loss.backend)
        self.needs = Needs(
            tokenizer=self.tokenizer,
            repeats_need_blank=any(head.repeats_need_blank for head in self.model.all_heads()),
            translation=config.translation_field if config.model.attention_decoder.translation else None,
            fields=[config.teacher.field] if alignment.enabled else [],
        )
        self.validation_interval = config.validation.interval
        self.validator: Validator | None = None
        if config.validation.interval:
            self.validator = Validator(data_dir, self.tokenizer, config.validation, world)

    @property
    def clock(self) -> Clock:
        return self.model.clock

    def forward(self, batch: Batch, step: int) -> dict[str, Loss]:
        """Losses of all heads with a weight other than 0, each per encoder frame of the batch."""
        device = self.world.device
        weights = self._weights(step)
        sentences, spoken = self._sentences(batch) if weights.get("text_alignment") else (None, None)
        losses = self.model.losses(
            batch.features.to(device, non_blocking=True),
            batch.lengths.to(device, non_blocking=True),
            batch.tokens,
            translations=batch.translations,
            sentences=sentences,
            spoken=spoken,
            supervisions=batch.supervisions,
            only=[name for name, weight in weights.items() if weight],
        )
        frames = float(sum(encoder_frames(length) for length in batch.lengths.tolist()))
        return {name: Loss(total, frames, weights[name]) for name, total in losses.items()}

    def _weights(self, step: int) -> dict[str, float]:
        """Weight of every loss at a step, from the settings or else from the head."""
        loss = self.config.loss
        weights = loss.weights(step)
        if step >= loss.ctc_first_steps:
            for head in self.model.all_heads():
                for name in head.loss_names:
                    weights.setdefault(name, head.loss_weight)
        return weights

    def _sentences(self, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
        """Embeddings of the distinct sentences of a batch, and index of the sentence of each utterance."""
        if self.sentence_encoder is None:
            return None, None
        said = [sentence_of(supervision, self.config.teacher.field) for supervision in batch.supervisions]
        different, numbers = different_sentences(said)
        return self.sentence_encoder(different), upload(torch.tensor(numbers), self.world.device)

    def validate(self, step: int, stop: Callable[[], bool]) -> Rates | None:
        """CER in per cent by dialect; only that of CTC while nothing else is trained."""
        assert self.validator is not None
        return self.validator(self.model, ctc_only=step <= self.config.loss.ctc_first_steps, stop=stop)

    def initialise(self, source: Path) -> None:
        initialise_from(self.model, source, self.tokenizer).report(source)

    def check_resumable(self, checkpoint: Path) -> None:
        check_tokens(checkpoint, self.tokens)

    def write_files(self, directory: Path) -> None:
        self.tokenizer.save(directory)

    @classmethod
    def problems(cls, config: RecognitionConfig) -> list[str]:
        problems = []
        if not config.model.transducer and not config.model.ctc:
            problems.append("the model has neither model.transducer nor model.ctc: set one of them to true")
        if config.loss.ctc_first_steps and not config.model.ctc:
            problems.append(
                f"loss.ctc_first_steps={config.loss.ctc_first_steps} needs a CTC head: "
                "set model.ctc=true or loss.ctc_first_steps=0"
            )
        if config.model.transducer and (problem := backend_problem(config.loss.backend)):
            problems.append(f"loss.backend={config.loss.backend}: {problem}")
        if config.model.text_alignment.enabled and (problem := encoder_problem(config.teacher.encoder)):
            problems.append(f"teacher.encoder={config.teacher.encoder}: {problem}")
        if config.validation.ctc and not config.model.ctc:
            problems.append(
                "validation.ctc=true needs a CTC head: set model.ctc=true or validation.ctc=false"
            )
        splits = ["train"] * (config.data.mixing.file is None)
        splits += [config.validation.split] * bool(config.validation.interval)
        return problems + missing_data(config.data_dir, splits, tokens=True)

    @classmethod
    def window_scorer(cls, end: "Checkpoint", data_dir: Path | None, world: World) -> CerScorer:
        return CerScorer(end, data_dir, world)


def check_tokens(checkpoint: Path, directory: Path) -> None:
    """Check that the tokens in a folder are those that a checkpoint was trained with.

    With other tokens, even of the same number, each output of the model would mean another character.

    Raises:
        UserError: the tokens differ; the message says how many.
    """
    then, now = checkpoint / TOKENS_FILE, directory / TOKENS_FILE
    if then.read_bytes() == now.read_bytes():
        return
    before, after = Tokenizer.load(then).pieces, Tokenizer.load(now).pieces
    other = [number for number, pair in enumerate(zip_longest(before, after)) if len(set(pair)) == 2]
    example = ""
    if other:
        pair = [pieces[other[0]] if other[0] < len(pieces) else "nothing" for pieces in (before, after)]
        example = f", the first of them {other[0]}: {pair[0]} then, {pair[1]} now"
    raise UserError(
        f"{now} holds other tokens than {then}, with which the weights were trained: {len(before)} then, "
        f"{len(after)} now, {len(other)} ids with another meaning{example}. To resume, copy {TOKENS_FILE} "
        f"and {TOKEN_TABLE_FILE} from {checkpoint} to {directory} (what they lack is spelt in bytes). To "
        "train with the new tokens, choose another exp_dir; init_from starts it from these weights."
    )
