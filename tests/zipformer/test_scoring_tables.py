"""Bootstrap intervals against scipy, grouping and confusions against hand-made examples."""

import numpy as np
import pytest
from scipy import stats

from zipformer.scoring import Confusion, ScoreRow, Transcript, align_all, bootstrap_ratio, confusions, score


def test_interval_agrees_with_scipy() -> None:
    random = np.random.default_rng(5)
    characters = random.integers(5, 30, size=120)
    errors = random.binomial(characters, 0.2)

    def ratio(numerator: np.ndarray, denominator: np.ndarray, axis: int) -> np.ndarray:
        return numerator.sum(axis=axis) / denominator.sum(axis=axis)

    expected = stats.bootstrap(
        (errors.astype(float), characters.astype(float)),
        ratio,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    ours = bootstrap_ratio(errors, characters, replications=20_000, seed=0)
    assert ours is not None
    # Both are Monte Carlo estimates; the tolerance is 5 % of the width of the interval.
    width = expected.high - expected.low
    assert ours.low == pytest.approx(expected.low, abs=0.05 * width)
    assert ours.high == pytest.approx(expected.high, abs=0.05 * width)


def test_interval_depends_on_the_seed_only(monkeypatch: pytest.MonkeyPatch) -> None:
    errors, characters = np.arange(50), np.full(50, 60)
    first = bootstrap_ratio(errors, characters, seed=3)
    assert bootstrap_ratio(errors, characters, seed=3) == first
    assert bootstrap_ratio(errors, characters, seed=4) != first
    # The generator fills rows in order, so the block size must not show in the result.
    monkeypatch.setattr("zipformer.scoring.bootstrap._BLOCK_DRAWS", 700)
    assert bootstrap_ratio(errors, characters, seed=3) == first


def test_wider_confidence_gives_a_wider_interval() -> None:
    errors, characters = np.arange(50), np.full(50, 60)
    narrow = bootstrap_ratio(errors, characters, confidence=0.5)
    wide = bootstrap_ratio(errors, characters, confidence=0.99)
    assert narrow is not None
    assert wide is not None
    assert wide.low < narrow.low < errors.sum() / characters.sum() < narrow.high < wide.high


def test_resamples_without_reference_characters_are_left_out() -> None:
    assert bootstrap_ratio([1, 2], [0, 0]) is None
    # A resample is (first, first) without a ratio, or 2 / 4, or 4 / 8.
    assert bootstrap_ratio([0, 2], [0, 4]) == (0.5, 0.5)


def test_interval_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="non-empty"):
        bootstrap_ratio([], [])


def transcript(
    id: str, dialect: str | None, subdialect: str | None, site: str | None, reference: str, hypothesis: str
) -> Transcript:
    return Transcript(id, dialect, subdialect, site, None, reference, hypothesis)


TRANSCRIPTS = [
    transcript("a", "yue", "yue-guangzhou", "north", "我係香港人", "我是香港人"),
    transcript("b", "yue", "yue-guangzhou", "south", "佢係邊個", "佢是邊"),
    transcript("c", "wuu", "wuu-shanghai", "north", "侬好", "侬好呀呀"),
    transcript("d", "wuu", None, None, "", ""),
]


def rows_by_key() -> dict[tuple[str, str, str], ScoreRow]:
    return {(row.level, row.group, row.name): row for row in score(align_all(TRANSCRIPTS))}


def test_rows_of_every_level() -> None:
    rows = rows_by_key()
    assert list(rows) == [
        ("overall", "", "overall"),
        ("dialect", "wuu", "wuu"),
        ("dialect", "yue", "yue"),
        ("subdialect", "wuu", "wuu-shanghai"),
        ("subdialect", "yue", "yue-guangzhou"),
        ("site", "wuu", "north"),
        ("site", "yue", "north"),
        ("site", "yue", "south"),
    ]


def test_counts_and_rates_of_rows() -> None:
    rows = rows_by_key()
    overall = rows["overall", "", "overall"]
    assert (overall.utterances, overall.reference_characters) == (4, 11)
    assert (overall.substitutions, overall.deletions, overall.insertions) == (2, 1, 2)
    assert overall.cer == pytest.approx(100 * 5 / 11)
    assert rows["dialect", "yue", "yue"].cer == pytest.approx(100 * 3 / 9)
    assert rows["dialect", "wuu", "wuu"].utterances == 2
    assert rows["site", "yue", "north"].cer == pytest.approx(20)
    assert rows["site", "wuu", "north"].cer == pytest.approx(100)


def test_interval_of_a_row_brackets_its_rate() -> None:
    row = rows_by_key()["dialect", "yue", "yue"]
    # Only three resamples exist: both times "a" (1/5), both times "b" (2/4), one of each (3/9).
    assert row.low == pytest.approx(20)
    assert row.high == pytest.approx(50)


def test_a_group_of_empty_references_has_no_rate() -> None:
    row = score(align_all([transcript("d", "wuu", None, None, "", "呀")]))[0]
    assert (row.cer, row.low, row.high, row.insertions) == (None, None, None, 1)


def test_confusions_by_dialect_and_frequency() -> None:
    listed = confusions(align_all(TRANSCRIPTS))
    assert listed == [
        Confusion("", "substitution", "係", "是", 2),
        Confusion("", "deletion", "個", "", 1),
        Confusion("", "insertion", "", "呀", 2),
        Confusion("wuu", "insertion", "", "呀", 2),
        Confusion("yue", "substitution", "係", "是", 2),
        Confusion("yue", "deletion", "個", "", 1),
    ]


def test_confusions_keep_the_most_frequent_ones() -> None:
    scored = align_all(
        [
            transcript("a", "yue", None, None, "係係佢佢佢", "是是他他他"),
            transcript("b", "yue", None, None, "係", "系"),
        ]
    )
    assert [item.reference for item in confusions(scored, top=1)] == ["佢", "佢"]
    assert [item.count for item in confusions(scored)[:3]] == [3, 2, 1]
