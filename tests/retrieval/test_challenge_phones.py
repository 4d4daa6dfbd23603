"""Phones and their distance against hand-made transcriptions."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.challenge.phones import phone_distance, read_phones, split_ipa, split_phones
from retrieval.challenge.settings import Notation
from zipformer.errors import UserError


@pytest.mark.parametrize(
    ("written", "phones"),
    [
        ("ŋo³¹ tsʰie⁵⁵", "ŋ o t sʰ i e"),
        ("ŋo˧˩tsʰie˥˥", "ŋ o t sʰ i e"),
        ("t͡ɕin55.tʰian1", "t ɕ i n tʰ i a n"),
        ("ʨin55 ʦa", "t ɕ i n t s a"),
        ("kuã˥ kua\u0303˥", "k u a\u0303 k u a\u0303"),
        ("ŋ̍33 iaʔ", "ŋ̍ i a ʔ"),
        ("ˈmaː-ma, ɡa∅", "m aː m a g a"),
        ("ŋo⁵³⁻³¹ tsʰie₅₅", "ŋ o t sʰ i e"),  # the tone before and after sandhi
        ("ma~ti|□ɕi", "m a t i ɕ i"),
        ("꜀ma ti꜆", "m a t i"),
        ("ᵐbi33ᵐbi33 ⁿdo", "ᵐb i ᵐb i ⁿd o"),
    ],
)
def test_ipa_is_cut_into_phones(written: str, phones: str) -> None:
    assert split_ipa(written) == tuple(phones.split())


def test_tones_are_phones_of_their_own_where_they_are_asked_for() -> None:
    assert split_ipa("ŋo³¹ tsʰie⁵⁵", tones=True) == ("ŋ", "o", "31", "t", "sʰ", "i", "e", "55")
    assert split_ipa("ma˥˩", tones=True) == ("m", "a", "˥˩")
    assert split_phones("zh ang1 s an5", Notation.spaced) == ("zh", "ang", "s", "an")
    assert split_phones("zh ang1 3", Notation.spaced, tones=True) == ("zh", "ang1", "3")
    assert split_phones("zh ang1 3", Notation.spaced) == ("zh", "ang")
    assert split_phones("ma꜖ ti₅₅", Notation.spaced) == ("ma", "ti")


def test_distances_by_hand() -> None:
    # m a m a -> m a b a: one substitution of four; m a -> m a n: one insertion of three
    assert phone_distance("mama", "maba") == 1 / 4
    assert phone_distance("ma", "man") == 1 / 3
    assert phone_distance(("tʰ", "i"), ("t", "i")) == 1 / 2
    assert phone_distance("abc", "xyz") == 1
    assert phone_distance("", "ab") == 1
    # 今天, 8 and 6 phones: t > k, ɕ > a, i > m, n is dropped, a is dropped; tʰ, i and n stay
    assert phone_distance(split_ipa("tɕin55 tʰian55"), split_ipa("kam55 tʰin55")) == 5 / 8
    with pytest.raises(ValueError, match="without phones"):
        phone_distance("", "")


phones = st.lists(st.sampled_from(["a", "i", "tʰ", "t", "ŋ"]), min_size=1, max_size=8)


@given(phones, phones)
def test_distance_is_symmetric_and_between_0_and_1(one: list[str], other: list[str]) -> None:
    distance = phone_distance(one, other)
    assert distance == phone_distance(other, one) == edit_distance(one, other) / max(len(one), len(other))
    assert 0 <= distance <= 1
    assert (distance == 0) == (one == other)


def edit_distance(one: list[str], other: list[str]) -> int:
    """By the definition."""
    if not one or not other:
        return len(one) + len(other)
    table = [[i + j for j in range(len(other) + 1)] for i in range(len(one) + 1)]
    for i, a in enumerate(one, start=1):
        for j, b in enumerate(other, start=1):
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (a != b))
    return table[-1][-1]


def test_table_of_phones(tmp_path: Path) -> None:
    path = tmp_path / "phones.tsv"
    path.write_text("utterance_id\tphones\nu1\tma55\nu2\tmɤ51\n", encoding="utf-8")
    assert read_phones(path) == {"u1": "ma55", "u2": "mɤ51"}
    with pytest.raises(UserError, match=r"none\.tsv: correct sound\.phones_file"):
        read_phones(tmp_path / "none.tsv")
    for text, message in (
        (
            "utterance_id\tipa\nu1\tma\n",
            "line 1: the columns .*found utterance_id, ipa",
        ),
        ("", "line 1: the columns .*found nothing"),
        ("utterance_id\tphones\nu1\tma\nu2\t\n", "line 3: an utterance id or its phones are missing"),
        ("utterance_id\tphones\nu1\n", "line 2: an utterance id or its phones are missing"),
        ("utterance_id\tphones\nu1\tma\nu1\tmi\n", "line 3: utterance u1 is there twice"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            read_phones(path)
