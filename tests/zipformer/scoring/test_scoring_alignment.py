"""Alignments against brute force and against cases worked by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.edit_distance import edit_distance, optimal_counts

from zipformer.scoring import ErrorCounts, align, character_error_rate, characters

# Few symbols, so that matches and ties are frequent; one of them lies outside the basic plane.
short_texts = st.text(alphabet="我佢係𠲖a*", max_size=9)


@given(short_texts, short_texts)
def test_number_of_errors_is_the_levenshtein_distance(reference: str, hypothesis: str) -> None:
    assert align(reference, hypothesis).counts.errors == edit_distance(reference, hypothesis)


@given(short_texts, short_texts)
def test_counts_belong_to_a_cheapest_alignment(reference: str, hypothesis: str) -> None:
    counts = align(reference, hypothesis).counts
    assert (counts.substitutions, counts.deletions, counts.insertions) in optimal_counts(
        reference, hypothesis
    )
    assert counts.reference_characters == len(reference)


@given(short_texts, short_texts)
def test_the_two_sides_of_the_pairs_spell_the_two_texts(reference: str, hypothesis: str) -> None:
    pairs = align(reference, hypothesis).pairs
    assert "".join(left for left, _ in pairs) == reference
    assert "".join(right for _, right in pairs) == hypothesis


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("我係香港人", "我係香港人", (0, 0, 0, 5)),
        ("我係香港人", "我是香港人", (1, 0, 0, 5)),
        ("我係香港人", "我香港人", (0, 1, 0, 5)),
        ("我係香港人", "我係香港人呀", (0, 0, 1, 5)),
        ("我係香港人", "", (0, 5, 0, 5)),
        ("", "我", (0, 0, 1, 0)),
        ("今日天氣好好", "今天天氣很好啊", (2, 0, 1, 6)),
    ],
)
def test_cases_worked_by_hand(reference: str, hypothesis: str, expected: tuple[int, int, int, int]) -> None:
    assert align(reference, hypothesis).counts == ErrorCounts(*expected)


def test_white_space_is_not_a_character() -> None:
    assert characters(" ok 我\u3000係 ") == ["o", "k", "我", "係"]
    assert align("我 係", "我係").counts.errors == 0


def test_lines_keep_their_columns() -> None:
    assert align("我係a人", "我是人呀").lines() == (
        "我係a人**",
        "我是*人呀",
        "  S D  I",
    )


def test_rate_of_several_texts_is_the_ratio_of_the_sums() -> None:
    # 1 error in 5 characters and 2 in 2: 3 / 7, not the mean of 20 % and 100 %.
    assert character_error_rate(["我係香港人", "你好"], ["我是香港人", ""]) == pytest.approx(300 / 7)


def test_rate_without_reference_characters_is_undefined() -> None:
    assert character_error_rate([""], ["我"]) is None


def test_unequal_numbers_of_texts_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        character_error_rate(["我", "你"], ["我"])
