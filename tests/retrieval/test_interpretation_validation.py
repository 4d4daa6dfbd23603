"""Text similarities by hand, tests against scipy and brute force."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from data_prep.corpora.mini.lexicon import LEXICON_FILE
from retrieval.interpretation.matching import Match
from retrieval.interpretation.text_similarity import (
    CharacterOverlap,
    TranslationTable,
    choose_similarity,
    dice,
)
from retrieval.interpretation.validation import Sums, adjusted, matched_and_random, paired_test
from zipformer.errors import UserError

TABLE = "meaning\tcmn\tyue\tnan\nwe\t我们\t我哋\t\nperson\t人\t\t\nfather\t爸爸\t\t阿爸\n"


@pytest.fixture
def table(tmp_path: Path) -> TranslationTable:
    (tmp_path / "table.tsv").write_text(TABLE, encoding="utf-8")
    return TranslationTable(tmp_path / "table.tsv", ["cmn", "yue", "nan"])


def test_character_overlap_by_hand() -> None:
    assert dice("我们", "我哋") == 0.5
    assert dice("爸爸", "爸") == pytest.approx(2 / 3)
    assert dice("爸爸", "爸爸") == 1
    assert dice("", "爸") == 0
    found = CharacterOverlap().matrix(["我们", "人"], ["我", "人", "好"])
    np.testing.assert_allclose(found, [[2 / 3, 0, 0], [0, 1, 0]])


def test_translations_by_hand(table: TranslationTable) -> None:
    found = table.matrix(["我们", "爸爸", "们", "猫"], ["我哋", "阿爸", "哋", "猫", "人"])
    expected = [
        [1, 0, 1, 0, 0],  # a whole word and its translation, or a character of that
        [0, 1, 0, 0, 0],
        [1, 0, 1, 0, 0],  # a character stands for the word that it is in
        [0, 0, 0, 1, 0],  # not in the table: only itself
    ]
    np.testing.assert_array_equal(found, expected)
    assert table.words == {"我们", "我哋", "人", "爸爸", "阿爸"}


def test_a_word_of_its_own_is_not_a_part_of_others(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("cmn\tyue\n人\t人\n人家\t人哋\n", encoding="utf-8")
    table = TranslationTable(tmp_path / "t.tsv")
    assert table.matrix(["人"], ["人哋", "哋"]).tolist() == [[0, 0]]


def test_the_lexicon_is_such_a_table() -> None:
    lexicon = TranslationTable(LEXICON_FILE)
    assert lexicon.matrix(["什么"], ["乜嘢", "啥物", "哪里"]).tolist() == [[1, 1, 0]]


def test_bad_tables(tmp_path: Path, table: TranslationTable) -> None:
    with pytest.raises(UserError, match="translation table"):
        TranslationTable(tmp_path / "none.tsv")
    with pytest.raises(ValueError, match="no column wuu; its columns are meaning, cmn, yue, nan"):
        TranslationTable(tmp_path / "table.tsv", ["wuu"])
    (tmp_path / "empty.tsv").write_text("cmn\tyue\n")
    with pytest.raises(ValueError, match="holds no words"):
        TranslationTable(tmp_path / "empty.tsv")
    with pytest.raises(ValueError, match="table=FILE"):
        choose_similarity("table", None)
    assert choose_similarity("table", table) is table


@pytest.mark.parametrize("n", [2, 5, 24, 80])
def test_tests_equal_scipys(n: int) -> None:
    random = np.random.default_rng(n)
    matched, chance = random.normal(0.6, 0.2, n), random.normal(0.4, 0.2, n)
    found = paired_test(matched, chance, word_pairs=7 * n)
    t, w = stats.ttest_rel(matched, chance), stats.wilcoxon(matched, chance)
    interval = t.confidence_interval(0.95)
    assert (found.sentences, found.word_pairs) == (n, 7 * n)
    assert found.difference == pytest.approx(np.mean(matched) - np.mean(chance))
    assert (found.t, found.t_p) == pytest.approx((t.statistic, t.pvalue))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert (found.wilcoxon, found.wilcoxon_p) == pytest.approx((w.statistic, w.pvalue))


def test_effect_sizes_by_hand() -> None:
    # Differences 0.3, 0.1, -0.2, 0.4: mean 0.15, deviation sqrt(0.21 / 3); ranks 3, 1, 2, 4.
    found = paired_test(np.array([0.3, 0.1, 0.0, 0.4]), np.array([0.0, 0.0, 0.2, 0.0]), word_pairs=4)
    assert found.cohen_d == pytest.approx(0.15 / np.sqrt(0.21 / 3))
    assert found.rank_biserial == pytest.approx((3 + 1 + 4 - 2) / 10)


@pytest.mark.parametrize("seed", range(3))
def test_rank_biserial_is_the_difference_of_shares_of_pairs(seed: int) -> None:
    # Among all sums of two differences (each with itself too), positive less negative ones (Kerby 2014).
    differences = np.random.default_rng(seed).normal(0.3, 1, 15)
    sums = [differences[i] + differences[j] for i in range(15) for j in range(i, 15)]
    expected = (sum(s > 0 for s in sums) - sum(s < 0 for s in sums)) / len(sums)
    found = paired_test(differences, np.zeros(15), word_pairs=15)
    assert found.rank_biserial == pytest.approx(expected)


def test_where_nothing_differs_there_is_no_test() -> None:
    same = paired_test(np.full(4, 0.3), np.full(4, 0.3), word_pairs=4)
    assert (same.difference, same.t, same.wilcoxon, same.cohen_d, same.rank_biserial) == (0, *[None] * 4)
    shifted = paired_test(np.full(4, 0.7), np.full(4, 0.3), word_pairs=4)
    assert (shifted.t, shifted.cohen_d, shifted.low) == (None, None, None)
    assert shifted.rank_biserial == 1
    single = paired_test(np.array([0.7]), np.array([0.3]), word_pairs=4)
    assert (single.t, single.low, single.wilcoxon_p, single.rank_biserial) == (None, None, None, 1)


def test_rounding_is_no_difference() -> None:
    # 0.1 + 0.2 is 5.6e-17 more than 0.3: eight times the same sign would be significant.
    same = paired_test(np.full(8, 0.1 + 0.2), np.full(8, 0.3), word_pairs=8)
    assert (same.difference, same.wilcoxon_p, same.rank_biserial) == (0, None, None)
    # Of the same size, up to rounding, but for the sign: ranks 2, 2, 2, and one sign of three is negative.
    found = paired_test(np.array([0.3, 0.3, 0.0]), np.array([0.1, 0.1, 0.2]), word_pairs=3)
    assert found.rank_biserial == pytest.approx(1 / 3)


@pytest.mark.parametrize(("matched", "random"), [([], []), ([0.1], [0.1, 0.2]), ([np.nan, 0.1], [0.1, 0.1])])
def test_bad_values(matched: list[float], random: list[float]) -> None:
    with pytest.raises(ValueError, match=r"expected|not finite"):
        paired_test(np.array(matched), np.array(random), word_pairs=1)


def test_random_pairs_are_the_mean_over_all_draws() -> None:
    similarities = np.random.default_rng(0).random((4, 6))
    matches = [Match(1, 5, 0.0), Match(3, 0, 0.0)]
    matched, random = matched_and_random(similarities, matches)
    assert matched.tolist() == [similarities[1, 5], similarities[3, 0]]
    for value, match in zip(random, matches, strict=True):
        draws = [similarities[match.source, k] for k in range(6)] * 4
        draws += [similarities[k, match.target] for k in range(4)] * 6  # as many for the other word
        assert value == pytest.approx(np.mean(draws))


def test_words_of_a_sentence_count_once() -> None:
    sums = Sums()
    sums.add(["s1", "s1", "s2"], np.array([1.0, 0.0, 0.8]), np.array([0.2, 0.4, 0.1]))
    sums.add(["s1"], np.array([0.5]), np.array([0.0]))
    found = sums.test(0.95)
    assert (found.sentences, found.word_pairs) == (2, 4)
    assert found.matched == pytest.approx((0.5 + 0.8) / 2)
    assert found.random == pytest.approx((0.2 + 0.1) / 2)
    # The same matches a thousand times over are no stronger evidence.
    for _ in range(999):
        sums.add(["s1", "s1", "s2"], np.array([1.0, 0.0, 0.8]), np.array([0.2, 0.4, 0.1]))
        sums.add(["s1"], np.array([0.5]), np.array([0.0]))
    again = sums.test(0.95)
    assert again.word_pairs == 4000
    assert again.t_p == pytest.approx(found.t_p)


def test_a_text_model_gives_cosines_and_sees_every_word_once(monkeypatch: pytest.MonkeyPatch) -> None:
    angles = {"我": 0.0, "俺": 0.5, "吃": 2.0}
    seen: list[str] = []

    class Model:
        def __init__(self, name: str) -> None:
            if name != "some/model":
                raise OSError("not found")

        def encode(self, words: list[str], **settings: bool) -> np.ndarray:
            assert settings["normalize_embeddings"]
            seen.extend(words)
            return np.array([[np.cos(angles[word]), np.sin(angles[word])] for word in words], np.float32)

    package = types.ModuleType("sentence_transformers")
    package.SentenceTransformer = Model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)
    similarity = choose_similarity("some/model", None)
    for _ in range(2):
        found = similarity.matrix(["我", "吃"], ["俺", "我"])
        np.testing.assert_allclose(found, np.cos([[0.5, 0.0], [1.5, 2.0]]), atol=1e-6)
    assert sorted(seen) == sorted(angles)
    with pytest.raises(ValueError, match=r"other/model: no such text model \(not found\)"):
        choose_similarity("other/model", None)


def test_an_unknown_text_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ValueError, match=r"LaBSE needs the package sentence-transformers"):
        choose_similarity("sentence-transformers/LaBSE", None)


def test_p_values_are_adjusted_for_the_pairs_of_groups() -> None:
    random = np.random.default_rng(3)
    tests = {
        name: paired_test(random.normal(mean, 1, 20), np.zeros(20), word_pairs=20)
        for name, mean in (("a", 0.6), ("b", 0.3), ("c", 0.0))
    }
    single = paired_test(np.ones(1), np.zeros(1), word_pairs=1)
    found = adjusted(tests | {"single": single})
    for p in ("t_p", "wilcoxon_p"):
        first, second, third = sorted(tests, key=lambda name: getattr(tests[name], p))
        smallest = 3 * getattr(tests[first], p)
        middle = max(smallest, 2 * getattr(tests[second], p))
        largest = max(middle, getattr(tests[third], p))
        by_hand = {first: smallest, second: middle, third: largest}
        for name, value in by_hand.items():
            assert getattr(found[name], f"{p}_holm") == pytest.approx(min(1, value))
            assert getattr(found[name], p) == getattr(tests[name], p)
    assert (found["single"].t_p_holm, found["single"].wilcoxon_p_holm) == (None, None)
