"""BEST-RQ: pre-training of the encoder on speech without transcripts (Chiu et al. 2022, arXiv 2202.01855).

Spans of the features are replaced by noise, and for every masked frame the encoder predicts the labels that
frozen random codebooks assign to the clean features (:mod:`zipformer.tasks.quantiser`). For this it must
learn to infer masked speech from its context.
"""

import logging
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zipformer.data.batches import Batch
from zipformer.data.cuts import encoder_frames
from zipformer.device import upload
from zipformer.distributed import World
from zipformer.errors import UserError
from zipformer.layers.linear import scaled_linear
from zipformer.layers.schedule import Clock
from zipformer.model import AsrModel
from zipformer.model_config import AsrModelConfig
from zipformer.tasks.codebook_use import CodebookCounts, CodebookUse, collapsed
from zipformer.tasks.initialise import initialise_from
from zipformer.tasks.masking import draw_masks, generator_of, hide
from zipformer.tasks.quantiser import STACK, RandomQuantiser, Statistics, stack_frames
from zipformer.training.config import TrainConfig, missing_data
from zipformer.training.state import seed_everything
from zipformer.training.task import Loss, Needs, Task, register_task

logger = logging.getLogger(__name__)

USE_FIELDS = [item.name for item in fields(CodebookUse)]


@dataclass
class BestRqConfig:
    """Settings of labels and masks.

    Attributes:
        num_codebooks: number of labels per encoder frame, each with its own softmax. With more codebooks,
            less depends on the random draw of a single one, but the softmax layers cost memory and time.
        codebook_size: number of codes in each codebook.
        code_dim: dimension of the codes.
        mask_start: probability that a masked span begins at an encoder frame. With 0.04 and spans of 10, a
            third of a long utterance is masked; larger = less context and harder predictions.
        mask_span: length of a span in encoder frames (40 ms).
        noise: standard deviation of the noise in a span, relative to that of the mel bin.
    """

    num_codebooks: int = 4
    codebook_size: int = 8192
    code_dim: int = 16
    mask_start: float = 0.04
    mask_span: int = 10
    noise: float = 0.1

    def __post_init__(self) -> None:
        for name in ("num_codebooks", "code_dim", "mask_span"):
            if getattr(self, name) < 1:
                raise UserError(f"best_rq.{name}={getattr(self, name)}: give 1 or more")
        if self.codebook_size < 2:
            raise UserError(f"best_rq.codebook_size={self.codebook_size}: give 2 or more")
        if not 0 <= self.mask_start <= 1:
            raise UserError(f"best_rq.mask_start={self.mask_start} is no probability: give 0 to 1")
        if self.noise < 0:
            raise UserError(f"best_rq.noise={self.noise} is negative: give 0 or more")


@dataclass
class BestRqTrainConfig(TrainConfig):
    """Pre-training with BEST-RQ; of ``model``, only front end and encoder are used."""

    task: str = "best_rq"
    model: AsrModelConfig = field(default_factory=AsrModelConfig)
    best_rq: BestRqConfig = field(default_factory=BestRqConfig)


@register_task("best_rq", BestRqTrainConfig)
class BestRq(Task):
    """The task of predicting the labels of masked frames.

    ``model`` is the encoder, from which the training of recognition can start. The quantiser and the softmax
    layers, one for each codebook, belong to the task: they are in checkpoints but not in model directories.
    """

    model: AsrModel
    needs = Needs()
    fixed_settings = ("best_rq.num_codebooks", "best_rq.codebook_size", "best_rq.code_dim")

    def __init__(self, config: BestRqTrainConfig, world: World) -> None:
        super().__init__()
        self.config = config
        self.world = world
        config.model = config.model.without_heads()
        settings = config.best_rq
        seed_everything(config.seed)  # the same weights and codebooks in every process
        self.model = AsrModel(config.model)
        self.model.encoder.checkpointing = config.activation_checkpointing
        self.quantiser = RandomQuantiser(
            STACK * config.model.feature_dim,
            num_codebooks=settings.num_codebooks,
            codebook_size=settings.codebook_size,
            code_dim=settings.code_dim,
        )
        self.label_head = scaled_linear(
            config.model.encoder.output_dim,
            settings.num_codebooks * settings.codebook_size,
            initial_scale=0.25,
        )
        self.counts = CodebookCounts(settings.num_codebooks, settings.codebook_size, world.device)
        self._warned = False

    @property
    def clock(self) -> Clock:
        return self.model.clock

    @classmethod
    def problems(cls, config: BestRqTrainConfig) -> list[str]:
        problems = missing_data(config.data_dir, ["train"] * (config.data.mixing.file is None), tokens=False)
        if config.data.spec_augment.probability:
            problems.append(
                f"data.spec_augment.probability={config.data.spec_augment.probability:g}, but labels are "
                "those of the features as they were recorded: set it to 0"
            )
        if config.data.distortion.distorts:
            problems.append("data.distortion changes the sound, but labels are those of the clean features")
        return problems

    def initialise(self, source: Path) -> None:
        initialise_from(self.model, source, None).report(source)

    def forward(self, batch: Batch, step: int) -> dict[str, Loss]:
        """Cross-entropy of all labels of the masked frames, in nats."""
        logits, labels, _ = self.predict(batch, step)
        total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        if self.training:
            frames = sum(encoder_frames(length) for length in batch.lengths.tolist())
            self.counts.add(labels, logits, frames)
        return {"best_rq": Loss(total, float(labels.numel()), 1.0)}

    def predict(self, batch: Batch, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Predict the labels of the masked frames of a batch.

        Args:
            batch: N utterances with clean features (N, T, F), on the host.
            step: number of the step. With the seed and the id of an utterance, it determines mask and noise:
                they are the same in every batch, position and process.

        Returns:
            Logits (M, codebooks, codes) fp32 and labels (M, codebooks) int64 of the M masked frames, and
            their positions (M,) among the N * T' frames of the batch.
        """
        config, device = self.config.best_rq, self.world.device
        lengths = batch.lengths.tolist()
        rngs = [generator_of(self.config.seed, step, name) for name in batch.ids]
        masks = draw_masks(
            [encoder_frames(length) for length in lengths],
            rngs,
            start_probability=config.mask_start,
            span=config.mask_span,
        )
        places = upload(torch.from_numpy(np.flatnonzero(masks)), device)
        clean = batch.features.to(device, non_blocking=True)
        on_device = batch.lengths.to(device, non_blocking=True)
        statistics = Statistics.of(clean, on_device)
        stacks = stack_frames(statistics.normalise(clean), masks.shape[1])
        labels = self.quantiser(stacks.flatten(0, 1).index_select(0, places))
        hidden = hide(
            clean,
            lengths,
            upload(torch.from_numpy(masks), device),
            statistics,
            [int(rng.integers(2**62)) for rng in rngs],
            noise=config.noise,
        )
        frames, _ = self.model.encode(hidden, on_device)
        logits = self.label_head(frames.flatten(0, 1).index_select(0, places)).float()
        return logits.unflatten(1, (config.num_codebooks, config.codebook_size)), labels, places

    def monitors(self) -> dict[str, float]:
        """Means over the codebooks; warns once if labels contain little information about the speech.

        Compare ``accuracy`` with ``top_share``, the accuracy of always predicting the most frequent label.
        """
        uses, masked, frames = self.counts.take(self.world)
        poor = collapsed(uses, self.config.best_rq.codebook_size, masked)
        if poor and not self._warned and self.world.is_main:
            self._warned = True
            logger.warning(
                "The labels say little about the speech: codebook %d has a perplexity of %.1f, and one code "
                "is the label of %.0f %% of its frames. Much silence does that, or features that are not "
                "log-mel energies.",
                poor[0],
                uses[poor[0]].perplexity,
                100 * uses[poor[0]].top_share,
            )
        means = {name: float(np.mean([getattr(use, name) for use in uses])) for name in USE_FIELDS}
        return {**means, "masked_share": masked / frames}
