"""Full and challenge sets side by side, from result files to the table, the figure and the page."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from dataset_files import results_of
from recall_files import Pairs, write_recall

from retrieval.challenge.figure import challenge_figure
from retrieval.challenge.results import (
    ChallengeResults,
    challenge_table,
    read_challenge_results,
    write_challenge_results,
)
from retrieval.figures.style import save_png
from retrieval.report.page import collect, write_report
from zipformer.console import print_tables


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    results = results_of(tmp_path)
    full: Pairs = {
        ("cmn", "hak"): (80, 2), ("hak", "cmn"): (90, 2), ("cmn", "yue"): (100, 2), ("yue", "cmn"): (70, 2),
        ("hak", "yue"): (60, 2), ("yue", "hak"): (50, 2),
    }  # fmt: skip
    # no sentence of cmn and yue is left
    hard: Pairs = {
        pair: (recall - 20, 10) for pair, (recall, _) in full.items() if set(pair) != {"cmn", "yue"}
    }
    write_recall(results, "retrieval-test", "zipformer", None, full)
    write_recall(results, "retrieval-test-no-close-sound", "zipformer", "no-close-sound", hard)
    write_recall(results, "retrieval-test-combined", "zipformer", "combined", full)
    write_recall(results, "retrieval-test-mfcc-no-close-sound", "mfcc", "no-close-sound", hard)
    write_recall(results, "retrieval-test-no-close-sound-random", "zipformer", "no-close-sound-random", full)
    write_recall(results, "retrieval-test-other", "other", None, full)  # asked no challenge set
    return tmp_path


def comparison_of(model_dir: Path) -> ChallengeResults:
    comparison = read_challenge_results(model_dir / "results" / "data", "test")
    assert comparison is not None
    return comparison


def test_means_and_pairs(model_dir: Path) -> None:
    comparison = comparison_of(model_dir)
    assert comparison.systems == ["zipformer", "mfcc"]
    assert comparison.sets == ["full", "no-close-sound", "no-close-sound-random", "combined"]
    rows = {(row.system, row.challenge): row for row in comparison.overall()}
    assert list(rows) == [
        ("zipformer", "full"),
        ("zipformer", "no-close-sound"),
        ("zipformer", "no-close-sound-random"),
        ("zipformer", "combined"),
        ("mfcc", "no-close-sound"),
    ]
    hard = rows["zipformer", "no-close-sound"]
    assert (hard.pairs, hard.recall_at_1, hard.chance) == (4, 50, 10)
    assert hard.above_chance == pytest.approx(100 * 40 / 90)
    assert hard.full_recall_at_1 == 70  # of 80, 90, 60, 50; of all six it is 75
    assert rows["zipformer", "full"].full_recall_at_1 == 75
    assert rows["mfcc", "no-close-sound"].full_recall_at_1 is None
    pairs = {
        (row.challenge, row.source, row.target): row for row in comparison.pairs() if row.system[0] == "z"
    }
    assert pairs["no-close-sound", "hak", "yue"].full_recall_at_1 == 60
    assert ("no-close-sound", "cmn", "yue") not in pairs


def test_what_a_killed_run_left_is_not_read(model_dir: Path) -> None:
    write_recall(
        model_dir / "results" / "data",
        ".retrieval-test.partial",
        "zipformer",
        None,
        {("cmn", "hak"): (1, 2), ("hak", "yue"): (1, 2)},
    )
    rows = {(row.system, row.challenge): row for row in comparison_of(model_dir).overall()}
    assert rows["zipformer", "full"].recall_at_1 == 75


def test_nothing_to_compare(tmp_path: Path) -> None:
    assert read_challenge_results(tmp_path, "test") is None
    write_recall(tmp_path, "retrieval-test", "zipformer", None, {("cmn", "yue"): (80, 2)})
    assert read_challenge_results(tmp_path, "test") is None


def test_results_for_other_groups_are_not_compared(model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_recall(
        model_dir / "results" / "data",
        "retrieval-test-no-names",
        "zipformer",
        "no-names",
        {("a", "b"): (1, 1)},
    )
    comparison = comparison_of(model_dir)
    assert comparison.sets == ["full", "no-close-sound", "no-close-sound-random", "combined"]
    assert "zipformer on no-names are for other groups" in caplog.text
    challenge_figure(comparison)


SMALL: Pairs = {("cmn", "yue"): (80, 2), ("yue", "cmn"): (70, 2)}


def ask(
    results: Path,
    embedder: str,
    challenge: str | None,
    fingerprint: str | None,
    settings: dict[str, object] | None = None,
    **more: object,
) -> None:
    """A retrieval of two groups."""
    suffix = ("" if embedder == "zipformer" else f"-{embedder}") + (f"-{challenge}" if challenge else "")
    write_recall(
        results,
        f"retrieval-test{suffix}",
        embedder,
        challenge,
        SMALL,
        challenge_fingerprint=fingerprint,
        embeddings={"embedder": embedder, "weights": None},
        settings={"embedder": embedder} | (settings or {}),
        **more,
    )


def rows_of(results: Path) -> set[tuple[str, str]]:
    comparison = read_challenge_results(results, "test")
    assert comparison is not None
    return {(row.system, row.challenge) for row in comparison.overall()}


def test_a_set_that_was_built_again_is_not_compared_with_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for embedder in ("zipformer", "mfcc"):
        ask(tmp_path, embedder, None, None)
        ask(tmp_path, embedder, "no-names", "names")
    ask(tmp_path, "zipformer", "no-close-sound", "threshold 0.3")
    ask(tmp_path, "mfcc", "no-close-sound", "threshold 0.3")
    everything = {(s, c) for s in ("zipformer", "mfcc") for c in ("full", "no-names", "no-close-sound")}
    assert rows_of(tmp_path) == everything
    assert not caplog.messages
    ask(tmp_path, "mfcc", "no-close-sound", "threshold 0.5")
    assert rows_of(tmp_path) == everything - {("mfcc", "no-close-sound")}
    (message,) = caplog.messages
    assert str(tmp_path / "retrieval-test-mfcc-no-close-sound" / "recall.json") in message
    assert "challenge_fingerprint=threshold 0." in message
    assert message.endswith("Ask both the same with fangyan retrieve")


def test_what_the_model_was_not_asked_is_held_against_the_first(tmp_path: Path) -> None:
    ask(tmp_path, "zipformer", None, None)
    for embedder, fingerprint in (("fbank", "a"), ("mfcc", "a"), ("random", "b")):
        ask(tmp_path, embedder, "no-names", fingerprint)
    assert rows_of(tmp_path) == {("fbank", "no-names"), ("mfcc", "no-names")}


@pytest.mark.parametrize("setting", [{"level": "subdialect"}, {"duplicates": "first"}])
def test_other_candidates_are_another_question(
    tmp_path: Path, setting: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    defaults: dict[str, object] = {"level": "group", "duplicates": "error"}
    for embedder in ("zipformer", "mfcc"):
        ask(tmp_path, embedder, "no-names", "a", settings=defaults)
    assert rows_of(tmp_path) == {("zipformer", "no-names"), ("mfcc", "no-names")}
    ask(tmp_path, "mfcc", "no-names", "a", settings=defaults | setting)
    assert rows_of(tmp_path) == {("zipformer", "no-names")}
    assert next(f"{name}={value}" for name, value in setting.items()) in caplog.text


def test_a_random_set_belongs_to_the_set_that_it_was_drawn_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ask(tmp_path, "zipformer", "no-names", "new")
    random = "no-names-random"
    ask(tmp_path, "zipformer", random, "r", challenge_drawn_for="new")
    assert rows_of(tmp_path) == {("zipformer", "no-names"), ("zipformer", random)}
    assert not caplog.messages
    ask(tmp_path, "zipformer", random, "r", challenge_drawn_for="old")
    assert rows_of(tmp_path) == {("zipformer", "no-names")}
    assert f"retrieval-test-{random}/recall.json (zipformer) is left out" in caplog.text
    ask(tmp_path, "mfcc", random, "another", challenge_drawn_for="new")
    assert rows_of(tmp_path) == {("zipformer", "no-names"), ("mfcc", random)}
    shutil.rmtree(tmp_path / f"retrieval-test-mfcc-{random}")


def test_files_and_table(model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comparison = comparison_of(model_dir)
    write_challenge_results(tmp_path, comparison)
    content = json.loads((tmp_path / "challenge.json").read_text())
    assert content["overall"][1]["above_chance"] == pytest.approx(100 * 40 / 90)
    with (tmp_path / "challenge.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 5 + 6 + 4 + 6 + 6 + 4
    assert (lines[0]["system"], lines[0]["challenge"], lines[0]["source"]) == ("zipformer", "full", "")
    print_tables([challenge_table(comparison)])
    assert "44.4" in capsys.readouterr().out


def test_figure(model_dir: Path, tmp_path: Path) -> None:
    figure = challenge_figure(comparison_of(model_dir))
    save_png(figure, tmp_path / "figure.png", dots_per_inch=40)
    bars = figure.axes[0]
    assert sorted(round(patch.get_height()) for patch in bars.patches) == [50, 50, 75, 75]
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[1:4] == ["full", "no-close-sound", "combined"]
    assert len(figure.axes[2].texts) == 4


def test_figure_of_random_sets_alone(tmp_path: Path) -> None:
    write_recall(
        tmp_path, "retrieval-test-no-names-random", "zipformer", "no-names-random", {("a", "b"): (50, 2)}
    )
    comparison = read_challenge_results(tmp_path, "test")
    assert comparison is not None
    assert [axes.get_title() for axes in challenge_figure(comparison).axes[1:2]] == ["no-names-random"]


def test_page(model_dir: Path) -> None:
    page = write_report(collect(model_dir, "test"), model_dir / "results" / "report").read_text()
    assert '<h2 id="challenge">Challenge sets</h2>' in page
    assert "no-close-sound" in page
    folder = model_dir / "results" / "report"
    assert {"challenge.csv", "challenge.json", "challenge.png"} <= {path.name for path in folder.iterdir()}
    for path in (model_dir / "results" / "data").glob("retrieval-test-*/recall.json"):
        path.unlink()
    page = write_report(collect(model_dir, "test"), model_dir / "results" / "second").read_text()
    assert "Challenge sets" not in page
