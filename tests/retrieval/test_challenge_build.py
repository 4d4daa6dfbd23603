"""Challenge sets of a corpus whose easy sentences are known, from the cuts to the files."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.challenge.build import Built, build, draw_as_many
from retrieval.challenge.settings import (
    ChallengeConfig,
    DurationConfig,
    NamesConfig,
    Removal,
    SoundConfig,
    TaggerKind,
)
from retrieval.challenge.utterances import Spoken
from retrieval.embedding.store import Utterance
from retrieval.protocol.challenge_sets import ChallengeSet, Judgement, read_challenge, write_challenge
from retrieval.protocol.sites import Level

SOUND, NAMES, DURATION = Removal.sound, Removal.names, Removal.duration

# sentence: Mandarin text, phones in cmn, yue and hak. Distances by hand:
#   s1 cmn-yue 0/4, cmn-hak 4/4, yue-hak 4/4      s2 1/4, 2/4, 1/4
#   s3 1/2, 1/1, 1/1 (each over 2 phones)         s4 all 1
CORPUS = {
    "s1": ("我喜欢吃饭", "mama", "mama", "titi"),
    "s2": ("他在北京", "mama", "mami", "mimi"),
    "s3": ("你买三本书", "ta", "ti", "pu"),
    "s4": ("天很冷", "kaka", "lili", "susu"),
}
DURATIONS = {"s1": 1.0, "s2": 1.1, "s3": 3.0, "s4": 1.3}


def corpus(sentences: tuple[str, ...] = tuple(CORPUS)) -> dict[str, Spoken]:
    return {
        f"{dialect}-{sentence}": Spoken(
            Utterance(f"{dialect}-{sentence}", 0, 0, dialect, "", f"site-{dialect}", sentence),
            DURATIONS[sentence],
            CORPUS[sentence][0],
            CORPUS[sentence][place],
        )
        for place, dialect in enumerate(("cmn", "yue", "hak"), start=1)
        for sentence in sentences
    }


def config(
    *removals: Removal, sound: SoundConfig | None = None, candidates: int = 2, random: bool = False
) -> ChallengeConfig:
    return ChallengeConfig(
        "data",
        removals=list(removals),
        sound=sound or SoundConfig(threshold=0.25),
        duration=DurationConfig(candidates),
        random=random,
    )


def kept_by_groups(challenge: ChallengeSet) -> dict[str, list[str]]:
    return {
        "-".join(challenge.sites[number].group for number in pair): kept
        for pair, kept in challenge.kept_of.items()
    }


def test_what_sounds_alike_goes() -> None:
    (built,) = build(corpus(), config(SOUND))
    assert built.challenge.name == "no-close-sound"
    assert kept_by_groups(built.challenge) == {
        "cmn-yue": ["s3", "s4"],
        "cmn-hak": ["s1", "s2", "s3", "s4"],
        "hak-yue": ["s1", "s3", "s4"],
    }
    counts = built.challenge.about["between_groups"]
    assert (counts["site_pairs"], counts["excluded_site_pairs"]) == (3, 0)
    assert (counts["sentences"], counts["kept"], counts["dropped_by"]) == (12, 9, {"sound": 3})
    assert counts["chance"] == pytest.approx((100 / 2 + 100 / 4 + 100 / 3) / 3)
    about = built.challenge.about["removals"]["sound"]
    assert (about["measure"], about["drop_at_distance_up_to"], about["chosen_by"]) == (
        "phones",
        0.25,
        "threshold",
    )


def test_a_quantile_drops_its_share() -> None:
    """Distances: 0, 1/4, 1/4, 1/2, 1/2 and seven times 1; a third of twelve is up to 1/2, tied."""
    (built,) = build(corpus(), config(SOUND, sound=SoundConfig(quantile=1 / 4)))
    assert built.challenge.about["removals"]["sound"]["drop_at_distance_up_to"] == 0.25
    assert built.challenge.about["between_groups"]["kept"] == 9
    (built,) = build(corpus(), config(SOUND, sound=SoundConfig(quantile=1 / 3)))
    assert built.challenge.about["removals"]["sound"]["drop_at_distance_up_to"] == 0.5
    # cmn-yue keeps s4 only, which is no question then
    assert kept_by_groups(built.challenge)["cmn-yue"] == []


def test_names_and_numbers_go_everywhere() -> None:
    pytest.importorskip("jieba")
    (built,) = build(corpus(), config(NAMES))
    assert built.challenge.name == "no-names"
    assert set(map(tuple, kept_by_groups(built.challenge).values())) == {("s1", "s4")}
    judged = built.judgements[0, 1]
    assert judged["s2"].names == ("北京/ns",)
    assert judged["s2"].dropped_by == ("names",)
    assert judged["s3"].names == ("三/m",)
    assert judged["s1"].dropped_by == ()


def test_all_removals_together_and_the_last_sentence(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("jieba")
    sets = {built.challenge.name: built for built in build(corpus(), config(SOUND, NAMES, DURATION))}
    assert list(sets) == ["no-close-sound", "no-names", "duration-matched", "combined"]
    combined = sets["combined"]
    # cmn-yue would keep s4 alone; the others keep s1 and s4
    assert kept_by_groups(combined.challenge) == {
        "cmn-yue": [],
        "cmn-hak": ["s1", "s4"],
        "hak-yue": ["s1", "s4"],
    }
    pair = next(pair for pair, kept in combined.challenge.kept_of.items() if not kept)
    assert {sentence: found.dropped_by for sentence, found in combined.judgements[pair].items()} == {
        "s1": ("sound",),
        "s2": ("sound", "names"),
        "s3": ("names",),
        "s4": ("few",),
    }
    assert combined.challenge.about["between_groups"]["excluded_site_pairs"] == 1
    assert "combined: 1 of 3 site pairs between groups keep fewer than 2 sentences" in caplog.text
    assert combined.challenge.candidates == 2


def test_as_many_at_random() -> None:
    hard, drawn = build(corpus(), config(SOUND, random=True))
    assert drawn.challenge.name == "no-close-sound-random"
    sizes = {pair: len(kept) for pair, kept in hard.challenge.kept_of.items()}
    assert {pair: len(kept) for pair, kept in drawn.challenge.kept_of.items()} == sizes
    counts = drawn.challenge.about["between_groups"]
    assert counts["dropped_by"] == {"random": 3}
    assert counts["chance"] == hard.challenge.about["between_groups"]["chance"]
    assert build(corpus(), config(SOUND, random=True))[1] == drawn
    assert drawn.challenge.about["drawn_for"] == hard.challenge.fingerprint
    assert hard.challenge.about["drawn_for"] is None
    names = [built.challenge.name for built in build(corpus(), config(SOUND, DURATION, random=True))]
    assert names == [
        "no-close-sound",
        "no-close-sound-random",
        "duration-matched",
        "duration-matched-random",
        "combined",
        "combined-random",
    ]


def test_pools_with_no_more_than_the_candidates_are_said(caplog: pytest.LogCaptureFixture) -> None:
    build(corpus(), config(DURATION, candidates=3, random=True))
    assert "duration.candidates" not in caplog.text
    (built,) = build(corpus(), config(DURATION, candidates=4))
    source, target = built.challenge.sites[:2]
    assert built.challenge.allowed(source, target, sorted(CORPUS)) is None
    said = "3 of 3 site pairs keep at most duration.candidates=4 sentences"
    assert caplog.text.count(f"duration-matched: {said}") == 1
    fewer = {name: item for name, item in corpus().items() if name != "hak-s2"}
    build(fewer, config(DURATION, candidates=3, random=True))
    assert caplog.text.count("duration-matched: 2 of 3 site pairs keep at most") == 1
    assert "duration-matched-random:" not in caplog.text


def test_random_rivals_have_the_durations_of_others() -> None:
    matched, drawn = (one.challenge for one in build(corpus(), config(DURATION, random=True)))
    assert drawn.kept_of == matched.kept_of
    assert drawn.durations != matched.durations
    for site in matched.sites:
        names = list(site.utterances.values())
        assert sorted(drawn.durations[n] for n in names) == sorted(matched.durations[n] for n in names)
    a, b = matched.sites[:2]
    allowed = drawn.allowed(a, b, sorted(CORPUS))
    assert allowed is not None
    np.testing.assert_array_equal(allowed.sum(axis=1), [2, 2, 2, 2])


def test_random_draws_are_fair() -> None:
    judged = {f"s{n}": Judgement(dropped_by=("sound",) if n % 2 else ()) for n in range(10)}
    draws = [draw_as_many(judged, str(seed)) for seed in range(2000)]
    counts = Counter(name for draw in draws for name, found in draw.items() if not found.dropped_by)
    assert sum(counts.values()) == 5 * 2000
    # binomial with p = 1/2: 5 standard deviations are 5 sqrt(2000)/2 = 112
    assert all(abs(count - 1000) < 112 for count in counts.values())


def test_an_empty_set_is_an_error_with_a_remedy() -> None:
    with pytest.raises(ValueError, match=r"'no-close-sound' is empty: of 12 .* 12 by sound; .*it is 1\).*"):
        build(corpus(), config(SOUND, sound=SoundConfig(threshold=1.0)))
    pytest.importorskip("jieba")
    with pytest.raises(ValueError, match=r"'no-names' is empty: .*6 by names; ask for fewer names\.tags"):
        build(corpus(("s2", "s3")), config(NAMES))


def test_settings_that_say_nothing() -> None:
    with pytest.raises(ValueError, match=r"removals=\[\]: give one or more"):
        config()
    with pytest.raises(ValueError, match="each once"):
        config(SOUND, SOUND)
    with pytest.raises(ValueError, match=r"names\.tagger=jieba or spacy, or removals=\[sound\]"):
        ChallengeConfig("data", removals=[SOUND, NAMES], names=NamesConfig(TaggerKind.none))
    with pytest.raises(ValueError, match="candidates=1 leaves the right answer without a rival"):
        DurationConfig(1)
    with pytest.raises(ValueError, match=r"sound\.quantile=1"):
        SoundConfig(quantile=1)
    with pytest.raises(ValueError, match=r"sound\.threshold=-0\.5 is negative"):
        SoundConfig(threshold=-0.5)


def test_texts_that_are_missing() -> None:
    items = corpus()
    items["yue-s1"] = Spoken(items["yue-s1"].utterance, 1.0, "", "ma")
    with pytest.raises(ValueError, match=r"1 of 12 .* no translation, .* yue-s1: .*names\.text=transcript"):
        build(items, config(NAMES))


def test_same_input_same_bytes_and_other_input_another_fingerprint(tmp_path: Path) -> None:
    def written(folder: str, items: dict[str, Spoken], settings: ChallengeConfig) -> tuple[bytes, bytes]:
        (built,) = build(items, settings)
        path = write_challenge(tmp_path / folder, built.challenge, built.judgements)
        return path.read_bytes(), path.with_suffix(".tsv").read_bytes()

    shuffled = dict(sorted(corpus().items(), reverse=True))
    assert written("a", corpus(), config(SOUND)) == written("b", shuffled, config(SOUND))
    fingerprints = {built[0].challenge.fingerprint for built in (
        build(corpus(), config(SOUND)),
        build(corpus(), config(SOUND, sound=SoundConfig(threshold=0.26))),
        build(corpus(("s1", "s2", "s3")), config(SOUND)),
        build(corpus() | {"yue-s4": Spoken(corpus()["yue-s4"].utterance, 1.3, "", "lilu")}, config(SOUND)),
    )}  # fmt: skip
    assert len(fingerprints) == 4


def test_the_fingerprint_holds_what_the_tagger_found(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jieba")
    fingerprints = set()
    for word in ("北京", "京"):
        found = {text: [f"{word}/ns"] if word in text else [] for text, *_ in CORPUS.values()}
        monkeypatch.setattr("retrieval.challenge.build.named_words", lambda texts, config, found=found: found)
        fingerprints.add(build(corpus(), config(NAMES))[0].challenge.fingerprint)
    assert len(fingerprints) == 2


def test_files_say_what_was_dropped_and_why(tmp_path: Path) -> None:
    (built,) = build(corpus(), config(SOUND))
    path = write_challenge(tmp_path, built.challenge, built.judgements)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert [site["name"] for site in content["sites"]] == ["site-cmn", "site-hak", "site-yue"]
    cmn_yue = next(pair for pair in content["pairs"] if pair["sites"] == [0, 2])
    assert cmn_yue["kept"] == ["s3", "s4"]
    assert cmn_yue["dropped"] == {
        "s1": {"by": ["sound"], "distance": 0.0},
        "s2": {"by": ["sound"], "distance": 0.25},
    }
    lines = path.with_suffix(".tsv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 12
    assert "cmn/site-cmn\tyue/site-yue\ts2\tcmn-s2\tyue-s2\tno\tsound\t0.250000\t" in lines
    assert "cmn/site-cmn\thak/site-hak\ts2\tcmn-s2\thak-s2\tyes\t\t0.500000\t" in lines
    assert read_challenge(path) == built.challenge


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_kept_sentences_are_a_symmetric_subset_and_the_own_answer_is_allowed(data: st.DataObject) -> None:
    words = st.text("aiu", min_size=1, max_size=3)
    items = {}
    for dialect in ("cmn", "yue"):
        for n in range(6):
            name = f"{dialect}{n}"
            labels = Utterance(name, 0, 0, dialect, "", dialect, f"s{n}")
            seconds = data.draw(st.sampled_from([1.0, 1.5, 2.0, 2.5]))
            items[name] = Spoken(labels, seconds, "", data.draw(words))
    candidates = data.draw(st.integers(2, 8))
    try:
        sets = build(items, config(SOUND, DURATION, candidates=candidates))
    except ValueError as error:
        assert "is empty" in str(error)  # noqa: PT017
        return
    for built in sets:
        _check_invariants(built)


def _check_invariants(built: Built) -> None:
    challenge = built.challenge
    a, b = challenge.sites
    common = sorted(a.utterances)
    kept = challenge.kept(a, b, common)
    assert kept == challenge.kept(b, a, common)
    assert set(kept) <= set(common)
    assert len(kept) != 1
    for source, target in ((a, b), (b, a)):
        allowed = challenge.allowed(source, target, kept)
        if allowed is None:
            assert not challenge.candidates or len(kept) <= challenge.candidates
            continue
        assert allowed.diagonal().all()
        assert (allowed.sum(axis=1) == challenge.candidates).all()
        for row, sentence in enumerate(kept):  # no rival outside is nearer than one inside
            own = challenge.durations[target.utterances[sentence]]
            gaps = [abs(challenge.durations[target.utterances[other]] - own) for other in kept]
            inside = [gap for gap, chosen in zip(gaps, allowed[row], strict=True) if chosen]
            outside = [gap for gap, chosen in zip(gaps, allowed[row], strict=True) if not chosen]
            assert max(inside) <= min(outside)


def test_varieties_of_a_dialect_can_be_the_groups() -> None:
    """Without sites, two varieties of one dialect have every sentence twice, unless they are told apart."""

    def variety(name: str) -> dict[str, Spoken]:
        return {
            f"{name}-{item.utterance.sentence_id}": replace(
                item,
                utterance=replace(
                    item.utterance,
                    utterance_id=f"{name}-{item.utterance.sentence_id}",
                    subdialect=name,
                    site="",
                ),
            )
            for item in corpus().values()
            if item.utterance.dialect == "hak"
        }

    spoken = variety("sixian") | variety("hailu")
    settings = config(Removal.duration)
    with pytest.raises(ValueError, match="site hak of hak has sentence s1 twice"):
        build(spoken, settings)
    (built,) = build(spoken, replace(settings, level=Level.subdialect))
    assert [site.group for site in built.challenge.sites] == ["hailu", "sixian"]
    assert kept_by_groups(built.challenge) == {"hailu-sixian": ["s1", "s2", "s3", "s4"]}
