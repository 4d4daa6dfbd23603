"""Makes all files of an interpretation from aligned utterances."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

import numpy as np
from lhotse.cut import Cut
from numpy.typing import NDArray
from rich.progress import track

from retrieval.embedding.cuts import labels_of
from retrieval.embedding.store import DESCRIPTION, Utterance
from retrieval.figures.style import save_png, svg_data_uri
from retrieval.interpretation.compare import Interpretation, compare, cosines, text_similarities
from retrieval.interpretation.config import WHISPER, InterpretConfig
from retrieval.interpretation.matching import Match, match_words
from retrieval.interpretation.page import MatchedWords, ShownPair, flac_data_uri, render
from retrieval.interpretation.pairs import UtterancePair, choose_shown, utterance_pairs
from retrieval.interpretation.pictures import Side, matched_against_random, similarity_matrix
from retrieval.interpretation.text_similarity import TextSimilarity
from retrieval.interpretation.words import FrameClock, SpokenWords, Word, centre_frames, write_words
from retrieval.protocol.sites import sites_of
from retrieval.results.weights import Digests, weights_behind, weights_of
from zipformer.data.dataset import DataSet
from zipformer.errors import UserError
from zipformer.files import replacing_folder, write_json, write_text
from zipformer.typed_json import read_json

logger = logging.getLogger(__name__)

WORDS, MATCHES, SUMMARY, PAGE = "words.tsv", "word_pairs.tsv", "summary.json", "index.html"


@dataclass(frozen=True)
class SpokenUtterance:
    """An utterance with its frames (T,D), the times of the frames, and its words."""

    id: str
    frames: NDArray[np.floating]
    clock: FrameClock
    words: list[Word]


def pairs_of_cuts(cuts: Iterable[Cut], config: InterpretConfig) -> list[UtterancePair]:
    """Pairs of utterances that the settings select.

    Raises:
        UserError: an id occurs twice, or see :func:`retrieval.protocol.sites.sites_of` and
            :func:`retrieval.interpretation.pairs.utterance_pairs`.
    """
    utterances: dict[str, Utterance] = {}
    for cut in cuts:
        if cut.id in utterances:
            raise UserError(f"cut {cut.id} is there twice: prepare the corpus again with unique ids")
        labels = labels_of(cut)
        utterances[cut.id] = Utterance(
            cut.id, 0, cut.num_frames or 0, labels.dialect, labels.subdialect, labels.site, labels.sentence_id
        )
    sites = sites_of(
        utterances.values(), level=config.level, duplicates=config.duplicates, groups=config.groups
    )
    return utterance_pairs(sites, config.pairs)


def interpret(
    config: InterpretConfig,
    pairs: Sequence[UtterancePair],
    utterances: Iterable[SpokenUtterance],
    similarities: Sequence[TextSimilarity],
    audio_of: Callable[[str], tuple[NDArray[np.floating], int] | None],
    dataset: DataSet,
) -> Interpretation:
    """Match words and write tables, summary, figures and page into ``config.folder``.

    Memory holds the centre frames of all words, and all frames of the utterances on the page.

    Args:
        config: settings.
        pairs: pairs of utterances, from :func:`pairs_of_cuts`.
        utterances: utterances, each at most once; pairs with a missing utterance are left out.
        similarities: text similarities; the first one decides on solid or dashed boxes in the pictures.
        audio_of: function that returns samples (T,) and sampling rate of an utterance, or None if there is no
            recording.
        dataset: data set of the utterances.

    Raises:
        UserError: an embedding is not finite, or see :func:`compare`; nothing is written.
    """
    weights = weights_of_words(config)
    dataset.check(Path(config.model_dir))
    with replacing_folder(config.folder, keep_others=False) as folder:
        spoken, shown, frames = _collect(utterances, pairs, config.shown)
        write_words(folder / WORDS, ((name, words.words) for name, words in spoken.items()))
        outcome = compare(
            pairs,
            spoken,
            similarities,
            folder / MATCHES,
            matcher=config.matcher,
            scope=config.scope,
            threshold=config.threshold,
            penalty=config.penalty,
            confidence=config.confidence,
        )
        settings = asdict(config)
        settings |= {name: value.value for name, value in settings.items() if isinstance(value, Enum)}
        summary = {"settings": settings, "weights": weights, "dataset": dataset.record()} | outcome.to_json()
        write_json(folder / SUMMARY, summary)
        validation = matched_against_random(outcome, confidence=config.confidence)
        save_png(validation, folder / "validation.png")
        items = [
            _show(config, pair, spoken, frames, similarities, audio_of, folder / f"pair-{number:02d}.png")
            for number, pair in enumerate(track(shown, description="drawing pairs"), start=1)
        ]
        write_text(folder / PAGE, render(outcome, items, validation, settings))
        dataset.claim(Path(config.model_dir))
    return outcome


def weights_of_words(config: InterpretConfig) -> Digests:
    """Digests of the weights that words and frames depend on (:mod:`retrieval.results.weights`).

    Embeddings outside the model directory belong to another model, so new weights here do not affect them.
    """
    model_dir = Path(config.model_dir)
    found: set[str | None] = set()
    if config.embeddings is None or (config.words is None and config.aligner != WHISPER):
        found.add(weights_of(model_dir))
    if config.embeddings is not None:
        folder = Path(config.embeddings)
        if folder.resolve().is_relative_to(model_dir.resolve()):
            description = read_json(folder / DESCRIPTION, "embed")
            behind = weights_behind([description or {}])
            found.update([None] if behind is None else behind)
    return None if None in found else sorted(digest for digest in found if digest is not None)


def _collect(
    utterances: Iterable[SpokenUtterance], pairs: Sequence[UtterancePair], count: int
) -> tuple[dict[str, SpokenWords], list[UtterancePair], dict[str, SpokenUtterance]]:
    """Centre frames of all words, the pairs for the page, and all frames of their utterances.

    It is known only at the end which utterances have words. Therefore the frames of twice as many pairs as
    are shown are kept, and the first complete pairs are used.
    """
    everything = {name for pair in pairs for name in (pair.source_id, pair.target_id)}
    candidates = choose_shown(pairs, everything, 2 * count)
    wanted = {name for pair in candidates for name in (pair.source_id, pair.target_id)}
    spoken: dict[str, SpokenWords] = {}
    frames: dict[str, SpokenUtterance] = {}
    for utterance in utterances:
        try:
            spoken[utterance.id] = centre_frames(utterance.frames, utterance.words, utterance.clock)
        except ValueError as error:
            raise UserError(f"utterance {utterance.id}: {error}") from error
        if utterance.id in wanted:
            frames[utterance.id] = utterance
    return dict(sorted(spoken.items())), choose_shown(candidates, frames.keys(), count), frames


def _show(
    config: InterpretConfig,
    pair: UtterancePair,
    spoken: dict[str, SpokenWords],
    frames: dict[str, SpokenUtterance],
    similarities: Sequence[TextSimilarity],
    audio_of: Callable[[str], tuple[NDArray[np.floating], int] | None],
    picture: Path,
) -> ShownPair:
    """One pair for the page; its figure is also written as PNG."""
    source, target = spoken[pair.source_id], spoken[pair.target_id]
    matches = match_words(
        config.matcher, cosines(source, target), threshold=config.threshold, penalty=config.penalty
    )
    values = [text_similarities(similarity, source, target) for similarity in similarities]
    sides = [
        Side(f"{site.group}, {site.name}", frames[name].frames, frames[name].clock, frames[name].words)
        for site, name in ((pair.source, pair.source_id), (pair.target, pair.target_id))
    ]
    figure = similarity_matrix(
        sides[0],
        sides[1],
        matches,
        [float(values[0][match.source, match.target]) for match in matches],
        similarity=f"text similarity ({similarities[0].name})",
    )
    save_png(figure, picture, dots_per_inch=110)
    audio = [audio_of(name) for name in (pair.source_id, pair.target_id)]
    source_audio, target_audio = (None if sound is None else flac_data_uri(*sound) for sound in audio)
    return ShownPair(
        pair,
        _text(source),
        _text(target),
        svg_data_uri(figure),
        [_matched(source, target, match, values) for match in matches],
        source_audio,
        target_audio,
    )


def _text(spoken: SpokenWords) -> str:
    texts = [word.text for word in spoken.words]
    # Without spaces, words of several letters would run together.
    return (" " if any(text.isascii() and len(text) > 1 for text in texts) else "").join(texts)


def _matched(
    source: SpokenWords, target: SpokenWords, match: Match, values: Sequence[NDArray[np.float64]]
) -> MatchedWords:
    return MatchedWords(
        source.words[match.source],
        target.words[match.target],
        match,
        [float(matrix[match.source, match.target]) for matrix in values],
    )
