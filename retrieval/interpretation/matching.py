"""Which word of one utterance matches which word of another."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray


class Matcher(str, Enum):
    """How words are matched.

    ``mutual``: one to one, the best for each other. ``transport``: one to many, by optimal transport.
    ``position``: the words at the same relative place, whatever the embeddings say: the control that shows
    what an equal word order alone would give.
    """

    mutual = "mutual"
    transport = "transport"
    position = "position"


@dataclass(frozen=True, slots=True)
class Match:
    """Word ``source`` of one utterance matches word ``target`` of the other.

    Attributes:
        source, target: positions of the words.
        cosine: of their embeddings.
        share: of the mass of the match that could be moved at most; 1 for mutual best matches.
    """

    source: int
    target: int
    cosine: float
    share: float = 1.0


def match_words(kind: Matcher, cosines: NDArray[np.floating], *, threshold: float = 0.5) -> list[Match]:
    """Matches between the words of two utterances, sorted by source and target.

    Args:
        kind: how.
        cosines: (W,V) of the words of one with those of the other.
        threshold: of ``transport``, see :func:`transported`.
    """
    if kind is Matcher.transport:
        return transported(cosines, threshold=threshold)
    return mutual_best(cosines) if kind is Matcher.mutual else same_place(cosines)


def mutual_best(cosines: NDArray[np.floating]) -> list[Match]:
    """Pairs whose words are each other's most similar word (SeqSimInterp, arXiv 2505.19606).

    Among equally similar words the first counts as the best, so that there is at least one pair.

    Args:
        cosines: (W,V), at least one word on either side.
    """
    best_target, best_source = cosines.argmax(axis=1), cosines.argmax(axis=0)
    return [
        Match(source, int(target), float(cosines[source, target]))
        for source, target in enumerate(best_target)
        if best_source[target] == source
    ]


def same_place(cosines: NDArray[np.floating]) -> list[Match]:
    """Every word of the shorter utterance with the word at the same relative place of the longer one.

    Args:
        cosines: (W,V); only written down.
    """
    W, V = cosines.shape
    n = np.arange(min(W, V))
    source, target = ((2 * n + 1) * length // (2 * len(n)) for length in (W, V))
    return [Match(int(i), int(j), float(cosines[i, j])) for i, j in zip(source, target, strict=True)]


def transported(cosines: NDArray[np.floating], *, threshold: float = 0.5) -> list[Match]:
    """Pairs between which an optimal transport plan moves mass: one word may match several.

    Every word has the mass 1/W or 1/V, and moving mass costs 1 - cosine. Of the exact plan of least cost, the
    pairs are kept that move at least ``threshold`` of the most that any pair could, 1/max(W,V). With W = V
    the plan is a one-to-one assignment and every share is 1; with V = 2 W a source word can have two targets.
    All mass must go somewhere, so a word that has no counterpart is matched too, at a low cosine.

    Args:
        cosines: (W,V), at least one word on either side.
        threshold: least share, over 0 and at most 1. A lower one keeps more, weaker pairs.

    Raises:
        ValueError: the package POT is not installed, or the threshold is out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold} must be over 0 and at most 1")
    try:
        import ot
    except ImportError as error:
        raise ValueError(
            "matcher=transport needs the package POT; install it with: pip install 'fangyan[transport]'"
        ) from error
    W, V = cosines.shape
    plan = ot.emd(np.full(W, 1 / W), np.full(V, 1 / V), 1.0 - cosines.astype(np.float64))  # (W,V)
    shares = plan * max(W, V)
    return [
        Match(
            int(source), int(target), float(cosines[source, target]), min(1.0, float(shares[source, target]))
        )
        # Less 1e-9, because the plan is computed in floating point.
        for source, target in np.argwhere(shares >= threshold - 1e-9)
    ]
