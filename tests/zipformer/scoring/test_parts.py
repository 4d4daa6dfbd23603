"""Error rates by part of a split."""

from dataclasses import replace

from rich.console import Console

from zipformer.scoring import Transcript, align_all, score
from zipformer.scoring.files import rate_table
from zipformer.scoring.token_coverage import with_no_token

ONE = Transcript("1", "cmn", None, None, None, "你好吗", "你好")


def transcripts(*parts: str | None) -> list[Transcript]:
    return [replace(ONE, id=str(number), part=part) for number, part in enumerate(parts)]


def test_each_part_has_the_rate_of_its_utterances_alone() -> None:
    found = transcripts("Easy", "Hard", "Easy", None)
    found[1] = replace(found[1], hypothesis="")
    rows = score(align_all(found))
    by_part = {row.name: row for row in rows if row.level == "part"}
    assert list(by_part) == ["Easy", "Hard"]
    for name, row in by_part.items():
        (alone,) = (
            one for one in score(align_all([t for t in found if t.part == name])) if one.level == "overall"
        )
        assert replace(row, level="overall", name="overall") == alone
    assert (by_part["Easy"].utterances, by_part["Easy"].cer) == (2, 100 / 3)
    assert (by_part["Hard"].deletions, by_part["Hard"].cer) == (3, 100.0)


def test_a_split_with_one_part_has_the_rows_that_it_has_without() -> None:
    assert score(align_all(transcripts("test", "test", None))) == score(
        align_all(transcripts(None, None, None))
    )


def test_the_table_shows_the_parts() -> None:
    scored = align_all(transcripts("TEST_NET", "TEST_MEETING"))
    rows = with_no_token(score(scored), scored, frozenset("你好"))
    assert {row.name: row.no_token for row in rows if row.level == "part"} == {
        "TEST_NET": 1,
        "TEST_MEETING": 1,
    }
    console = Console(width=80)
    with console.capture() as capture:
        console.print(rate_table(score(scored), title="x", trained=None))
    lines = [line.split()[0] for line in capture.get().splitlines() if line.strip()]
    assert lines.index("cmn") < lines.index("TEST_MEETING") < lines.index("TEST_NET")
