"""The file that lists the corpora of a mixture."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_corpus import write_tiny_corpus

from zipformer.data.batches import TrainingData
from zipformer.data.mixing import CorpusShare, MixingConfig
from zipformer.data.mixture_file import read_mixture, with_listed_corpora
from zipformer.data.selection import DataConfig
from zipformer.data.tokenizer import Tokenizer
from zipformer.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cuts_train.jsonl.gz").touch()
    return tmp_path


def write(folder: Path, text: str) -> Path:
    file = folder / "mixture.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_corpora_are_relative_to_the_file(folder: Path) -> None:
    file = write(
        folder, "corpora:\n- {data_dir: one}\n- {manifest: two/cuts_train.jsonl.gz, weight: 2, group: yue}\n"
    )
    expected = [CorpusShare(str(folder / "one")), CorpusShare(str(folder / "two"), 2.0, "yue")]
    assert read_mixture(file) == expected
    mixing = with_listed_corpora(MixingConfig(file=str(file), weight=5.0))
    assert mixing.corpora == expected
    assert mixing.weights == [1.0, 2.0]  # data_dir is not trained on


def test_an_absent_corpus_is_an_error_unless_told_otherwise(folder: Path) -> None:
    file = write(folder, "corpora:\n- {data_dir: one}\n- {data_dir: three}\n")
    with pytest.raises(UserError, match=r"without cuts_train.jsonl.gz: .*three.*absent=skip"):
        read_mixture(file)
    assert read_mixture(file, "skip") == [CorpusShare(str(folder / "one"))]
    with pytest.raises(UserError, match=r"no corpus of .* is prepared"):
        read_mixture(write(folder, "corpora:\n- {data_dir: three}\n"), "skip")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("corpora: [", "not a YAML file"),
        ("- one\n", "lists no corpora"),
        ("corpora:\n- one\n", r"corpus 1: 'one' is no corpus"),
        ("corpora:\n- {data_dir: one}\n- {data_dir: two, wieght: 2}\n", "corpus 2: wieght is not known"),
        ("corpora:\n- {weight: 2}\n", "give either data_dir or manifest"),
        ("corpora:\n- {data_dir: one, weight: -1}\n", "weight is -1"),
        ("corpora:\n- {data_dir: one, weight: .nan}\n", "weight is nan"),
        ("corpora:\n- {data_dir: one, group: 3}\n", "group is 3, not a text"),
        ("corpora:\n- {data_dir: one}\n- {data_dir: two/../one}\n", "lists .*one twice"),
        ("corpora:\n- {manifest: one/cuts_test.jsonl.gz}\n", "is not the cuts_train.jsonl.gz"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_mixture(write(folder, text))


def test_corpora_are_given_in_one_way(folder: Path) -> None:
    file = write(folder, "corpora:\n- {data_dir: one}\n")
    with pytest.raises(UserError, match="give one of them"):
        with_listed_corpora(MixingConfig(file=str(file), corpora=[CorpusShare("two")]))


def test_only_the_listed_corpora_are_trained_on_and_their_groups_are_checked(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    corpus = write_tiny_corpus(tmp_path / "one", utterances=24)
    file = write(tmp_path, "corpora:\n- {data_dir: one}\n")
    tokenizer = Tokenizer.load(corpus / "tokens")
    nowhere = tmp_path / "nowhere" / "cuts_train.jsonl.gz"
    config = DataConfig(num_workers=0, mixing=with_listed_corpora(MixingConfig(file=str(file))))
    assert TrainingData(nowhere, tokenizer, config).selection.utterances == 24
    write(tmp_path, "corpora:\n- {data_dir: one, group: gan}\n")
    wrong = replace(config, mixing=with_listed_corpora(MixingConfig(file=str(file))))
    with pytest.raises(UserError, match="the mixture says group gan, but there are utterances of"):
        TrainingData(nowhere, tokenizer, wrong)
