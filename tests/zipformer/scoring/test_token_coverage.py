"""Reference characters that no token of the model writes."""

from pathlib import Path

import pytest

from data_prep.tokens import train_token_model
from zipformer.data.tokenizer import Tokenizer
from zipformer.scoring import align_all, score
from zipformer.scoring.files import rate_table
from zipformer.scoring.tables import Transcript
from zipformer.scoring.token_coverage import TokenCoverage, coverage_of, with_no_token, written_characters

SIMPLIFIED = ("我们学习说话", "今天天气很好 OK")
TRADITIONAL = (("我們學習說話", "hak"), ("今天天氣很好", "yue"), ("我說", "hak"))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_token_model(SIMPLIFIED))


def transcripts() -> list[Transcript]:
    return [
        Transcript(f"{n}", dialect, None, f"{dialect}-1", None, text, text)
        for n, (text, dialect) in enumerate(TRADITIONAL)
    ]


def test_characters_of_bytes_and_special_pieces_are_none_of_the_model(tokenizer: Tokenizer) -> None:
    known = written_characters(tokenizer)
    assert set("".join(SIMPLIFIED).replace(" ", "")) <= known
    assert not set("<0x>bkunsoe/") & known


def test_the_warning_counts_by_dialect_and_names_characters(tokenizer: Tokenizer) -> None:
    # By hand: 們 學 習 說 話 of six and 說 of two in hak, 氣 of six in yue.
    warning = coverage_of(TRADITIONAL, tokenizer).warning("the references")
    assert warning is not None
    assert "7 of 14 characters of the references are no tokens" in warning
    assert "CER is at least 50.0 % (hak 75.0 %, yue 16.7 %)" in warning
    assert "Most frequent: 說 (2), 們 (1)" in warning
    assert "text.script=simplified" in warning
    assert coverage_of([(text, "hak") for text in SIMPLIFIED], tokenizer).warning("x") is None


def test_rows_have_the_numbers_and_the_table_a_column(tokenizer: Tokenizer, tmp_path: Path) -> None:
    rows = with_no_token(
        score(align_all(transcripts())), align_all(transcripts()), written_characters(tokenizer)
    )
    found = {(row.level, row.name): row.no_token for row in rows}
    assert found == {
        ("overall", "overall"): 7,
        ("dialect", "hak"): 6,
        ("dialect", "yue"): 1,
        ("site", "hak-1"): 6,
        ("site", "yue-1"): 1,
    }
    table = rate_table(rows, title="x", trained=None)
    assert [column.header for column in table.columns][-1] == "no token"
    assert list(table.columns[-1].cells) == ["50.0 %", "75.0 %", "16.7 %"]
    none = rate_table(score(align_all(transcripts())), title="x", trained=None)
    assert "no token" not in [column.header for column in none.columns]


def test_no_hypothesis_of_tokens_goes_below_the_floor(tokenizer: Tokenizer) -> None:
    known = written_characters(tokenizer)
    best = [
        Transcript(
            t.id, t.dialect, None, None, None, t.reference, "".join(c for c in t.reference if c in known)
        )
        for t in transcripts()
    ]
    (overall, *_) = with_no_token(score(align_all(best)), align_all(best), known)
    assert overall.no_token is not None
    assert overall.cer == pytest.approx(100 * overall.no_token / overall.reference_characters)


def test_tokens_of_a_directory(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    coverage = TokenCoverage.of_model(tmp_path)
    coverage.add("學 習", None)
    assert coverage.warning("x") is not None
    assert coverage.characters.total() == 2
