"""How much silence an utterance needs after its end, so that its frames do not depend on its batch.

In a batch, every utterance but the longest is followed by padding. Padding is masked where attention and the
convolutions of the encoder mix frames, but not everywhere:

- the ConvNeXt block of the front end looks three frames (50 a second) past the end;
- a stack that runs at a lower rate takes groups of ``factor`` frames together, of which the last may hold
  frames past the end. Where the batch ends there, the last frame is repeated instead;
- a causal convolution without chunks scales the frames near the end of the batch, and one with chunks scales
  them as if a batch shorter than a chunk were a whole one.

With this margin after the longest utterance, all these places find the same silence for every utterance.
"""

import math

from zipformer.encoder.frontend import CONVNEXT_KERNEL, DOWNSAMPLING
from zipformer.encoder.zipformer import OUTPUT_DOWNSAMPLING, EncoderConfig


def padding_margin(config: EncoderConfig) -> int:
    """Feature frames (100 a second) of silence that must follow the longest utterance of a batch.

    Example: with stacks at factors 2, 4, 8, 4, up to 7 frames past the end share a group with the last one,
    and the front end looks 3 further: 2 * (7 + 3) = 20.
    """
    factors = [stack.downsampling_factor for stack in config.stacks()]
    beyond = max(_frames_in_groups(length, factors) - length for length in range(1, _period(factors) + 1))
    needed = beyond + CONVNEXT_KERNEL // 2
    if config.causal:
        chunk = config.chunk_size[0]  # that evaluation runs with
        kernels = max(stack.kernel_size * stack.downsampling_factor for stack in config.stacks())
        needed = max(needed, chunk - 1 if chunk > 0 else beyond + kernels)
    return DOWNSAMPLING * needed


def _frames_in_groups(length: int, factors: list[int]) -> int:
    """Frames (50 a second) that share a group, in any stack, with those of an utterance of ``length``."""
    needed = length
    for factor in [OUTPUT_DOWNSAMPLING, *reversed(factors)]:
        needed = -(-needed // factor) * factor
    return needed


def _period(factors: list[int]) -> int:
    """After so many frames all groups begin together again."""
    period = OUTPUT_DOWNSAMPLING
    for factor in factors:
        period = math.lcm(period, factor)
    return period
