"""Stateless predictor of the transducer: an embedding and a convolution over the latest tokens.

Ghodsi et al., "RNN-transducer with stateless prediction network" (2020).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from zipformer.layers.regularizers import Balancer
from zipformer.layers.schedule import Clock

_GROUP_SIZE = 4


class Predictor(nn.Module):
    """Maps each token and the ``context_size - 1`` tokens before it to one state.

    Args:
        vocab_size: number of tokens, blank included.
        dim: channels of the state, a multiple of 4.
        context_size: number of tokens that a state depends on; 1 is a bigram, 2 a trigram.
        clock: the model's clock.
    """

    def __init__(self, vocab_size: int, dim: int, context_size: int, *, clock: Clock) -> None:
        super().__init__()
        self.context_size = context_size
        self.embedding = nn.Embedding(vocab_size, dim)
        # If embeddings could drift in magnitude, averaging the parameters would work badly.
        self.balancer = _magnitude_balancer(dim, clock)
        self.conv: nn.Conv1d | None = None
        if context_size > 1:
            self.conv = nn.Conv1d(dim, dim, context_size, groups=dim // _GROUP_SIZE, bias=False)
            self.balancer2 = _magnitude_balancer(dim, clock)

    def forward(self, tokens: Tensor, pad: bool = True) -> Tensor:
        """State after each token.

        Args:
            tokens: token ids, (N, U) int64; -1 (before the start of the utterance) has a zero embedding.
            pad: True, as in training, puts -1 before the utterance and gives U states. False gives only the
                states with a complete context, U - context_size + 1: decoding passes the last
                ``context_size`` tokens and gets one state.

        Returns:
            (N, U, dim), or (N, U - context_size + 1, dim) without padding.
        """
        x = self.embedding(tokens.clamp(min=0)) * (tokens >= 0).unsqueeze(-1)  # (N, U, dim)
        x = self.balancer(x)
        if self.conv is None:
            return x
        x = x.transpose(1, 2)  # (N, dim, U)
        if pad:
            x = F.pad(x, (self.context_size - 1, 0))
        return self.balancer2(F.relu(self.conv(x).transpose(1, 2)))


def _magnitude_balancer(dim: int, clock: Clock) -> Balancer:
    return Balancer(dim, clock=clock, min_positive=0.0, max_positive=1.0, min_abs=0.5, max_abs=1.0, prob=0.05)
