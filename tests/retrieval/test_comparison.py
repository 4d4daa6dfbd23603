import json

import numpy as np
import pytest
from dataset_files import results_of
from matplotlib.image import imread
from planted import write_store

from retrieval.comparison.figure import comparison_figure
from retrieval.comparison.finished import Finished, check_same_queries, read_finished, short_names
from retrieval.comparison.models import compare, write_comparison
from retrieval.comparison.views import comparison_views
from retrieval.figures.style import save_png
from retrieval.protocol.outcome import Outcome, read_ranks, write_ranks
from retrieval.protocol.recall import retrieve
from retrieval.protocol.sites import Site, sites_of
from retrieval.protocol.tables import tabulate, write_tables
from retrieval.report.ranks import read_comparison
from retrieval.statistics.significance import holm
from zipformer.errors import UserError

GROUPS = ("cmn", "hak", "yue")


def finished(directory, noise, *, name=None, sites=2, sentences=12, dimension=10, seed=1, header=()):
    """A finished retrieval among noisy copies of the same sentences."""
    content = np.random.default_rng(0).standard_normal((sentences, 4, dimension))
    random = np.random.default_rng(seed)
    stored = {}
    for group in GROUPS:
        for site in range(sites):
            noisy = content + noise * random.standard_normal(content.shape)
            stored[group, f"{group}{site + 1}"] = {f"s{n:02}": frames for n, frames in enumerate(noisy)}
    store = write_store(directory / "store", stored)
    outcome = retrieve(store, sites_of(store), within_groups=True)
    settings = {"level": "group", "duplicates": "error", "layer": None}
    content = {"split": "test", "embedder": "zipformer", "challenge": None, "settings": settings}
    content |= {"embeddings": store.description, "trained_groups": ["cmn", "yue"]} | dict(header)
    return Finished(name or directory.name, directory, outcome, content)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [finished(folder / name, noise) for name, noise in (("good", 1.0), ("bad", 3.0), ("worse", 8.0))]


@pytest.fixture(scope="module")
def comparison(models):
    check_same_queries(models)
    return compare(models, resamples=200, permutations=999)


def metric(comparison, model, part, name, source="", target=""):
    return next(
        row
        for row in comparison.metrics[model]
        if (row.part, row.metric, row.source, row.target) == (part, name, source, target)
    )


def difference(comparison, first, second, part, name, source="", target=""):
    return next(
        row
        for row in comparison.differences
        if (row.first, row.second, row.part, row.metric, row.source, row.target)
        == (first, second, part, name, source, target)
    )


def test_values_are_those_of_each_model(models, comparison):
    for model in models:
        table = tabulate(model.outcome, trained_groups=["cmn", "yue"], resamples=200)
        for row in table.metrics:
            same = metric(comparison, model.name, row.part, row.metric, row.source, row.target)
            assert (same.value, same.low, same.high, same.chance) == (
                row.value,
                row.low,
                row.high,
                row.chance,
            )


def test_differences_are_paired(comparison):
    for name in ("recall_at_1", "mrr", "median_rank"):
        row = difference(comparison, "good", "worse", "all", name)
        values = [metric(comparison, model, "all", name).value for model in ("good", "worse")]
        assert row.difference == pytest.approx(values[0] - values[1])
        assert row.low <= row.difference <= row.high
    row = difference(comparison, "good", "worse", "all", "recall_at_1")
    assert row.low > 0
    assert row.p < 0.01  # of 12 sentences at least one in 2 ** 11
    versus = [r for r in comparison.differences if (r.part, r.metric) == ("all", "recall_at_1")]
    assert [r.p_holm for r in versus] == pytest.approx(holm([r.p for r in versus]))
    pairs = [r for r in comparison.differences if (r.first, r.second, r.part) == ("good", "bad", "pair")]
    recalls = sorted((r for r in pairs if r.metric == "recall_at_1"), key=lambda r: r.p)
    assert len(recalls) == 6
    assert recalls[0].p_holm == pytest.approx(min(1, 6 * recalls[0].p))


def test_equal_answers_leave_open_what_other_sentences_would_show(models):
    twin = Finished("twin", models[0].path, models[0].outcome, models[0].content)
    found = compare([models[0], twin], resamples=50, permutations=99)
    reach = 100 * (1 - 0.025 ** (1 / 12))
    for row in found.differences:
        assert (row.difference, row.p) == (0, 1)
        # Of 12 sentences less than half may be missing, too few to say anything of the median.
        widest = {"mrr": reach * 11 / 12, "median_rank": 0}.get(row.metric, reach)
        assert (row.low, row.high) == pytest.approx((-widest, widest))


def test_all_against_nothing_has_a_width(models):
    outcome = models[0].outcome
    asked = outcome.equal > 0
    answers = [
        Outcome(outcome.sites, outcome.sentences, above, asked.astype(np.int32), outcome.pool)
        for above in (np.zeros_like(outcome.above), np.where(asked, 11, 0).astype(np.int32))
    ]
    first, second = (
        Finished(name, models[0].path, answer, models[0].content)
        for name, answer in zip(("all", "nothing"), answers, strict=True)
    )
    found = compare([first, second], resamples=50, permutations=99)
    row = difference(found, "all", "nothing", "all", "recall_at_1")
    own = [metric(found, name, "all", "recall_at_1") for name in ("all", "nothing")]
    assert (row.difference, row.high) == (100, 100)
    assert row.low == pytest.approx(own[0].low - own[1].high)
    assert row.low < 50


def test_groups_of_one_site_are_recorded(tmp_path):
    single = [finished(tmp_path / name, noise, sites=1) for name, noise in (("a", 1.0), ("b", 3.0))]
    found = compare(single, resamples=20, permutations=19)
    write_comparison(tmp_path, found, single, {})
    assert json.loads((tmp_path / "comparison.json").read_text())["single_site_groups"] == list(GROUPS)
    path = tmp_path / "comparison.json"
    read = read_comparison(json.loads(path.read_text()), path)
    assert read == found
    assert "sites cannot vary" in str(comparison_views(read, 0.95)[0].caption)


def test_other_queries_cannot_be_compared(models, tmp_path):
    with pytest.raises(ValueError, match="at least two models"):
        check_same_queries(models[:1])
    with pytest.raises(ValueError, match=r"site cmn/cmn2, hak/hak2, yue/yue2 is missing in the second"):
        check_same_queries([models[0], finished(tmp_path / "sites", 1.0, sites=1)])
    with pytest.raises(ValueError, match=r"sentence s12 is missing in the first"):
        check_same_queries([models[0], finished(tmp_path / "sentences", 1.0, sentences=13)])
    with pytest.raises(ValueError, match=r"embeddings have 10 and 7 dimensions.*any_dimension=true"):
        check_same_queries([models[0], finished(tmp_path / "dimension", 1.0, dimension=7)])
    other = finished(tmp_path / "other", 1.0, dimension=7)
    check_same_queries([models[0], other], any_dimension=True)
    control = Finished("mfcc", other.path, other.outcome, dict(other.content) | {"embedder": "mfcc"})
    check_same_queries([models[0], control])
    for key, value in (("split", "valid"), ("challenge", "hard"), ("challenge_fingerprint", "0f3a")):
        with pytest.raises(ValueError, match=rf"cannot be compared: {key} is .* and {value}"):
            check_same_queries([models[0], finished(tmp_path / key, 1.0, header={key: value})])
    changed = dict(models[0].content) | {"settings": {"level": "subdialect"}}
    with pytest.raises(ValueError, match="retrieved with level=group and level=subdialect"):
        check_same_queries([models[0], Finished("x", tmp_path, models[0].outcome, changed)])


def test_other_pools_cannot_be_compared(models):
    outcome = models[0].outcome
    pool = outcome.pool.copy()
    pool[0, 2, 3] = 5
    fewer = Outcome(outcome.sites, outcome.sentences, outcome.above, outcome.equal, pool)
    other = Finished("fewer", models[1].path, fewer, models[0].content)
    with pytest.raises(ValueError, match=r"sentence s03 of cmn/cmn1 has 12 and 5 candidates at hak/hak1"):
        check_same_queries([models[0], other])


def test_models_that_were_trained_on_different_groups(models, caplog):
    other = Finished(
        "o", models[1].path, models[1].outcome, dict(models[1].content) | {"trained_groups": ["cmn"]}
    )
    found = compare([models[0], other], resamples=20, permutations=9)
    assert {row.part for row in found.differences} == {"pair", "ceiling", "all", "within"}
    assert "trained on different groups" in caplog.text


def test_files_and_figure(models, comparison, tmp_path):
    write_comparison(tmp_path, comparison, models, {"resamples": 200})
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert [model["name"] for model in content["models"]] == ["good", "bad", "worse"]
    assert len(content["differences"]) == 3 * 5 * (6 + 3 + 4)
    assert (tmp_path / "differences.csv").read_text().count("\n") == 1 + len(content["differences"])
    assert (tmp_path / "comparison.csv").read_text().startswith("model,part,source,target,metric,value,low")
    figure = comparison_figure(comparison)
    assert [axes.get_xlabel() for axes in figure.axes][:5] == [
        *("recall@1 (%)", "recall@5 (%)", "recall@10 (%)"),
        *("mean reciprocal rank (%)", "median rank (low is good)"),
    ]
    shown = {text.get_text() for text in figure.axes[0].texts}
    assert {
        f"{metric(comparison, name, 'all', 'recall_at_1').value:.1f}" for name in comparison.models
    } <= shown
    assert len(figure.axes[5].get_xticks()) == 6
    save_png(figure, tmp_path / "comparison.png")
    assert imread(tmp_path / "comparison.png").shape[0] > 500


def test_finished_results_are_read_back(models, tmp_path):
    paths = []
    for model in models[:2]:
        folder = results_of(tmp_path / model.name) / "retrieval-test"
        folder.mkdir(parents=True)
        table = tabulate(model.outcome, trained_groups=["cmn", "yue"], resamples=20)
        write_tables(folder, table, model.outcome, dict(model.content))
        paths.append(tmp_path / model.name)
    first, second = read_finished(paths)
    assert (first.name, second.name) == ("good", "bad")
    check_same_queries([first, second])
    np.testing.assert_array_equal(first.outcome.above, models[0].outcome.above)
    assert [str(site) for site in first.outcome.sites] == [str(site) for site in models[0].outcome.sites]
    (second.path / "ranks.npz").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"ranks\.npz: no ranks in it"):
        read_finished(paths)
    (second.path / "ranks.npz").unlink()
    with pytest.raises(UserError, match=r"no ranks at .*fangyan retrieve"):
        read_finished(paths)
    with pytest.raises(UserError, match=r"no recall\.json in .*fangyan retrieve"):
        read_finished([tmp_path / "none", paths[0]])
    with pytest.raises(ValueError, match="names of models must differ"):
        read_finished(paths, ["x", "x"])


def test_ranks_that_do_not_fit(tmp_path):
    zeros = np.zeros((2, 2, 3), dtype=np.int32)
    sites = [Site("cmn", "a", {}), Site("yue", "b", {})]
    write_ranks(tmp_path / "ranks.npz", Outcome(sites, ["s1", "s2"], zeros, zeros, zeros))
    with pytest.raises(ValueError, match=r"arrays \(2, 2, 3\) do not fit 2 sites and 2 sentences"):
        read_ranks(tmp_path / "ranks.npz")


def test_short_names(tmp_path):
    results = [tmp_path / name / "averaged" / "results" / "data" / "retrieval-test" for name in "ab"]
    assert short_names(results) == ["a", "b"]
    mixed = [results[0], results[1].with_name("retrieval-test-mfcc")]
    assert short_names(mixed) == ["a/retrieval-test", "b/retrieval-test-mfcc"]
    assert short_names([tmp_path, tmp_path / "x"]) == [str(tmp_path), str(tmp_path / "x")]
