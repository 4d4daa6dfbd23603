"""Which properties are probed for, with what held out; means over utterances and spans by hand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lhotse import MonoCut, SupervisionSegment
from planted import write_store

from retrieval.depth.probe_design import NotIdentifiable, ProbeConfig, ProbeTask
from retrieval.depth.probe_tasks import (
    Facts,
    Span,
    character_tasks,
    characters_of,
    facts_of,
    span_means,
    together,
    utterance_means,
    utterance_tasks,
)

CONFIG = ProbeConfig(min_occurrences=2)


def corpus(dialects: int = 2, sites: int = 2, speakers: int = 2, sentences: int = 6) -> list[Facts]:
    """Speakers of a site share its sentences out."""
    return [
        Facts(
            f"{d}{s}-{n}",
            f"d{d}",
            f"v{d}",
            f"d{d}s{s}",
            f"d{d}s{s}p{n % speakers}",
            f"n{n}",
            "天地",
            (str(d + 1), str(n % 3)),
        )
        for d in range(dialects)
        for s in range(sites)
        for n in range(sentences)
    ]


def by_name(tasks: Sequence[ProbeTask | NotIdentifiable]) -> dict[str, ProbeTask | NotIdentifiable]:
    return {task.name: task for task in tasks}


def test_groups_are_sites_speakers_sentences_and_dialects() -> None:
    facts = corpus()
    tasks = by_name(utterance_tasks(facts, CONFIG))
    assert all(isinstance(task, ProbeTask) for task in tasks.values())
    for name, held_out, groups in (
        ("dialect", "site", 4),
        ("site", "speaker", 8),
        ("speaker", "sentence_id", 6),
        ("sentence", "site", 4),
        ("sentence, unseen dialect", "dialect", 2),
    ):
        task = tasks[name]
        assert isinstance(task, ProbeTask)
        found = [getattr(facts[row], held_out) for row in task.rows]
        assert len(set(zip(found, task.groups.tolist(), strict=True))) == groups == len(set(found)), name
        assert task.labels.tolist() == [
            getattr(facts[row], {"sentence": "sentence_id"}.get(name.split(",")[0], name.split(",")[0]))
            for row in task.rows
        ]
    assert set(tasks["site"].strata) == {"d0", "d1"}
    assert set(tasks["speaker"].strata) == {"d0/d0s0", "d0/d0s1", "d1/d1s0", "d1/d1s1"}
    assert set(tasks["site"].crossed) == {f"n{n}" for n in range(6)}
    assert len(set(tasks["sentence"].types)) == 2 * 6
    assert len(set(tasks["dialect"].types)) == 6


def test_one_speaker_a_dialect_is_no_dialect_probe() -> None:
    tasks = by_name(utterance_tasks(corpus(sites=1, speakers=1), CONFIG))
    for name in ("dialect", "site", "speaker"):
        task = tasks[name]
        assert isinstance(task, NotIdentifiable)
        assert "cannot be told apart" in task.reason


def test_one_speaker_a_variety_without_sites_is_no_speaker_probe() -> None:
    facts = [
        Facts(f"{v}-{n}", f"d{v // 2}", f"v{v}", "", f"p{v}", f"n{n}", "天", ())
        for v in range(4)
        for n in range(5)
    ]
    tasks = by_name(utterance_tasks(facts, CONFIG))
    assert isinstance(tasks["speaker"], NotIdentifiable)
    assert isinstance(tasks["site"], NotIdentifiable)
    dialect = tasks["dialect"]
    assert isinstance(dialect, ProbeTask)
    assert len(set(dialect.groups)) == 4


def test_one_speaker_a_dialect_leaves_sentences() -> None:
    tasks = by_name(utterance_tasks(corpus(sites=1, speakers=1), CONFIG))
    assert isinstance(tasks["sentence, unseen dialect"], ProbeTask)


def test_one_speaker_a_site_is_no_site_probe() -> None:
    tasks = by_name(utterance_tasks(corpus(speakers=1), CONFIG))
    assert isinstance(tasks["dialect"], ProbeTask)
    assert isinstance(tasks["site"], NotIdentifiable)
    assert isinstance(tasks["speaker"], NotIdentifiable)


def test_a_speaker_at_two_sites_joins_them() -> None:
    # Two sites a dialect, but one and the same speaker at both: nothing but the speaker is there.
    facts = [
        Facts(f"{d}{s}-{n}", f"d{d}", f"d{d}", f"d{d}s{s}", f"p{d}", f"n{n}", "天", ())
        for d in range(2)
        for s in range(2)
        for n in range(4)
    ]
    assert isinstance(by_name(utterance_tasks(facts, CONFIG))["dialect"], NotIdentifiable)


def test_speakers_of_two_dialects_at_places_of_one_name_are_not_told_apart() -> None:
    facts = [replace(fact, site=fact.site[-2:]) for fact in corpus(speakers=1)]  # s0 and s1 in both dialects
    assert isinstance(by_name(utterance_tasks(facts, CONFIG))["speaker"], NotIdentifiable)


def test_rows_together() -> None:
    assert together(["a", "a", "b", "", ""], ["", "x", "y", "y", ""]) == ["0", "0", "1", "1", ""]
    assert together(["", ""], ["", ""]) == ["", ""]
    assert together(["a", "b"], ["", ""]) == ["0", "1"]


def spans_of(facts: Sequence[Facts]) -> list[Span]:
    return [Span(f.utterance_id, i, c, 2 * i, 2 * i + 2) for f in facts for i, c in enumerate(f.text)]


def test_characters_and_tones() -> None:
    facts = corpus()
    tasks = by_name(character_tasks(facts, spans_of(facts), CONFIG))
    character, unseen, tone = (tasks[name] for name in ("character", "character, unseen dialect", "tone"))
    assert isinstance(character, ProbeTask)
    assert isinstance(unseen, ProbeTask)
    assert character.labels.tolist() == ["天", "地"] * 24
    assert set(character.types) == {"d0\t天", "d0\t地", "d1\t天", "d1\t地"}
    assert len(set(character.groups)) == 4
    assert len(set(unseen.groups)) == 2
    assert isinstance(tone, ProbeTask)
    assert set(tone.strata) == {"v0", "v1"}
    assert tone.labels.tolist()[:6] == ["1", "0", "1", "1", "1", "2"]


def test_no_pronunciation_is_no_tone_probe() -> None:
    facts = [replace(fact, tones=()) for fact in corpus()]
    tone = by_name(character_tasks(facts, spans_of(facts), CONFIG))["tone"]
    assert isinstance(tone, NotIdentifiable)
    assert "supervision.custom.ipa" in tone.reason


def test_tones_keep_their_characters_after_a_piece_of_several() -> None:
    facts = [replace(fact, text="天下地", tones=("1", "2", "3")) for fact in corpus()]
    aligned = {fact.utterance_id: [("天下", 0, 3), ("地", 3, 5)] for fact in facts}
    spans = characters_of(aligned)
    assert spans == [Span(fact.utterance_id, 2, "地", 3, 5) for fact in facts]
    # By its place among the pieces, the last character had the tone of the second
    facts = [replace(fact, tones=("1", "2", str(n % 2))) for n, fact in enumerate(facts)]
    tone = by_name(character_tasks(facts, spans, CONFIG))["tone"]
    assert isinstance(tone, ProbeTask)
    assert set(tone.labels) == {"0", "1"}


def cut(number: int, text: str, ipa: str | None, romanisation: str | None = None) -> MonoCut:
    supervision = SupervisionSegment(
        f"u{number}",
        f"u{number}",
        0,
        1,
        text=text,
        language="yue",
        speaker="p",
        custom={"site": "s", "sentence_id": "3", "ipa": ipa, "romanisation": romanisation},
    )
    return MonoCut(f"u{number}", 0, 1, 0, supervisions=[supervision])


def test_tones_are_the_ends_of_the_syllables(caplog: pytest.LogCaptureFixture) -> None:
    facts = facts_of(
        [
            cut(0, "你 好", "nei5 hou2"),
            cut(1, "你好", "nei⁵⁵ hou˧˩"),
            cut(2, "你好", "nei hou2"),
            cut(3, "你好", "nei5"),  # not one a character
            cut(4, "你好", None),
            cut(5, "你好", "nei5", "nei5 hou2"),
        ]
    )
    assert [fact.tones for fact in facts] == [("5", "2"), ("⁵⁵", "˧˩"), ("", "2"), (), (), ("5", "2")]
    assert "1 of 6 utterances have a pronunciation that is not one syllable" in caplog.text
    assert facts[0].text == "你好"
    assert (facts[0].variety, facts[0].site, facts[0].speaker, facts[0].sentence_id) == ("yue", "s", "p", "3")


def test_means_of_utterances_and_spans(tmp_path: Path) -> None:
    frames = np.arange(10, dtype=np.float32).reshape(5, 2) ** 2
    store = write_store(tmp_path / "store", {("d", "s"): {"1": frames}})
    facts = [Facts("d-s-1", "d", "", "s", "", "1", "天", ())]
    np.testing.assert_allclose(utterance_means(store, facts), [frames.mean(axis=0)])
    # One frame of the store is 8 at 50 per second, 4 at 25: frames 6 to 11 are 1.5 to 2.75 of the store's
    found = span_means(store, [Span("d-s-1", 0, "天", 6, 11), Span("d-s-1", 1, "地", 16, 17)], 8)
    np.testing.assert_allclose(found[0], (0.5 * frames[1] + 0.75 * frames[2]) / 1.25)
    np.testing.assert_allclose(found[1], frames[4])
    # At 50 per second a frame of a span is two of the store's
    found = span_means(store, [Span("d-s-1", 0, "天", 1, 2)], 1)
    np.testing.assert_allclose(found[0], frames[2:4].mean(axis=0))
    # The last frame at 25 per second may reach over the end
    np.testing.assert_allclose(span_means(store, [Span("d-s-1", 0, "天", 2, 3)], 1)[0], frames[4])
    with pytest.raises(ValueError, match="align again"):
        span_means(store, [Span("d-s-1", 0, "天", 30, 31)], 8)
