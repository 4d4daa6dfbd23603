"""From planted words to tables, figures and page."""

import base64
import csv
import json
import re
from pathlib import Path

import jinja2
import numpy as np
import pytest
import soundfile
from dataset_files import DATA

from retrieval.interpretation.compare import Interpretation, Scope, compare, text_similarities
from retrieval.interpretation.compare import tests_table as table_of_tests
from retrieval.interpretation.config import InterpretConfig
from retrieval.interpretation.matching import Matcher
from retrieval.interpretation.page import flac_data_uri, p_value
from retrieval.interpretation.pairs import UtterancePair, choose_shown, utterance_pairs
from retrieval.interpretation.pictures import matched_against_random
from retrieval.interpretation.run import MATCHES, PAGE, SUMMARY, WORDS, SpokenUtterance, interpret
from retrieval.interpretation.summary import read_interpretations
from retrieval.interpretation.text_similarity import CharacterOverlap
from retrieval.interpretation.validation import paired_test
from retrieval.interpretation.words import FrameClock, SpokenWords, Word
from retrieval.protocol.sites import Level, Site
from zipformer.model_dir import WEIGHTS_FILE
from zipformer.typed_json import MalformedResultError

CLOCK = FrameClock(0.1)
MEANINGS = "我你吃喝飯茶好大"  # one direction each
SENTENCES = {"1": "我吃飯", "2": "你喝茶", "3": "茶好", "4": "飯大我"}
ORDER = {"cmn": [0, 1, 2], "yue": [2, 0, 1], "nan": [1, 0, 2]}  # of the words at each site
SITES = [
    Site(group, f"{group}1", {sentence: f"{group}-{sentence}" for sentence in SENTENCES}) for group in ORDER
]


def spoken(site: Site, sentence: str) -> SpokenUtterance:
    """Every word is three frames in the direction of its meaning, at the place that the site gives it."""
    text = [SENTENCES[sentence][n] for n in ORDER[site.group] if n < len(SENTENCES[sentence])]
    frames = np.eye(len(MEANINGS), dtype=np.float32)[[MEANINGS.index(c) for c in text]].repeat(3, axis=0)
    words = [Word(c, 0.3 * n, 0.3 * (n + 1)) for n, c in enumerate(text)]
    return SpokenUtterance(site.utterances[sentence], frames, CLOCK, words)


def utterances() -> list[SpokenUtterance]:
    return [spoken(site, sentence) for site in SITES for sentence in SENTENCES]


@pytest.fixture
def config(tmp_path: Path) -> InterpretConfig:
    model_dir = tmp_path / "model"
    model_dir.mkdir()
    (model_dir / WEIGHTS_FILE).write_bytes(b"weights")
    return InterpretConfig(str(model_dir), str(tmp_path), dataset=DATA.name, shown=0)


def no_audio(name: str) -> None:
    return None


def run(config: InterpretConfig, items: list[SpokenUtterance] | None = None, audio=no_audio):
    pairs = utterance_pairs(SITES)
    given = utterances() if items is None else items
    return interpret(config, pairs, given, [CharacterOverlap()], audio, DATA)


def test_planted_words_are_found_wherever_they_stand(config: InterpretConfig) -> None:
    outcome = run(config)
    words = sum(map(len, SENTENCES.values()))
    assert (outcome.utterance_pairs, outcome.left_out) == (12, 0)
    assert (outcome.words, outcome.matched_words, outcome.word_pairs) == (6 * words, 6 * words, 3 * words)
    test = outcome.overall["characters"]
    assert test.matched == 1
    assert test.random == pytest.approx(np.mean([1 / 3, 1 / 3, 1 / 2, 1 / 3]))
    assert test.rank_biserial == 1
    with (config.folder / MATCHES).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == 3 * words
    assert all(row["source_word"] == row["target_word"] for row in rows)
    assert all(float(row["cosine"]) == 1 for row in rows)
    first = next(row for row in rows if row["source_utterance"] == "cmn-1" and row["source_word"] == "飯")
    assert (first["target_utterance"], first["target_start"], first["target_end"]) == (
        "yue-1",
        "0.000",
        "0.300",
    )
    summary = json.loads((config.folder / SUMMARY).read_text(encoding="utf-8"))
    assert summary["tests"]["characters"]["overall"]["matched"] == 1
    assert [(row["source"], row["target"]) for row in summary["tests"]["characters"]["pairs"]] == [
        ("cmn", "yue"),
        ("cmn", "nan"),
        ("yue", "nan"),
    ]
    assert summary["settings"]["matcher"] == "mutual"
    assert (config.folder / WORDS).read_text(encoding="utf-8").count("\n") == 1 + 3 * words


def test_p_values_of_pairs_of_groups_are_shown_adjusted(config: InterpretConfig) -> None:
    outcome = run(config)
    tests = outcome.by_groups["characters"]
    assert len(tests) == 3
    for test in tests.values():  # all have the same p, so that each is multiplied by their number
        assert test.t_p is not None
        assert test.t_p_holm == pytest.approx(3 * test.t_p)
        assert test.wilcoxon_p_holm == pytest.approx(min(1, 3 * (test.wilcoxon_p or 0)))
    overall = outcome.overall["characters"]
    assert (overall.t_p_holm, overall.wilcoxon_p_holm) == (None, None)
    summary = json.loads((config.folder / SUMMARY).read_text(encoding="utf-8"))["tests"]["characters"]
    assert [row["t_p_holm"] for row in summary["pairs"]] == [test.t_p_holm for test in tests.values()]
    page = (config.folder / PAGE).read_text(encoding="utf-8")
    assert "after Holm&#39;s correction" in page or "after Holm's correction" in page
    assert f"<td>{p_value(tests['cmn', 'yue'].t_p_holm)}</td>" in page
    view = table_of_tests(outcome, "characters", 0.95)
    assert "Holm" in str(view.caption)
    assert list(view.columns[6].cells) == [
        *(f"{test.t_p_holm:.1e}" for test in tests.values()),
        f"{overall.t_p:.1e}",
    ]


def test_page_holds_everything_itself(config: InterpretConfig) -> None:
    config.shown = 3
    sound = (np.sin(np.arange(1600) / 10).astype(np.float32), 16000)
    run(config, audio=lambda name: sound)
    page = (config.folder / PAGE).read_text(encoding="utf-8")
    assert page.count('<article class="pair"') == 3
    assert page.count("<audio ") == 6
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    assert all(address.startswith("data:") for address in re.findall(r'url\("([^"]*)"\)', page))
    assert "http" not in re.sub(r'"data:[^"]*"', "", page)
    assert len(list(config.folder.glob("pair-*.png"))) == 3


def test_without_pages_or_recordings(config: InterpretConfig) -> None:
    run(config)
    page = (config.folder / PAGE).read_text(encoding="utf-8")
    assert "<article" not in page
    assert "<script" not in page


def test_by_place_the_control_finds_what_order_gives(config: InterpretConfig) -> None:
    config.matcher = Matcher.position
    outcome = run(config)
    # Between cmn and nan the third word of each of three sentences is the same; yue moves every
    # word of the sentences of three.
    test = outcome.by_groups["characters"][("cmn", "nan")]
    assert test.matched == pytest.approx(np.mean([1 / 3, 1 / 3, 0, 1 / 3]))
    assert outcome.by_groups["characters"][("cmn", "yue")].matched == pytest.approx(1 / 4)


def test_among_all_words_of_two_sites(tmp_path: Path) -> None:
    pairs = utterance_pairs(SITES[:2])
    words = {
        item.id: SpokenWords(item.words, item.frames[1::3]) for item in utterances()
    }  # the frame at the centre of each word
    outcome = compare(
        pairs, words, [CharacterOverlap()], tmp_path / "t.tsv", matcher=Matcher.mutual, scope=Scope.site
    )
    # Of eight different characters each is matched once, 我 飯 茶 by their first occurrence.
    assert (outcome.word_pairs, outcome.matched_words, outcome.words) == (8, 16, 22)
    assert outcome.overall["characters"].matched == 1
    # 11 words a side: 我 飯 茶 twice, the others once.
    with (tmp_path / "t.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    chance = {"1": [2 / 11, 1 / 11, 2 / 11], "2": [1 / 11, 1 / 11, 2 / 11], "3": [1 / 11], "4": [1 / 11]}
    assert sorted(row["source_sentence"] for row in rows) == sorted(s for s in chance for _ in chance[s])
    assert outcome.overall["characters"].random == pytest.approx(
        np.mean([np.mean(v) for v in chance.values()])
    )


def test_bytes_that_are_no_character_are_like_nothing() -> None:
    source, target = (
        SpokenWords(
            [Word(text, 0.1 * n, 0.1 * n + 0.1) for n, text in enumerate(texts)], np.eye(3, dtype=np.float32)
        )
        for texts in ("我\ufffd好", "\ufffd我\ufffd")
    )
    found = text_similarities(CharacterOverlap(), source, target)
    assert found.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_too_many_words_are_an_error_and_not_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.interpretation.compare.MOST_COSINES", 100)
    words = {item.id: SpokenWords(item.words, item.frames[1::3]) for item in utterances()}
    with pytest.raises(ValueError, match="11 words of cmn/cmn1 with 11 of yue/yue1"):
        compare(
            utterance_pairs(SITES[:2]),
            words,
            [CharacterOverlap()],
            tmp_path / "t.tsv",
            matcher=Matcher.mutual,
            scope=Scope.site,
        )


def test_an_utterance_without_words_is_left_out_and_counted(config: InterpretConfig) -> None:
    outcome = run(config, [item for item in utterances() if item.id != "yue-2"])
    assert (outcome.utterance_pairs, outcome.left_out) == (10, 2)


@pytest.mark.parametrize("bad", ["nan", "dimension", "none"])
def test_bad_input_leaves_nothing_behind(config: InterpretConfig, bad: str) -> None:
    items = utterances()
    if bad == "nan":
        items[3].frames[4] = np.nan
    elif bad == "dimension":
        items = [*items[:4], *(SpokenUtterance(i.id, i.frames[:, :4] + 1, CLOCK, i.words) for i in items[4:])]
    else:
        items = []
    messages = {"nan": "utterance cmn-4", "dimension": "8 and 4 dimensions", "none": "12 pairs of utterances"}
    with pytest.raises(ValueError, match=messages[bad]):
        run(config, items)
    assert not list(config.folder.parent.iterdir())


def test_earlier_results_survive_a_failure(config: InterpretConfig) -> None:
    run(config)
    before = (config.folder / MATCHES).read_bytes()
    with pytest.raises(ValueError, match="words on both sides"):
        run(config, [])
    assert (config.folder / MATCHES).read_bytes() == before


def test_pairs_by_name() -> None:
    assert len(utterance_pairs(SITES)) == 12
    for name in ("cmn:yue", "yue:cmn", "cmn1:yue1", "yue1:cmn"):
        found = utterance_pairs(SITES, [name])
        assert [(pair.groups, pair.sentence) for pair in found] == [(("cmn", "yue"), s) for s in SENTENCES]
    assert len(utterance_pairs(SITES, ["cmn:yue", "cmn:nan", "cmn1:yue1"])) == 8
    with pytest.raises(ValueError, match="'cmn:wuu' fits no two sites"):
        utterance_pairs(SITES, ["cmn:wuu"])


def test_shown_pairs_are_spread() -> None:
    pairs = utterance_pairs(SITES)
    everything = {name for pair in pairs for name in (pair.source_id, pair.target_id)}
    shown = choose_shown(pairs, everything, 6)
    assert len(shown) == len(set(map(id, shown))) == 6
    assert all([pair.groups for pair in shown].count(groups) == 2 for groups in {p.groups for p in pairs})
    assert shown == choose_shown(pairs, everything, 6)
    assert {pair.sentence for pair in choose_shown(pairs, everything - {"cmn-1"}, 99)} == set(SENTENCES)
    assert choose_shown(pairs, everything, 0) == []


@pytest.mark.parametrize("sentences", [1, 5, 37, 74])
def test_as_many_pairs_are_shown_as_are_asked_for(sentences: int) -> None:
    pairs = utterance_pairs(
        [Site(group, group, {str(n): f"{group}-{n}" for n in range(sentences)}) for group in ("cmn", "yue")]
    )
    everything = {name for pair in pairs for name in (pair.source_id, pair.target_id)}
    shown = choose_shown(pairs, everything, 24)
    assert len(shown) == len({pair.sentence for pair in shown}) == min(24, sentences)


def test_folders_say_what_is_not_the_default() -> None:
    def folder(**changes: object) -> str:
        return InterpretConfig("m", "d", **changes).folder.name  # type: ignore[arg-type]

    assert folder() == "interpret-test-ctc"
    assert folder(aligner="attention", matcher=Matcher.transport, segmenter="jieba", split="valid") == (
        "interpret-valid-attention-jieba-transport"
    )
    assert folder(scope=Scope.site, transcript="hypothesis") == "interpret-test-ctc-hypothesis-site"
    assert folder(words="x/whisper.tsv", embeddings="r/embeddings-test-w") == (
        "interpret-test-whisper-embeddings-test-w"
    )
    assert folder(level=Level.subdialect) == "interpret-test-ctc-subdialect"
    assert folder(scope=Scope.site, groups=["yue", "nan-taiwan"]) == (
        "interpret-test-ctc-site-yue+nan-taiwan"
    )
    assert folder(pairs=["yue:wuu", "hak:hak-hailu"]) == "interpret-test-ctc-yue_wuu+hak_hak-hailu"


def test_folders_of_lists_that_cannot_be_written_out_differ_too() -> None:
    lists = [["广州:苏州"], ["广州:上海"], ["a_b:c"], ["a:b_c"], ["a/b:c"], ["../a:b"]]
    lists.append([f"site{n}:site{n + 1}" for n in range(99)])
    names = [InterpretConfig("m", "d", pairs=pairs).folder.name for pairs in lists]
    assert len(set(names)) == len(lists)
    for name in names:
        assert re.fullmatch(r"interpret-test-ctc-pairs\.[0-9a-f]{8}", name)


@pytest.mark.parametrize(
    "changes",
    [
        {"threshold": 0.0},
        {"penalty": 0.0},
        {"confidence": 1.0},
        {"shown": -1},
        {"similarities": []},
        {"words": "w.tsv"},
        {"scope": Scope.site, "matcher": Matcher.position},
    ],
)
def test_settings_that_cannot_be(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes)) if "scope" not in changes else "scope"):
        InterpretConfig("m", "d", **changes)  # type: ignore[arg-type]


def test_summaries_are_read_for_the_report(config: InterpretConfig) -> None:
    assert read_interpretations(config.folder.parent, "test") is None
    run(config)
    config.matcher = Matcher.position
    run(config)
    rows = read_interpretations(config.folder.parent, "test")
    assert rows is not None
    assert [(row.page, row.similarity) for row in rows] == [
        ("interpret-test-ctc/index.html", "characters"),
        ("interpret-test-ctc-position/index.html", "characters"),
    ]
    assert rows[0].test["matched"] == 1
    assert rows[0].matched_share == 100
    assert rows[0].compared == "all groups"
    summary = json.loads((config.folder / SUMMARY).read_text(encoding="utf-8"))
    summary["settings"]["split"] = "test-far"
    other = config.folder.with_name("interpret-test-far-ctc")
    other.mkdir()
    (other / SUMMARY).write_text(json.dumps(summary))
    assert read_interpretations(config.folder.parent, "test") == rows
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("retrieval.report"), undefined=jinja2.StrictUndefined
    )
    template = environment.get_template("_interpretation.html.j2")
    assert 'href="../interpret-test-ctc/index.html"' in template.render(interpretations=rows)
    assert not template.render(interpretations=None).strip()
    (config.folder / SUMMARY).write_text('{"tests": {"characters": {}}}')
    with pytest.raises(MalformedResultError, match=r"interpret-test-ctc-position.*settings"):
        read_interpretations(config.folder.parent, "test")


def test_runs_of_other_groups_and_pairs_stand_beside_each_other(config: InterpretConfig) -> None:
    run(config)
    config.groups = ["yue", "cmn"]
    run(config)
    config.groups, config.pairs, config.level = [], ["cmn:yue"], Level.subdialect
    run(config)
    rows = read_interpretations(config.folder.parent, "test")
    assert rows is not None
    assert [(row.page.removesuffix("/index.html"), row.compared) for row in rows] == [
        ("interpret-test-ctc", "all groups"),
        ("interpret-test-ctc-subdialect-cmn_yue", "cmn:yue"),
        ("interpret-test-ctc-yue+cmn", "yue, cmn"),
    ]


def test_the_figure_shows_negative_similarities() -> None:
    test = paired_test(np.array([0.5, 0.4, 0.6]), np.array([-0.2, -0.1, -0.3]), word_pairs=3)
    outcome = Interpretation(3, 0, 6, 6, 3, {"model": test}, {"model": {("cmn", "yue"): test}})
    (axes,) = matched_against_random(outcome).axes
    assert axes.get_xlim()[0] < -0.2
    assert axes.get_xlim()[1] >= 1
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["cmn – yue", "all"]


def test_other_splits_and_runs_that_were_killed_are_not_in_the_report(config: InterpretConfig) -> None:
    config.split = "test-noisy"
    run(config)
    assert read_interpretations(config.folder.parent, "test") is None
    config.folder.rename(config.folder.with_name(f".{config.folder.name}.partial"))
    assert read_interpretations(config.folder.parent, "test-noisy") is None


def test_page_and_report_say_whose_frames_and_words_they_are(config: InterpretConfig) -> None:
    config.words, config.embeddings = "whisper.tsv", "results/data/embeddings-test-mfcc"
    run(config)
    page = (config.folder / PAGE).read_text(encoding="utf-8")
    assert "frames of <code>results/data/embeddings-test-mfcc</code>" in page
    assert "frame of the encoder" not in page
    assert "units <code>" not in page
    rows = read_interpretations(config.folder.parent, "test")
    assert rows is not None
    assert (rows[0].timed_by, rows[0].frames, rows[0].segmenter) == (
        "whisper.tsv",
        "embeddings-test-mfcc",
        "as timed",
    )


def test_flac_comes_back(tmp_path: Path) -> None:
    samples = np.round(np.random.default_rng(0).uniform(-0.9, 0.9, 800) * 32768) / 32768
    uri = flac_data_uri(samples, 16000)
    (tmp_path / "a.flac").write_bytes(base64.b64decode(uri.removeprefix("data:audio/flac;base64,")))
    found, rate = soundfile.read(tmp_path / "a.flac")
    assert rate == 16000
    np.testing.assert_allclose(found, samples, atol=1e-4)


def test_p_values_as_one_reads_them() -> None:
    assert [p_value(value) for value in (None, 0.04321, 1e-9)] == ["–", "0.043", "< 0.001"]


def test_a_pair_of_one_sentence_names_both_sides() -> None:
    pair = UtterancePair(SITES[0], SITES[1], "2")
    assert (pair.source_id, pair.target_id, pair.groups) == ("cmn-2", "yue-2", ("cmn", "yue"))
