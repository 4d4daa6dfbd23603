"""Retrieval with challenge sets against pools that are gone through by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import directions, write_store

from retrieval.protocol.challenge_sets import ChallengeSet
from retrieval.protocol.recall import retrieve
from retrieval.protocol.sites import Level, Site, sites_of
from retrieval.protocol.tables import tabulate
from retrieval.similarity.seqsim import pack, seqsim_packed

NAMES = [f"s{n}" for n in range(6)]


def challenge(
    sites: Sequence[Site],
    kept: dict[tuple[int, int], list[str]],
    *,
    durations: dict[str, float] | None = None,
    candidates: int = 0,
) -> ChallengeSet:
    return ChallengeSet("hard", "test", list(sites), kept, durations or {}, candidates, {}, "")


def chance(outcome: Any, source: int, target: int) -> float:
    """Of recall@1."""
    return float(np.ravel(outcome.chance(source, target))[0])


def test_dropped_sentences_are_neither_asked_nor_offered(tmp_path: Path) -> None:
    """b says s0 and s1 with each other's words; a set without s0 makes s1 right again."""
    a = {name: directions([n], 8) for n, name in enumerate(NAMES)}
    b = {name: directions([{0: 1, 1: 0}.get(n, n)], 8, repeat=3) for n, name in enumerate(NAMES)}
    store = write_store(tmp_path / "store", {("cmn", "a"): a, ("yue", "b"): b, ("yue", "c"): a})
    sites = sites_of(store)
    assert retrieve(store, sites).recall(0, 1) == pytest.approx(4 / 6)
    hard = challenge(sites, {(0, 1): NAMES[2:5], (0, 2): ["s0", "s5"], (1, 2): []})
    outcome = retrieve(store, sites, challenge=hard, within_groups=True)
    np.testing.assert_array_equal(outcome.hits[0, 1], [np.nan, np.nan, 1, 1, 1, np.nan])
    assert (outcome.queries(1, 0), chance(outcome, 0, 1)) == (3, pytest.approx(1 / 3))
    assert (outcome.queries(0, 2), chance(outcome, 0, 2)) == (2, pytest.approx(1 / 2))
    assert outcome.queries(1, 2) == 0
    row = next(row for row in tabulate(outcome, trained_groups=None, resamples=20).pairs)
    assert row.chance == pytest.approx(100 * (1 / 3 + 1 / 2) / 2)
    assert (row.site_pairs, row.queries) == (2, 5)


def test_rivals_of_like_duration(tmp_path: Path) -> None:
    """Pool b: s0 1.0 s, s1 1.2 s, s2 5 s, s3 5.1 s; s0 and s2 sound like s0 of a.

    Against all, s0 ties with s2. Of two candidates, the other one is s1, so s0 is found.
    """
    a = {name: directions([n], 8) for n, name in enumerate(NAMES[:4])}
    b = {name: directions([{2: 0}.get(n, n)], 8) for n, name in enumerate(NAMES[:4])}
    store = write_store(tmp_path / "store", {("cmn", "a"): a, ("yue", "b"): b})
    sites = sites_of(store)
    seconds = dict(zip([f"yue-b-{name}" for name in NAMES[:4]], [1.0, 1.2, 5.0, 5.1], strict=True))
    seconds |= {f"cmn-a-{name}": 1.0 for name in NAMES[:4]}
    matched = challenge(sites, {(0, 1): NAMES[:4]}, durations=seconds, candidates=2)
    assert retrieve(store, sites).hits[0, 1, 0] == pytest.approx(1 / 2)
    outcome = retrieve(store, sites, challenge=matched)
    np.testing.assert_allclose(outcome.hits[0, 1], [1, 1, 1 / 2, 1])  # of s2 both candidates have nothing
    assert chance(outcome, 0, 1) == chance(outcome, 1, 0) == 1 / 2
    expected = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], dtype=bool)
    np.testing.assert_array_equal(matched.allowed(sites[0], sites[1], NAMES[:4]), expected)
    # at a all durations are equal: the own answer, and the first of the others
    expected = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]], dtype=bool)
    np.testing.assert_array_equal(matched.allowed(sites[1], sites[0], NAMES[:4]), expected)
    assert matched.allowed(sites[0], sites[1], NAMES[:2]) is None  # the pool is no larger


def test_against_a_loop_over_queries(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    N, k = 20, 5
    spoken = {
        (group, group): {
            f"s{n:02}": (word + 1.2 * random.standard_normal((4, 8))).astype(np.float32)
            for n, word in enumerate(np.random.default_rng(1).standard_normal((N, 1, 8)))
        }
        for group in ("cmn", "yue")
    }
    store = write_store(tmp_path / "store", spoken)
    sites = sites_of(store)
    seconds = {entry.utterance_id: float(random.integers(1, 8)) for entry in store}
    names = sorted(sites[0].utterances)
    kept = [name for name in names if name not in ("s03", "s11")]
    hard = challenge(sites, {(0, 1): kept}, durations=seconds, candidates=k)
    outcome = retrieve(store, sites, challenge=hard)
    for source, target in ((0, 1), (1, 0)):
        for sentence in kept:
            query = pack([torch.from_numpy(np.array(store[sites[source].utterances[sentence]]))])
            own = seconds[sites[target].utterances[sentence]]
            rivals = sorted(
                (name for name in kept if name != sentence),
                key=lambda name: (abs(seconds[sites[target].utterances[name]] - own), name),
            )[: k - 1]
            scores = [
                float(seqsim_packed(query, pack([torch.from_numpy(np.array(store[utterance]))])))
                for utterance in (sites[target].utterances[name] for name in [sentence, *rivals])
            ]
            assert len(scores) == k
            assert outcome.hits[source, target, names.index(sentence)] == (
                1.0 if scores[0] > max(scores[1:]) + 1e-6 else 0.0
            )
    assert chance(outcome, 0, 1) == pytest.approx(1 / k)


def test_sites_are_known_by_their_utterances(tmp_path: Path) -> None:
    """A set of dialects serves a retrieval between varieties."""
    site = {name: directions([n], 8) for n, name in enumerate(NAMES)}
    store = write_store(
        tmp_path / "store",
        {("hak", "x"): site, ("hak", "y"): site, ("yue", "z"): site},
        subdialects={"x": "hak-sixian", "y": "hak-hailu", "z": "yue-guangzhou"},
    )
    hard = challenge(sites_of(store), {(0, 1): NAMES[:3], (0, 2): NAMES[:2], (1, 2): NAMES})
    varieties = sites_of(store, level=Level.subdialect)
    assert [str(site) for site in varieties] == ["hak-hailu/y", "hak-sixian/x", "yue-guangzhou/z"]
    outcome = retrieve(store, varieties, challenge=hard)
    assert [outcome.queries(*pair) for pair in ((0, 1), (1, 2), (0, 2))] == [3, 2, 6]
    unknown = [Site("hak", "x", {"s0": "new"}), varieties[2]]
    with pytest.raises(ValueError, match=r"'hard' does not know utterance new: .*fangyan challenge"):
        hard.kept(unknown[0], unknown[1], ["s0"])


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    site = {name: directions([n], 8) for n, name in enumerate(NAMES)}
    store = write_store(tmp_path / "store", {("cmn", "a"): site, ("yue", "b"): site})
    sites = sites_of(store)
    with pytest.raises(ValueError, match="no sentence"):
        retrieve(store, sites, challenge=challenge(sites, {(0, 1): []}))
