"""SeqSim by its definition: a loop over pairs of frames, in float64, for one pair of utterances."""

import numpy as np


def seqsim_pair(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """P, R and SeqSim (eq. 1-3 of arXiv 2601.07274) of x (S,D) and y (T,D); 0 for signs that differ."""
    cosines = np.empty((len(x), len(y)))
    for i, a in enumerate(x.astype(np.float64)):
        for j, b in enumerate(y.astype(np.float64)):
            cosines[i, j] = a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b))
    precision = sum(max(row) for row in cosines) / len(x)
    recall = sum(max(column) for column in cosines.T) / len(y)
    score = 2 * precision * recall / (precision + recall) if precision * recall > 0 else 0.0
    return precision, recall, score
