"""Proper nouns and numbers found by real taggers."""

import sys
from pathlib import Path

import pytest

from retrieval.challenge.settings import NamesConfig, TaggerKind
from retrieval.challenge.taggers import named_words, tagger_version

SPACY = TaggerKind.spacy


def test_jieba_finds_names_and_numbers() -> None:
    pytest.importorskip("jieba")
    texts = ["他昨天去北京了", "我买了三本书", "他不喜欢吃饭", "他不喜欢吃饭"]
    found = named_words(texts, NamesConfig())
    assert found == {"他昨天去北京了": ["北京/ns"], "我买了三本书": ["三/m"], "他不喜欢吃饭": []}
    assert named_words(texts, NamesConfig(tags=["ns"]))["我买了三本书"] == []
    assert tagger_version(NamesConfig()).startswith("jieba 0.")


def test_spacy_finds_what_its_pipeline_tags(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy")
    pipeline = spacy.blank("zh")  # cuts into characters
    ruler = pipeline.add_pipe("attribute_ruler")
    ruler.add([[{"TEXT": "京"}]], {"POS": "PROPN"})
    ruler.add([[{"TEXT": "三"}]], {"POS": "NUM"})
    pipeline.to_disk(tmp_path / "pipeline")
    config = NamesConfig(tagger=SPACY, spacy_model=str(tmp_path / "pipeline"))
    assert named_words(["去北京", "三天"], config) == {"去北京": ["京/PROPN"], "三天": ["三/NUM"]}
    with pytest.raises(ValueError, match=r"no spaCy pipeline 'zh_none': python -m spacy download zh_none"):
        named_words(["去北京"], NamesConfig(tagger=SPACY, spacy_model="zh_none"))


@pytest.mark.parametrize(("kind", "extra"), [(TaggerKind.jieba, "challenge"), (SPACY, "spacy")])
def test_an_absent_tagger_names_the_remedy(
    kind: TaggerKind, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, kind.value, None)
    with pytest.raises(ValueError, match=rf"not installed: pip install 'fangyan\[{extra}\]'"):
        named_words(["去北京"], NamesConfig(tagger=kind))
