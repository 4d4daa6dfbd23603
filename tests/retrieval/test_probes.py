"""Probes on planted embeddings: what a line can find, what only memory can, what is confounded, intervals."""

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from retrieval.depth.probe_design import (
    NotIdentifiable,
    ProbeConfig,
    ProbeTask,
    control_labels,
    folds_of,
    make_task,
)
from retrieval.depth.probes import check_installed, fold_interval, probe

CONFIG = ProbeConfig(seed=1)
CLASSES, SITES, WORDS = 4, 10, 20


def corpus() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label, site and word of units: every site has every word, and words have labels of their own."""
    site, word = (values.ravel() for values in np.meshgrid(np.arange(SITES), np.arange(WORDS), indexing="ij"))
    return word % CLASSES, site, word


def task_of(labels: np.ndarray, groups: np.ndarray, types: np.ndarray, **more: object) -> ProbeTask:
    task = make_task(
        "planted",
        unit="utterance",
        held_out="sites",
        labels=[str(value) for value in labels],
        groups=[f"g{value}" for value in groups],
        types=[f"t{value}" for value in types],
        coincides="coincides",
        **more,
    )
    assert isinstance(task, ProbeTask), task
    return task


def noise(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size)


def test_linearly_separable_labels_are_found_and_not_by_memory() -> None:
    label, site, word = corpus()
    # A direction for every class, another scale and place for every channel
    embeddings = (3 * np.eye(CLASSES)[label] + 0.3 * noise((len(label), CLASSES))) * [1, 1e3, 1e-3, 5] + 7
    score = probe(embeddings, task_of(label, site, word), CONFIG)
    assert score.accuracy == 100
    assert (score.chance, score.classes, score.samples, score.folds) == (25, 4, 200, 5)
    # Words of a class look alike: at random labels, the best guess is the commonest label of the class
    assert score.control < 75
    assert score.selectivity == pytest.approx(100 - score.control)


def test_memory_alone_is_not_selective() -> None:
    label, site, word = corpus()
    embeddings = 3 * np.eye(WORDS)[word] + 0.2 * noise((len(label), WORDS))  # the word, and no class
    score = probe(embeddings, task_of(label, site, word), CONFIG)
    assert score.accuracy == 100
    assert score.control == 100
    assert (score.selectivity, score.selectivity_low, score.selectivity_high) == (0, 0, 0)


def test_random_embeddings_are_at_chance() -> None:
    label, site, word = corpus()
    scores = [probe(noise((len(label), 8), seed), task_of(label, site, word), CONFIG) for seed in range(10)]
    # 2000 answers with a chance of 1/4: standard deviation 1 %
    assert np.mean([score.accuracy for score in scores]) == pytest.approx(25, abs=4)
    assert np.mean([score.selectivity for score in scores]) == pytest.approx(0, abs=5)
    covered = [score.low <= 25 <= score.high for score in scores]
    assert sum(covered) >= 8


def test_the_control_is_at_chance_where_types_are_held_out() -> None:
    label, site, word = corpus()
    embeddings = 3 * np.eye(WORDS)[word] + 0.2 * noise((len(label), WORDS))
    # Each site has words of its own: nothing of them can be remembered
    own = site * WORDS + word
    scores = [probe(embeddings, task_of(label, site, own), ProbeConfig(seed=seed)) for seed in range(8)]
    assert all(score.accuracy == 100 for score in scores)
    assert np.mean([score.control for score in scores]) == pytest.approx(25, abs=4)


def test_voices_of_held_out_sites_are_no_cue() -> None:
    # The embedding is the site, and every site has one dialect: within sites that would give it away.
    site = np.repeat(np.arange(12), 15)
    dialect = site % 3
    embeddings = 3 * np.eye(12)[site] + 0.1 * noise((len(site), 12))
    by_site = probe(embeddings, task_of(dialect, site, np.arange(len(site))), CONFIG)
    by_nothing = probe(embeddings, task_of(dialect, np.arange(len(site)), np.arange(len(site))), CONFIG)
    assert by_nothing.accuracy == 100
    assert by_site.accuracy < 50


def test_a_crossed_factor_is_out_of_training_as_well() -> None:
    # Two speakers a site share the sentences out, and the embedding is the sentence alone.
    site = np.repeat(np.arange(3), 40)
    sentence = np.tile(np.arange(40), 3)
    random = np.random.default_rng(0)
    speaker = np.concatenate([2 * s + random.permutation(40) % 2 for s in range(3)])
    embeddings = 3 * np.eye(40)[sentence] + 0.01 * noise((120, 40))
    plain = task_of(site, speaker, sentence)
    # What the held-out speaker says is known from the other sites only: the answer is never right
    assert probe(embeddings, plain, CONFIG).accuracy < 15
    crossed = task_of(site, speaker, sentence, crossed=[str(value) for value in sentence])
    found = probe(embeddings, crossed, CONFIG)
    assert found.accuracy == pytest.approx(100 / 3, abs=17)
    for fold in folds_of(crossed, CONFIG):
        tested = np.concatenate([part.test for part in fold])
        assert len(set(tested.tolist())) == len(tested)
        for part in fold:
            assert not set(crossed.crossed[part.train]) & set(crossed.crossed[part.test])
            assert not set(crossed.groups[part.train]) & set(crossed.groups[part.test])


def test_what_is_held_out_is_not_held_against_it() -> None:
    # Without any cue, the classes of the test have lost a group in training: the others are more frequent.
    site = np.repeat(np.arange(3), 60)
    speaker = np.repeat(np.arange(6), 30)
    scores = [
        probe(noise((180, 4), seed), task_of(site, speaker, np.arange(180)), ProbeConfig(seed=seed))
        for seed in range(24)
    ]
    assert np.mean([score.accuracy for score in scores]) == pytest.approx(
        100 / 3, abs=3
    )  # standard error 0.9
    # Nor do classes of unlike frequency fall below the most frequent one
    often = np.repeat([0, 1, 1, 1], 45)
    score = probe(1e-3 * noise((180, 4)), task_of(often, np.arange(180) // 15, np.arange(180)), CONFIG)
    assert score.chance == 75
    assert score.accuracy == pytest.approx(75, abs=5)


def test_strata_are_probed_apart() -> None:
    # Within each stratum the first channel tells the classes apart, with opposite signs.
    stratum = np.repeat([0, 1], 80)
    label = np.tile([0, 1], 80)
    group = np.tile(np.repeat(np.arange(8), 10), 2)
    embeddings = ((2 * label - 1) * (2 * stratum - 1))[:, None] + 0.1 * noise((160, 2))
    names = [f"s{value}" for value in stratum]
    together = task_of(label, group, np.arange(160))
    apart = task_of(label, group, np.arange(160), strata=names)
    assert probe(embeddings, together, CONFIG).accuracy < 70
    score = probe(embeddings, apart, CONFIG)
    assert (score.accuracy, score.classes, score.chance) == (100, 4, 50)


def test_folds_hold_out_groups_and_keep_every_class() -> None:
    label, site, word = corpus()
    task = task_of(site % 5, site, word)  # two sites a class
    folds = folds_of(task, CONFIG)
    tested = np.concatenate([part.test for fold in folds for part in fold])
    assert sorted(tested.tolist()) == list(range(len(label)))
    for fold in folds:
        for part in fold:
            assert not set(task.groups[part.train]) & set(task.groups[part.test])
            assert set(task.labels[part.train]) == set(task.labels)


def test_control_labels_are_fixed_for_a_type_and_follow_the_labels() -> None:
    random = np.random.default_rng(0)
    label = random.choice(3, size=3000, p=[0.6, 0.3, 0.1])
    types = np.repeat(np.arange(1500), 2)
    task = task_of(label, np.arange(3000) % 7, types)
    control = control_labels(task, 0)
    assert all(len(set(control[task.types == name])) == 1 for name in np.unique(task.types)[:50])
    expected, found = (Counter(values.tolist()) for values in (task.labels, control))
    for name in expected:
        assert found[name] == pytest.approx(expected[name], abs=2)
    assert (control_labels(task, 1) != control).any()
    assert (control_labels(task, 0) == control).all()


@pytest.mark.parametrize(
    ("labels", "groups", "reason"),
    [
        (["a", "a", "b", "b"], ["1", "1", "2", "2"], "coincides"),
        (["a", "a", "b", "b"], ["1", "2", "3", "3"], "coincides"),  # one class is left
        (["a", "", "", ""], ["", "1", "2", "3"], "both a label and a group"),
    ],
)
def test_what_coincides_gives_no_number(labels: list[str], groups: list[str], reason: str) -> None:
    task = make_task(
        "p",
        unit="utterance",
        held_out="sites",
        labels=labels,
        groups=groups,
        types=labels,
        coincides="coincides",
    )
    assert isinstance(task, NotIdentifiable)
    assert reason in task.reason


def test_what_is_left_out_is_said() -> None:
    labels, groups = ["a", "a", "b", "b", "c", "c"], ["1", "2", "1", "2", "1", "1"]
    task = make_task(
        "p", unit="utterance", held_out="sites", labels=labels, groups=groups, types=labels, coincides=""
    )
    assert isinstance(task, ProbeTask)
    assert task.rows.tolist() == [0, 1, 2, 3]
    assert task.note.startswith("1 of 3 classes left out")


def test_frequent_classes_and_a_sample() -> None:
    labels = ["a"] * 40 + ["b"] * 30 + ["c"] * 20 + ["d"] * 4
    groups = [str(i % 5) for i in range(len(labels))]
    make = {"unit": "character", "held_out": "sites", "labels": labels, "groups": groups, "coincides": ""}
    task = make_task("p", types=labels, max_classes=2, **make)
    assert isinstance(task, ProbeTask)
    assert set(task.labels) == {"a", "b"}
    task = make_task("p", types=labels, min_occurrences=5, max_samples=50, **make)
    assert isinstance(task, ProbeTask)
    assert set(task.labels) == {"a", "b", "c"}
    assert len(task.rows) == len(set(task.rows.tolist())) == 50


def test_interval_of_folds_by_hand() -> None:
    values = np.array([0.5, 0.7, 0.6, 0.8, 0.4])
    # mean 0.6, variance 0.025; 5 folds, a test set a quarter of the training set: 0.025 * 0.45
    reach = stats.t.ppf(0.975, 4) * np.sqrt(0.01125)
    assert fold_interval(values, 0.25) == pytest.approx((0.6 - reach, 0.6 + reach))
    with pytest.raises(ValueError, match="two folds"):
        fold_interval(np.array([0.5]), 0.25)


def test_unusable_embeddings_are_refused() -> None:
    label, site, word = corpus()
    task = task_of(label, site, word)
    with pytest.raises(ValueError, match=r"\(5, 3\) embeddings for 200 utterances"):
        probe(np.zeros((5, 3)), task, CONFIG)
    embeddings = noise((len(label), 3))
    embeddings[7, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        probe(embeddings, task, CONFIG)


def test_folds_that_cannot_be_are_an_error() -> None:
    # Two groups, each with a class that the other nearly lacks: a class is always missing in training.
    task = task_of(np.array([0, 0, 1, 1, 1, 2, 2, 2]), np.array([0, 1, 0, 1, 1, 2, 3, 3]), np.arange(8))
    bad = ProbeTask(
        **(vars(task) | {"labels": np.array(list("aabbccdd")), "groups": np.array(list("11112222"))})
    )
    with pytest.raises(ValueError, match=r"does every class remain in training; try another number"):
        folds_of(bad, ProbeConfig(folds=2))


@pytest.mark.parametrize(("field", "value"), [("folds", 1), ("iterations", 0), ("inverse_penalty", 0.0)])
def test_settings_are_checked(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"probes\.{field}={value}"):
        ProbeConfig(**{field: value})


def test_fits_that_do_not_converge_are_said(caplog: pytest.LogCaptureFixture) -> None:
    label, site, word = corpus()
    probe(noise((len(label), 40)), task_of(label, site, word), ProbeConfig(iterations=1))
    assert "5 of 5 fits had not converged after probes.iterations=1" in caplog.text


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed()
    monkeypatch.setattr("retrieval.depth.probes.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"scikit-learn.*\[probes\].*steps="):
        check_installed()
