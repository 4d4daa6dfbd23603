from collections import Counter
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.tokens import read_token_model, train_token_model, write_tokens
from zipformer.errors import UserError

BYTES = [f"<0x{i:02X}>" for i in range(256)]


def pieces(model: bytes) -> list[str]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [processor.id_to_piece(i) for i in range(processor.get_piece_size())]


@settings(max_examples=30)
@given(
    st.lists(st.text(st.sampled_from("你好世界𠊎係AB "), min_size=1), min_size=1),
    st.integers(1, 3),
)
def test_pieces_are_the_frequent_characters(texts: list[str], min_count: int) -> None:
    counts = Counter("".join(texts).replace(" ", "▁"))
    frequent = {c for c, n in counts.items() if n >= min_count}
    if not frequent:
        return
    found = pieces(train_token_model(texts, min_count))
    assert found[:3] == ["<blk>", "<sos/eos>", "<unk>"]
    assert found[3:259] == BYTES
    assert set(found[259:]) == frequent
    assert len(found) == 259 + len(frequent)
    ranked = [counts[c] for c in found[259:]]
    assert ranked == sorted(ranked, reverse=True)


def test_model_depends_only_on_the_counts() -> None:
    assert train_token_model(["你好", "世界好"]) == train_token_model(["好世界", "好你"])


def test_no_text_is_an_error() -> None:
    with pytest.raises(UserError, match=r"no character occurs 1 times.*split train"):
        train_token_model([])
    with pytest.raises(UserError, match=r"lower tokens\.min_count"):
        train_token_model(["你好"], min_count=2)


def test_reuse(tmp_path: Path) -> None:
    model = train_token_model(["你好"])
    assert write_tokens(model, tmp_path) == 261
    assert read_token_model(tmp_path) == model
    assert read_token_model(tmp_path / "tokens.model") == model
    with pytest.raises(UserError, match=r"tokens\.reuse: .*nowhere does not exist"):
        read_token_model(tmp_path / "nowhere")
    (tmp_path / "tokens.model").write_bytes(b"xx")
    with pytest.raises(UserError, match="is not a sentencepiece model"):
        read_token_model(tmp_path)
