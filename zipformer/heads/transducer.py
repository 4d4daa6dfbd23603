"""Transducer head: predictor, joiner, and the two losses of pruned RNN-T training (Kuang et al. 2022).

The joiner of the simple loss only adds two linear projections. It is cheap on the whole lattice, and the
occupations of its arcs show where the probable paths of the transcript are. The pruned loss computes the full
joiner only there.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zipformer.data.tokenizer import BLANK
from zipformer.errors import UserError
from zipformer.heads.head import EncodedBatch, Head, HeadSizes, register_head
from zipformer.heads.joiner import Joiner
from zipformer.heads.predictor import Predictor
from zipformer.layers.linear import scaled_linear
from zipformer.layers.schedule import Clock
from zipformer.losses.pruned_joiner import pruned_joiner_loss
from zipformer.losses.rnnt import prune_ranges, smoothed_rnnt_loss


@dataclass
class TransducerConfig:
    """Sizes of the transducer.

    Attributes:
        predictor_dim: channels of the predictor, a multiple of 4.
        joiner_dim: channels in which encoder and predictor are added.
        context_size: number of tokens that the predictor sees.
    """

    predictor_dim: int
    joiner_dim: int
    context_size: int

    def __post_init__(self) -> None:
        if self.predictor_dim % 4:
            raise UserError(f"model.predictor_dim={self.predictor_dim} is not a multiple of 4")
        if self.context_size < 1:
            raise UserError(f"model.context_size={self.context_size} is less than 1")


@dataclass(frozen=True)
class LatticeSettings:
    """Settings of the two losses.

    Attributes:
        prune_range: label positions per frame in the pruned loss; more are more precise and slower.
        lm_scale: smoothing of the simple loss towards the predictor alone.
        am_scale: smoothing of the simple loss towards the encoder alone.
        backend: code that sums over the lattice, see :mod:`zipformer.losses.backend`.
    """

    prune_range: int = 5
    lm_scale: float = 0.25
    am_scale: float = 0.0
    backend: str = "native"


@register_head("transducer", TransducerConfig)
class TransducerHead(Head):
    """Predictor, joiner, and the projections of the simple loss.

    Attributes:
        lattice: settings of the losses; a training may replace them.
    """

    setting: ClassVar[str] = "model.transducer=true"
    vocabulary_modules: ClassVar[tuple[str, ...]] = (
        "predictor.embedding",
        "joiner.output_linear",
        "simple_am_proj",
        "simple_lm_proj",
    )
    loss_names = ("simple", "pruned")

    def __init__(self, config: TransducerConfig, frame_dim: int, vocab_size: int, *, clock: Clock) -> None:
        super().__init__()
        self.lattice = LatticeSettings()
        self.predictor = Predictor(vocab_size, config.predictor_dim, config.context_size, clock=clock)
        self.joiner = Joiner(frame_dim, config.predictor_dim, config.joiner_dim, vocab_size)
        self.simple_am_proj = scaled_linear(frame_dim, vocab_size, initial_scale=0.25)
        self.simple_lm_proj = scaled_linear(config.predictor_dim, vocab_size, initial_scale=0.25)

    @classmethod
    def build(cls, settings: TransducerConfig, sizes: HeadSizes) -> "TransducerHead":
        return cls(settings, sizes.frame_dim, sizes.vocab_size, clock=sizes.clock)

    def losses(self, batch: EncodedBatch, wanted: Collection[str]) -> dict[str, Tensor]:
        """``simple`` and ``pruned``, which are always computed together.

        They are infinite if an utterance has more tokens than frames.
        """
        if not {"simple", "pruned"} & set(wanted):
            return {}
        symbols, symbol_lengths, lattice = batch.symbols, batch.symbol_lengths, self.lattice
        states = self.predictor(F.pad(symbols, (1, 0), value=BLANK))  # (N, U+1, D)
        am, lm = self.simple_am_proj(batch.frames), self.simple_lm_proj(states)
        with torch.autocast(batch.frames.device.type, enabled=False):
            simple, occupations = smoothed_rnnt_loss(
                am.float(),
                lm.float(),
                symbols,
                batch.lengths,
                symbol_lengths,
                blank=BLANK,
                lm_scale=lattice.lm_scale,
                am_scale=lattice.am_scale,
                backend=lattice.backend,
            )
            ranges = prune_ranges(
                *occupations, batch.lengths, symbol_lengths, lattice.prune_range
            )  # (N, T', R)
        pruned = pruned_joiner_loss(
            self.joiner.encoder_proj(batch.frames),
            self.joiner.decoder_proj(states),
            self.joiner.output_linear.weight,
            self.joiner.output_linear.bias,
            symbols,
            ranges,
            batch.lengths,
            symbol_lengths,
            blank=BLANK,
            backend=lattice.backend,
        )
        return {"simple": simple.sum(), "pruned": pruned}
