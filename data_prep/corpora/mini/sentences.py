"""Which sentences the embedded corpus says: test, valid and training sentences of every variety.

Test sentences are unlike each other and unlike every training sentence; words are drawn so that all of them
come about equally often in training. Everything follows from the seed.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from data_prep.corpora.mini.grammar import content, overlap, sentence
from data_prep.corpora.mini.lexicon import text
from zipformer.errors import UserError

Sentence = tuple[str, ...]

MIN_CHARACTERS: Final = 6
MAX_CHARACTERS: Final = 14
CANDIDATES: Final = 40
POOL_PER_SENTENCE: Final = 12
POOL_PER_UNLIKE_SENTENCE: Final = 60
# Two test sentences share at most this part of their content words; so do a test and a valid sentence.
MAX_TEST_OVERLAP: Final = 0.5
# A training sentence with a larger part of a test sentence's content words is a near-duplicate.
MAX_TRAINING_OVERLAP: Final = 0.8


@dataclass(frozen=True)
class Sentences:
    """The text of the corpus as concepts.

    Attributes:
        test: test sentences; the same for every variety, with sentence ids ``1`` to ``n`` in this order.
        valid: validation sentences, the same for every variety.
        train: training sentences by variety, the shared ones first.
    """

    test: tuple[Sentence, ...]
    valid: tuple[Sentence, ...]
    train: dict[str, tuple[Sentence, ...]]


def write_sentences(
    varieties: Sequence[str],
    trained: Sequence[str],
    *,
    test: int,
    valid: int,
    shared: int,
    own: int,
    seed: int,
) -> Sentences:
    """Draw the sentences of the corpus.

    Args:
        varieties: all varieties; lengths in characters are within limits in each.
        trained: those with training sentences.
        test: number of test sentences.
        valid: number of valid sentences.
        shared: training sentences that every trained variety says.
        own: further training sentences that each trained variety draws for itself.
        seed: random seed of all draws.

    Raises:
        UserError: the grammar does not give that many different sentences.
    """
    size = POOL_PER_SENTENCE * (shared + own) + POOL_PER_UNLIKE_SENTENCE * (test + valid)
    pool = _pool(varieties, size, random.Random(f"{seed}/pool"))
    apart = _unlike(test + valid, pool)
    pool = [concepts for concepts in pool if all(_differs(concepts, other) for other in apart)]
    common = _balanced(shared, pool, Counter(), random.Random(f"{seed}/shared"))
    rest = [concepts for concepts in pool if concepts not in set(common)]
    counts = Counter(concept for concepts in common for concept in concepts)
    train = {
        variety: (*common, *_balanced(own, rest, counts.copy(), random.Random(f"{seed}/train/{variety}")))
        for variety in trained
    }
    return Sentences(tuple(apart[:test]), tuple(apart[test:]), train)


def _pool(varieties: Sequence[str], size: int, draw: random.Random) -> list[Sentence]:
    """Different random sentences with content words and of a fitting length in every variety."""
    pool: dict[Sentence, None] = {}
    for _ in range(100 * size):
        concepts = sentence(draw)
        if concepts is None or len(content(concepts)) < 2:
            continue
        lengths = [len(text(concepts, variety)) for variety in varieties]
        if min(lengths) >= MIN_CHARACTERS and max(lengths) <= MAX_CHARACTERS:
            pool[concepts] = None
        if len(pool) == size:
            return list(pool)
    raise UserError(f"the grammar gave only {len(pool)} of {size} sentences; ask for fewer")


def _unlike(count: int, pool: Sequence[Sentence]) -> list[Sentence]:
    """Sentences that share few content words with each other."""
    chosen: list[Sentence] = []
    for concepts in pool:
        if len(chosen) == count:
            return chosen
        if len(content(concepts)) < 3:
            continue
        if all(overlap(concepts, other) <= MAX_TEST_OVERLAP for other in chosen):
            chosen.append(concepts)
    raise UserError(
        f"only {len(chosen)} of {count} sentences are unlike each other; ask for fewer test sentences"
    )


def _balanced(
    count: int, pool: Sequence[Sentence], counts: Counter[str], draw: random.Random
) -> list[Sentence]:
    """Of several candidates each time the one with the words that came least often so far.

    ``counts`` holds how often each concept came before, and goes on counting.
    """

    def rarity(concepts: Sentence) -> float:
        return sum((1 + counts[concept]) ** -4.0 for concept in concepts) / len(concepts) ** 0.5

    chosen: dict[Sentence, None] = {}
    while len(chosen) < count:
        candidates = [c for c in draw.choices(pool, k=CANDIDATES) if c not in chosen]
        best = max(candidates, key=rarity)
        counts.update(best)
        chosen[best] = None
    return list(chosen)


def _differs(concepts: Sentence, other: Sentence) -> bool:
    """Whether a training sentence says something else than a sentence that was held apart."""
    wanted = content(other)
    return len(content(concepts) & wanted) / len(wanted) <= MAX_TRAINING_OVERLAP
