"""The properties to probe: dialect, site, speaker, sentence, character, tone.

The table shows, for each property, the held-out units and the units to which the control task gives a random
label:

=========================  =======  =======================  ======================
property                   within   held out                 control type
=========================  =======  =======================  ======================
dialect                             sites (and speakers)     sentence
site                       dialect  speakers and sentences   sentence
speaker                    site     sentences                sentence
sentence                            sites (and speakers)     sentence of a dialect
sentence, unseen dialect            dialects (and speakers)  sentence of a dialect
character                           sites (and speakers)     character of a dialect
character, unseen dialect           dialects (and speakers)  character of a dialect
tone                       variety  sites (and speakers)     character of a dialect
=========================  =======  =======================  ======================

If the speakers of a site read different sentences, training has the sentences of the held-out speaker only at
other sites, which is a cue to a wrong answer; therefore the site is probed with new sentences.

For a sentence or a character, the control gives its form in each dialect a label of its own: the gain of the
probe over the control is due to what the forms of different dialects have in common. In an unseen dialect the
control is at chance, and accuracy shows the transfer from other dialects, by meaning or by similar sounds.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from lhotse.cut import Cut
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from retrieval.depth.probe_design import NotIdentifiable, ProbeConfig, ProbeTask, make_task
from retrieval.embedding.cuts import PRONUNCIATIONS, labels_of
from retrieval.embedding.store import EmbeddingStore
from zipformer.errors import UserError

logger = logging.getLogger(__name__)

_TONE = re.compile("[0-9⁰¹²³⁴-⁹˥-˩]+$")  # digits, also raised ones, and tone letters
OUTPUT_FRAMES = 2  # frames at 50 per second for each frame of a character's span (25 per second)


@dataclass(frozen=True, slots=True)
class Facts:
    """Labels of an utterance; empty where unknown."""

    utterance_id: str
    dialect: str
    variety: str
    site: str
    speaker: str
    sentence_id: str
    text: str
    tones: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """The ``position``-th character of an utterance and its frames [start, end) at 25 a second."""

    utterance_id: str
    position: int
    character: str
    start: int
    end: int


Spans = Sequence[Span]


def facts_of(cuts: Iterable[Cut]) -> list[Facts]:
    """Labels of every utterance, from the manifest.

    Raises:
        UserError: see :func:`retrieval.embedding.cuts.labels_of`.
    """
    facts, misfits = [], 0
    for cut in cuts:
        labels, supervision = labels_of(cut), cut.supervisions[0]
        custom = supervision.custom or {}
        text = "".join((supervision.text or "").split())
        facts.append(
            Facts(
                cut.id,
                labels.dialect,
                labels.subdialect or labels.dialect,
                labels.site,
                supervision.speaker or "",
                labels.sentence_id,
                text,
                _tones(custom, text),
            )
        )
        misfits += not facts[-1].tones and any(custom.get(key) for key in PRONUNCIATIONS)
    if misfits:
        logger.warning(
            "%d of %d utterances have a pronunciation that is not one syllable a character: no tones",
            misfits,
            len(facts),
        )
    return facts


def _tones(custom: Mapping[str, object], text: str) -> tuple[str, ...]:
    """Tone of each character, "" if the syllable has none; empty if no pronunciation fits the text.

    The first pronunciation that fits is used.
    """
    for key in PRONUNCIATIONS:
        syllables = str(custom.get(key) or "").split()
        if syllables and len(syllables) == len(text):
            return tuple(found[0] if (found := _TONE.search(syllable)) else "" for syllable in syllables)
    return ()


def utterance_tasks(facts: Sequence[Facts], config: ProbeConfig) -> list[ProbeTask | NotIdentifiable]:
    """Tasks for dialect, site, speaker and sentence."""
    dialect, site, speaker, sentence = (
        [getattr(fact, name) for fact in facts] for name in ("dialect", "site", "speaker", "sentence_id")
    )
    voice = together(site, speaker)
    # An utterance without a sentence id is a type of its own, so its label cannot be memorised.
    read = [fact.sentence_id or f"only {fact.utterance_id}" for fact in facts]
    form = [f"{fact.dialect}\t{text}" for fact, text in zip(facts, read, strict=True)]
    return [
        make_task(
            "dialect",
            unit="utterance",
            held_out="sites",
            labels=dialect,
            groups=voice,
            types=read,
            coincides="every dialect has a single site or speaker: dialect and voice cannot be told apart",
        ),
        make_task(
            "site",
            unit="utterance",
            held_out="speakers and sentences",
            labels=site,
            groups=speaker,
            types=read,
            strata=dialect,
            crossed=sentence,
            coincides="no dialect has two sites of two speakers each: site and speaker cannot be told apart",
        ),
        make_task(
            "speaker",
            unit="utterance",
            held_out="sentences",
            labels=speaker,
            groups=sentence,
            types=read,
            # With the dialect, because places with the same name may speak different dialects.
            strata=[f"{fact.dialect}/{fact.site or fact.variety}" for fact in facts],
            coincides="no site or variety has two speakers: the speaker cannot be told apart from it",
        ),
        make_task(
            "sentence",
            unit="utterance",
            held_out="sites",
            labels=sentence,
            groups=voice,
            types=form,
            coincides="no sentence is spoken at two sites or by two speakers",
        ),
        make_task(
            "sentence, unseen dialect",
            unit="utterance",
            held_out="dialects",
            labels=sentence,
            groups=together(dialect, speaker),
            types=form,
            coincides="no sentence is spoken in two dialects by different speakers",
        ),
    ]


def character_tasks(
    facts: Sequence[Facts], spans: Spans, config: ProbeConfig
) -> list[ProbeTask | NotIdentifiable]:
    """Tasks for character and tone; their units are the spans."""
    number = {fact.utterance_id: index for index, fact in enumerate(facts)}
    owner = [number[span.utterance_id] for span in spans]
    voices = together([fact.site for fact in facts], [fact.speaker for fact in facts])
    dialects = together([fact.dialect for fact in facts], [fact.speaker for fact in facts])
    character = [span.character for span in spans]
    form = [f"{facts[i].dialect}\t{text}" for i, text in zip(owner, character, strict=True)]
    voice = [voices[i] for i in owner]
    limited = partial(
        make_task, max_samples=config.max_samples, min_occurrences=config.min_occurrences, seed=config.seed
    )
    tasks = [
        limited(
            "character",
            unit="character",
            held_out="sites",
            labels=character,
            groups=voice,
            types=form,
            coincides="no frequent character is spoken at two sites or by two speakers",
            max_classes=config.max_classes,
        ),
        limited(
            "character, unseen dialect",
            unit="character",
            held_out="dialects",
            labels=character,
            groups=[dialects[i] for i in owner],
            types=form,
            coincides="no frequent character is spoken in two dialects by different speakers",
            max_classes=config.max_classes,
        ),
    ]
    if not any(fact.tones for fact in facts):
        where = " or ".join(f"supervision.custom.{key}" for key in PRONUNCIATIONS)
        reason = f"the corpus gives no pronunciations of a syllable a character ({where}), so no tones"
        return [*tasks, NotIdentifiable("tone", reason)]
    tone = [
        facts[i].tones[span.position] if facts[i].tones else "" for i, span in zip(owner, spans, strict=True)
    ]
    tasks.append(
        limited(
            "tone",
            unit="character",
            held_out="sites",
            labels=tone,
            groups=voice,
            types=form,
            strata=[facts[i].variety for i in owner],
            coincides="no variety has two tones that two sites or speakers use",
        )
    )
    return tasks


def characters_of(aligned: Mapping[str, Sequence[tuple[str, int, int]]]) -> list[Span]:
    """Spans of single characters, from the stretches (text, start, end) of each utterance.

    A stretch of several characters (e.g. a token of an icefall model) has no span, because the times of its
    characters are unknown; its characters still count in the positions of later characters.
    """
    spans = []
    for name, stretches in aligned.items():
        position = 0
        for text, start, end in stretches:
            if len(text) == 1:
                spans.append(Span(name, position, text, start, end))
            position += len(text)
    return spans


def together(*columns: Sequence[str]) -> list[str]:
    """Groups of rows that share a value in any column, directly or through other rows.

    Empty values do not count as shared. A speaker who is recorded at two sites joins these sites in one
    group, so that no voice is both in training and in test. A row without any value has no group ("").
    """
    rows = len(columns[0])
    nodes: dict[tuple[int, str], int] = {}
    edges = [
        (row, rows + nodes.setdefault((kind, value), len(nodes)))
        for kind, column in enumerate(columns)
        for row, value in enumerate(column)
        if value
    ]
    if not edges:
        return [""] * rows
    source, target = np.array(edges).T
    size = rows + len(nodes)
    graph = coo_array((np.ones(len(edges)), (source, target)), (size, size))
    _, component = connected_components(graph, directed=False)
    has_value = np.zeros(rows, dtype=bool)
    has_value[source] = True
    return [str(component[row]) if has_value[row] else "" for row in range(rows)]


def utterance_means(store: EmbeddingStore, facts: Sequence[Facts]) -> NDArray[np.float32]:
    """Mean frames (M,D) of the utterances.

    Raises:
        KeyError: an utterance is not in the store.
    """
    return np.stack([store[fact.utterance_id].mean(axis=0, dtype=np.float64) for fact in facts]).astype(
        np.float32
    )


def span_means(store: EmbeddingStore, spans: Spans, factor: int) -> NDArray[np.float32]:
    """Mean frames (M,D) of spans, each frame weighted by the share of it that the span covers.

    Args:
        store: embeddings at 50/factor frames a second.
        spans: stretches of frames, with bounds at 25 frames a second.
        factor: number of frames at 50 per second in one frame of the store.

    Raises:
        UserError: a span ends after its utterance.
    """
    means = np.zeros((len(spans), store.frames.shape[1]), dtype=np.float32)
    for row, span in enumerate(spans):
        frames = store[span.utterance_id]  # (T,D)
        start, end = (bound * OUTPUT_FRAMES / factor for bound in (span.start, span.end))
        first, last = int(start), min(len(frames), int(np.ceil(end)))
        if last <= first:
            raise UserError(
                f"utterance {span.utterance_id}: character {span.position + 1} is at frames {span.start} to "
                f"{span.end} (25/s), after its {len(frames)} frames ({50 / factor:g}/s); align again"
            )
        number = np.arange(first, last)
        covered = np.minimum(end, number + 1) - np.maximum(start, number)
        means[row] = covered @ frames[first:last].astype(np.float64) / covered.sum()
    return means
