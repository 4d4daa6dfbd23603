"""From words with embeddings to matched words and their tests."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table

from retrieval.interpretation.matching import Match, Matcher, match_words
from retrieval.interpretation.pairs import UtterancePair
from retrieval.interpretation.text_similarity import TextSimilarity
from retrieval.interpretation.validation import PairedTest, Sums, matched_and_random
from retrieval.interpretation.words import SpokenWords

Groups = tuple[str, str]


@dataclass(frozen=True)
class Outcome:
    """What the matches came to.

    Attributes:
        utterance_pairs: pairs compared; ``left_out`` more lacked words on one side.
        left_out: see there.
        words: words of the compared utterances, counted in each pair.
        matched_words: those of them with a match.
        word_pairs: matches.
        overall: by similarity, tests over all sentences.
        by_groups: by similarity and pair of groups.
    """

    utterance_pairs: int
    left_out: int
    words: int
    matched_words: int
    word_pairs: int
    overall: dict[str, PairedTest]
    by_groups: dict[str, dict[Groups, PairedTest]]

    def to_json(self) -> dict[str, Any]:
        """Plain values; tests by similarity, with a list of the pairs of groups."""
        counts = ("utterance_pairs", "left_out", "words", "matched_words", "word_pairs")
        return {name: getattr(self, name) for name in counts} | {
            "tests": {
                similarity: {
                    "overall": asdict(test),
                    "pairs": [
                        {"source": source, "target": target} | asdict(of_groups)
                        for (source, target), of_groups in self.by_groups[similarity].items()
                    ],
                }
                for similarity, test in self.overall.items()
            }
        }


def compare(
    pairs: Sequence[UtterancePair],
    spoken: Mapping[str, SpokenWords],
    similarities: Sequence[TextSimilarity],
    table: Path,
    *,
    matcher: Matcher,
    threshold: float = 0.5,
    confidence: float = 0.95,
) -> Outcome:
    """Match the words of every pair, write them down, test the matches.

    Args:
        pairs: of utterances; those of which one has no words are counted and left out.
        spoken: words and embeddings by utterance.
        similarities: of texts.
        table: TSV file to write, one line a matched pair of words.
        matcher: how to match.
        threshold: of ``transport``.
        confidence: of the intervals.

    Raises:
        ValueError: no pair of utterances has words, embeddings of two dimensions, or no match at all.
    """
    compared = [pair for pair in pairs if pair.source_id in spoken and pair.target_id in spoken]
    if not compared:
        raise ValueError(
            f"none of {len(pairs)} pairs of utterances has words on both sides; nothing to match"
        )
    sums: dict[str, dict[Groups | None, Sums]] = {similarity.name: {} for similarity in similarities}
    words = matched_words = word_pairs = 0
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow([*_COLUMNS, *(f"similarity_{similarity.name}" for similarity in similarities)])
        for pair in track(compared, description="matching words"):
            source, target = spoken[pair.source_id], spoken[pair.target_id]
            matches = match_words(matcher, cosines(source, target), threshold=threshold)
            values = []
            for similarity in similarities:
                matrix = similarity.matrix(
                    [word.text for word in source.words], [word.text for word in target.words]
                )
                matched, random = matched_and_random(matrix, matches)
                values.append(matched)
                for key in (None, pair.groups):
                    sums[similarity.name].setdefault(key, Sums()).add(pair.sentence, matched, random)
            _write(writer, pair, source, target, matches, values)
            words += len(source.words) + len(target.words)
            matched_words += len({m.source for m in matches}) + len({m.target for m in matches})
            word_pairs += len(matches)
    if not word_pairs:
        raise ValueError(f"no words match at threshold={threshold}; lower it")
    tests = {
        name: {
            key: group.test(confidence) for key, group in of_similarity.items() if any(group.count.values())
        }
        for name, of_similarity in sums.items()
    }
    return Outcome(
        len(compared),
        len(pairs) - len(compared),
        words,
        matched_words,
        word_pairs,
        {name: of_similarity[None] for name, of_similarity in tests.items()},
        {
            name: {key: test for key, test in of_similarity.items() if key is not None}
            for name, of_similarity in tests.items()
        },
    )


def cosines(source: SpokenWords, target: SpokenWords) -> NDArray[np.float32]:
    """Cosines (W,V) of the words' embeddings.

    Raises:
        ValueError: embeddings of two dimensions.
    """
    if source.embeddings.shape[1] != target.embeddings.shape[1]:
        raise ValueError(
            f"embeddings have {source.embeddings.shape[1]} and {target.embeddings.shape[1]} dimensions; embed"
            " both with one model"
        )
    return source.embeddings @ target.embeddings.T


_COLUMNS = (
    "source_group", "target_group", "source_site", "target_site", "sentence_id", "source_utterance",
    "target_utterance", "source_word", "source_start", "source_end", "target_word", "target_start", "target_end",
    "cosine", "share",
)  # fmt: skip


def _write(
    writer: Any,
    pair: UtterancePair,
    source: SpokenWords,
    target: SpokenWords,
    matches: Sequence[Match],
    values: Sequence[NDArray[np.float64]],
) -> None:
    for number, match in enumerate(matches):
        first, second = source.words[match.source], target.words[match.target]
        writer.writerow(
            [
                *pair.groups,
                pair.source.name,
                pair.target.name,
                pair.sentence,
                pair.source_id,
                pair.target_id,
                first.text,
                f"{first.start:.3f}",
                f"{first.end:.3f}",
                second.text,
                f"{second.start:.3f}",
                f"{second.end:.3f}",
                f"{match.cosine:.4f}",
                f"{match.share:.3f}",
                *(f"{column[number]:.4f}" for column in values),
            ]
        )


def tests_table(outcome: Outcome, similarity: str, confidence: float) -> Table:
    """The tests of one similarity, for the terminal."""
    table = Table(title=f"text similarity of matched words ({similarity})", title_justify="left")
    for column in ("pair", "sentences", "word pairs", "matched", "random"):
        table.add_column(column, justify="left" if column == "pair" else "right")
    table.add_column(f"difference ({100 * confidence:g} %)", justify="right")
    for column in ("t-test p", "Wilcoxon p", "d_z", "rank-biserial"):
        table.add_column(column, justify="right")
    rows = [(f"{a} – {b}", test) for (a, b), test in outcome.by_groups[similarity].items()]
    for name, test in [*rows, ("all", outcome.overall[similarity])]:
        interval = "" if test.low is None else f" ({test.low:.3f} to {test.high:.3f})"
        table.add_row(
            name,
            str(test.sentences),
            str(test.word_pairs),
            f"{test.matched:.3f}",
            f"{test.random:.3f}",
            f"{test.difference:.3f}{interval}",
            *(
                "–" if value is None else f"{value:{form}}"
                for value, form in (
                    (test.t_p, ".1e"),
                    (test.wilcoxon_p, ".1e"),
                    (test.cohen_d, ".2f"),
                    (test.rank_biserial, ".2f"),
                )
            ),
        )
    return table
