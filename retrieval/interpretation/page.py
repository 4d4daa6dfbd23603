"""One HTML page that shows pairs of utterances with their matched words and plays both recordings."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import soundfile
from matplotlib.figure import Figure
from numpy.typing import NDArray

from retrieval.figures.fonts import web_font
from retrieval.figures.style import svg_data_uri
from retrieval.interpretation.compare import Interpretation
from retrieval.interpretation.matching import Match
from retrieval.interpretation.pairs import UtterancePair
from retrieval.interpretation.words import Word


@dataclass(frozen=True)
class MatchedWords:
    """One line in the table of a pair: two words, cosine of their frames, similarity of their texts."""

    source: Word
    target: Word
    match: Match
    similarities: list[float]


@dataclass(frozen=True)
class ShownPair:
    """One pair on the page; audio is a ``data:`` address, or None if there is no recording."""

    pair: UtterancePair
    source_text: str
    target_text: str
    figure: str
    matches: list[MatchedWords]
    source_audio: str | None
    target_audio: str | None


def flac_data_uri(samples: NDArray[Any], sampling_rate: int) -> str:
    """Samples (T,) between -1 and 1 as a ``data:`` address of a FLAC file, which browsers can play."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sampling_rate, format="FLAC")
    return "data:audio/flac;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def render(
    outcome: Interpretation, shown: Sequence[ShownPair], validation: Figure, settings: dict[str, Any]
) -> str:
    """The page as HTML; it loads no other files.

    Args:
        outcome: counts and tests over all pairs.
        shown: pairs to show.
        validation: figure of the tests.
        settings: settings of the run, as in ``summary.json``.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("retrieval.interpretation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["decimals"] = lambda value: "–" if value is None else f"{value:.3f}"
    environment.filters["effect"] = lambda value: "–" if value is None else f"{value:.2f}"
    environment.filters["p_value"] = p_value
    said = "".join(item.source_text + item.target_text for item in shown)
    return environment.get_template("interpretation.html.j2").render(
        outcome=outcome,
        shown=shown,
        font=web_font(said) if said else None,
        validation=svg_data_uri(validation),
        settings=settings,
        similarities=list(outcome.overall),
        matched_share=100 * outcome.matched_words / outcome.words,
    )


def p_value(value: float | None) -> str:
    """A p-value for readers: three decimals, or an upper bound."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
