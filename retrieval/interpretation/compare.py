"""Matches words by their embeddings and tests the matches."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table

from retrieval.interpretation.matching import Match, Matcher, match_words
from retrieval.interpretation.pairs import UtterancePair
from retrieval.interpretation.text_similarity import TextSimilarity
from retrieval.interpretation.validation import PairedTest, Sums, adjusted, matched_and_random
from retrieval.interpretation.words import SpokenWords
from retrieval.protocol.sites import Site
from zipformer.errors import UserError

MOST_COSINES = 1 << 27  # pairs of words of two texts; their text similarities take 1 GiB
UNREADABLE = "\ufffd"  # an aligner's sign for bytes that are not a character
Groups = tuple[str, str]


@dataclass(frozen=True)
class Interpretation:
    """Counts of matched words, and tests of their text similarity.

    Attributes:
        utterance_pairs: number of compared pairs of utterances.
        left_out: number of pairs without words on one side.
        words: number of words of the compared utterances, counted in each pair.
        matched_words: number of these words with a match.
        word_pairs: number of matches.
        overall: tests over all sentences, by text similarity.
        by_groups: tests by text similarity and pair of groups, with p adjusted for the pairs of groups.
    """

    utterance_pairs: int
    left_out: int
    words: int
    matched_words: int
    word_pairs: int
    overall: dict[str, PairedTest]
    by_groups: dict[str, dict[Groups, PairedTest]]

    def to_json(self) -> dict[str, Any]:
        """Values for JSON; tests by similarity, with a list of the pairs of groups."""
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


class Scope(str, Enum):
    """Candidates for the match of a word.

    ``utterance``: words of the same sentence at the other site. ``site``: words of all sentences at the other
    site. Within a sentence, equal word order gives the same matches as equal meaning; among all sentences it
    does not.
    """

    utterance = "utterance"
    site = "site"


@dataclass(frozen=True)
class Text:
    """The words (W) to match with those of another text: words of one utterance, or of a site.

    Attributes:
        site: site of the speaker.
        origins: utterance and sentence of each word.
        spoken: words and embeddings.
    """

    site: Site
    origins: list[tuple[str, str]]
    spoken: SpokenWords


def texts(
    pairs: Sequence[UtterancePair], spoken: Mapping[str, SpokenWords], scope: Scope
) -> Iterator[tuple[Text, Text]]:
    """Pairs of texts to match, in the order of the pairs of utterances, which must all have words.

    Raises:
        UserError: two sites have too many words to compare all pairs of words.
    """
    for members in _grouped(pairs, scope):
        source = _text(members[0].source, [(p.source_id, p.sentence) for p in members], spoken)
        target = _text(members[0].target, [(p.target_id, p.sentence) for p in members], spoken)
        W, V = len(source.origins), len(target.origins)
        if W * V > MOST_COSINES:
            raise UserError(
                f"{W} words of {source.site} with {V} of {target.site} are more than fit into memory; set"
                " scope=utterance, or name fewer sites"
            )
        yield source, target


def _grouped(pairs: Sequence[UtterancePair], scope: Scope) -> list[list[UtterancePair]]:
    """Pairs of utterances whose words are matched together."""
    groups: dict[object, list[UtterancePair]] = {}
    for number, pair in enumerate(pairs):
        key = number if scope is Scope.utterance else (str(pair.source), str(pair.target))
        groups.setdefault(key, []).append(pair)
    return list(groups.values())


def _text(site: Site, utterances: Sequence[tuple[str, str]], spoken: Mapping[str, SpokenWords]) -> Text:
    parts = [spoken[name] for name, _ in utterances]
    return Text(
        site,
        [origin for origin, part in zip(utterances, parts, strict=True) for _ in part.words],
        SpokenWords(
            [word for part in parts for word in part.words],
            np.concatenate([part.embeddings for part in parts]),
        ),
    )


def compare(
    pairs: Sequence[UtterancePair],
    spoken: Mapping[str, SpokenWords],
    similarities: Sequence[TextSimilarity],
    table: Path,
    *,
    matcher: Matcher,
    scope: Scope = Scope.utterance,
    threshold: float = 0.5,
    penalty: float = 0.5,
    confidence: float = 0.95,
) -> Interpretation:
    """Match the words of every pair, write the matches to a table and test them.

    Args:
        pairs: pairs of utterances; pairs with an utterance without words are counted and left out.
        spoken: words and embeddings by utterance.
        similarities: text similarities.
        table: TSV file to write, one line for each matched pair of words.
        matcher: method of matching.
        scope: candidates for the match of a word. With ``site``, a match belongs to the sentence of its
            source word.
        threshold: threshold of ``transport`` and ``unbalanced``.
        penalty: penalty of ``unbalanced``.
        confidence: confidence level of the intervals.

    Raises:
        UserError: no pair of utterances has words, embeddings differ in dimension, there is no match at all,
            or see :func:`texts`.
    """
    compared = [pair for pair in pairs if pair.source_id in spoken and pair.target_id in spoken]
    if not compared:
        raise UserError(f"none of {len(pairs)} pairs of utterances has words on both sides")
    sums: dict[str, dict[Groups | None, Sums]] = {similarity.name: {} for similarity in similarities}
    words = matched_words = word_pairs = 0
    total = len(_grouped(compared, scope))
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow([*_COLUMNS, *(f"similarity_{similarity.name}" for similarity in similarities)])
        for source, target in track(
            texts(compared, spoken, scope), total=total, description="matching words"
        ):
            matches = match_words(
                matcher, cosines(source.spoken, target.spoken), threshold=threshold, penalty=penalty
            )
            values = []
            for similarity in similarities:
                matrix = text_similarities(similarity, source.spoken, target.spoken)
                matched, random = matched_and_random(matrix, matches)
                values.append(matched)
                for key in (None, (source.site.group, target.site.group)):
                    group = sums[similarity.name].setdefault(key, Sums())
                    sentences = [source.origins[match.source][1] for match in matches]
                    group.add(sentences, matched, random)
            _write(writer, source, target, matches, values)
            words += len(source.origins) + len(target.origins)
            matched_words += len({m.source for m in matches}) + len({m.target for m in matches})
            word_pairs += len(matches)
    if not word_pairs:
        raise UserError(
            f"no words match at threshold={threshold} and penalty={penalty}; lower the one or raise the other"
        )
    tests = {
        name: {key: group.test(confidence) for key, group in of_similarity.items() if group.count}
        for name, of_similarity in sums.items()
    }
    return Interpretation(
        len(compared),
        len(pairs) - len(compared),
        words,
        matched_words,
        word_pairs,
        {name: of_similarity[None] for name, of_similarity in tests.items()},
        {
            name: adjusted({key: test for key, test in of_similarity.items() if key is not None})
            for name, of_similarity in tests.items()
        },
    )


def text_similarities(
    similarity: TextSimilarity, source: SpokenWords, target: SpokenWords
) -> NDArray[np.float64]:
    """Similarities (W,V) of all words of two texts; each distinct word is compared once.

    A word with bytes that are not a character (U+FFFD), as in a hypothesis, has similarity 0 to every word,
    even to itself.
    """
    rows, row = np.unique([word.text for word in source.words], return_inverse=True)
    columns, column = np.unique([word.text for word in target.words], return_inverse=True)
    matrix = similarity.matrix(rows.tolist(), columns.tolist())
    matrix[[UNREADABLE in word for word in rows]] = 0.0
    matrix[:, [UNREADABLE in word for word in columns]] = 0.0
    return matrix[row][:, column]


def cosines(source: SpokenWords, target: SpokenWords) -> NDArray[np.float32]:
    """Cosines (W,V) of the embeddings of words.

    Raises:
        UserError: the embeddings differ in dimension.
    """
    if source.embeddings.shape[1] != target.embeddings.shape[1]:
        raise UserError(
            f"embeddings have {source.embeddings.shape[1]} and {target.embeddings.shape[1]} dimensions; embed"
            " both with one model"
        )
    return source.embeddings @ target.embeddings.T


_COLUMNS = (
    "source_group", "target_group", "source_site", "target_site", "source_sentence", "target_sentence",
    "source_utterance", "target_utterance",
    "source_word", "source_start", "source_end", "target_word", "target_start", "target_end",
    "cosine", "share",
)  # fmt: skip


def _write(
    writer: Any, source: Text, target: Text, matches: Sequence[Match], values: Sequence[NDArray[np.float64]]
) -> None:
    for number, match in enumerate(matches):
        first, second = source.spoken.words[match.source], target.spoken.words[match.target]
        first_utterance, first_sentence = source.origins[match.source]
        second_utterance, second_sentence = target.origins[match.target]
        writer.writerow(
            [
                source.site.group,
                target.site.group,
                source.site.name,
                target.site.name,
                first_sentence,
                second_sentence,
                first_utterance,
                second_utterance,
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


def tests_table(outcome: Interpretation, similarity: str, confidence: float) -> Table:
    """Table of the tests of one similarity, for the terminal; p of pairs of groups is Holm-adjusted."""
    table = Table(title=f"text similarity of matched words ({similarity})", title_justify="left")
    for column in ("pair", "sentences", "word pairs", "matched", "random"):
        table.add_column(column, justify="left" if column == "pair" else "right")
    table.add_column(f"difference ({100 * confidence:g} %)", justify="right")
    for column in ("t-test p", "Wilcoxon p", "d_z", "rank-biserial"):
        table.add_column(column, justify="right")
    table.caption = "p of pairs of groups: after Holm's correction for their number; of all: one test"
    table.caption_justify = "left"
    overall = outcome.overall[similarity]
    rows = [
        (f"{a} – {b}", test, test.t_p_holm, test.wilcoxon_p_holm)
        for (a, b), test in outcome.by_groups[similarity].items()
    ]
    for name, test, t_p, wilcoxon_p in [*rows, ("all", overall, overall.t_p, overall.wilcoxon_p)]:
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
                    (t_p, ".1e"),
                    (wilcoxon_p, ".1e"),
                    (test.cohen_d, ".2f"),
                    (test.rank_biserial, ".2f"),
                )
            ),
        )
    return table
