"""From token intervals to spans of characters and words."""

import numpy as np
import pytest

from data_prep.tokens import train_token_model
from zipformer.alignment import Span, character_spans, choose_segmenter, word_spans
from zipformer.alignment.spans import share_gaps
from zipformer.data.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_token_model(["我係香港人", "佢係邊個"]))


def intervals(*pairs: tuple[int, int]) -> np.ndarray:
    return np.array(pairs, np.int64).reshape(-1, 2)


def test_seconds_are_those_of_the_front_end() -> None:
    # Encoder frame k averages front end frames 2k and 2k + 1, which are centred on feature frames 4k + 4 and
    # 4k + 6; feature frame i is centred at 10 i + 5 ms. Frame 3 thus lies around 175 ms.
    span = Span("我", 3, 4)
    assert (span.start_seconds + span.end_seconds) / 2 == pytest.approx(0.175)
    assert span.end_seconds - span.start_seconds == pytest.approx(0.04)


def test_gaps_are_shared_by_hand() -> None:
    # Centres 2.5, 7, 12.5: distances 4.5 and 5.5, so that the ends reach 2.5 outwards.
    shared = share_gaps(intervals((2, 3), (6, 8), (12, 13)), 20)
    np.testing.assert_array_equal(shared, intervals((0, 5), (5, 10), (10, 15)))


def test_gaps_end_with_the_utterance_and_a_frame_is_shared_by_two_emissions() -> None:
    shared = share_gaps(intervals((1, 2), (1, 2), (9, 10)), 11)
    assert (shared[:, 0] < shared[:, 1]).all()
    assert shared[0].tolist() == [0, 2]
    assert shared[1, 0] == 1
    assert shared[2, 1] <= 11


@pytest.mark.parametrize("seed", range(5))
def test_shared_gaps_keep_emissions_and_order(seed: int) -> None:
    random = np.random.default_rng(seed)
    starts = np.sort(random.choice(60, 12, replace=False))
    emissions = np.stack([starts, starts + 1], axis=1)
    shared = share_gaps(emissions, 61)
    assert (shared[:, 0] <= emissions[:, 0]).all()
    assert (shared[:, 1] >= emissions[:, 1]).all()
    np.testing.assert_array_equal(shared[1:, 0], shared[:-1, 1])
    assert shared.min() >= 0
    assert shared.max() <= 61


def test_one_token_and_none() -> None:
    np.testing.assert_array_equal(share_gaps(intervals((4, 6)), 9), intervals((4, 6)))
    assert share_gaps(intervals(), 9).shape == (0, 2)


def test_bytes_become_one_character(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("我龘人")  # the second character is not in the corpus: three bytes
    assert len(tokens) == 5
    times = intervals((0, 2), (2, 3), (4, 5), (5, 7), (7, 9))
    assert character_spans(tokens, times, tokenizer) == [Span("我", 0, 2), Span("龘", 2, 7), Span("人", 7, 9)]


def test_incomplete_bytes_do_not_swallow_what_follows(tokenizer: Tokenizer) -> None:
    first, *_ = tokenizer.encode("龘")
    (whole,) = tokenizer.encode("我")
    spans = character_spans([first, whole, first], intervals((0, 1), (1, 2), (2, 3)), tokenizer)
    assert [span.text for span in spans] == ["\ufffd", "我", "\ufffd"]


def test_spaces_have_no_span(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("我 人")
    times = np.stack([np.arange(len(tokens)), np.arange(len(tokens)) + 1], axis=1)
    assert "".join(span.text for span in character_spans(tokens, times, tokenizer)) == "我人"


def test_intervals_must_fit_the_tokens(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="1 intervals for 2 tokens"):
        character_spans([300, 301], intervals((0, 1)), tokenizer)


def test_words_cover_their_characters() -> None:
    characters = [Span("今", 0, 2), Span("天", 2, 4), Span("好", 6, 9)]
    segment = choose_segmenter("longest_match", ["今天", "天好", "好"])
    assert word_spans(characters, segment) == [Span("今天", 0, 4), Span("好", 6, 9)]
    assert word_spans(characters, choose_segmenter("characters")) == characters


def test_a_word_that_begins_inside_a_span_belongs_to_the_one_before() -> None:
    spans = [Span("ab", 0, 2), Span("c", 2, 3)]
    assert word_spans(spans, lambda text: ["a", "b", "c"]) == spans


def test_a_segmenter_must_not_change_the_text() -> None:
    with pytest.raises(ValueError, match="another text"):
        word_spans([Span("好", 0, 1)], lambda text: ["坏"])


def test_jieba_knows_words_and_learns_others() -> None:
    pytest.importorskip("jieba")
    assert choose_segmenter("jieba")("我们今天学习") == ["我们", "今天", "学习"]
    assert "嘸影無蹤" in choose_segmenter("jieba", ["嘸影無蹤"])("我们嘸影無蹤今天")


@pytest.mark.parametrize("name", ["longest_match", "spaces"])
def test_segmenters_that_cannot_be(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        choose_segmenter(name)


def test_a_span_has_frames() -> None:
    with pytest.raises(ValueError, match="no frames"):
        Span("好", 3, 3)
