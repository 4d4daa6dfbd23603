"""What the embedded corpus says: lexicon, grammar, and the choice of sentences."""

import itertools
import random
from collections import Counter

import pytest

from data_prep.corpora.mini.grammar import REPEATABLE, RULES, content, expand, overlap, sentence
from data_prep.corpora.mini.lexicon import concepts_by_class, entries, text
from data_prep.corpora.mini.sentences import (
    MAX_CHARACTERS,
    MIN_CHARACTERS,
    Sentences,
    _unlike,
    write_sentences,
)

VARIETIES = (
    "cmn-mainland", "mandarin-southwestern", "mandarin-zhongyuan", "yue-guangzhou", "nan-taiwan",
    "wuu-shanghai", "wuu-suzhou", "hak-sixian", "hak-hailu",
)  # fmt: skip
TRAINED = VARIETIES[:7]


@pytest.fixture(scope="module")
def sentences() -> Sentences:
    return write_sentences(VARIETIES, TRAINED, test=50, valid=20, shared=300, own=600, seed=1)


def test_words_come_from_variety_then_group_then_standard() -> None:
    eat, drink, he = entries()["eat"], entries()["drink"], entries()["he"]
    assert [eat.word(v) for v in ("cmn-mainland", "yue-guangzhou", "wuu-shanghai")] == ["吃", "食", "吃"]
    assert (drink.word("yue-hongkong"), drink.word("hak-hailu")) == ("饮", "啉")
    assert (he.word("wuu-shanghai"), he.word("wuu-suzhou"), he.word("cdo-fuzhou")) == ("伊", "俚", "他")


def test_parallel_sentence_in_characters_of_each_variety() -> None:
    concepts = ("he", "today", "not", "want", "eat", "rice")
    assert text(concepts, "cmn-mainland") == "他今天不要吃饭"
    assert text(concepts, "yue-guangzhou") == "佢今日唔要食饭"
    assert text(concepts, "nan-taiwan") == "伊今仔日毋欲食饭"
    assert text(concepts, "wuu-suzhou") == "俚今朝勿要吃饭"
    assert text(concepts, "hak-sixian") == "佢今晡日毋爱食饭"


def test_one_script() -> None:
    """Simplified throughout, but for characters that dialects write so also beside simplified ones."""
    opencc = pytest.importorskip("opencc")
    to_simplified = opencc.OpenCC("t2s")
    characters = {c for entry in entries().values() for word in entry.words.values() for c in word}
    assert {c for c in characters if to_simplified.convert(c) != c} == {"係", "睏", "嗰"}


def test_grammar_knows_its_symbols_and_uses_every_word() -> None:
    symbols = {
        symbol.rstrip("?")
        for rule in RULES.values()
        for alternative in rule
        for symbol in alternative.split()
    }
    classes = concepts_by_class()
    assert symbols <= set(RULES) | set(classes) | set(entries())
    assert set(RULES) - symbols == {"SENTENCE"}
    assert not set(classes) & set(entries())
    assert set(entries()) <= symbols | {c for name in symbols for c in classes.get(name, ())}
    with pytest.raises(KeyError, match="'no_such_word'"):
        expand("no_such_word", random.Random(0))


def test_sentences_do_not_repeat_content() -> None:
    draw = random.Random(0)
    made = [concepts for concepts in (sentence(draw) for _ in range(2000)) if concepts]
    assert len(made) > 500
    for concepts in made:
        assert all(n == 1 or c in REPEATABLE for c, n in Counter(concepts).items())


def test_overlap() -> None:
    assert content(("he", "not", "eat", "fish")) == {"eat", "fish"} | content(("he",))
    first = ("mother", "eat", "fish")
    assert overlap(first, ("father", "eat", "fish")) == pytest.approx(2 / 3)
    assert overlap(first, first) == 1
    assert overlap(first, ("father", "wash", "bowl")) == 0


def test_sizes_and_lengths(sentences: Sentences) -> None:
    assert len(sentences.test) == 50
    assert len(sentences.valid) == 20
    assert set(sentences.train) == set(TRAINED)
    for concepts_list in (sentences.test, sentences.valid, *sentences.train.values()):
        assert len(set(concepts_list)) == len(concepts_list)
        for concepts, variety in itertools.product(concepts_list, VARIETIES):
            assert MIN_CHARACTERS <= len(text(concepts, variety)) <= MAX_CHARACTERS
    shared = set.intersection(*(set(train) for train in sentences.train.values()))
    assert all(len(train) == 900 for train in sentences.train.values())
    assert 300 <= len(shared) < 900


def test_test_sentences_are_unlike_each_other_and_training(sentences: Sentences) -> None:
    apart = (*sentences.test, *sentences.valid)
    for one, other in itertools.combinations(apart, 2):
        shared = content(one) & content(other)
        assert len(shared) <= 0.5 * min(len(content(one)), len(content(other)))
    trained = {concepts for train in sentences.train.values() for concepts in train}
    for concepts in apart:
        assert concepts not in trained
        assert not any(content(concepts) <= content(other) for other in trained)
    for variety in TRAINED:
        spoken = {text(concepts, variety) for concepts in sentences.train[variety]}
        assert not spoken & {text(concepts, variety) for concepts in apart}


def test_characters(sentences: Sentences) -> None:
    """Several hundred in all; every one of the test text is frequent in the training text of its variety."""
    seen: set[str] = set()
    for variety in TRAINED:
        counts = Counter(c for concepts in sentences.train[variety] for c in text(concepts, variety))
        seen.update(counts)
        assert min(counts[c] for concepts in sentences.test for c in text(concepts, variety)) >= 8
    assert 400 <= len(seen) <= 600


def test_seed(sentences: Sentences) -> None:
    sizes = {"test": 5, "valid": 2, "shared": 10, "own": 10}
    again = write_sentences(VARIETIES, TRAINED, **sizes, seed=1)
    assert again == write_sentences(VARIETIES, TRAINED, **sizes, seed=1)
    assert again != write_sentences(VARIETIES, TRAINED, **sizes, seed=2)


def test_sentences_that_are_not_there_are_an_error() -> None:
    said = ("mother", "today", "buy", "fish")
    assert _unlike(1, [said, said]) == [said]
    with pytest.raises(ValueError, match="only 1 of 2 sentences"):
        _unlike(2, [said, said])
