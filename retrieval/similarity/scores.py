"""Scores of the similarity of two utterances, given their frames; higher is more similar.

========== ==================================================================================================
seqsim     the protocol: each frame with its most similar one, anywhere (:mod:`~retrieval.similarity.seqsim`)
pooled     cosine of the mean frames: what is said at all, whatever its order and number
dtw        mean cosine along the best path through both, in their order (:mod:`~retrieval.similarity.dtw`)
transport  mean cosine under the best matching of all frames with all, each used equally often
========== ==================================================================================================

The last is optimal transport between two uniform distributions over frames: the largest sum_ij P_ij cos(x_i,
y_j) over all P (S,T) >= 0 with row sums 1/S and column sums 1/T, found exactly by the network simplex of POT
(Bonneel et al., ACM Transactions on Graphics 30(6), 2011; Flamary et al., JMLR 22(78), 2021). SeqSim may use
a frame many times, transport may not; if the best matches are one-to-one, both scores are equal.

The time of dynamic time warping and transport for each pair is at least proportional to the product of both
lengths: use them for pools of some hundred utterances.
"""

from enum import Enum
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from retrieval.similarity.dtw import dtw_similarity
from retrieval.similarity.seqsim import Packed, seqsim_packed
from zipformer.errors import UserError


class ScoreKind(str, Enum):
    """Scores that can be chosen by name."""

    seqsim = "seqsim"
    pooled = "pooled"
    dtw = "dtw"
    transport = "transport"


def score_matrix(kind: ScoreKind, x: Packed, y: Packed) -> Tensor:
    """Score every utterance of x with every utterance of y.

    Args:
        kind: name of the score.
        x: the N utterances of one side.
        y: the M utterances of the other side, with the same device, type and D.

    Returns:
        Scores (N,M) in [-1, 1]. All scores are symmetric: ``score_matrix(kind, y, x)`` is the transpose.

    Raises:
        UserError: the frames differ in D, or transport is chosen without POT.
    """
    if x.frames.shape[1] != y.frames.shape[1]:
        raise UserError(
            f"embeddings of {x.frames.shape[1]} and {y.frames.shape[1]} dimensions cannot be compared"
        )
    if kind is ScoreKind.seqsim:
        return seqsim_packed(x, y)
    if kind is ScoreKind.pooled:
        return pooled_cosine(x, y)
    if kind is ScoreKind.dtw:
        return dtw_similarity(x, y)
    return transport_similarity(x, y)


def mean_frames(packed: Packed) -> Tensor:
    """Mean of the unit-length frames of each utterance, (N,D) on the same device, in at least float32.

    In float16, means with a small difference would become equal.
    """
    lengths = packed.lengths.to(packed.frames.device)
    frames = packed.frames.to(torch.promote_types(packed.frames.dtype, torch.float32))
    return torch.segment_reduce(frames, "mean", lengths=lengths, axis=0)


def pooled_cosine(x: Packed, y: Packed) -> Tensor:
    """Cosine (N,M) of mean frames; every frame has length 1 before the mean."""
    return F.normalize(mean_frames(x), dim=1) @ F.normalize(mean_frames(y), dim=1).T


@torch.no_grad()
def transport_similarity(x: Packed, y: Packed) -> Tensor:
    """Sum of P_ij cos(x_i, y_j) under the best transport plan P, (N,M) on the CPU.

    Cosines are computed on the device of the frames, plans on the CPU in float64.

    Raises:
        UserError: POT is not installed.
        RuntimeError: POT did not finish a plan.
    """
    ot = _pot()
    result = torch.empty(len(x), len(y), dtype=x.frames.dtype)
    uniform = [np.full(length, 1 / length) for length in y.lengths.tolist()]
    offsets = y.offsets.tolist()
    columns = y.frames.T.contiguous()
    for n in range(len(x)):
        distances = 1 - (x.frames[x.offsets[n] : x.offsets[n + 1]] @ columns).cpu().double().numpy()
        weights = np.full(len(distances), 1 / len(distances))
        for m, column_weights in enumerate(uniform):
            block = np.ascontiguousarray(distances[:, offsets[m] : offsets[m + 1]])
            cost, log = ot.emd2(weights, column_weights, block, log=True)
            if log["warning"] is not None:
                raise RuntimeError(f"no transport plan for utterances {n} and {m}: {log['warning']}")
            result[n, m] = 1 - cost
    return result


def _pot() -> ModuleType:
    try:
        import ot
    except ModuleNotFoundError as error:
        raise UserError(
            "score=transport needs POT, which is not installed: pip install 'fangyan[transport]', or take"
            " another score"
        ) from error
    module: ModuleType = ot
    return module
