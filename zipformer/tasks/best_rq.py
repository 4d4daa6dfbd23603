"""BEST-RQ: pre-training of the encoder on speech without transcripts (Chiu et al. 2022, arXiv 2202.01855).

Spans of the features are replaced by noise, and for every hidden frame the encoder predicts the labels that
frozen random codebooks give the clean features (:mod:`zipformer.tasks.quantiser`). To know what was said in a
gap it must understand what was said around it.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from zipformer.data.cuts import encoder_frames
from zipformer.device import upload
from zipformer.errors import UserError
from zipformer.model import AsrModel
from zipformer.tasks.masking import draw_masks, hide
from zipformer.tasks.quantiser import STACK, RandomQuantiser, Statistics, stack_frames

logger = logging.getLogger(__name__)


@dataclass
class BestRqConfig:
    """Labels and masks.

    Attributes:
        num_codebooks: labels per encoder frame, each with its own softmax. More = less depends on one draw of
            a codebook; the softmax layers cost memory and time.
        codebook_size: codes in each codebook.
        code_dim: dimensions in which labels are chosen.
        mask_start: probability that a masked span begins at an encoder frame. With 0.04 and spans of 10, a
            third of a long utterance is masked; larger = less context for harder predictions.
        mask_span: encoder frames (40 ms) in a span.
        noise: standard deviation of what is heard in a span, in units of that of the mel bin.
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


class MaskedPrediction(nn.Module):
    """The encoder, the quantiser, and one linear layer with a softmax for every codebook.

    Args:
        model: the model whose front end and encoder are trained; its heads are not used.
        config: labels and masks.
        seed: two numbers or more that make the masks of this process its own.
    """

    def __init__(self, model: AsrModel, config: BestRqConfig, seed: tuple[int, ...] = (0,)) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.seed = seed
        self.quantiser = RandomQuantiser(
            STACK * model.config.feature_dim,
            num_codebooks=config.num_codebooks,
            codebook_size=config.codebook_size,
            code_dim=config.code_dim,
        )
        self.head = nn.Linear(model.config.encoder.output_dim, config.num_codebooks * config.codebook_size)

    def forward(self, features: Tensor, lengths: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Predict the labels of the masked frames of a batch.

        Args:
            features: (N, T, F) clean features.
            lengths: (N,) int64 valid frames, on the host.
            step: number of the step; with the seed, it decides the masks and the noise.

        Returns:
            Logits (M, codebooks, codes) fp32 and labels (M, codebooks) int64 of the M masked frames, and
            their places (M,) among the N * T' frames of the batch.
        """
        rng = np.random.default_rng([*self.seed, step])
        masks = draw_masks(
            [encoder_frames(length) for length in lengths.tolist()],
            rng,
            start_probability=self.config.mask_start,
            span=self.config.mask_span,
        )
        device = features.device
        generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        places = upload(torch.from_numpy(np.flatnonzero(masks)), device)
        on_device = upload(lengths, device)
        statistics = Statistics.of(features, on_device)
        stacks = stack_frames(statistics.normalise(features), masks.shape[1])
        labels = self.quantiser(stacks.flatten(0, 1).index_select(0, places))
        hidden = hide(
            features, upload(torch.from_numpy(masks), device), statistics, generator, noise=self.config.noise
        )
        frames, _ = self.model.encode(hidden, on_device)
        logits = self.head(frames.flatten(0, 1).index_select(0, places)).float()
        return logits.unflatten(1, (self.config.num_codebooks, -1)), labels, places
