"""One layer of the Zipformer encoder (Yao et al. 2024, figure 2)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zipformer.layers.attention import (
    NonlinAttention,
    RelPositionAttentionWeights,
    SelfAttention,
    uniform_attention,
)
from zipformer.layers.bypass import Bypass
from zipformer.layers.convolution import ConvolutionModule
from zipformer.layers.dropout import sequence_mask
from zipformer.layers.feedforward import FeedForward
from zipformer.layers.norm import BiasNorm
from zipformer.layers.regularizers import Balancer, Whiten
from zipformer.layers.schedule import Clock, Schedule, ScheduleLike, current


@dataclass(frozen=True)
class StackSizes:
    """Sizes of one stack of layers, as in :class:`zipformer.encoder.zipformer.EncoderConfig`."""

    num_layers: int
    downsampling_factor: int
    dim: int
    unmasked_dim: int
    feedforward_dim: int
    num_heads: int
    query_head_dim: int
    value_head_dim: int
    pos_head_dim: int
    pos_dim: int
    kernel_size: int
    causal: bool


class EncoderLayer(nn.Module):
    """Three feedforward, two attention and two convolution modules that share one set of attention weights.

    The weights are computed once from the input of the layer and used three times: by the nonlinear attention
    (first head only) and by both self-attentions. In training, whole branches are dropped for whole
    sequences, at rates that decrease with training time.

    Args:
        sizes: sizes of the stack the layer belongs to.
        clock: the model's clock.
        dropout: rate inside the feedforward modules.
        skip_rate: probability that a sequence skips the whole layer.
    """

    def __init__(
        self, sizes: StackSizes, *, clock: Clock, dropout: ScheduleLike, skip_rate: ScheduleLike
    ) -> None:
        super().__init__()
        dim = sizes.dim
        self.clock = clock
        self.self_attn_weights = RelPositionAttentionWeights(
            dim,
            clock=clock,
            pos_dim=sizes.pos_dim,
            num_heads=sizes.num_heads,
            query_head_dim=sizes.query_head_dim,
            pos_head_dim=sizes.pos_head_dim,
        )
        self.self_attn1 = SelfAttention(
            dim, clock=clock, num_heads=sizes.num_heads, value_head_dim=sizes.value_head_dim
        )
        self.self_attn2 = SelfAttention(
            dim, clock=clock, num_heads=sizes.num_heads, value_head_dim=sizes.value_head_dim
        )
        self.nonlin_attention = NonlinAttention(dim, clock=clock)
        self.feed_forward1 = FeedForward(dim, sizes.feedforward_dim * 3 // 4, clock=clock, dropout=dropout)
        self.feed_forward2 = FeedForward(dim, sizes.feedforward_dim, clock=clock, dropout=dropout)
        self.feed_forward3 = FeedForward(dim, sizes.feedforward_dim * 5 // 4, clock=clock, dropout=dropout)
        self.conv_module1 = ConvolutionModule(dim, sizes.kernel_size, clock=clock, causal=sizes.causal)
        self.conv_module2 = ConvolutionModule(dim, sizes.kernel_size, clock=clock, causal=sizes.causal)
        self.norm = BiasNorm(dim, clock=clock)
        self.bypass_mid = Bypass(dim, clock=clock)
        self.bypass = Bypass(dim, clock=clock, skip_rate=skip_rate)

        self.attention_skip_rate = Schedule(clock, (0.0, 0.2), (4000.0, 0.05), (16000.0, 0.0))
        self.conv_skip_rate = Schedule(clock, (0.0, 0.2), (4000.0, 0.05), (16000.0, 0.0))
        self.feedforward_skip_rate = Schedule(clock, (0.0, 0.1), (4000.0, 0.01), (50000.0, 0.0))
        self.const_attention_rate = Schedule(clock, (0.0, 0.25), (4000.0, 0.025))

        self.balancer1 = Balancer(
            dim, clock=clock, min_positive=0.45, max_positive=0.55, min_abs=0.2, max_abs=4.0
        )
        self.balancer2 = Balancer(
            dim, clock=clock, min_positive=0.45, max_positive=0.55, min_abs=0.1, max_abs=4.0
        )
        self.balancer_na = Balancer(
            dim,
            clock=clock,
            min_positive=0.3,
            max_positive=0.7,
            min_abs=Schedule(clock, (0.0, 0.004), (4000.0, 0.02)),
            prob=0.05,
        )
        # The outputs of the last two feedforward modules must not stay too small compared with their
        # residual; this is rare and may be corrected slowly, hence the low probability.
        self.balancer_ff2 = Balancer(
            dim,
            clock=clock,
            min_positive=0.3,
            max_positive=0.7,
            min_abs=Schedule(clock, (0.0, 0.0), (4000.0, 0.1)),
            max_abs=2.0,
            prob=0.05,
        )
        self.balancer_ff3 = Balancer(
            dim,
            clock=clock,
            min_positive=0.3,
            max_positive=0.7,
            min_abs=Schedule(clock, (0.0, 0.0), (4000.0, 0.2)),
            max_abs=4.0,
            prob=0.05,
        )
        self.whiten = Whiten(
            1,
            clock=clock,
            limit=Schedule(clock, (0.0, 4.0), (20000.0, 12.0), default=4.0),
            prob=(0.025, 0.25),
            grad_scale=0.01,
        )

    def forward(
        self,
        x: Tensor,
        pos_emb: Tensor,
        *,
        padding_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        chunk_size: int = -1,
    ) -> Tensor:
        """Run the layer.

        Args:
            x: input (N, T, dim).
            pos_emb: relative positions (1, 2T-1, pos_dim).
            padding_mask: bool (N, T), True = padding.
            attn_mask: bool (T, T), target by source, True = hidden from the target.
            chunk_size: frames of a chunk for the causal convolutions; -1 for the whole sequence.

        Returns:
            (N, T, dim).
        """
        original = x
        weights = self.self_attn_weights(x, pos_emb, padding_mask, attn_mask)  # (H, N, T, T)
        # One random draw for the three modules that share the attention weights.
        attention_keep = self._keep_mask(x, self.attention_skip_rate)

        x = x + self.feed_forward1(x)

        first_head = weights[:1]
        if self.training and self.clock.chance(self.const_attention_rate()):
            # Trains the module to be useful also as an average over time.
            first_head = uniform_attention(first_head)
        x = _add(x, self.balancer_na(self.nonlin_attention(x, first_head)), attention_keep)
        x = _add(x, self.self_attn1(x, weights), attention_keep)
        x = _add(x, self.conv_module1(x, padding_mask, chunk_size), self._keep_mask(x, self.conv_skip_rate))
        x = _add(x, self.balancer_ff2(self.feed_forward2(x)), self._keep_mask(x, self.feedforward_skip_rate))

        x = self.bypass_mid(original, x)

        x = _add(x, self.self_attn2(x, weights), attention_keep)
        x = _add(x, self.conv_module2(x, padding_mask, chunk_size), self._keep_mask(x, self.conv_skip_rate))
        x = _add(x, self.balancer_ff3(self.feed_forward3(x)), self._keep_mask(x, self.feedforward_skip_rate))

        x = self.norm(self.balancer1(x))
        x = self.bypass(original, x)
        return self.whiten(self.balancer2(x))

    def _keep_mask(self, x: Tensor, rate: ScheduleLike) -> Tensor | None:
        """Mask (N, 1, 1) that is 0 for sequences on which a branch is dropped; None if none is dropped."""
        return sequence_mask(x, current(rate)) if self.training else None


def _add(x: Tensor, branch: Tensor, keep: Tensor | None) -> Tensor:
    """Add the branch to x for the sequences that keep it."""
    return x + branch if keep is None else torch.addcmul(x, branch, keep)
