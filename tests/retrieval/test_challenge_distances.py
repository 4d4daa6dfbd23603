"""Distances by sound between sites, and the threshold, against hand-made numbers."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import directions, write_store

from retrieval.challenge.build import sound_threshold
from retrieval.challenge.distances import (
    Distances,
    measure_distances,
    relative_distances,
    weighted_quantile,
)
from retrieval.challenge.settings import SoundConfig, SoundMeasure
from retrieval.challenge.utterances import Spoken
from retrieval.embedding.store import EmbeddingStore, Utterance
from retrieval.protocol.sites import Site, sites_of
from zipformer.errors import UserError

SITES = [Site("cmn", "a", {"s1": "a1", "s2": "a2"}), Site("yue", "b", {"s1": "b1", "s2": "b2"})]
COMMON = {(0, 1): ["s1", "s2"]}


def spoken(**phones: str) -> dict[str, Spoken]:
    return {
        name: Spoken(Utterance(name, 0, 0, "cmn"), duration=1.0, written_phones=written)
        for name, written in phones.items()
    }


def test_phones_of_the_cuts() -> None:
    items = spoken(a1="ma55", a2="ni51", b1="ma22", b2="nei13")
    found = measure_distances(items, SITES, COMMON, SoundConfig(), control=None)
    assert found.measure is SoundMeasure.phones
    assert found.of_pair == {(0, 1): {"s1": 0.0, "s2": pytest.approx(1 / 3, abs=1e-6)}}
    with_tones = measure_distances(items, SITES, COMMON, SoundConfig(tones=True), control=None)
    assert with_tones.of_pair[0, 1]["s1"] == pytest.approx(1 / 3, abs=1e-6)  # m a 55, m a 22


def test_phones_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "phones.tsv"
    path.write_text("utterance_id\tphones\na1\tma\na2\tni\nb1\tka\nb2\tni\n", encoding="utf-8")
    config = SoundConfig(phones_file=str(path))
    found = measure_distances(spoken(a1="x", a2="x", b1="x", b2="x"), SITES, COMMON, config, control=None)
    assert found.of_pair == {(0, 1): {"s1": 0.5, "s2": 0.0}}


def test_missing_phones_are_errors_with_a_remedy(tmp_path: Path) -> None:
    some = spoken(a1="ma", a2="", b1="ka", b2="ni")
    with pytest.raises(ValueError, match=r"field ipa or romanisation of the cuts: 1 of 4 .* the first is a2"):
        measure_distances(some, SITES, COMMON, SoundConfig(), control=None)
    none = spoken(a1="", a2="", b1="", b2="")
    with pytest.raises(ValueError, match=r"no phones .*sound\.phones_file.*embedder=mfcc"):
        measure_distances(none, SITES, COMMON, SoundConfig(), control=None)
    with pytest.raises(ValueError, match="4 of 4 utterances have no phones"):
        measure_distances(none, SITES, COMMON, SoundConfig(measure=SoundMeasure.phones), control=None)
    with pytest.raises(ValueError, match="1 of 4 utterances have no phones, the first is a1"):  # only a tone
        measure_distances(spoken(a1="55", a2="a", b1="a", b2="a"), SITES, COMMON, SoundConfig(), control=None)
    path = tmp_path / "phones.tsv"
    path.write_text("utterance_id\tphones\na1\tma\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"phones\.tsv: 3 of 4 utterances have no phones"):
        measure_distances(none, SITES, COMMON, SoundConfig(phones_file=str(path)), control=None)


def test_acoustic_distance_of_planted_frames(tmp_path: Path) -> None:
    """Frames along axes: the best path meets equal axes or pays 1 for every point that differs."""
    store = write_store(
        tmp_path / "store",
        {
            ("cmn", "a"): {"s1": directions([0, 1], 6), "s2": directions([2, 3], 6)},
            ("yue", "b"): {"s1": directions([0, 1], 6, repeat=3), "s2": directions([2, 4], 6)},
        },
    )
    sites = sites_of(store)
    found = measure_distances({}, sites, COMMON, SoundConfig(measure=SoundMeasure.acoustic),
                              control=tmp_path / "store")  # fmt: skip
    # s1: 0. s2: points (2,2) with weight 2 cost 0, (3,4) with weight 2 costs 1: 2 of 4. Different ones: 1.
    assert found.of_pair == {(0, 1): {"s1": 0.0, "s2": 0.5}}
    lacking = [*sites[:1], Site("yue", "b", {"s1": "yue-b-s1", "s2": "other"})]
    with pytest.raises(ValueError, match="lacks 1 of 4 utterances, the first is other: embed"):
        measure_distances({}, lacking, COMMON, SoundConfig(measure=SoundMeasure.acoustic),
                          control=tmp_path / "store")  # fmt: skip
    with pytest.raises(UserError, match=r"fangyan embed"):
        measure_distances({}, sites, COMMON, SoundConfig(measure=SoundMeasure.acoustic),
                          control=tmp_path / "none")  # fmt: skip


def test_frames_that_are_not_finite_name_their_utterance(tmp_path: Path) -> None:
    site = {"s1": directions([0, 1], 4), "s2": directions([2, 3], 4)}
    write_store(tmp_path / "store", {("cmn", "a"): site, ("yue", "b"): site})
    frames = np.load(tmp_path / "store" / "frames.npy")
    frames[6, 0] = np.nan  # the last utterance of four with two frames each
    np.save(tmp_path / "store" / "frames.npy", frames)
    store = EmbeddingStore(tmp_path / "store")
    with pytest.raises(ValueError, match="utterance yue-b-s2 has frames that are not finite"):
        measure_distances({}, sites_of(store), COMMON, SoundConfig(measure=SoundMeasure.acoustic),
                          control=tmp_path / "store")  # fmt: skip


def test_relative_distances() -> None:
    distances = np.array([[0.2, 0.4, 0.6], [0.5, 0.25, 0.5], [0.9, 0.4, 0.5]])
    np.testing.assert_allclose(relative_distances(distances), [0.4, 0.5, 1.0])  # median of the others: 0.5
    np.testing.assert_allclose(relative_distances(distances.T), [0.4, 0.5, 1.0])
    np.testing.assert_allclose(relative_distances(3 * distances), [0.4, 0.5, 1.0])  # another room
    np.testing.assert_array_equal(relative_distances(np.zeros((2, 2))), [1, 1])


def test_weighted_quantile_by_hand() -> None:
    assert weighted_quantile([3.0, 1.0, 2.0, 4.0], [1, 1, 1, 1], 0.5) == 2
    assert weighted_quantile([3.0, 1.0, 2.0, 4.0], [1, 1, 1, 1], 0.51) == 3
    assert weighted_quantile([1.0, 2.0], [3, 1], 0.75) == 1
    assert weighted_quantile([1.0, 2.0], [3, 1], 0.76) == 2


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 5)), min_size=1, max_size=20), st.floats(0.01, 0.99)
)
def test_weighted_quantile_reaches_the_share_and_no_smaller_value_does(
    points: list[tuple[float, int]], share: float
) -> None:
    values, weights = zip(*points, strict=True)
    total = sum(weights)
    found = weighted_quantile(values, weights, share)
    assert sum(w for v, w in points if v <= found) >= share * total * (1 - 1e-9)
    assert sum(w for v, w in points if v < found) < share * total


def test_pairs_of_groups_weigh_the_same_in_the_threshold() -> None:
    """cmn-yue has one site pair at 0.9; cmn-hak has three at 0.1, 0.2, 0.3; hak-hak does not count."""
    sites = [Site("cmn", "a", {}), Site("yue", "b", {}), *(Site("hak", name, {}) for name in "cde")]
    of_pair = {
        (0, 1): {"s": 0.9},
        (0, 2): {"s": 0.1},
        (0, 3): {"s": 0.2},
        (0, 4): {"s": 0.3},
        (2, 3): {"s": 0.0},
    }
    distances = Distances(SoundMeasure.phones, of_pair, None)
    assert sound_threshold(distances, sites, SoundConfig(quantile=0.5)) == 0.3
    assert sound_threshold(distances, sites, SoundConfig(quantile=0.51)) == 0.9
    assert sound_threshold(distances, sites, SoundConfig(quantile=1 / 6)) == 0.1
    assert sound_threshold(distances, sites, SoundConfig(threshold=0.42)) == 0.42
    with pytest.raises(ValueError, match="no two sites of different groups share two sentences"):
        sound_threshold(Distances(SoundMeasure.phones, {(2, 3): {"s": 0.0}}, None), sites, SoundConfig())
