"""Scores that say how alike two utterances are, given their frames; higher is more alike."""

from enum import Enum

from torch import Tensor

from retrieval.seqsim import Packed, seqsim_packed


class ScoreKind(str, Enum):
    """Scores that can be chosen by name."""

    seqsim = "seqsim"


def score_matrix(kind: ScoreKind, x: Packed, y: Packed) -> Tensor:
    """Scores (N,M) of every utterance of x with every utterance of y.

    Raises:
        ValueError: frames of different D.
    """
    if x.frames.shape[1] != y.frames.shape[1]:
        raise ValueError(
            f"embeddings of {x.frames.shape[1]} and {y.frames.shape[1]} dimensions cannot be compared"
        )
    return seqsim_packed(x, y)
