"""What several corpora have in common: tokens, validation, and groups that no model hears."""

import json
from pathlib import Path

import pytest
from bare_corpora import cut, write_corpus
from lhotse import load_manifest

from data_prep.mixture import MixtureConfig, write_mixture
from zipformer.data.selection import sentences_of_tests, speakers_of_tests
from zipformer.data.tokenizer import Tokenizer
from zipformer.errors import UserError


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A mixture file of two corpora, both with Gan."""
    one = write_corpus(
        tmp_path / "one",
        train=[
            cut("a", "你好", "one-1", "yue"),
            cut("b", "渠", "one-2", "gan"),
            cut("b_sp0.9", "渠", "one-2", "gan"),
            cut("a_sp0.9", "你好", "one-1", "yue"),
        ],
        valid=[cut("c", "好", "one-3", "yue"), cut("d", "恰饭", "one-4", "gan")],
    )
    settings = {"fbank.speed_factors": [0.9, 1.0]}
    (one / "prepare.json").write_text(json.dumps({"directory": str(one), "settings": settings, "stages": {}}))
    write_corpus(
        tmp_path / "two",
        train=[cut("e", "早", None, "hak")],
        test=[cut("f", "崽", None, "gan"), cut("g", "早晨", "two-1", "hak")],
    )
    file = tmp_path / "corpora.yaml"
    file.write_text("corpora:\n- {data_dir: one}\n- {data_dir: two}\n")
    return file


def ids(file: Path) -> list[str]:
    return [one.id for one in load_manifest(file)]


def test_held_out_groups_are_a_test_set_of_their_own(listed: Path, tmp_path: Path) -> None:
    mixture = tmp_path / "mixture"
    write_mixture(MixtureConfig(str(listed), str(mixture), held_out=["gan"]))
    assert ids(mixture / "cuts_test.jsonl.gz") == ["b", "d", "f"]
    assert ids(mixture / "cuts_valid.jsonl.gz") == ["c"]
    pieces = Tokenizer.load(mixture / "tokens").pieces
    assert set("你好早") <= set(pieces)
    assert not set("渠恰饭崽") & set(pieces)
    assert sentences_of_tests([str(mixture)]) == {"渠", "恰饭", "崽"}
    assert speakers_of_tests([str(mixture)]) == {"one-2", "one-4"}
    assert "one\tgan\t2\t" in (mixture / "hours.tsv").read_text(encoding="utf-8")
    # Without held-out groups, the test set of an earlier run does not stay.
    write_mixture(MixtureConfig(str(listed), str(mixture)))
    assert not (mixture / "cuts_test.jsonl.gz").exists()
    assert ids(mixture / "cuts_valid.jsonl.gz") == ["c", "d"]
    assert "渠" in Tokenizer.load(mixture / "tokens").pieces


def test_held_out_groups_that_are_nowhere(listed: Path, tmp_path: Path) -> None:
    write_mixture(MixtureConfig(str(listed), str(tmp_path / "mixture"), held_out=["cdo"]))
    assert not (tmp_path / "mixture" / "cuts_test.jsonl.gz").exists()
    with pytest.raises(UserError, match="held_out=gann is no dialect group; choose of cmn, "):
        write_mixture(MixtureConfig(str(listed), str(tmp_path / "mixture"), held_out=["gann"]))
