"""Silence after the end of an utterance that makes its frames independent of the rest of the batch.

In a batch, every utterance except the longest is followed by padding. Attention and the convolutions of the
encoder mask padding, but some operations do not:

- the ConvNeXt block of the front end sees three frames (50 a second) after the end; - a stack with a lower
frame rate merges groups of ``factor`` frames, and the last group may include frames after
  the end. At the end of the batch, the last frame is repeated instead;
- a causal convolution without chunks scales the frames near the end of the batch, and a causal convolution
with
  chunks scales a batch shorter than a chunk as if it were a whole chunk.

With this margin after the longest utterance, all these operations see the same silence after every utterance.
"""

import math

from zipformer.encoder.frontend import CONVNEXT_KERNEL, DOWNSAMPLING
from zipformer.encoder.zipformer import OUTPUT_DOWNSAMPLING, EncoderConfig


def padding_margin(config: EncoderConfig) -> int:
    """Feature frames (100 a second) of silence that must follow the longest utterance of a batch.

    Example: with stacks at factors 2, 4, 8, 4, up to 7 frames after the end are in the same group as the last
    frame, and the front end sees 3 more: 2 * (7 + 3) = 20.
    """
    factors = [stack.downsampling_factor for stack in config.stacks()]
    beyond = max(_frames_in_groups(length, factors) - length for length in range(1, _period(factors) + 1))
    needed = beyond + CONVNEXT_KERNEL // 2
    if config.causal:
        chunk = config.chunk_size[0]  # the chunk size of evaluation
        kernels = max(stack.kernel_size * stack.downsampling_factor for stack in config.stacks())
        needed = max(needed, chunk - 1 if chunk > 0 else beyond + kernels)
    return DOWNSAMPLING * needed


def _frames_in_groups(length: int, factors: list[int]) -> int:
    """Number of frames (50 a second) in all groups that contain frames of an utterance of ``length``."""
    needed = length
    for factor in [OUTPUT_DOWNSAMPLING, *reversed(factors)]:
        needed = -(-needed // factor) * factor
    return needed


def _period(factors: list[int]) -> int:
    """Number of frames after which the groups of all stacks begin at the same frame again."""
    period = OUTPUT_DOWNSAMPLING
    for factor in factors:
        period = math.lcm(period, factor)
    return period
