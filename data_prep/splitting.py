"""Divides utterances into train, valid and test, with every sentence in one split only."""

import hashlib
import logging
import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from zipformer.errors import UserError

logger = logging.getLogger(__name__)

# With fewer test sentences, intervals are too wide to compare models.
ENOUGH_TEST_SENTENCES = 30
ENOUGH_VALID_SENTENCES = 10


@dataclass
class SplitConfig:
    """Number and choice of the held-out sentences.

    Attributes:
        valid: sentences for validation: a number below 1 is a fraction of all sentences, otherwise a count.
            By default a twentieth, but at least 10, or an eighth (rounded up) where that is fewer than 10.
        test: sentences for the test, a fraction or a count likewise. By default a tenth, but at least 30, or
            a quarter (rounded up) where that is fewer than 30.
        seed: random seed of the draw.
        complete_first: hold out the sentences that were recorded in most dialects first. For parallel
            recordings, so that every dialect has all of the test sentences.
    """

    valid: float | None = None
    test: float | None = None
    seed: int = 0
    complete_first: bool = False


@dataclass(frozen=True)
class Sentence:
    """The sentence of an utterance: number where known, words, and dialect."""

    sentence_id: str | None
    text: str
    dialect: str


def split_by_sentence(utterances: Sequence[Sentence], config: SplitConfig) -> list[str]:
    """Split of each utterance.

    Utterances with the same sentence id *or* the same text go to the same split, and so do utterances that
    are linked through others. The result depends on the seed and the sentences, not on their order.

    Raises:
        UserError: the numbers of sentences do not leave any for training.
    """
    group_of = _linked(utterances)
    dialects: dict[str, set[str]] = defaultdict(set)
    for group, utterance in zip(group_of, utterances, strict=True):
        dialects[group].add(utterance.dialect)

    def rank(group: str) -> tuple[int, str]:
        drawn = hashlib.blake2b(f"{config.seed} {group}".encode(), digest_size=16).hexdigest()
        return (-len(dialects[group]) if config.complete_first else 0, drawn)

    order = sorted(dialects, key=rank)
    test = _count(config.test, len(order), share=10, enough=ENOUGH_TEST_SENTENCES, at_most=4)
    valid = _count(config.valid, len(order), share=20, enough=ENOUGH_VALID_SENTENCES, at_most=8)
    if min(test, valid) < 0 or test + valid >= len(order):
        raise UserError(
            f"{len(order)} sentences cannot be divided into {test} for test, {valid} for valid and at least "
            "one for train; change corpus.split.test and corpus.split.valid"
        )
    split_of = dict.fromkeys(order[:test], "test")
    split_of.update(dict.fromkeys(order[test : test + valid], "valid"))
    return [split_of.get(group, "train") for group in group_of]


def interval_of_error_rate(characters: float, error_rate: float = 0.2) -> float:
    """Half the width of the 95 % interval of a character error rate, as a fraction.

    The variance is twice the binomial one, because errors come in groups (a sentence is hard or easy as a
    whole).

    Args:
        characters: number of characters in the different sentences of the test set; further speakers of the
            same sentences add little information.
        error_rate: assumed error rate of the model, 0 to 1.
    """
    return 1.96 * math.sqrt(2 * error_rate * (1 - error_rate) / characters) if characters else 1.0


def warn_of_few(utterances: Sequence[Sentence], splits: Sequence[str]) -> None:
    """Log a warning with the width of the interval if there are few test sentences."""
    lengths: dict[str, int] = {}
    for utterance, split in zip(utterances, splits, strict=True):
        if split == "test":
            lengths.setdefault(utterance.sentence_id or utterance.text, len(utterance.text))
    if len(lengths) < ENOUGH_TEST_SENTENCES:
        width = 100 * interval_of_error_rate(sum(lengths.values()))
        logger.warning(
            "the test set has only %d different sentences: a character error rate of 20 %% would have a "
            "95 %% interval of about plus or minus %.0f points. Hold out more (corpus.split.test=N "
            "sentences), or record more",
            len(lengths),
            width,
        )


def _count(amount: float | None, total: int, *, share: int, enough: int, at_most: int) -> int:
    """Number of sentences to hold out: the configured amount, or one in ``share`` but at least ``enough``.

    Where one in ``at_most`` (rounded up) is fewer than ``enough``, it takes the place of ``enough``. Of three
    sentences or fewer, none is held out.
    """
    if amount is None:
        return max(round(total / share), min(enough, -(-total // at_most))) if total > 3 else 0
    return round(amount * total) if amount < 1 else int(amount)


def _linked(utterances: Sequence[Sentence]) -> list[str]:
    """Name of each utterance's set of linked sentences (disjoint sets with path halving)."""
    parent: dict[Hashable, Hashable] = {}

    def root(node: Hashable) -> Hashable:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    nodes: list[tuple[str, str]] = []
    for utterance in utterances:
        text, number = ("text", utterance.text), ("id", utterance.sentence_id or "")
        if utterance.sentence_id and utterance.text:
            parent[root(text)] = root(number)
        nodes.append(number if utterance.sentence_id else text)
    members: dict[Hashable, list[str]] = defaultdict(list)
    for node in nodes:
        members[root(node)].append(" ".join(node))
    # A set is named after its smallest member, so that the order of the table does not matter.
    names = {top: min(group) for top, group in members.items()}
    return [names[root(node)] for node in nodes]
