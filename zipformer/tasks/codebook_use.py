"""Statistics of the labels of codebooks during training, and detection of a collapse.

A falling loss alone is no evidence of learning: labels that are nearly always the same are easy to predict.
Therefore the accuracy is reported with that of always predicting the most frequent label, and the labels
themselves are measured.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from zipformer.distributed import World

# With a lower perplexity, labels contain little information. On varied speech, large codebooks have hundreds.
LEAST_PERPLEXITY = 50.0
LEAST_SHARE = 0.05  # for small codebooks: least perplexity as a share of the number of codes
LEAST_FRAMES = 20  # frames per code of that perplexity; with fewer frames nothing is judged


@dataclass(frozen=True)
class CodebookUse:
    """Use of one codebook in several steps.

    Attributes:
        distinct: number of codes that occurred as labels.
        perplexity: exp of the entropy of the labels: the number of codes if all were used equally often.
        top_share: share of the frames with the most frequent label: the accuracy of always predicting it.
        accuracy: share of the frames whose label the model predicts.
    """

    distinct: int
    perplexity: float
    top_share: float
    accuracy: float

    @classmethod
    def of(cls, counts: Tensor, correct: float) -> "CodebookUse":
        """Compute from a histogram (codes,) of at least one label and the number of right predictions."""
        counts = counts.double()
        shares = counts[counts > 0] / counts.sum()
        return cls(
            distinct=len(shares),
            perplexity=float((-(shares * shares.log()).sum()).exp()),
            top_share=float(shares.max()),
            accuracy=correct / float(counts.sum()),
        )


class CodebookCounts:
    """Counts labels, right predictions and masked frames since the last report, on the device.

    Args:
        num_codebooks: number of labels per frame.
        codebook_size: number of codes in each codebook.
        device: device of the labels.
    """

    def __init__(self, num_codebooks: int, codebook_size: int, device: torch.device) -> None:
        self.labels = torch.zeros(num_codebooks, codebook_size, dtype=torch.int64, device=device)
        self.correct = torch.zeros(num_codebooks, dtype=torch.int64, device=device)
        self.frames = 0  # masked or not

    @torch.no_grad()
    def add(self, labels: Tensor, logits: Tensor, frames: int) -> None:
        """Count a step.

        Args:
            labels: labels of the masked frames (M, codebooks).
            logits: logits of the model (M, codebooks, codes).
            frames: number of all frames, without padding.
        """
        self.labels.scatter_add_(1, labels.T, torch.ones_like(labels.T))
        self.correct += (logits.argmax(dim=2) == labels).sum(dim=0)
        self.frames += frames

    def take(self, world: World) -> tuple[list[CodebookUse], int, int]:
        """Sum over all processes and reset; every process must call this, after at least one step.

        Returns:
            The use of each codebook, the number of masked frames, and the number of all frames.
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
    """Numbers of the codebooks whose labels contain little information.

    Args:
        uses: use of each codebook.
        codebook_size: number of codes in each codebook.
        frames: number of labels behind each use; with too few, no codebook counts as collapsed.
    """
    least = min(LEAST_PERPLEXITY, LEAST_SHARE * codebook_size)
    if frames < LEAST_FRAMES * least:
        return []
    return [number for number, use in enumerate(uses) if use.perplexity < least]
