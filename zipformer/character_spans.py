"""When each character of a transcript is spoken, by forced alignment with the CTC head (Graves et al. 2006).

CTC says a token in a frame or two and blank in between. So that a span holds the whole character and not the
peak alone, the blanks between two tokens are shared between them, up to ``REACH`` frames each.
"""

from collections.abc import Sequence
from operator import eq
from pathlib import Path
from typing import NamedTuple

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torchaudio.functional import forced_align

from zipformer.data import evaluation_batches
from zipformer.model import BLANK, AsrModel
from zipformer.tokenizer import Tokenizer

REACH = 4  # frames (25/s) that a span takes of the blanks on each side: 0.16 s, about half a syllable


class CharacterSpan(NamedTuple):
    """A character and its encoder frames (25/s), from ``start`` up to and without ``end``."""

    character: str
    start: int
    end: int


def character_spans(log_probs: Tensor, text: str, tokenizer: Tokenizer) -> list[CharacterSpan]:
    """Align an utterance.

    Args:
        log_probs: (T', V) of the CTC head.
        text: the transcript.
        tokenizer: of the model. A character of several tokens (bytes) spans all of them.

    Returns:
        One span a character, in order; spaces have none. Empty where the text is empty, or has more tokens
        (and blanks between equal ones) than there are frames, so that there is no alignment.
    """
    tokens = tokenizer.encode(text)
    needed = len(tokens) + sum(map(eq, tokens, tokens[1:]))
    if not tokens or needed > len(log_probs):
        return []
    targets = torch.tensor([tokens], dtype=torch.int32)
    path, _ = forced_align(log_probs[None].float().cpu().contiguous(), targets, blank=BLANK)
    runs = widened(token_runs(path[0].tolist()), len(log_probs))
    return _by_character(tokens, runs, tokenizer)


def token_runs(path: Sequence[int]) -> list[tuple[int, int]]:
    """Frames [start, end) of every token of a CTC path: its runs of equal symbols that are not blank."""
    runs: list[tuple[int, int]] = []
    for frame, token in enumerate(path):
        if token == BLANK:
            continue
        if frame and path[frame - 1] == token:
            runs[-1] = (runs[-1][0], frame + 1)
        else:
            runs.append((frame, frame + 1))
    return runs


def widened(runs: Sequence[tuple[int, int]], frames: int) -> list[tuple[int, int]]:
    """Runs that share the blanks between them, the earlier of two gets the odd one; at most REACH a side."""
    result = []
    for i, (start, end) in enumerate(runs):
        gap_before = start - runs[i - 1][1] if i else 2 * start
        gap_after = runs[i + 1][0] - end if i + 1 < len(runs) else 2 * (frames - end)
        before = min(REACH, gap_before // 2)
        after = min(REACH, (gap_after + 1) // 2)
        result.append((start - before, end + after))
    return result


def _by_character(
    tokens: Sequence[int], runs: Sequence[tuple[int, int]], tokenizer: Tokenizer
) -> list[CharacterSpan]:
    spans: list[CharacterSpan] = []
    first = 0
    for last in range(len(tokens)):
        character = tokenizer.decode(tokens[first : last + 1])
        if "\ufffd" in character:  # bytes of a character that goes on
            continue
        if character.strip(" ▁"):  # a space, as a piece or spelt by bytes, has no span
            spans.append(CharacterSpan(character, runs[first][0], runs[last][1]))
        first = last + 1
    return spans


def align_split(
    model: AsrModel, tokenizer: Tokenizer, cuts: list[Cut], data_dir: Path, *, max_duration: float = 200.0
) -> dict[str, list[CharacterSpan]]:
    """Align all utterances of a split with the model's CTC head.

    Args:
        model: in evaluation mode, on the device to compute on.
        tokenizer: of the model.
        cuts: with stored features and one supervision each.
        data_dir: relative feature paths are relative to it.
        max_duration: seconds of padded audio in a batch.

    Returns:
        By utterance id, in the order of the cuts; see :func:`character_spans`.

    Raises:
        ValueError: the model has no CTC head.
    """
    if model.ctc_head is None:
        raise ValueError("the model has no CTC head (model.ctc=true), which forced alignment needs")
    device = next(model.parameters()).device
    spans: dict[str, list[CharacterSpan]] = {cut.id: [] for cut in cuts}
    batches = evaluation_batches(CutSet.from_cuts(cuts), data_dir, max_duration=max_duration)
    columns = (TextColumn("alignment"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("alignment", total=len(cuts))
        for batch in batches:
            with torch.inference_mode():
                frames, lengths = model.encode(batch.features.to(device), batch.lengths.to(device))
                log_probs = model.ctc_head(frames).cpu()  # (N, T', V)
            for cut_id, text, row, length in zip(
                batch.ids, batch.texts, log_probs, lengths.tolist(), strict=True
            ):
                spans[cut_id] = character_spans(row[:length], text, tokenizer)
            progress.advance(task, len(batch.ids))
    return spans
