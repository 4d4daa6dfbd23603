"""Scoring conventions on odd strings, against the official scripts, sclite and jiwer.

``odd_strings.tsv`` has errors and reference units of each pair by convention. Where they come from:

- ``wenetspeech``: WeNet's ``tools/compute-wer.py --char=1`` (commit 0e1042b), run on every pair; its counts
  are the column ``official_wenet``.
- ``speechio``: SpeechIO's ``textnorm_zh.py --to_upper --to_banjiao --remove_fillers --remove_erhua`` and
  ``error_rate_zh`` (commit 678f55a), run on every pair: ``official_speechio``. We count differently where
  :data:`UNLIKE_SPEECHIO` says so.
- ``m2met``: Lhotse's ``normalize_text_alimeeting``, which this test runs.
- ``plain``, ``mer``, ``syllables`` and ``wsyue`` have no official script here. Their columns are our own
  counts, of units that were read through; they guard against changes.
- All seven: sclite 2.10 (Debian package sctk) counts the same on the files that are written for it.
"""

import csv
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhotse.recipes.ali_meeting import normalize_text_alimeeting

from zipformer.errors import UserError
from zipformer.scoring import (
    CONVENTIONS,
    Transcript,
    align_all,
    align_units,
    choose_convention,
    empty_references,
    score,
)
from zipformer.scoring.conventions import wenet_units
from zipformer.scoring.sclite import escaped, write_sclite

with Path(__file__).with_name("odd_strings.tsv").open(encoding="utf-8", newline="") as stream:
    ODD = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))

# References for which SpeechIO's script counts otherwise, and why.
UNLIKE_SPEECHIO = {
    "一三八零零一三八零零零": "it reads digits of a telephone number one by one",
    "一千": "it reads four digits without a measure word one by one",
    "两百米": "it reads 200 as 两百, cn2an as 二百",
    "三到五天": "it deletes the hyphen of 3-5",
    "我們學習": "it converts a script only where that is asked for",
    "頭髮很乾": "as above",
}
SCLITE = shutil.which("sclite") or shutil.which("sclite", path="/usr/lib/sctk/bin")
ALPHABET = "我佢係儿啊呃學3０ABaｂ'’-*{}()<>@;/%$&`·_ˇⁿ𠲖。，、 \u3000é"


def counted(name: str, reference: str, hypothesis: str) -> str:
    if name in ("speechio", "wsyue") and re.search("[0-9０-９]", reference + hypothesis):
        pytest.importorskip("cn2an")
    units = CONVENTIONS[name].units
    counts = align_units(units(reference), units(hypothesis)).counts
    return f"{counts.errors}/{counts.reference_characters}"


@pytest.mark.parametrize("name", CONVENTIONS)
@pytest.mark.parametrize("row", ODD, ids=lambda row: row["reference"] or "empty")
def test_odd_strings(name: str, row: dict[str, str]) -> None:
    assert counted(name, row["reference"], row["hypothesis"]) == row[name]


@pytest.mark.parametrize("row", ODD, ids=lambda row: row["reference"] or "empty")
def test_counts_are_those_of_the_official_scripts(row: dict[str, str]) -> None:
    assert row["wenetspeech"] == row["official_wenet"]
    if row["reference"] in UNLIKE_SPEECHIO:
        assert row["speechio"] != row["official_speechio"]
    elif row["official_speechio"] != "left out":  # a side is empty
        assert row["speechio"] == row["official_speechio"]
    sides = [normalize_text_alimeeting(row[side]) for side in ("reference", "hypothesis")]
    assert counted("plain", *sides) == row["m2met"]


def transcript(name: str, reference: str, hypothesis: str, **more: object) -> Transcript:
    labels = {"dialect": None, "subdialect": None, "site": None, "sentence_id": None, **more}
    return Transcript(name, reference=reference, hypothesis=hypothesis, **labels)  # type: ignore[arg-type]


@given(st.lists(st.tuples(*[st.text(ALPHABET, max_size=8)] * 2), min_size=1, max_size=6))
def test_totals_are_those_of_jiwer(texts: list[tuple[str, str]]) -> None:
    jiwer = pytest.importorskip("jiwer")
    for name in ("plain", "wenetspeech", "m2met", "mer", "syllables"):
        scored = align_all((transcript("a", *pair) for pair in texts), CONVENTIONS[name])
        # jiwer splits at spaces, and refuses an empty reference.
        sides = [
            [" ".join(map(escaped, CONVENTIONS[name].units(pair[side]))) for pair in texts] for side in (0, 1)
        ]
        kept = [index for index, reference in enumerate(sides[0]) if reference]
        if not kept:
            continue
        found = jiwer.process_words(*([side[index] for index in kept] for side in sides))
        counts = [scored[index].counts for index in kept]
        assert sum(item.errors for item in counts) == found.substitutions + found.deletions + found.insertions
        assert sum(item.reference_characters for item in counts) == (
            found.hits + found.substitutions + found.deletions
        )


@pytest.mark.skipif(SCLITE is None, reason="sclite is in the Debian package sctk")
@pytest.mark.parametrize("name", CONVENTIONS)
def test_totals_are_those_of_sclite(name: str, tmp_path: Path) -> None:
    if name in ("speechio", "wsyue"):
        pytest.importorskip("cn2an")
    items = [
        transcript(f"u {n}(x)", row["reference"], row["hypothesis"], speaker=f"S_{n % 3}")
        for n, row in enumerate(ODD)
    ]
    write_sclite(tmp_path, align_all(items, CONVENTIONS[name]))
    command = [SCLITE, "-s", "-e", "utf-8", "-i", "rm", "-r", "ref.trn", "trn", "-h", "hyp.trn", "trn"]
    output = subprocess.run(
        [*command, "-o", "pra", "stdout"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    found = re.findall(r"id: \(\S+?-u_20(\d+)_\S+\)\nScores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)", output)
    assert len(found) == len(ODD)
    for number, correct, *errors in found:
        substitutions, deletions, insertions = map(int, errors)
        total = f"{substitutions + deletions + insertions}/{int(correct) + substitutions + deletions}"
        assert total == ODD[int(number)][name]


def test_files_for_sclite(tmp_path: Path) -> None:
    items = [
        transcript("a-1", "我用OK", "我用ok", dialect="yue", speaker="S 1", duration=1.25),
        transcript("b", "{好}", "", duration=2.0),
    ]
    write_sclite(tmp_path, align_all(items, CONVENTIONS["mer"]))
    assert (tmp_path / "ref.trn").read_text() == "我 用 OK (S_201-a_2D1)\n好 (unknown-b)\n"
    assert (tmp_path / "hyp.trn").read_text() == "我 用 OK (S_201-a_2D1)\n(unknown-b)\n"
    assert (tmp_path / "ref.stm").read_text() == (
        "a_2D1 A S_201 0.000 1.250 <yue> 我 用 OK\nb A unknown 0.000 2.000 <unknown> 好\n"
    )
    write_sclite(tmp_path / "..", align_all([transcript("a", "{好}", "")]))
    assert (tmp_path / "../ref.trn").read_text() == "_7B 好 _7D (unknown-a)\n"
    assert not (tmp_path / "../ref.stm").exists()  # without durations


@given(st.text(ALPHABET, max_size=4), st.text(ALPHABET, max_size=4))
def test_escaped_units_are_equal_only_where_the_units_are(left: str, right: str) -> None:
    assert (escaped(left) == escaped(right)) == (left == right)
    assert re.fullmatch("[0-9A-Za-z_\x80-\U0010ffff]*", escaped(left))


def test_rates_by_kind_come_from_one_alignment() -> None:
    # By hand: of 我 用 很 多 one is wrong, and 了 is inserted: 2 / 4. Of IPHONE CASE one is missing: 1 / 2.
    items = [transcript("a", "我用iPhone", "我要iPhone了"), transcript("b", "很多 case", "很多")]
    convention = CONVENTIONS["mer"]
    rows = {
        row.name: row
        for row in score(align_all(items, convention), convention=convention)
        if row.level in ("overall", "kind")
    }
    assert {name: (row.substitutions, row.deletions, row.insertions) for name, row in rows.items()} == {
        "overall": (1, 1, 1),
        "Han characters": (1, 0, 1),
        "other words": (0, 1, 0),
    }
    assert [rows[name].cer for name in ("overall", "Han characters", "other words")] == [50.0, 50.0, 50.0]


def test_empty_hypotheses_are_deletions_and_empty_references_are_counted() -> None:
    items = [transcript("a", "好人", ""), transcript("b", "啊", "好"), transcript("c", "", "")]
    scored = align_all(items, CONVENTIONS["speechio"])
    assert empty_references(scored) == 2
    overall = score(scored, convention=CONVENTIONS["speechio"])[0]
    assert (overall.utterances, overall.deletions, overall.insertions) == (3, 2, 1)
    assert overall.cer == 150.0


@given(st.text(ALPHABET, max_size=12))
def test_steps_once_are_steps_twice(text: str) -> None:
    for name in ("wsyue", "speechio", "mer", "syllables", "m2met"):
        if name in ("wsyue", "speechio") and re.search("[0-9０-９%]", text):
            continue
        convention = CONVENTIONS[name]
        assert convention.units(convention.text(text)) == convention.units(text)


def test_units_of_wenet() -> None:
    assert wenet_units("我a,b c!，é1好 学") == ["我", "a,b", "c!", "é1", "好", "学"]


def test_unknown_conventions_and_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"scoring=sclite is not known; choose one of plain, wenetspeech"):
        choose_convention("sclite")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"cn2an, which is not installed: pip install 'fangyan\[scoring\]'"):
        choose_convention("speechio")
    assert choose_convention("mer").rate == "MER"


def test_what_a_model_writes_goes_through_the_convention() -> None:
    known = CONVENTIONS["mer"].known("a我儿")
    assert known >= set("aA我儿")
    assert CONVENTIONS["speechio"].known("儿") == {"儿"}
