"""Joiner: combines an encoder frame and a predictor state into logits over the next token."""

import torch
from torch import Tensor, nn

from zipformer.layers.linear import scaled_linear


class Joiner(nn.Module):
    """``output_linear(tanh(encoder_proj(frame) + decoder_proj(state)))``.

    Args:
        encoder_dim: channels of the encoder frames.
        predictor_dim: channels of the predictor.
        joiner_dim: channels in which frames and states are added.
        vocab_size: number of tokens, blank included.
    """

    def __init__(self, encoder_dim: int, predictor_dim: int, joiner_dim: int, vocab_size: int) -> None:
        super().__init__()
        self.encoder_proj = scaled_linear(encoder_dim, joiner_dim, initial_scale=0.25)
        self.decoder_proj = scaled_linear(predictor_dim, joiner_dim, initial_scale=0.25)
        self.output_linear = nn.Linear(joiner_dim, vocab_size)

    def forward(self, am: Tensor, lm: Tensor, project: bool = True) -> Tensor:
        """Logits of every pair of a frame and a state, with am and lm broadcast.

        Args:
            am: frames (..., encoder_dim), or projected frames (..., joiner_dim) if ``project`` is False.
            lm: states (..., predictor_dim), or projected states (..., joiner_dim) if ``project`` is False.
            project: False if ``encoder_proj`` and ``decoder_proj`` have already been applied, once per frame
                and once per state instead of once per pair.

        Returns:
            Unnormalised logits (..., vocab_size).
        """
        if project:
            am, lm = self.encoder_proj(am), self.decoder_proj(lm)
        return self.output_linear(torch.tanh(am + lm))
