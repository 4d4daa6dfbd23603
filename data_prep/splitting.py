"""Division of utterances into train, valid and test, so that no sentence is in two of them."""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from data_prep.errors import PreparationError


@dataclass
class SplitConfig:
    """How many sentences are held out.

    Attributes:
        valid: sentences for validation: a number below 1 is a fraction of all sentences, else a count.
        test: sentences for the test, likewise.
        seed: another seed draws other sentences.
        complete_first: draw the held-out sentences from those that were recorded in most dialects first. For
            parallel recordings, so that every dialect has all of the test sentences.
    """

    valid: float = 0.05
    test: float = 0.1
    seed: int = 0
    complete_first: bool = False


@dataclass(frozen=True)
class Sentence:
    """What an utterance says: its number where known, its words, and the dialect it says them in."""

    sentence_id: str | None
    text: str
    dialect: str


def split_by_sentence(utterances: Sequence[Sentence], config: SplitConfig) -> list[str]:
    """Split of each utterance.

    Utterances with the same sentence id *or* the same text belong together, and so do those that are linked
    through others. The result depends on the seed and the sentences, not on their order.

    Raises:
        PreparationError: the numbers of sentences do not leave any for training.
    """
    group_of = _linked(utterances)
    dialects: dict[str, set[str]] = defaultdict(set)
    for group, utterance in zip(group_of, utterances, strict=True):
        dialects[group].add(utterance.dialect)

    def rank(group: str) -> tuple[int, str]:
        drawn = hashlib.blake2b(f"{config.seed} {group}".encode(), digest_size=16).hexdigest()
        return (-len(dialects[group]) if config.complete_first else 0, drawn)

    order = sorted(dialects, key=rank)
    test = _count(config.test, len(order))
    valid = _count(config.valid, len(order))
    if min(test, valid) < 0 or test + valid >= len(order):
        raise PreparationError(
            f"{len(order)} sentences cannot be divided into {test} for test, {valid} for valid and at least "
            "one for train; change corpus.split.test and corpus.split.valid"
        )
    split_of = dict.fromkeys(order[:test], "test")
    split_of.update(dict.fromkeys(order[test : test + valid], "valid"))
    return [split_of.get(group, "train") for group in group_of]


def _count(amount: float, total: int) -> int:
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
    # Named after its smallest member, so that the order of the table does not matter.
    names = {top: min(group) for top, group in members.items()}
    return [names[root(node)] for node in nodes]
