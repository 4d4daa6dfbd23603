from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from data_prep.tokens import train_token_model
from zipformer.data.tokenizer import SPECIAL_PIECES, Tokenizer
from zipformer.errors import UserError

MODEL = train_token_model(["你好世界", "𠊎好 HELLO"])
TOKENIZER = Tokenizer(MODEL)


def test_characters_of_the_corpus_are_one_token_each() -> None:
    ids = TOKENIZER.encode("你好")
    assert [TOKENIZER.pieces[i] for i in ids] == ["你", "好"]
    assert len(TOKENIZER.encode("𠊎好 HELLO")) == 8


def test_other_characters_are_their_bytes() -> None:
    assert [TOKENIZER.pieces[i] for i in TOKENIZER.encode("龘")] == ["<0xE9>", "<0xBE>", "<0x98>"]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁")))
def test_any_text_survives(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert all(len(SPECIAL_PIECES) <= i < TOKENIZER.size for i in ids)


@given(st.lists(st.integers(0, TOKENIZER.size - 1)))
def test_any_ids_can_be_decoded(ids: list[int]) -> None:
    assert isinstance(TOKENIZER.decode(ids), str)


def test_special_ids() -> None:
    assert TOKENIZER.pieces[:3] == ["<blk>", "<sos/eos>", "<unk>"]
    (you,) = TOKENIZER.encode("你")
    assert TOKENIZER.decode([0, you, 1, you, 2]) == "你你⁇"


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    first_of_three = TOKENIZER.encode("龘")[0]
    assert TOKENIZER.decode([first_of_three, *TOKENIZER.encode("你")]) == "\ufffd你"


def test_saved_files(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    assert Tokenizer.load(tmp_path).pieces == TOKENIZER.pieces
    assert Tokenizer.load(tmp_path / "tokens.model").encode("你好") == TOKENIZER.encode("你好")
    lines = (tmp_path / "tokens.txt").read_text(encoding="utf-8").splitlines()
    assert [line.rsplit(" ", 1) for line in lines] == [
        [piece, str(i)] for i, piece in enumerate(TOKENIZER.pieces)
    ]


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokens\.model: no tokenizer there"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokens.model").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"tokens\.model: not a sentencepiece model"):
        Tokenizer.load(tmp_path)


def test_a_model_with_other_special_ids_is_refused(tmp_path: Path) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["你好世界"]),
        model_prefix=str(tmp_path / "other"),
        model_type="char",
        vocab_size=8,
        minloglevel=2,
    )
    with pytest.raises(ValueError, match="the first pieces are"):
        Tokenizer.load(tmp_path / "other.model")
