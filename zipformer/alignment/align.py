"""Time spans of the words of transcripts or hypotheses, by any head of the model."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lhotse import CutSet
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from zipformer.alignment.attention import (
    MEDIAN_FRAMES,
    attention_intervals,
    check_median_frames,
    cross_attention,
    upper_half,
)
from zipformer.alignment.ctc import ctc_emissions
from zipformer.alignment.spans import Segmenter, Span, character_spans, share_gaps, word_spans
from zipformer.alignment.transducer import lattice_scores, viterbi
from zipformer.data.batches import EVALUATION_SECONDS, Batch, evaluation_batches
from zipformer.data.tokenizer import Tokenizer
from zipformer.decoding import ctc_greedy_search, greedy_search
from zipformer.errors import UserError
from zipformer.heads.attention_decoder import AttentionDecoder
from zipformer.heads.ctc import CtcHead
from zipformer.heads.head import Head
from zipformer.heads.transducer import TransducerHead
from zipformer.model import AsrModel

logger = logging.getLogger(__name__)

# Head that each aligner uses.
ALIGNERS: dict[str, type[Head]] = {
    "attention": AttentionDecoder,
    "ctc": CtcHead,
    "transducer": TransducerHead,
}
TRANSCRIPTS = ("reference", "hypothesis")


@dataclass(frozen=True)
class AlignedUtterance:
    """One utterance with its encoder frames (T, D), float32 on the CPU, and the spans of its words."""

    id: str
    frames: Tensor
    words: list[Span]


def check_aligner(model: AsrModel, aligner: str) -> None:
    """Raise UserError unless the aligner is known and the model has its head."""
    if aligner not in ALIGNERS:
        raise UserError(f"aligner={aligner} is not known; choose one of {', '.join(ALIGNERS)}")
    if model.find(ALIGNERS[aligner]) is None:
        others = " or ".join(name for name, head_class in ALIGNERS.items() if model.find(head_class))
        raise UserError(
            f"aligner={aligner} needs a model trained with {ALIGNERS[aligner].setting}; this one has aligner="
            f"{others}"
        )


@torch.inference_mode()
def token_intervals(
    model: AsrModel,
    frames: Tensor,
    tokens: Sequence[int],
    aligner: str,
    *,
    median_frames: int = MEDIAN_FRAMES,
) -> NDArray[np.int64]:
    """Encoder frames of every token of one utterance.

    ``ctc`` and ``transducer`` emit tokens at points in time, which are extended by half the distance to their
    neighbours (:func:`zipformer.alignment.spans.share_gaps`).

    Args:
        model: the model, in evaluation mode.
        frames: encoder output (T, D).
        tokens: ids of the U tokens.
        aligner: one of ``ALIGNERS``.
        median_frames: width of the median filter of ``attention``, see
            :func:`zipformer.alignment.attention.attention_intervals`.

    Returns:
        First frame of each token and the frame after its last, (U,2).

    Raises:
        UserError: no alignment is possible, or see :func:`check_aligner`.
    """
    check_aligner(model, aligner)
    if not tokens:
        return np.empty((0, 2), np.int64)
    if aligner == "attention":
        weights = cross_attention(model.head(AttentionDecoder), frames, tokens)
        return attention_intervals(upper_half(weights), median_frames=median_frames)
    if aligner == "ctc":
        emissions = ctc_emissions(model.head(CtcHead)(frames), tokens)
    else:
        points, _ = viterbi(*lattice_scores(model.head(TransducerHead), frames, tokens))
        emissions = np.stack([points, points + 1], axis=1)
    return share_gaps(emissions, len(frames))


def align_cuts(
    model: AsrModel,
    tokenizer: Tokenizer,
    cuts: CutSet,
    *,
    aligner: str,
    segment: Segmenter = list,
    transcript: str = "reference",
    median_frames: int = MEDIAN_FRAMES,
    max_duration: float = EVALUATION_SECONDS,
    device: torch.device | str = "cpu",
) -> Iterator[AlignedUtterance]:
    """Align a corpus, one batch in memory at a time.

    Utterances with an empty text, or with a text that does not fit the number of frames, are left out and
    named in the log.

    Args:
        model: model on ``device``, in evaluation mode.
        tokenizer: tokenizer of the model.
        cuts: utterances with features and one supervision each, from :func:`zipformer.data.cuts.read_cuts`.
        aligner: one of ``ALIGNERS``.
        segment: function that divides a text into words; by default every character is a word.
        transcript: ``reference``, or ``hypothesis`` for the result of greedy search (of the transducer, else
            of CTC).
        median_frames: width of the median filter of ``attention``.
        max_duration: seconds of padded audio in a batch.
        device: device of the encoder.

    Yields:
        Utterances, longest first.

    Raises:
        UserError: ``transcript`` is not known, ``median_frames`` is even, encoder frames are not finite, or
            see :func:`check_aligner`.
    """
    check_aligner(model, aligner)
    if transcript not in TRANSCRIPTS:
        raise UserError(f"transcript={transcript} is not known; choose one of {', '.join(TRANSCRIPTS)}")
    if aligner == "attention":
        check_median_frames(median_frames)  # here, otherwise every utterance would be reported as a misfit
    empty, misfits = [], []
    count = 0
    batches = evaluation_batches(cuts, margin=model.margin, max_duration=max_duration, tokenizer=tokenizer)
    for name, frames, tokens in _encoded(model, batches, len(cuts), transcript, device):
        count += 1
        if not bool(frames.isfinite().all()):
            raise UserError(f"the encoder frames of utterance {name} are not finite; check its features")
        try:
            intervals = token_intervals(model, frames, tokens, aligner, median_frames=median_frames)
        except ValueError as error:
            misfits.append(f"{name}: {error}")
            continue
        words = word_spans(character_spans(tokens, intervals, tokenizer), segment)
        if words:
            yield AlignedUtterance(name, frames.float().cpu(), words)
        else:
            empty.append(name)
    for names, problem in ((empty, "have no text to align"), (misfits, "cannot be aligned")):
        if names:
            logger.warning("%d of %d utterances %s: %s", len(names), count, problem, "; ".join(names[:5]))


def _encoded(
    model: AsrModel, batches: Iterator[Batch], total: int, transcript: str, device: torch.device | str
) -> Iterator[tuple[str, Tensor, list[int]]]:
    """Id, encoder frames (T, D) and tokens of every utterance, with a progress bar."""

    def utterances() -> Iterator[tuple[str, Tensor, list[int]]]:
        for batch in batches:
            with torch.inference_mode():
                frames, lengths = model.encode(batch.features.to(device), batch.lengths.to(device))
                tokens = batch.tokens
                if transcript == "hypothesis":
                    transducer = model.find(TransducerHead)
                    tokens = (
                        greedy_search(transducer, frames, lengths)
                        if transducer is not None
                        else ctc_greedy_search(model.head(CtcHead), frames, lengths)
                    )
            for name, row, length, ids in zip(batch.ids, frames, lengths.tolist(), tokens, strict=True):
                yield name, row[:length], ids

    yield from track(utterances(), total=total, description="aligning")
