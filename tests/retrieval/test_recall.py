import numpy as np
import pytest
from planted import directions, write_store

from retrieval.embedding.corrections import Correction
from retrieval.embedding.store import EmbeddingStore, Utterance
from retrieval.protocol.recall import retrieve
from retrieval.protocol.run import RetrieveConfig
from retrieval.protocol.sites import Duplicates, Level, labels_of_dialects, site_pairs, sites_of
from retrieval.similarity.scores import ScoreKind

NAMES = [f"s{n}" for n in range(6)]


def sentences(order, dimension=8, repeat=1):
    """One word a sentence: sentence n is said with word order[n]."""
    return {
        name: directions([word], dimension, repeat=repeat) for name, word in zip(NAMES, order, strict=True)
    }


def test_perfect_and_planted_recall(tmp_path):
    # b says s0 and s1 with each other's words: a finds 4 of 6 there, and b 4 of 6 at a.
    store = write_store(
        tmp_path / "store",
        {
            ("cmn", "a"): sentences(range(6)),
            ("yue", "b"): sentences([1, 0, 2, 3, 4, 5], repeat=3),
            ("yue", "c"): sentences(range(6), repeat=2),
        },
    )
    outcome = retrieve(store, sites_of(store))
    assert [str(site) for site in outcome.sites] == ["cmn/a", "yue/b", "yue/c"]
    assert outcome.recall(0, 1) == pytest.approx(4 / 6)
    assert outcome.recall(1, 0) == pytest.approx(4 / 6)
    assert outcome.recall(0, 2) == 1.0
    np.testing.assert_array_equal(outcome.hits[0, 1], [0, 0, 1, 1, 1, 1])
    assert np.isnan(outcome.hits[1, 2]).all()  # one group: not asked
    within = retrieve(store, sites_of(store), within_groups=True)
    assert within.recall(1, 2) == pytest.approx(4 / 6)
    assert np.isnan(within.hits[1, 1]).all()


def test_recall_depends_on_the_direction(tmp_path):
    # At b, s1 lies between the words of s0 and s1: as a query it is nearer to s0 of a, but a's s1 has no
    # better match in the pool of b than b's s1.
    b = sentences(range(6))
    b["s1"] = np.array([[0.8, 0.6, 0, 0, 0, 0, 0, 0]], dtype=np.float32)
    store = write_store(tmp_path / "store", {("cmn", "a"): sentences(range(6)), ("yue", "b"): b})
    outcome = retrieve(store, sites_of(store))
    assert outcome.recall(0, 1) == 1.0
    assert outcome.recall(1, 0) == pytest.approx(5 / 6)
    assert outcome.hits[1, 0, 1] == 0


def test_only_common_sentences_are_asked_and_offered(tmp_path):
    # b lacks s0 and s1 and has one more. If its s9 (word 2) were in the pool, a's s2 would tie with it.
    b = {name: frames for name, frames in sentences(range(6)).items() if name not in ("s0", "s1")}
    b["s9"] = directions([2], 8)
    store = write_store(tmp_path / "store", {("cmn", "a"): sentences(range(6)), ("yue", "b"): b})
    outcome = retrieve(store, sites_of(store))
    assert outcome.queries(0, 1) == outcome.queries(1, 0) == 4
    assert outcome.recall(0, 1) == 1.0
    assert outcome.sentences == [*NAMES, "s9"]
    np.testing.assert_array_equal(
        np.isnan(outcome.hits[0, 1]), [True, True, False, False, False, False, True]
    )


def test_equal_utterances_come_out_at_chance(tmp_path):
    same = {name: np.ones((5, 4), dtype=np.float32) for name in NAMES}
    store = write_store(tmp_path / "store", {("cmn", "a"): same, ("yue", "b"): same})
    outcome = retrieve(store, sites_of(store), permutations=20)
    harmonic = 1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5 + 1 / 6
    for source, target in ((0, 1), (1, 0)):
        found = outcome.metrics(source, target)
        np.testing.assert_allclose(found, [1 / 6, 5 / 6, 1, harmonic / 6, 3.5])
        np.testing.assert_allclose(found, outcome.chance_metrics(source, target))
    np.testing.assert_allclose(outcome.permuted["cmn", "yue"], np.tile(outcome.chance_metrics(0, 1), (20, 1)))


def test_ranks_of_planted_utterances(tmp_path):
    # b says s0 with the word of s1 most, then with that of s2, and only a little with its own: rank 3 of 6.
    b = sentences(range(6))
    b["s0"] = np.array([[0.5, 0.7, 0.6, 0, 0, 0, 0, 0]], dtype=np.float32)
    store = write_store(tmp_path / "store", {("cmn", "a"): sentences(range(6)), ("yue", "b"): b})
    outcome = retrieve(store, sites_of(store))
    np.testing.assert_array_equal(outcome.above[1, 0], [2, 0, 0, 0, 0, 0])
    assert (outcome.equal[1, 0] == 1).all()
    assert (outcome.pool[1, 0] == 6).all()
    np.testing.assert_allclose(outcome.metrics(1, 0), [5 / 6, 1, 1, (5 + 1 / 3) / 6, 1])
    np.testing.assert_array_equal(outcome.hits[1, 0], [0, 1, 1, 1, 1, 1])


def test_permuted_frames_are_found_alike(tmp_path):
    # SeqSim does not look at the order of frames.
    random = np.random.default_rng(0)
    a, b = noisy_sites(random, sentences=15)
    shuffled = {name: random.permutation(frames) for name, frames in b.items()}
    outcomes = []
    for name, site in (("plain", b), ("shuffled", shuffled)):
        store = write_store(tmp_path / name, {("cmn", "a"): a, ("yue", "b"): site})
        outcomes.append(retrieve(store, sites_of(store)))
    np.testing.assert_array_equal(outcomes[0].above, outcomes[1].above)
    assert 0 < outcomes[0].recall(0, 1) < 1


def test_single_frame_utterances_against_long_ones(tmp_path):
    store = write_store(
        tmp_path / "store",
        {("cmn", "a"): sentences(range(6)), ("hak", "b"): sentences(range(6), repeat=40)},
    )
    outcome = retrieve(store, sites_of(store))
    assert outcome.recall(0, 1) == outcome.recall(1, 0) == 1.0


def test_centring_removes_a_common_part(tmp_path):
    # Frames differ by 1e-4 on top of a part that all share: float32 cosines are then equal within rounding.
    random = np.random.default_rng(0)
    common = random.standard_normal(16) * 100
    own = {name: random.standard_normal((4, 16)) * 0.01 for name in NAMES}
    site = {name: (common + frames).astype(np.float32) for name, frames in own.items()}
    store = write_store(tmp_path / "store", {("cmn", "a"): site, ("yue", "b"): site})
    assert retrieve(store, sites_of(store)).recall(0, 1) < 0.5
    assert retrieve(store, sites_of(store), correction=Correction.center).recall(0, 1) == 1.0


def test_no_common_sentence_is_an_error_that_names_both_sites(tmp_path):
    other = {f"t{n}": directions([n], 8) for n in range(3)}
    store = write_store(tmp_path / "store", {("cmn", "a"): sentences(range(6)), ("yue", "b"): other})
    with pytest.raises(
        ValueError, match=r"cmn/a and yue/b share no sentence id .*s0, s1, s2, \.\.\. 6 in all.*t0"
    ):
        retrieve(store, sites_of(store))


def unlike_sites(directory, sizes):
    """One site for each (group, site), with so many of the same sentences."""
    words = np.random.default_rng(0).standard_normal((max(sizes.values()), 2, 8))
    return write_store(
        directory,
        {site: {f"s{n:02}": words[n] for n in range(size)} for site, size in sizes.items()},
    )


def test_a_pool_of_one_is_no_question(tmp_path):
    sizes = {("cmn", "a1"): 30, ("yue", "b1"): 30, ("yue", "b2"): 1}
    store = unlike_sites(tmp_path / "store", sizes)
    with pytest.raises(
        ValueError,
        match=r"^2 of 3 pairs of sites share fewer than 2 sentences: cmn/a1 and yue/b2 share 1; yue/b1 and"
        r" yue/b2 share 1\. .*within=false.*; groups=\[\.\.\.\].*; min_common=1$",
    ):
        retrieve(store, sites_of(store), within_groups=True)
    with pytest.raises(ValueError, match="1 of 2 pairs") as error:
        retrieve(store, sites_of(store))
    assert "within=" not in str(error.value)  # it was not asked within groups
    assert retrieve(store, sites_of(store), min_common=1).queries(0, 2) == 1
    with pytest.raises(ValueError, match="1 of 2 pairs of sites share fewer than 30 sentences"):
        retrieve(store, sites_of(store), min_common=30)
    with pytest.raises(ValueError, match="min_common=0 leaves pools without a sentence"):
        RetrieveConfig(model_dir="exp", min_common=0)


def test_sites_of_one_group_without_a_common_sentence_can_be_asked_between_groups(tmp_path):
    words = sentences(range(6))
    first, second = ({name: words[name] for name in names} for names in (NAMES[:3], NAMES[3:]))
    store = write_store(tmp_path / "store", {("cmn", "a"): words, ("yue", "b"): first, ("yue", "c"): second})
    with pytest.raises(ValueError, match=r"yue/b and yue/c share no sentence id .*also has within=false"):
        retrieve(store, sites_of(store), within_groups=True)
    outcome = retrieve(store, sites_of(store))
    assert (outcome.recall(0, 1), outcome.recall(2, 0)) == (1, 1)


@pytest.mark.parametrize(("size", "warned"), [(15, False), (14, True)])
def test_pools_of_unlike_size_are_named(tmp_path, caplog, size, warned):
    sizes = {("cmn", "a"): 30, ("hak", "b"): 30, ("yue", "c"): size}
    store = unlike_sites(tmp_path / "store", sizes)
    retrieve(store, sites_of(store))
    found = "from 14 (cmn/a at yue/c) to 30 (cmn/a at hak/b)" in caplog.text
    assert found == ("pools differ in size" in caplog.text) == warned


def utterance(name, dialect, site, sentence, subdialect=""):
    return Utterance(name, 0, 1, dialect, subdialect, site, sentence)


def test_sentence_read_twice_at_a_site():
    entries = [
        utterance("u1", "cmn", "a", "s1"),
        utterance("u2", "cmn", "a", "s1"),
        utterance("u3", "yue", "b", "s1"),
    ]
    with pytest.raises(ValueError, match="site a of cmn has sentence s1 twice, as u1 and u2"):
        sites_of(entries)
    # Stores are sorted by duration, manifests are not: the order must not choose.
    for order in (entries, entries[::-1]):
        assert sites_of(order, duplicates=Duplicates.first)[0].utterances == {"s1": "u1"}


def test_levels_and_selection():
    entries = [
        utterance("u1", "hak", "x", "s1", "hak-sixian"),
        utterance("u2", "hak", "y", "s1", "hak-hailu"),
        utterance("u3", "nan", "", "s1", "nan-taiwan"),
        utterance("u4", "nan", "", "", "nan-taiwan"),  # no sentence id: takes no part
    ]
    assert [str(site) for site in sites_of(entries)] == ["hak/x", "hak/y", "nan/nan"]
    varieties = sites_of(entries, level=Level.subdialect)
    assert [str(site) for site in varieties] == ["hak-hailu/y", "hak-sixian/x", "nan-taiwan/nan-taiwan"]
    assert site_pairs(sites_of(entries)) == [(0, 2), (1, 2)]
    assert len(site_pairs(varieties)) == 3
    chosen = sites_of(entries, level=Level.subdialect, groups=["nan-taiwan", "hak-sixian"])
    assert [site.group for site in chosen] == ["nan-taiwan", "hak-sixian"]
    with pytest.raises(ValueError, match="no utterances of yue; there are hak, nan"):
        sites_of(entries, groups=["hak", "yue"])
    with pytest.raises(ValueError, match="at least two groups"):
        sites_of(entries, groups=["hak"])
    with pytest.raises(ValueError, match="groups names hak more than once"):
        sites_of(entries, groups=["hak", "nan", "hak"])
    assert labels_of_dialects(entries, ["hak"], Level.subdialect) == ["hak-hailu", "hak-sixian"]
    assert labels_of_dialects(entries, ["hak"], Level.group) == ["hak"]


def test_without_sentence_ids_or_varieties():
    with pytest.raises(ValueError, match="no utterance has a sentence id"):
        sites_of([utterance("u1", "cmn", "a", "")])
    with pytest.raises(ValueError, match="utterance u1 has no subdialect: use level=group"):
        sites_of([utterance("u1", "cmn", "a", "s1")], level=Level.subdialect)


def noisy_sites(random, sentences=40):
    """Two sites that say the same words, with noise that makes some of them hard to find."""
    words = random.standard_normal((sentences, 1, 12))
    sites = []
    for _ in range(2):
        noise = [1.5 * random.standard_normal((int(random.integers(2, 9)), 12)) for _ in words]
        spoken = zip(words, noise, strict=True)
        sites.append({f"s{n:02}": (word + part).astype(np.float32) for n, (word, part) in enumerate(spoken)})
    return sites


class Chosen:
    """A challenge set that keeps some sentences and lets every query compete with its neighbour."""

    name = "chosen"

    def __init__(self, names, allowed=None):
        self.names, self.allowed_ = names, allowed

    def kept(self, source, target, common):
        return [name for name in common if name in self.names]

    def allowed(self, source, target, kept):
        return None if source.group == "yue" else self.allowed_


def test_challenge_sets_choose_queries_and_candidates(tmp_path):
    store = write_store(
        tmp_path / "store",
        {("cmn", "a"): sentences(range(6)), ("yue", "b"): sentences([1, 0, 3, 2, 4, 5])},
    )
    sites = sites_of(store)
    # s0 and s1 are swapped at b, s2 and s3 too; s0 only competes with s2, and s3 with s4
    allowed = np.eye(4, dtype=bool)
    allowed[0, 1] = allowed[2, 3] = True
    outcome = retrieve(store, sites, challenge=Chosen(["s0", "s2", "s3", "s4"], allowed), permutations=500)
    np.testing.assert_array_equal(outcome.pool[0, 1], [2, 0, 1, 2, 1, 0])
    np.testing.assert_allclose(outcome.hits[0, 1], [0.5, np.nan, 1, 0.5, 1, np.nan])
    assert outcome.chance(0, 1) == pytest.approx((1 / 2 + 1 + 1 / 2 + 1) / 4)
    assert outcome.permuted["cmn", "yue"].mean(axis=0)[0] == pytest.approx(3 / 4, abs=0.03)
    assert outcome.queries(1, 0) == 4
    # nothing that a says is like s0 of b, so all four answers tie; s4 is found
    assert outcome.recall(1, 0) == pytest.approx((1 / 4 + 1) / 4)


def test_frames_that_are_not_finite_name_the_utterance(tmp_path):
    directory = write_store(
        tmp_path / "store", {("cmn", "a"): sentences(range(6)), ("yue", "b"): sentences(range(6))}
    ).directory
    frames = np.load(directory / "frames.npy")
    frames[9, 0] = np.nan
    np.save(directory / "frames.npy", frames)
    store = EmbeddingStore(directory)
    with pytest.raises(
        ValueError, match=r"utterance yue-b-s3 of yue/b has frames that are not finite .*embed"
    ):
        retrieve(store, sites_of(store))


def test_an_empty_site_is_an_error():
    entries = [
        utterance("u1", "cmn", "a", "s1"),
        utterance("u2", "yue", "b", "s1"),
        utterance("u3", "yue", "c", ""),
    ]
    with pytest.raises(
        ValueError, match="site c of yue is empty: none of its 1 utterances has a sentence id"
    ):
        sites_of(entries)
    whole_group = [*entries[:2], utterance("u3", "wuu", "c", "")]
    assert [str(site) for site in sites_of(whole_group)] == ["cmn/a", "yue/b"]


def test_settings_that_exclude_each_other():
    with pytest.raises(ValueError, match="permutations=-1 is negative"):
        RetrieveConfig(model_dir="exp", permutations=-1)
    with pytest.raises(ValueError, match="half_precision=false for score=pooled"):
        RetrieveConfig(model_dir="exp", half_precision=True, score=ScoreKind.pooled)
