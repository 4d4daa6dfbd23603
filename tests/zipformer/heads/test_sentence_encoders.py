"""Text encoders: n-grams against counts, a small encoder of transformers, and what a batch says."""

from pathlib import Path

import pytest
import torch
from lhotse import SupervisionSegment

from zipformer.data.cuts import sentence_of
from zipformer.heads.sentence_encoders import (
    NgramEncoder,
    TeacherConfig,
    build_sentence_encoder,
    different_sentences,
    encoder_problem,
)


def test_ngrams_of_a_sentence() -> None:
    encoder = NgramEncoder(8, 2)
    assert list(encoder.ngrams("天天好")) == ["天", "天", "好", "\x02天", "天天", "天好", "好\x03"]
    assert list(NgramEncoder(8, 1).ngrams("天天")) == ["天", "天"]


def test_cosines_are_those_of_the_counts() -> None:
    """Of sentences with 3 common characters of 4, and with none; a large dimension leaves little noise."""
    encoder = NgramEncoder(40_000, 1)
    embeddings = encoder(["天地玄黄", "天地玄宇", "日月盈昃"])
    cosines = embeddings @ embeddings.T
    expected = torch.tensor([[1, 0.75, 0], [0.75, 1, 0], [0, 0, 1]])
    torch.testing.assert_close(cosines, expected, rtol=0, atol=0.025)  # five standard deviations


def test_order_counts_with_longer_ngrams_only() -> None:
    for longest, equal in ((1, True), (2, False)):
        one, other = NgramEncoder(64, longest)(["我打他", "他打我"])
        assert torch.allclose(one, other) == equal


def test_embeddings_are_the_same_everywhere_and_whatever_is_beside_them() -> None:
    encoder = build_sentence_encoder(TeacherConfig(ngram_dim=32))
    alone = encoder(["今天天气好"])
    assert encoder.dim == 32
    assert torch.equal(encoder(["你好", "今天天气好"])[1:], alone)
    assert torch.equal(build_sentence_encoder(TeacherConfig(ngram_dim=32))(["今天天气好"]), alone)
    # Drawn from a hash: this number must never change, or models would have been taught by another teacher.
    assert NgramEncoder(4, 1)(["好"])[0].tolist() == pytest.approx(
        [0.341613, -0.546054, 0.249559, -0.723081], abs=1e-6
    )


@pytest.fixture
def small_bert(tmp_path: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"今天气好你我"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    transformers.BertModel(config).save_pretrained(tmp_path)
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    return tmp_path


def test_encoder_of_hugging_face_is_the_mean_of_its_states(small_bert: Path) -> None:
    import transformers

    encoder = build_sentence_encoder(TeacherConfig(encoder=str(small_bert)))
    assert encoder.dim == 16
    found = encoder(["今天天气好", "你好"])
    assert not found.requires_grad
    model = transformers.AutoModel.from_pretrained(small_bert).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(small_bert)
    for sentence, embedding in zip(["今天天气好", "你好"], found, strict=True):
        with torch.no_grad():
            states = model(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0]
        torch.testing.assert_close(embedding, states.mean(0), rtol=1e-4, atol=1e-5)
    assert torch.equal(encoder(["你好"])[0], found[1])


def test_an_encoder_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(ValueError, match=r"cannot be loaded (.|\n)*: give ngrams, a directory"):
        build_sentence_encoder(TeacherConfig(encoder=str(tmp_path)))
    monkeypatch.setattr("zipformer.heads.sentence_encoders.find_spec", lambda name: None)
    assert encoder_problem("ngrams") is None
    with pytest.raises(ValueError, match=r"install the extra huggingface, or set teacher\.encoder=ngrams"):
        build_sentence_encoder(TeacherConfig(encoder="some/model"))


def test_sentences_of_a_batch() -> None:
    supervision = SupervisionSegment("u1", "r1", 0.0, 1.0, text="佢好", custom={"translation": "他好"})
    assert sentence_of(supervision, "text") == "佢好"
    assert sentence_of(supervision, "translation") == "他好"
    with pytest.raises(ValueError, match="utterance u1 has no 'english'"):
        sentence_of(supervision, "english")
    assert different_sentences(["b", "a", "b", "c"]) == (["b", "a", "c"], [0, 1, 0, 2])


@pytest.mark.parametrize("name", ["ngram_dim", "longest_ngram"])
def test_settings_out_of_range_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"teacher.{name}=0 must be at least 1"):
        TeacherConfig(**{name: 0})  # type: ignore[arg-type]
