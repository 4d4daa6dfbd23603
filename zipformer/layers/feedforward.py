"""Feed-forward module (Yao et al. 2023, "Zipformer", section 2.2)."""

from __future__ import annotations

from torch import Tensor, nn

from zipformer.layers.linear import ActivationDropoutAndLinear
from zipformer.layers.regularizers import Balancer, Whiten
from zipformer.layers.schedule import Clock, Schedule, ScheduleLike


class FeedForward(nn.Module):
    """Linear, SwooshL, dropout shared over time, linear.

    Args:
        dim: channels of input and output.
        feedforward_dim: hidden channels.
        clock: the model's clock.
        dropout: rate or schedule; None: from 0.3 down to 0.1 in the first 20000 reference batches.
    """

    def __init__(
        self, dim: int, feedforward_dim: int, *, clock: Clock, dropout: ScheduleLike | None = None
    ) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, feedforward_dim)
        self.hidden_balancer = Balancer(
            feedforward_dim, clock=clock, min_positive=0.3, max_positive=1.0, min_abs=0.75, max_abs=5.0
        )
        self.out_proj = ActivationDropoutAndLinear(
            feedforward_dim,
            dim,
            activation="swoosh_l",
            dropout=Schedule(clock, (0.0, 0.3), (20000.0, 0.1)) if dropout is None else dropout,
            initial_scale=0.1,
        )
        self.out_whiten = Whiten(
            1, clock=clock, limit=Schedule(clock, (0.0, 7.5), (20000.0, 15.0), default=7.5)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (N, T, C) -> (N, T, C)."""
        hidden = self.hidden_balancer(self.in_proj(x))  # (N, T, feedforward_dim)
        return self.out_whiten(self.out_proj(hidden))
