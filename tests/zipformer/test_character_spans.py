"""Times of characters: planted posteriors, runs of a path, shared blanks, characters of several tokens."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from small_model import FRAMES, TEXTS, write_cuts, write_model

from data_prep.tokens import train_token_model
from zipformer.character_spans import REACH, align_split, character_spans, token_runs, widened
from zipformer.data import encoder_frames
from zipformer.evaluation import read_test_cuts
from zipformer.tokenizer import Tokenizer

TOKENIZER = Tokenizer(train_token_model(["一二三四五六七八九十"]))


def posteriors(path: list[int]) -> torch.Tensor:
    """Log-probabilities (T, V) that leave no doubt about a path."""
    logits = torch.zeros(len(path), TOKENIZER.size)
    logits[torch.arange(len(path)), torch.tensor(path)] = 20.0
    return logits.log_softmax(-1)


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text)


def test_planted_alignment() -> None:
    a, b = ids("一二")
    path = [0, 0, a, a, 0, 0, 0, b, 0, 0, b, b, 0]
    spans = character_spans(posteriors(path), "一二二", TOKENIZER)
    # Blanks between 一 and 二: three, two for the earlier; between the two 二: two, one each.
    assert spans == [("一", 0, 6), ("二", 6, 9), ("二", 9, 13)]


def test_runs_of_a_path() -> None:
    assert token_runs([0, 5, 5, 0, 5, 6, 6, 6, 0]) == [(1, 3), (4, 5), (5, 8)]
    assert token_runs([0, 0]) == []


def test_blanks_are_shared_and_the_reach_is_limited() -> None:
    assert widened([(20, 21), (60, 62)], 100) == [(20 - REACH, 21 + REACH), (60 - REACH, 62 + REACH)]
    random = np.random.default_rng(0)
    for _ in range(50):
        bounds = np.sort(random.choice(60, 10, replace=False))
        runs = [(int(s), int(e)) for s, e in bounds.reshape(5, 2)]
        spans = widened(runs, 60)
        assert all(s <= a and b <= e for (s, e), (a, b) in zip(spans, runs, strict=True))
        assert all(first[1] <= second[0] for first, second in pairwise(spans))
        assert spans[0][0] >= 0
        assert spans[-1][1] <= 60


def test_a_character_of_bytes_spans_all_of_them() -> None:
    text = "一龘 二"  # 龘 is no piece: three bytes
    tokens = ids(text)
    path = [token for token in tokens for _ in range(2)]
    spans = character_spans(posteriors(path), text, TOKENIZER)
    assert [span.character for span in spans] == ["一", "龘", "二"]
    start = 2 * tokens.index(TOKENIZER.encode("龘")[0])
    assert spans[1][1:] == (start, start + 6)


def test_no_alignment_is_no_spans() -> None:
    (a,) = ids("一")
    assert character_spans(posteriors([a, a]), "一一", TOKENIZER) == []  # a blank must come between
    assert len(character_spans(posteriors([a, 0, a]), "一一", TOKENIZER)) == 2
    assert character_spans(posteriors([0, 0]), "", TOKENIZER) == []


def test_all_utterances_of_a_split(tmp_path: Path) -> None:
    write_cuts(tmp_path / "data", "test")
    model = write_model(tmp_path / "model")
    tokenizer = Tokenizer.load(tmp_path / "model")
    cuts = read_test_cuts(tmp_path / "data" / "cuts_test.jsonl.gz")
    spans = align_split(model, tokenizer, cuts, tmp_path / "data", max_duration=2.5)
    assert list(spans) == [cut.id for cut in cuts]
    for found, text, frames in zip(spans.values(), TEXTS, FRAMES, strict=True):
        assert "".join(span.character for span in found) == text
        assert found[0].start >= 0
        assert found[-1].end <= encoder_frames(frames)
        assert all(a.end <= b.start for a, b in pairwise(found))


def test_a_model_without_ctc_cannot_align(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", ctc=False)
    with pytest.raises(ValueError, match="no CTC head"):
        align_split(model, Tokenizer.load(tmp_path / "model"), [], tmp_path)
