"""Grouping, what intervals are over, and confusions against hand-made examples."""

from dataclasses import replace

import numpy as np
import pytest

from zipformer.scoring import (
    Confusion,
    Design,
    ScoreRow,
    Transcript,
    align_all,
    confusions,
    error_rate_interval,
    score,
)


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


def test_intervals_of_rows_are_over_sentences_and_places() -> None:
    """Sites where a row has several, else speakers, else sentences alone; sentences by id, else by text."""
    utterances = [
        Transcript(
            f"{site} {n}", "yue", None, site, None, "我係香港人"[n:], "我是香港人"[:n], f"{site} {n % 2}"
        )
        for site in ("north", "south")
        for n in range(4)
    ]
    utterances.append(Transcript("e", "wuu", None, "east", "1", "侬好", "侬", "someone"))
    utterances.append(Transcript("f", "wuu", None, "east", "2", "侬好", "侬好", "someone"))
    rows = {(row.level, row.name): row for row in score(align_all(utterances))}
    assert {key: row.resampled for key, row in rows.items()} == {
        ("overall", "overall"): "sentences and sites; sites cannot vary for wuu (one each)",
        ("dialect", "wuu"): "sentences",
        ("dialect", "yue"): "sentences and sites",
        ("site", "east"): "sentences",
        ("site", "north"): "sentences and speakers",
        ("site", "south"): "sentences and speakers",
    }
    counts = [item.counts for item in align_all(utterances)]
    errors = np.array([item.errors for item in counts])
    characters = np.array([item.reference_characters for item in counts])

    def expected(chosen: list[int], sentences: list[int], places: list[int], strata: list[int]) -> object:
        design = Design(*(np.array(labels) for labels in (sentences, places, strata)))
        interval = error_rate_interval(errors[chosen], characters[chosen], design)
        assert interval is not None
        return pytest.approx([100 * end for end in interval])

    of_yue = expected(list(range(8)), [0, 1, 2, 3] * 2, [0] * 4 + [1] * 4, [0] * 8)
    assert [rows["dialect", "yue"].low, rows["dialect", "yue"].high] == of_yue
    of_north = expected([0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 0, 1], [0] * 4)
    assert [rows["site", "north"].low, rows["site", "north"].high] == of_north
    of_wuu = expected([8, 9], [0, 1], [0, 0], [0, 0])
    assert [rows["dialect", "wuu"].low, rows["dialect", "wuu"].high] == of_wuu
    sentences, places = [0, 1, 2, 3] * 2 + [4, 5], [0] * 4 + [1] * 4 + [2, 2]
    of_all = expected(list(range(10)), sentences, places, [0] * 8 + [1] * 2)
    assert [rows["overall", "overall"].low, rows["overall", "overall"].high] == of_all


def test_the_same_sentences_at_more_sites_are_not_more_sentences() -> None:
    """Copies of one site add nothing: the interval stays as wide as that of the site."""
    site = [
        Transcript(f"{n}", "yue", None, "north", str(n), "我係香港人", "我係香港人"[: n % 4])
        for n in range(20)
    ]
    copies = [replace(item, id=f"{name} {item.id}", site=name) for name in "abcdefgh" for item in site]
    of_site, of_copies = (score(align_all(items))[0] for items in (site, copies))
    assert of_copies.cer == of_site.cer
    assert (of_copies.low, of_copies.high) == pytest.approx((of_site.low, of_site.high))


def test_a_single_utterance_has_no_interval() -> None:
    row = score(align_all(TRANSCRIPTS[:1]))[0]
    assert (row.cer, row.low, row.high) == (20, None, None)


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
