"""Methods of matching the words of one utterance with those of another."""

from dataclasses import dataclass
from enum import Enum
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from zipformer.errors import UserError

# The unbalanced plan is done when no share changes by this much in a step, or after this many steps.
STILL, STEPS = 1e-7, 10_000


class Matcher(str, Enum):
    """Methods of matching words.

    ``mutual``: one to one, pairs of words that are each other's best match. ``transport``: every word has the
    same mass and all of it is moved, so that a word has several counterparts only if one side has more words.
    ``unbalanced``: softer transport, in which a word may have several counterparts or none. ``position``: the
    words at the same relative position, ignoring the embeddings: the control for the effect of equal word
    order.
    """

    mutual = "mutual"
    transport = "transport"
    unbalanced = "unbalanced"
    position = "position"


@dataclass(frozen=True, slots=True)
class Match:
    """Word ``source`` of one utterance matches word ``target`` of the other.

    Attributes:
        source, target: positions of the words.
        cosine: cosine of their embeddings.
        share: moved mass as a share of the most that a pair could move in a balanced plan; 1 for mutual best
            matches.
    """

    source: int
    target: int
    cosine: float
    share: float = 1.0


def match_words(
    kind: Matcher, cosines: NDArray[np.floating], *, threshold: float = 0.5, penalty: float = 0.5
) -> list[Match]:
    """Matches between the words of two utterances, sorted by source and target.

    Args:
        kind: method of matching.
        cosines: cosines (W,V) of the words of the source with those of the target.
        threshold: threshold of ``transport`` and ``unbalanced``, see :func:`transported`.
        penalty: penalty of ``unbalanced``, see :func:`softly_transported`.
    """
    if kind is Matcher.transport:
        return transported(cosines, threshold=threshold)
    if kind is Matcher.unbalanced:
        return softly_transported(cosines, threshold=threshold, penalty=penalty)
    return mutual_best(cosines) if kind is Matcher.mutual else same_place(cosines)


def mutual_best(cosines: NDArray[np.floating]) -> list[Match]:
    """Pairs whose words are each other's most similar word (SeqSimInterp, arXiv 2505.19606).

    Of equally similar words the first counts as the best, so that there is at least one pair.

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
    """Match every word of the shorter utterance with the word at the same relative position in the longer.

    Args:
        cosines: cosines (W,V), recorded in the matches but not used for matching.
    """
    W, V = cosines.shape
    n = np.arange(min(W, V))
    source, target = ((2 * n + 1) * length // (2 * len(n)) for length in (W, V))
    return [Match(int(i), int(j), float(cosines[i, j])) for i, j in zip(source, target, strict=True)]


def transported(cosines: NDArray[np.floating], *, threshold: float = 0.5) -> list[Match]:
    """Match words by optimal transport: one word may match several.

    Every word has the mass 1/W or 1/V, and moving mass costs 1 - cosine. From the exact plan of least cost,
    those pairs are kept that move at least ``threshold`` times the most that any pair could move, 1/max(W,V).
    With W = V the plan is a one-to-one assignment and every share is 1; with V = 2 W a source word can have
    two targets. All mass must be moved, so a word without a counterpart is matched too, at a low cosine.

    Args:
        cosines: (W,V), at least one word on either side.
        threshold: least share, over 0 and at most 1. A lower threshold keeps more, weaker pairs.

    Raises:
        UserError: the package POT is not installed, or the threshold is out of range.
    """
    ot = _pot(Matcher.transport, threshold)
    W, V = cosines.shape
    plan = ot.emd(np.full(W, 1 / W), np.full(V, 1 / V), 1.0 - cosines.astype(np.float64))  # (W,V)
    return _of_plan(plan, cosines, threshold)


def softly_transported(
    cosines: NDArray[np.floating], *, threshold: float = 0.5, penalty: float = 0.5
) -> list[Match]:
    """Match words by unbalanced transport: one to many, many to one, or not at all.

    Words have masses a = 1/W and b = 1/V, but may send or receive more or less. The plan P (W,V) minimises ::

        sum_ij P_ij (1 - cos_ij) + penalty (KL(P 1 | a) + KL(P^T 1 | b))

    (Chizat et al., Mathematics of Computation 87, 2018). It is found by the multiplicative steps of Chapel et
    al. (NeurIPS 2021), which begin with a b^T and use no random numbers. There is no entropy term, so the
    mass of poor matches goes to 0. With W = V, two words that are matched only with each other move the share
    exp(-(1 - cos) / (2 penalty)); a word with n equally good counterparts moves 1/sqrt(n) of that to each.
    With the default settings a pair of words with one counterpart each is kept from cosine 0.31 on, a word
    with two counterparts from 0.65, with three from 0.86.

    Args:
        cosines: (W,V), at least one word on either side.
        threshold: least share, over 0 and at most 1. A lower threshold keeps more, weaker pairs.
        penalty: penalty on mass that differs from a and b, over 0. A smaller penalty leaves more words
            unmatched; a larger one comes closer to :func:`transported` and takes more steps.

    Raises:
        UserError: the package POT is not installed, or threshold or penalty is out of range.
    """
    if not penalty > 0:
        raise UserError(f"penalty={penalty} must be over 0")
    ot = _pot(Matcher.unbalanced, threshold)
    W, V = cosines.shape
    plan = ot.unbalanced.mm_unbalanced(
        np.full(W, 1 / W),
        np.full(V, 1 / V),
        1.0 - cosines.astype(np.float64),
        reg_m=penalty,
        div="kl",
        numItermax=STEPS,
        stopThr=STILL / max(W, V),
    )
    return _of_plan(plan, cosines, threshold)


def _pot(kind: Matcher, threshold: float) -> ModuleType:
    """Check the threshold and import the package."""
    if not 0 < threshold <= 1:
        raise UserError(f"threshold={threshold} must be over 0 and at most 1")
    try:
        import ot
    except ImportError as error:
        raise UserError(
            f"matcher={kind.value} needs the package POT; install it with: pip install 'fangyan[transport]'"
        ) from error
    module: ModuleType = ot
    return module


def _of_plan(plan: NDArray[np.float64], cosines: NDArray[np.floating], threshold: float) -> list[Match]:
    """The pairs of a plan (W,V) with a share of at least ``threshold``."""
    shares = plan * max(plan.shape)
    return [
        Match(
            int(source), int(target), float(cosines[source, target]), min(1.0, float(shares[source, target]))
        )
        # Minus 1e-9 for rounding errors of the plan.
        for source, target in np.argwhere(shares >= threshold - 1e-9)
    ]
