import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_prep.splitting import Sentence, SplitConfig, interval_of_error_rate, split_by_sentence
from zipformer.errors import UserError

UTTERANCES = st.lists(
    st.builds(
        Sentence,
        sentence_id=st.one_of(st.none(), st.sampled_from("1234567")),
        text=st.sampled_from(["", *"甲乙丙丁戊己庚"]),
        dialect=st.sampled_from(["yue", "wuu"]),
    ),
    max_size=30,
)


def parallel(sentences: int, dialects: str = "abc") -> list[Sentence]:
    return [Sentence(f"{i:03d}", f"{d}{i}", d) for i in range(sentences) for d in dialects]


@settings(deadline=None)
@given(UTTERANCES, st.integers(0, 5))
def test_no_sentence_is_in_two_splits(utterances: list[Sentence], seed: int) -> None:
    try:
        splits = split_by_sentence(utterances, SplitConfig(valid=1, test=1, seed=seed))
    except UserError:
        return  # everything is linked to everything
    for i, one in enumerate(utterances):
        for other, split in zip(utterances[:i], splits, strict=False):
            same_id = one.sentence_id is not None and one.sentence_id == other.sentence_id
            same_text = one.text != "" and one.text == other.text
            assert not (same_id or same_text) or split == splits[i]


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_order_of_the_table_does_not_matter(shuffler: random.Random) -> None:
    utterances = [*parallel(20), Sentence(None, "a3", "d"), Sentence("004", "a5", "d")]
    config = SplitConfig(valid=3, test=5)
    before = dict(zip(utterances, split_by_sentence(utterances, config), strict=True))
    shuffler.shuffle(utterances)
    assert dict(zip(utterances, split_by_sentence(utterances, config), strict=True)) == before


def test_counts_and_fractions() -> None:
    utterances = parallel(40)
    by_count = split_by_sentence(utterances, SplitConfig(valid=2, test=8))
    assert [by_count.count(split) for split in ("train", "valid", "test")] == [90, 6, 24]
    by_fraction = split_by_sentence(utterances, SplitConfig(valid=0.05, test=0.2))
    assert by_fraction == by_count
    assert split_by_sentence(utterances, SplitConfig(valid=2, test=8, seed=1)) != by_count


def test_links_go_through_other_utterances() -> None:
    # 1 and 2 share a text, 2 and 3 share a text: all three are one sentence.
    linked = [
        Sentence("1", "甲", "a"),
        Sentence("2", "甲", "b"),
        Sentence("2", "乙", "a"),
        Sentence("3", "乙", "b"),
    ]
    for seed in range(10):
        splits = split_by_sentence([*linked, *parallel(4)], SplitConfig(valid=1, test=2, seed=seed))
        assert len(set(splits[:4])) == 1


def test_complete_sentences_are_held_out_first() -> None:
    utterances = [u for u in parallel(30) if u.dialect != "c" or int(u.sentence_id or 0) % 3 == 0]
    splits = split_by_sentence(utterances, SplitConfig(valid=2, test=8, complete_first=True))
    held_out = {u.sentence_id for u, split in zip(utterances, splits, strict=True) if split != "train"}
    assert held_out == {f"{i:03d}" for i in range(0, 30, 3)}


@pytest.mark.parametrize(("valid", "test"), [(3, 7), (0.5, 0.5), (-1, 2)])
def test_something_must_be_left_for_training(valid: float, test: float) -> None:
    with pytest.raises(UserError, match=r"10 sentences cannot be divided.*corpus\.split\.test"):
        split_by_sentence(parallel(10), SplitConfig(valid=valid, test=test))


@pytest.mark.parametrize(
    ("sentences", "valid", "test"),
    [(3, 0, 0), (4, 1, 1), (8, 1, 2), (60, 8, 15), (120, 10, 30), (300, 15, 30), (1000, 50, 100)],
)
def test_small_corpora_hold_out_a_larger_share(sentences: int, valid: int, test: int) -> None:
    splits = split_by_sentence(parallel(sentences, "a"), SplitConfig())
    assert [splits.count(split) for split in ("valid", "test")] == [valid, test]


@settings(deadline=None)
@example(5)
@example(9)
@given(st.integers(1, 400))
def test_most_of_a_corpus_is_left_for_training(sentences: int) -> None:
    splits = split_by_sentence(parallel(sentences, "a"), SplitConfig())
    # Both shares are rounded up: of 5 sentences, 2 are for the test and 1 for validation.
    assert splits.count("train") >= sentences / 2 - 1


def test_width_of_an_interval_against_simulated_sentences() -> None:
    # Sentences of 8 characters, each with an error rate of its own from a beta distribution of mean 0.2 that
    # makes the variance of the total twice that of independent characters: intraclass correlation 1/7.
    random = np.random.default_rng(0)
    rates = random.beta(0.2 * 6, 0.8 * 6, size=(4000, 50))
    totals = random.binomial(8, rates).sum(axis=1) / 400
    assert interval_of_error_rate(400) == pytest.approx(1.96 * totals.std(), rel=0.05)
