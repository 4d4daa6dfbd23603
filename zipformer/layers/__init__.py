"""Building blocks of the Zipformer, independent of speech and tasks; x is (N, T, C) everywhere."""

from zipformer.layers.activations import SwooshL, SwooshR, swoosh_l, swoosh_r
from zipformer.layers.attention import (
    NonlinAttention,
    RelPositionAttentionWeights,
    RelPositionEncoding,
    SelfAttention,
    relative_positions,
    uniform_attention,
)
from zipformer.layers.bypass import Bypass
from zipformer.layers.convolution import ChunkCausalDepthwiseConv1d, ConvolutionModule, DepthwiseConv1d
from zipformer.layers.dropout import SharedDropout, sequence_dropout, sequence_mask
from zipformer.layers.feedforward import FeedForward
from zipformer.layers.linear import ActivationDropoutAndLinear, scaled_linear
from zipformer.layers.norm import BiasNorm
from zipformer.layers.regularizers import (
    Balancer,
    Whiten,
    limit_param_value,
    penalize_abs_values_gt,
    scale_grad,
)
from zipformer.layers.resampling import Downsample, Upsample, match_channels
from zipformer.layers.schedule import Clock, Schedule, ScheduleLike, current

__all__ = [
    "ActivationDropoutAndLinear",
    "Balancer",
    "BiasNorm",
    "Bypass",
    "ChunkCausalDepthwiseConv1d",
    "Clock",
    "ConvolutionModule",
    "DepthwiseConv1d",
    "Downsample",
    "FeedForward",
    "NonlinAttention",
    "RelPositionAttentionWeights",
    "RelPositionEncoding",
    "Schedule",
    "ScheduleLike",
    "SelfAttention",
    "SharedDropout",
    "SwooshL",
    "SwooshR",
    "Upsample",
    "Whiten",
    "current",
    "limit_param_value",
    "match_channels",
    "penalize_abs_values_gt",
    "relative_positions",
    "scale_grad",
    "scaled_linear",
    "sequence_dropout",
    "sequence_mask",
    "swoosh_l",
    "swoosh_r",
    "uniform_attention",
]
