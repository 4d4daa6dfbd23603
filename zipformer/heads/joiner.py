"""Joiner: combines an encoder frame and a predictor state into logits over the next token."""

import torch
from torch import Tensor, nn

from zipformer.layers.linear import scaled_linear


class Joiner(nn.Module):
    """``output_linear(tanh(encoder_proj(frame) + decoder_proj(state)))``.

    Args:
        encoder_dim: channels of the encoder frames.
        predictor_dim: channels of the predictor.
        joiner_dim: channels in which the two are added.
        vocab_size: number of tokens, blank included.
    """

    def __init__(self, encoder_dim: int, predictor_dim: int, joiner_dim: int, vocab_size: int) -> None:
        super().__init__()
        self.encoder_proj = scaled_linear(encoder_dim, joiner_dim, initial_scale=0.25)
        self.decoder_proj = scaled_linear(predictor_dim, joiner_dim, initial_scale=0.25)
        self.output_linear = nn.Linear(joiner_dim, vocab_size)

    def forward(self, am: Tensor, lm: Tensor, project: bool = True) -> Tensor:
        """Logits of every pair that broadcasting am against lm gives.

        Args:
            am: (..., encoder_dim), or (..., joiner_dim) when ``project`` is False.
            lm: (..., predictor_dim), or (..., joiner_dim) when ``project`` is False.
            project: False where ``encoder_proj`` and ``decoder_proj`` were applied before, once per frame and
                once per state instead of once per pair.

        Returns:
            (..., vocab_size), not normalised.
        """
        if project:
            am, lm = self.encoder_proj(am), self.decoder_proj(lm)
        return self.output_linear(torch.tanh(am + lm))
