"""How codebooks are used while a model trains on their labels, and when that looks like a collapse.

A loss that falls says nothing by itself: labels that are nearly always the same are easy to predict. So the
accuracy stands beside that of always predicting the commonest label, and the labels themselves are measured.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from zipformer.distributed import World

# With less, labels say little about the speech. Large codebooks have hundreds on varied speech.
LEAST_PERPLEXITY = 50.0
LEAST_SHARE = 0.05  # of a small codebook: its perplexity need not exceed this times the number of its codes
LEAST_FRAMES = 20  # for every code of that perplexity; fewer frames say nothing


@dataclass(frozen=True)
class CodebookUse:
    """How one codebook was used in a number of steps.

    Attributes:
        distinct: number of codes that were the label of some frame.
        perplexity: exp of the entropy of the labels: as if so many codes were used equally often.
        top_share: share of the frames that have the commonest label. Always predicting that label is right as
            often.
        accuracy: share of the frames whose label the model predicts.
    """

    distinct: int
    perplexity: float
    top_share: float
    accuracy: float

    @classmethod
    def of(cls, counts: Tensor, correct: float) -> "CodebookUse":
        """From a histogram of at least one label (codes,) and the number of right predictions."""
        counts = counts.double()
        shares = counts[counts > 0] / counts.sum()
        return cls(
            distinct=len(shares),
            perplexity=float((-(shares * shares.log()).sum()).exp()),
            top_share=float(shares.max()),
            accuracy=correct / float(counts.sum()),
        )


class CodebookCounts:
    """Labels, right predictions and masked frames since the last report, kept on the device.

    Args:
        num_codebooks: labels per frame.
        codebook_size: codes in each codebook.
        device: where the labels are.
    """

    def __init__(self, num_codebooks: int, codebook_size: int, device: torch.device) -> None:
        self.labels = torch.zeros(num_codebooks, codebook_size, dtype=torch.int64, device=device)
        self.correct = torch.zeros(num_codebooks, dtype=torch.int64, device=device)
        self.frames = 0  # masked or not

    @torch.no_grad()
    def add(self, labels: Tensor, logits: Tensor, frames: int) -> None:
        """Count a step.

        Args:
            labels: (M, codebooks) of the masked frames.
            logits: (M, codebooks, codes) of the model.
            frames: number of all frames, without padding.
        """
        self.labels.scatter_add_(1, labels.T, torch.ones_like(labels.T))
        self.correct += (logits.argmax(dim=2) == labels).sum(dim=0)
        self.frames += frames

    def take(self, world: World) -> tuple[list[CodebookUse], int, int]:
        """Sum over all processes and begin again; every process must call this, after at least one step.

        Returns:
            The use of each codebook, the number of masked frames, and that of all frames.
        """
        frames = self.labels.new_tensor([self.frames])
        total = world.sum(torch.cat([self.labels.flatten(), self.correct, frames])).cpu()
        counts, correct, frames = total.split([self.labels.numel(), len(self.correct), 1])
        counts = counts.view_as(self.labels)
        self.labels.zero_()
        self.correct.zero_()
        self.frames = 0
        uses = [CodebookUse.of(*pair) for pair in zip(counts, correct.tolist(), strict=True)]
        return uses, int(counts[0].sum()), int(frames)


def collapsed(uses: list[CodebookUse], codebook_size: int, frames: int) -> list[int]:
    """Numbers of the codebooks whose labels say little.

    Args:
        uses: how each codebook was used.
        codebook_size: codes in each codebook.
        frames: number of labels behind each of them; of too few, none counts as collapsed.
    """
    least = min(LEAST_PERPLEXITY, LEAST_SHARE * codebook_size)
    if frames < LEAST_FRAMES * least:
        return []
    return [number for number, use in enumerate(uses) if use.perplexity < least]
