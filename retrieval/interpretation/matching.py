"""Which word of one utterance matches which word of another."""

from dataclasses import dataclass
from enum import Enum
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from zipformer.errors import UserError

# Of the unbalanced plan. It is done when no share changes by this much in a step, or after so many steps.
STILL, STEPS = 1e-7, 10_000


class Matcher(str, Enum):
    """How words are matched.

    ``mutual``: one to one, pairs of words that are each other's best. ``transport``: every word has the same
    mass and all of it is moved, so that a word has several counterparts only if one side has more words.
    ``unbalanced``: softer transport, in which a word may have several counterparts or none.
    ``position``: the words at the same relative place, whatever the embeddings say: the control that shows
    what an equal word order alone would give.
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
        share: share of the mass that one word could hand to another in a balanced plan; 1 for mutual best
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
        cosines: (W,V) of the words of one with those of the other.
        threshold: threshold of ``transport`` and ``unbalanced``, see there.
        penalty: penalty of ``unbalanced``, see :func:`softly_transported`.
    """
    if kind is Matcher.transport:
        return transported(cosines, threshold=threshold)
    if kind is Matcher.unbalanced:
        return softly_transported(cosines, threshold=threshold, penalty=penalty)
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
        cosines: (W,V); only recorded in the matches.
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
        UserError: the package POT is not installed, or the threshold is out of range.
    """
    ot = _pot(Matcher.transport, threshold)
    W, V = cosines.shape
    plan = ot.emd(np.full(W, 1 / W), np.full(V, 1 / V), 1.0 - cosines.astype(np.float64))  # (W,V)
    return _of_plan(plan, cosines, threshold)


def softly_transported(
    cosines: NDArray[np.floating], *, threshold: float = 0.5, penalty: float = 0.5
) -> list[Match]:
    """Pairs between which an unbalanced transport plan moves mass: one to many, many to one, or none.

    Words have masses a = 1/W and b = 1/V, but may hand on or receive more or less. The plan P (W,V) is the
    least of ::

        sum_ij P_ij (1 - cos_ij) + penalty (KL(P 1 | a) + KL(P^T 1 | b))

    (Chizat et al., Mathematics of Computation 87, 2018), found by the multiplicative steps of Chapel et al.
    (NeurIPS 2021), which begin with a b^T and draw nothing at random. It has no entropy term, so pairs
    without a reason to be matched come to 0. With W = V, two words that are matched with each other alone
    move the share exp(-(1 - cos) / (2 penalty)); a word that is shared out among n equally good ones moves
    1/sqrt(n) of that to each. With the default settings a lone pair is kept from cosine 0.31 on, a word with
    two counterparts from 0.65, with three from 0.86.

    Args:
        cosines: (W,V), at least one word on either side.
        threshold: least share, over 0 and at most 1. A lower one keeps more, weaker pairs.
        penalty: penalty on mass that differs from a and b, over 0. A smaller one leaves more words unmatched;
            a greater one comes closer to :func:`transported`, and takes more steps.

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
    """The package, for a threshold in range."""
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
    """The pairs of a plan (W,V) with at least this share."""
    shares = plan * max(plan.shape)
    return [
        Match(
            int(source), int(target), float(cosines[source, target]), min(1.0, float(shares[source, target]))
        )
        # Less 1e-9, because the plan is computed in floating point.
        for source, target in np.argwhere(shares >= threshold - 1e-9)
    ]
