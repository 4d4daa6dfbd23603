"""The choice of the headline method, and the draw of the examples."""

from dataclasses import replace

import pytest
from result_files import TRAINED

from retrieval.report.examples import draw_examples
from retrieval.report.headline import Evidence, choose_headline, evidence_for
from retrieval.results.decodings import CerResult
from retrieval.results.training import Metrics
from zipformer.scoring.conventions import CONVENTIONS
from zipformer.scoring.tables import ScoreRow, Transcript


def result(method: str, rates: dict[str, float | None], hypotheses: list[Transcript], tmp_path) -> CerResult:
    rows = [
        ScoreRow("dialect", name, name, 1, 1, 0, 0, 0, rate, rate, rate, "sentences")
        for name, rate in rates.items()
    ]
    return CerResult(method, "test", rows, hypotheses, [], tmp_path, None)


@pytest.mark.parametrize(
    ("methods", "rates", "chosen"),
    [
        (["ctc", "greedy", "beam"], {"ctc": 4.0, "greedy": 6.0}, "ctc"),
        (["ctc", "greedy", "beam"], {"ctc": 7.0, "greedy": 6.0}, "beam"),  # its head is the better one
        (["ctc", "greedy"], {"ctc": 7.0, "greedy": 6.0}, "greedy"),
        (["ctc", "greedy", "beam"], {"ctc": 7.0, "greedy": 6.0, "beam": 8.0}, "greedy"),
        (["ctc", "beam", "attention"], {"ctc": 7.0, "greedy": 8.0}, "ctc"),  # attention is not validated
        (["ctc", "attention"], {"ctc": 7.0, "attention": 3.0}, "attention"),
        (["ctc", "greedy"], {"greedy": 6.0}, None),
        (["ctc", "greedy"], {}, None),
        (["ctc", "attention"], {"greedy": 6.0, "ctc": 1.0}, None),
        (["greedy"], {}, "greedy"),
        (["greedy", "beam"], {}, "beam"),
    ],
)
def test_choice(methods: list[str], rates: dict[str, float], chosen: str | None) -> None:
    headline = choose_headline(methods, [Evidence("nowhere", {}), Evidence("a place", rates)])
    assert headline is not None
    assert headline.method == chosen
    if chosen and len(methods) > 1 and rates:
        assert "a place" in headline.rule
        assert ("no such number for the attention decoder" in headline.rule) == (
            "attention" in methods and "attention" not in rates
        )


def test_no_method_no_headline() -> None:
    assert choose_headline([], []) is None


def test_evidence_in_its_order(tmp_path) -> None:
    valid = [
        {
            "step": 100,
            "cer": {"overall": 1.0, "cmn": 10.0, "gan": 1.0},
            "cer_ctc": {"cmn": 20.0, "yue": 30.0},
        },
        {"step": 200, "cer": {"cmn": 1.0}, "cer_ctc": {"cmn": 0.0}},
    ]
    provenance = {
        "steps": [50, 100],
        "window": {
            "candidates": [
                {"steps": [0, 100], "cer": {"ctc": 1.0, "greedy": 2.0}},
                {"steps": [50, 100], "cer": {"ctc": 3.0, "greedy": 4.0}},
            ]
        },
    }
    decoded = result("beam", {"cmn": 2.0, "yue": 4.0, "gan": 90.0, "hak": None}, [], tmp_path)
    found = evidence_for(
        [decoded], provenance, Metrics([], valid), trained=["cmn", "yue", "hak"], transducer=True
    )
    # The split itself, then the averaged weights, then those at the last validation that went into them.
    assert [item.rates for item in found] == [
        {"beam": 3.0},
        {"ctc": 3.0, "greedy": 4.0},
        {"greedy": 10.0, "ctc": 25.0},
    ]
    (of_ctc,) = evidence_for([], None, Metrics([], valid[:1]), trained=None, transducer=False)[1:]
    assert of_ctc.rates == {"ctc": 25.0}


def hypotheses(sentences: int, sites: int, dialects=TRAINED) -> list[Transcript]:
    return [
        Transcript(f"{dialect}-{n:03}-{site}", dialect, None, f"{site}", f"{n:03}", "今日", "今日")
        for n in range(sentences)
        for site in range(sites)
        for dialect in dialects
    ]


def test_examples_are_of_different_sentences_and_of_no_order(tmp_path) -> None:
    items = hypotheses(sentences=40, sites=5)
    drawn = draw_examples([result("ctc", {}, items, tmp_path)], 3)
    assert [sample.dialect for sample in drawn] == [dialect for dialect in sorted(TRAINED) for _ in range(3)]
    for dialect in TRAINED:
        of_dialect = [sample.utterance_id.split("-")[1] for sample in drawn if sample.dialect == dialect]
        assert len(set(of_dialect)) == 3
    turned = draw_examples([result("ctc", {}, items[::-1], tmp_path)], 3)
    assert turned == drawn
    assert draw_examples([result("ctc", {}, items, tmp_path)], 3, seed=1) != drawn


def test_every_utterance_is_as_likely(tmp_path) -> None:
    source = [result("ctc", {}, hypotheses(sentences=10, sites=2, dialects=["yue"]), tmp_path)]
    counts: dict[str, int] = {}
    for seed in range(600):
        for sample in draw_examples(source, 2, seed=seed):
            counts[sample.utterance_id] = counts.get(sample.utterance_id, 0) + 1
    assert len(counts) == 20
    assert all(30 < count < 95 for count in counts.values())  # 60 expected, standard deviation 7.5


def test_a_sentence_comes_again_only_where_all_were_taken(tmp_path) -> None:
    source = [result("ctc", {}, hypotheses(sentences=2, sites=4, dialects=["yue"]), tmp_path)]
    drawn = [sample.utterance_id.split("-")[1] for sample in draw_examples(source, 4)]
    assert sorted(drawn) == ["000", "000", "001", "001"]


def test_examples_mark_the_units_that_were_counted(tmp_path) -> None:
    item = Transcript("a", "cmn", None, None, None, "我打call了", "我搭 CALL 了")
    source = replace(result("ctc", {}, [item], tmp_path), scoring=CONVENTIONS["mer"])
    (sample,) = draw_examples([source], 1)
    assert sample.reference == [("我", False), ("打", True), ("CALL ", False), ("了", False)]
    assert sample.hypothesis == [("我", False), ("搭", True), ("CALL ", False), ("了", False)]


def test_methods_show_the_same_utterances(tmp_path) -> None:
    items = hypotheses(sentences=6, sites=1, dialects=["yue"])
    sources = [result("ctc", {}, items[1:], tmp_path), result("beam", {}, items[:-1], tmp_path)]
    drawn = draw_examples(sources, 10)
    assert [sample.method for sample in drawn] == ["ctc", "beam"] * 4
    assert drawn[0].utterance_id == drawn[1].utterance_id
