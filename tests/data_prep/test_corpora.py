import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import miniature
import pytest
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet
from omegaconf import MISSING
from rich.console import Console

from data_prep import corpora as registry
from data_prep.corpora import corpora, corpus_of, lists, register_corpus, utterances
from data_prep.manifests import (
    CorpusManifests,
    read_checked_cuts,
    read_recordings,
    read_supervisions,
    write_manifests,
)
from data_prep.pipeline import PrepareConfig, prepare
from zipformer.errors import UserError


@dataclass
class SomeConfig:
    root: str = "."


@pytest.fixture
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    corpora()
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    corpora.cache_clear()
    yield
    corpora.cache_clear()


def nothing(config: SomeConfig, directory: Path) -> CorpusManifests:
    return {}


@pytest.mark.usefixtures("fresh_registry")
def test_registering_a_corpus() -> None:
    register_corpus("some", SomeConfig)(nothing)
    assert corpus_of(SomeConfig()).name == "some"
    assert {"folder", "some"} <= set(corpora())


@pytest.mark.usefixtures("fresh_registry")
def test_the_reader_of_the_readme_works(tmp_path: Path) -> None:
    page = Path(registry.__file__).with_name("README.md").read_text(encoding="utf-8")
    reader, small = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {**vars(lists), **vars(utterances), **vars(miniature), **globals(), "MISSING": MISSING}
    exec(compile(f"{reader}\n{small}", "README.md", "exec", dont_inherit=True), names)
    expected = names["my_corpus"](tmp_path / "corpus")
    corpus = names["MyCorpusConfig"](root=str(tmp_path / "corpus"))
    data = tmp_path / "data"
    prepare(PrepareConfig(corpus=corpus, data_dir=str(data), num_workers=1), Console(quiet=True))
    (cut,) = read_checked_cuts(data, "train")
    assert {"train": {cut.id: (cut.supervisions[0].text, cut.supervisions[0].language)}} == expected.cuts
    problems = (data / "problems.tsv").read_text(encoding="utf-8")
    assert all(f"{name}\ttrain\t{kind}" in problems for name, kind in expected.problems)


@pytest.mark.usefixtures("fresh_registry")
def test_names_and_config_classes_are_unique() -> None:
    register_corpus("some", SomeConfig)(nothing)
    with pytest.raises(ValueError, match="clashes with the registered corpus 'some'"):
        register_corpus("other", SomeConfig)(nothing)
    with pytest.raises(ValueError, match="must be a dataclass"):
        register_corpus("other", dict)


def test_config_of_no_corpus() -> None:
    with pytest.raises(KeyError, match=r"SomeConfig is not the config of a corpus; known corpora: .*folder"):
        corpus_of(SomeConfig())


def manifests(order: str, owners: str) -> tuple[RecordingSet, SupervisionSet]:
    recordings = [
        Recording(id=name, sources=[], sampling_rate=16000, num_samples=16000, duration=1.0) for name in order
    ]
    segments = [SupervisionSegment(f"{i}", owner, 0.1 * i, 0.1) for i, owner in enumerate(owners)]
    return RecordingSet.from_recordings(recordings), SupervisionSet.from_segments(segments)


def test_supervisions_are_put_in_the_order_of_their_recordings(tmp_path: Path) -> None:
    assert write_manifests({"test": manifests("ba", "aba"), "train": manifests("c", "c")}, tmp_path) == {
        "train": 1,
        "test": 2,
    }
    assert [recording.id for recording in read_recordings(tmp_path, "test")] == ["b", "a"]
    assert [segment.id for segment in read_supervisions(tmp_path, "test")] == ["1", "0", "2"]


def test_what_a_corpus_must_not_deliver(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the splits \['dev'\]"):
        write_manifests({"dev": manifests("a", "a")}, tmp_path)
    with pytest.raises(UserError, match="no recordings"):
        write_manifests({}, tmp_path)
    with pytest.raises(UserError, match="supervision 0 belongs to recording x"):
        write_manifests({"test": manifests("a", "x")}, tmp_path)
