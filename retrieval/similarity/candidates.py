"""The first of two stages of a search: a few candidates for every query, found by one vector an utterance.

SeqSim against every utterance of a pool costs a matrix product of all frames with all frames. In a large
pool, most utterances are so unlike the query that the mean of their frames shows it; only those with the
most similar means are then compared frame by frame.
"""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.similarity.seqsim import Packed, seqsim_packed
from zipformer.errors import UserError


def nearest(queries: Packed, pool: Packed, count: int) -> Tensor:
    """The utterances of a pool whose mean frames are most similar to that of a query.

    The mean of the pool is subtracted first: frames of a speech encoder have a large part in common, beside
    which the differences between utterances would hardly count.

    Args:
        queries: N utterances.
        pool: M utterances.
        count: of candidates for each query, at most M.

    Returns:
        Numbers of utterances of the pool, (N, count) int64 on the CPU, the most similar first.

    Raises:
        ValueError: FAISS is not installed.
    """
    faiss = _faiss(count)
    pooled = _mean_frames(pool)
    centre = pooled.mean(axis=0)
    index = faiss.IndexFlatIP(pooled.shape[1])
    index.add(_unit(pooled - centre))
    return torch.from_numpy(index.search(_unit(_mean_frames(queries) - centre), count)[1])


def rerank(
    queries: Packed,
    pool: Packed,
    candidates: Tensor,
    score: Callable[[Packed, Packed], Tensor] = seqsim_packed,
) -> Tensor:
    """Scores (N, count) of each query with its candidates, utterance numbers (N, count) of the pool."""
    scores = [score(queries.part(n, n + 1), pool.select(row)) for n, row in enumerate(candidates)]
    return torch.cat(scores)


def mean_frames(packed: Packed) -> Tensor:
    """Mean of the frames (which have length 1) of each utterance, (N,D) on their device, at least float32.

    In float16, means that differ by little would be equal.
    """
    lengths = packed.lengths.to(packed.frames.device)
    frames = packed.frames.to(torch.promote_types(packed.frames.dtype, torch.float32))
    return torch.segment_reduce(frames, "mean", lengths=lengths, axis=0)


def _mean_frames(packed: Packed) -> NDArray[np.float32]:
    return mean_frames(packed).float().cpu().numpy()


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)


def _faiss(count: int) -> ModuleType:
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise UserError(
            f"candidates={count} needs FAISS, which is not installed: pip install 'fangyan[faiss]', or"
            " candidates=0 to compare all pairs"
        ) from error
    module: ModuleType = faiss
    return module
