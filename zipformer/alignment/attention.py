"""Token times from the attention of the decoder to the encoder frames.

The procedure is that of word timestamps in Whisper (Radford et al. 2022): the attention weights of some
heads are standardised over the tokens, smoothed over time by a median filter and averaged over the heads;
then dynamic time warping finds the monotone path with the largest sum. A token begins at the frame at which
the path enters its row and ends where the next token begins.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from torch import Tensor, nn

from zipformer.alignment.warping import warp
from zipformer.data.tokenizer import SOS_EOS
from zipformer.errors import UserError
from zipformer.heads.attention_decoder import (
    AttentionDecoder,
    AttentionDecoderLayer,
    MultiHeadAttention,
)

MEDIAN_FRAMES = 3  # 120 ms; Whisper's filter has 7 frames of 20 ms


@torch.no_grad()
def cross_attention(decoder: AttentionDecoder, frames: Tensor, tokens: Sequence[int]) -> Tensor:
    """Attention of every layer and head to the frames of one utterance.

    Args:
        decoder: the attention decoder, in evaluation mode.
        frames: encoder output (T, D).
        tokens: ids of the U tokens, without ``SOS_EOS``.

    Returns:
        (layers, heads, U+1, T). Row u is the attention when token u is predicted, the last row that for the
        end of the sentence; every row sums to 1.
    """
    weights: list[Tensor] = []

    def record(attention: nn.Module, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
        assert isinstance(attention, MultiHeadAttention)
        weights.append(attention.weights(*inputs)[0])

    handles = []
    for layer in decoder.layers:
        assert isinstance(layer, AttentionDecoderLayer)
        handles.append(layer.src_attn.register_forward_pre_hook(record))
    try:
        inputs = torch.tensor([[SOS_EOS, *tokens]], device=frames.device)
        decoder.logits(frames.unsqueeze(0), torch.tensor([len(frames)], device=frames.device), inputs)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(weights)


def upper_half(weights: Tensor) -> Tensor:
    """All heads of the upper half of the layers, (heads, U+1, T).

    The attention of lower layers is more spread out. Whisper uses the same heads if none were selected by
    hand.
    """
    return weights[len(weights) // 2 :].flatten(0, 1)


def check_median_frames(median_frames: int) -> None:
    """Raise UserError unless the width of a median filter is odd and at least 1."""
    if median_frames < 1 or median_frames % 2 == 0:
        raise UserError(f"median_frames={median_frames} must be odd and at least 1")


def attention_intervals(weights: Tensor, *, median_frames: int = MEDIAN_FRAMES) -> NDArray[np.int64]:
    """Frames of each token, computed from attention weights.

    Args:
        weights: attention weights (heads, U+1, T); the last row belongs to the end of the sentence.
        median_frames: width of the median filter over time, odd. A wider filter removes longer outliers but
            also blurs short tokens.

    Returns:
        First frame of each token and the frame after its last, (U,2). Every token has at least one frame.

    Raises:
        ValueError: the width is even, or the weights have another shape.
    """
    check_median_frames(median_frames)
    if weights.dim() != 3 or 0 in weights.shape:
        raise ValueError(f"weights are {tuple(weights.shape)}; expected (heads, U+1, T), none of them 0")
    path_rows, path_columns = warp(-_evidence(weights.double().cpu().numpy(), median_frames))
    # First column of the path in every row; a path enters each row once.
    starts = path_columns[np.append(True, np.diff(path_rows) > 0)]  # (U+1,)
    return np.stack([starts[:-1], np.maximum(starts[1:], starts[:-1] + 1)], axis=1)


def _evidence(weights: NDArray[np.float64], median_frames: int) -> NDArray[np.float64]:
    """Evidence of each frame for each token, (U+1, T): attention standardised, smoothed, mean over heads."""
    spread = weights.std(axis=1, keepdims=True)
    # A frame that all tokens attend to equally is no evidence for any token.
    standardised = (weights - weights.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    smoothed: NDArray[np.float64] = median_filter(standardised, size=(1, 1, median_frames), mode="mirror")
    return smoothed.mean(axis=0)
