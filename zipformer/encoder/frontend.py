"""Convolutional front end: from 100 feature frames a second to 50 encoder frames."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from zipformer.errors import UserError
from zipformer.layers.activations import swoosh_r
from zipformer.layers.dropout import SharedDropout, sequence_dropout
from zipformer.layers.linear import activation_linear, scale_initial
from zipformer.layers.norm import BiasNorm
from zipformer.layers.regularizers import Balancer, Whiten, scale_grad
from zipformer.layers.schedule import Clock, Schedule, ScheduleLike, current
from zipformer.layers.swoosh import SWOOSH_L

# Feature frames that the unpadded convolutions need beyond the stride for the first output frame.
CONTEXT_FRAMES = 7
DOWNSAMPLING = 2  # feature frames per output frame
CONVNEXT_KERNEL = 7  # output frames


class _FirstConv(nn.Conv2d):
    """A convolution whose parameters get a fifth of the gradient in training.

    This gradient is the largest of all and would otherwise dominate the norm for gradient clipping.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.bias is not None
        return self._conv_forward(x, scale_grad(self.weight, 0.2), scale_grad(self.bias, 0.2))


class ConvNeXt(nn.Module):
    """Residual block: depthwise 7x7 convolution, pointwise, SwooshL, pointwise (Liu et al. 2022).

    Args:
        channels: C.
        clock: the model's clock.
    """

    def __init__(self, channels: int, *, clock: Clock) -> None:
        super().__init__()
        hidden = 3 * channels
        self.skip_rate = Schedule(clock, (0.0, 0.2), (20000.0, 0.015))
        self.depthwise_conv = nn.Conv2d(
            channels, channels, CONVNEXT_KERNEL, padding=CONVNEXT_KERNEL // 2, groups=channels
        )
        self.pointwise_conv1 = nn.Conv2d(channels, hidden, 1)
        self.hidden_balancer = Balancer(
            hidden, clock=clock, min_positive=0.3, max_positive=1.0, min_abs=0.75, max_abs=5.0
        )
        self.pointwise_conv2 = scale_initial(nn.Conv2d(hidden, channels, 1), 0.01)
        self.out_balancer = Balancer(
            channels, clock=clock, min_positive=0.4, max_positive=0.6, min_abs=1.0, max_abs=6.0
        )
        self.out_whiten = Whiten(1, clock=clock, limit=5.0)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, T, F, C) -> (N, T, F, C)."""
        residual = x
        x = self.depthwise_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        # The pointwise convolutions, computed as linear layers.
        x = F.linear(x, self.pointwise_conv1.weight.flatten(1), self.pointwise_conv1.bias)
        x = self.hidden_balancer(x)
        x = activation_linear(x, self.pointwise_conv2.weight.flatten(1), self.pointwise_conv2.bias, SWOOSH_L)
        if self.training:
            x = sequence_dropout(x, current(self.skip_rate))
        return self.out_whiten(self.out_balancer(residual + x))


class ConvFrontend(nn.Module):
    """Three convolutions and a ConvNeXt block over time and frequency, then a linear layer and BiasNorm.

    Args:
        feature_dim: mel bins.
        out_dim: channels of the output.
        clock: the model's clock.
        channels: output channels of the three convolutions. Their cost on a CPU can exceed that of a small
            encoder.
        dropout: rate or schedule; None: from 0.3 down to 0.1 in the first 20000 reference batches.
    """

    def __init__(
        self,
        feature_dim: int,
        out_dim: int,
        *,
        clock: Clock,
        channels: tuple[int, int, int] = (8, 32, 128),
        dropout: ScheduleLike | None = None,
    ) -> None:
        super().__init__()
        first, second, third = channels
        self.conv = nn.ModuleDict(
            {
                "0": _FirstConv(1, first, 3, padding=(0, 1)),  # (time, frequency)
                "4": nn.Conv2d(first, second, 3, stride=2),
                "7": nn.Conv2d(second, third, 3, stride=(1, 2)),
            }
        )
        self.balancers = nn.ModuleList(
            [
                Balancer(first, clock=clock, max_abs=1.0),
                Balancer(second, clock=clock, max_abs=4.0),
                Balancer(third, clock=clock, max_abs=4.0),
            ]
        )
        self.convnext = ConvNeXt(third, clock=clock)
        width = ((feature_dim - 1) // 2 - 1) // 2
        self.out = nn.Linear(third * width, out_dim)
        self.out_whiten = Whiten(
            1, clock=clock, limit=Schedule(clock, (0.0, 4.0), (20000.0, 8.0), default=4.0), grad_scale=0.02
        )
        self.out_norm = BiasNorm(out_dim, clock=clock)
        self.dropout = SharedDropout(
            Schedule(clock, (0.0, 0.3), (20000.0, 0.1)) if dropout is None else dropout
        )

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Halve the frame rate.

        Args:
            features: features (N, T, feature_dim).
            lengths: number of frames of each utterance, (N,) int64.

        Returns:
            x (N, (T - 7) // 2, out_dim) and its lengths (lengths - 7) // 2.

        Raises:
            UserError: the batch is too short for one output frame.
        """
        if features.shape[1] < CONTEXT_FRAMES + 2:
            raise UserError(
                f"the front end needs at least {CONTEXT_FRAMES + 2} feature frames, got {features.shape[1]}: "
                "leave out utterances that short"
            )
        x = features.unsqueeze(3)  # (N, T, F, C), as everywhere below
        for conv, balancer in zip(self.conv.values(), self.balancers, strict=True):
            # For the convolutions this is a batch of images (N, C, T, F) in channels-last layout.
            x = conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            x = swoosh_r(balancer(x))
        x = self.convnext(x)
        # The parameter has channels before frequencies; transposing it is cheaper than transposing the
        # activations.
        num_bins, num_channels = x.shape[2:]
        weight = self.out.weight.view(-1, num_channels, num_bins).transpose(1, 2).flatten(1)
        x = F.linear(x.flatten(2), weight, self.out.bias)  # (N, T', out_dim)
        x = self.out_norm(self.out_whiten(x))
        return self.dropout(x), (lengths - CONTEXT_FRAMES) // DOWNSAMPLING
