from pathlib import Path

import pytest

from retrieval.embedding.corrections import Correction
from retrieval.embedding.embedder import EmbedderKind
from retrieval.results.naming import result_folder
from retrieval.similarity.scores import ScoreKind


def test_defaults_are_left_out_of_the_name():
    assert result_folder(Path("m"), "retrieval", "test", dataset="data") == Path(
        "m/results/data/retrieval-test"
    )
    assert result_folder(
        Path("m"),
        "retrieval",
        "test",
        dataset="data",
        embedder=EmbedderKind.zipformer,
        score=ScoreKind.seqsim,
        correction=Correction.none,
    ) == Path("m/results/data/retrieval-test")


def test_every_part_has_its_place():
    assert (
        result_folder(Path("m"), "embeddings", "dev", dataset="d", embedder="mfcc").name
        == "embeddings-dev-mfcc"
    )
    folder = result_folder(
        Path("m"),
        "retrieval",
        "test",
        dataset="data",
        embedder="whisper-large-v2",
        layer=4,
        score=ScoreKind.dtw,
        correction=Correction.all_but_the_top,
        challenge="far",
    )
    assert folder.name == "retrieval-test-whisper-large-v2-layer04-dtw-all_but_the_top-far"


@pytest.mark.parametrize("name", ["", "a/b", "..%", "a b", "-a", "粵"])
def test_names_that_are_no_folders_are_an_error(name):
    with pytest.raises(ValueError, match="cannot be part of the name of a folder"):
        result_folder(Path("m"), "retrieval", "test", dataset="d", embedder=name)


def test_a_negative_layer_is_an_error():
    with pytest.raises(ValueError, match="layer=-1 is negative"):
        result_folder(Path("m"), "retrieval", "test", dataset="d", layer=-1)
