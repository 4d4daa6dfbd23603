"""Alignment of characters and words with stretches of an utterance."""

from zipformer.alignment.align import (
    ALIGNERS,
    TRANSCRIPTS,
    AlignedUtterance,
    align_cuts,
    check_aligner,
    token_intervals,
)
from zipformer.alignment.segmenters import SEGMENTERS, choose_segmenter
from zipformer.alignment.spans import (
    FIRST_FRAME_SECONDS,
    FRAME_SECONDS,
    Segmenter,
    Span,
    character_spans,
    word_spans,
)

__all__ = [
    "ALIGNERS",
    "FIRST_FRAME_SECONDS",
    "FRAME_SECONDS",
    "SEGMENTERS",
    "TRANSCRIPTS",
    "AlignedUtterance",
    "Segmenter",
    "Span",
    "align_cuts",
    "character_spans",
    "check_aligner",
    "choose_segmenter",
    "token_intervals",
    "word_spans",
]
