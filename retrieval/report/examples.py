"""Example hypotheses for the report, drawn at random, with errors marked."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import kaldialign

from retrieval.results.decodings import CerResult
from zipformer.scoring.alignment import characters
from zipformer.scoring.conventions import Convention
from zipformer.scoring.tables import Transcript


@dataclass(frozen=True)
class Sample:
    """A hypothesis and its reference, each as pairs of a text and whether it is wrong."""

    utterance_id: str
    dialect: str
    method: str
    reference: list[tuple[str, bool]]
    hypothesis: list[tuple[str, bool]]


def draw_examples(results: Sequence[CerResult], count: int, *, seed: int = 0) -> list[Sample]:
    """Draw utterances of each dialect at random, of different sentences, the same for every method.

    The draw depends on the seed and the set of utterances, but not on their order or on the hypotheses.

    Args:
        results: results of the methods to show, on the same utterances.
        count: number of utterances of each dialect.
        seed: random seed of the draw.
    """
    by_id = [{item.id: item for item in result.hypotheses} for result in results]
    shared = set(by_id[0]).intersection(*by_id[1:]) if by_id else set()
    candidates: dict[str, list[Transcript]] = defaultdict(list)
    for utterance in sorted(shared):
        candidates[by_id[0][utterance].dialect or ""].append(by_id[0][utterance])
    drawn = []
    for dialect, items in sorted(candidates.items()):
        for item in _of_different_sentences(items, count, random.Random(f"{seed} {dialect}")):
            drawn += [
                _marked(hypotheses[item.id], result.method, result.scoring)
                for result, hypotheses in zip(results, by_id, strict=True)
            ]
    return drawn


def _of_different_sentences(items: Sequence[Transcript], count: int, draw: random.Random) -> list[Transcript]:
    """Draw ``count`` items, repeating a sentence only if all are used; in the order of their ids."""
    shuffled = draw.sample(items, len(items))
    seen: dict[str, int] = defaultdict(int)
    rounds = []
    for item in shuffled:
        sentence = item.sentence_id or item.reference
        rounds.append((seen[sentence], item))
        seen[sentence] += 1
    chosen = [item for _, item in sorted(rounds, key=lambda pair: pair[0])[:count]]
    return sorted(chosen, key=lambda item: item.id)


def _marked(item: Transcript, method: str, convention: Convention) -> Sample:
    pairs = kaldialign.align(
        _shown_units(item.reference, convention), _shown_units(item.hypothesis, convention), ""
    )
    return Sample(
        item.id,
        item.dialect or "",
        method,
        [(reference, reference != hypothesis) for reference, hypothesis in pairs if reference],
        [(hypothesis, reference != hypothesis) for reference, hypothesis in pairs if hypothesis],
    )


def _shown_units(text: str, convention: Convention) -> list[str]:
    """The units whose errors are counted; where they are words or syllables, with a space after each."""
    if convention.split is characters:
        return list(convention.text(text))  # white space is no unit, but is shown
    return [unit if unit >= "\u2e80" else f"{unit} " for unit in convention.units(text)]
