"""Labels for unlabelled speech: a frozen random projection and random codebooks.

This is the quantiser of BEST-RQ (Chiu et al. 2022, arXiv 2202.01855). Four normalised feature frames are
stacked to one vector x, which a random matrix A projects to a few dimensions. The label of x is the number of
the nearest code: argmin_c |norm(c) - norm(A x)|. Nothing here is trained. Several codebooks, each with its
own matrix, give several labels per frame, so that less depends on a single random draw.

Normalisation is essential. With unnormalised log-mel features, all projections point in nearly the same
direction and a few codes get most frames (perplexity 4 to 7 instead of 350 to 490, measured on 47 s of speech
with 8192 codes).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STACK = 4  # feature frames (100/s) in a stack; also the stride of the encoder (25/s)
# Through the convolutions of the front end, encoder frame i depends on feature frames 4i to 4i+10 (the last
# encoder frame of an utterance perhaps only up to 4i+8). Its stack is in the middle: frames 4i+3 to 4i+6.
FIRST_FRAME = 3
SMALLEST_DEVIATION = 1e-5  # for a mel bin that never changes, as in digital silence


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of every utterance and mel bin over time, each (N, 1, F)."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, features: Tensor, lengths: Tensor) -> "Statistics":
        """Compute from features (N, T, F); frames at and after ``lengths`` (N,) are padding and ignored."""
        valid = (torch.arange(features.shape[1], device=features.device) < lengths[:, None]).unsqueeze(2)
        count = lengths.view(-1, 1, 1)
        mean = features.where(valid, 0).sum(dim=1, keepdim=True) / count
        variance = (features - mean).where(valid, 0).square().sum(dim=1, keepdim=True) / count
        return cls(mean, variance.sqrt().clamp(min=SMALLEST_DEVIATION))

    def normalise(self, features: Tensor) -> Tensor:
        """Scale features (N, T, F) to mean 0 and variance 1 in every utterance and mel bin."""
        return (features - self.mean) / self.deviation


def stack_frames(features: Tensor, num_stacks: int) -> Tensor:
    """The stacks of the encoder frames.

    Args:
        features: features (N, T, F).
        num_stacks: number T' of stacks, at most ((T-7)//2+1)//2.

    Returns:
        Stacks (N, T', 4F); stack i has the frames 4i+3 to 4i+6 one after the other.
    """
    used = features[:, FIRST_FRAME : FIRST_FRAME + STACK * num_stacks]
    return used.unflatten(1, (num_stacks, STACK)).flatten(2)


class RandomQuantiser(nn.Module):
    """Frozen projections and codebooks. Both are buffers: saved with the weights, never trained.

    Args:
        input_dim: dimension of a stack, 4F.
        num_codebooks: number of labels per stack.
        codebook_size: number of codes in each codebook.
        code_dim: dimension of a code.
    """

    projections: Tensor  # (codebooks, input_dim, code_dim)
    codes: Tensor  # (codebooks, codebook_size, code_dim), each of length 1

    def __init__(self, input_dim: int, *, num_codebooks: int, codebook_size: int, code_dim: int) -> None:
        super().__init__()
        projections = torch.empty(num_codebooks, input_dim, code_dim)
        for projection in projections:
            nn.init.xavier_uniform_(projection)
        self.register_buffer("projections", projections)
        codes = torch.randn(num_codebooks, codebook_size, code_dim)
        self.register_buffer("codes", F.normalize(codes, dim=-1))

    @torch.no_grad()
    def forward(self, stacks: Tensor) -> Tensor:
        """Labels (M, codebooks) int64 of normalised stacks (M, input_dim).

        Of unit vectors, the nearest has the largest scalar product, and the length of A x does not matter. So
        a matrix product is enough; all differences would take M * codes * code_dim floats.
        """
        with torch.autocast(stacks.device.type, enabled=False):
            labels = [
                (stacks.float() @ projection @ codes.T).argmax(dim=1)
                for projection, codes in zip(self.projections, self.codes, strict=True)
            ]
        return torch.stack(labels, dim=1)
