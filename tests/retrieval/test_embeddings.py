import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kill_points import kill_points

from retrieval.embedding.store import EmbeddingStore, EmbeddingWriter, fingerprint, is_complete
from zipformer.errors import UserError


def writer(directory, *, dimension=3, dtype="float32", mark="model-a"):
    return EmbeddingWriter(directory, dimension=dimension, dtype=dtype, embedder="test", fingerprint=mark)


def frames(seed, T=4, D=3):
    return np.random.default_rng(seed).standard_normal((T, D)).astype(np.float32)


class Killed(BaseException):
    """Stands in for a signal: the writer gets no chance to finish."""


def stop_after(directory, names, **options):
    def run():
        with writer(directory, **options) as store:
            for name in names:
                store.add(name, frames(int(name[1:])), dialect="cmn")
            raise Killed

    with pytest.raises(Killed):
        run()


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=20),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_round_trip(tmp_path_factory, lengths, dtype):
    directory = tmp_path_factory.mktemp("round") / "store"
    written = {f"u{n}": frames(n, T).astype(dtype) for n, T in enumerate(lengths)}
    with writer(directory, dtype=dtype) as store:
        for name, array in written.items():
            store.add(
                name, array, dialect="hak", subdialect="hak-sixian", site="美濃", sentence_id=f"s{name}"
            )
    read = EmbeddingStore(directory)
    assert read.frames.dtype == dtype
    assert isinstance(read.frames, np.memmap)
    assert read.frames.shape == (sum(lengths), 3)
    assert list(read.utterances) == list(written)
    for entry in read:
        np.testing.assert_array_equal(read[entry.utterance_id], written[entry.utterance_id])
        assert (entry.dialect, entry.subdialect, entry.site) == ("hak", "hak-sixian", "美濃")
    np.testing.assert_allclose(
        read.mean_frame(block=7),
        np.concatenate(list(written.values())).astype(np.float64).mean(axis=0),
        atol=1e-6,
    )
    assert not directory.with_name("store.partial").exists()


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    directory = tmp_path / "store"
    stop_after(directory, ["u0", "u1"])
    assert not directory.exists()
    with writer(directory) as store:
        assert list(store.written) == ["u0", "u1"]
        store.add("u2", frames(2, T=9), dialect="cmn")
    read = EmbeddingStore(directory)
    for name, T in (("u0", 4), ("u1", 4), ("u2", 9)):
        np.testing.assert_array_equal(read[name], frames(int(name[1]), T))


@pytest.mark.parametrize("file", ["frames.npy", "index.tsv"])
@pytest.mark.parametrize("lost", [1, 7, 13])
def test_what_the_kill_cut_off_is_embedded_again(tmp_path, file, lost):
    directory = tmp_path / "store"
    stop_after(directory, ["u0", "u1"])
    path = tmp_path / "store.partial" / file
    path.write_bytes(path.read_bytes()[:-lost])
    with writer(directory) as store:
        assert list(store.written) == ["u0"]
        store.add("u1", frames(1), dialect="cmn")
    read = EmbeddingStore(directory)
    assert list(read.utterances) == ["u0", "u1"]
    np.testing.assert_array_equal(read["u0"], frames(0))
    np.testing.assert_array_equal(read["u1"], frames(1))


def test_frames_without_their_index_line_are_cut_off(tmp_path):
    directory = tmp_path / "store"
    stop_after(directory, ["u0"])
    with (tmp_path / "store.partial" / "frames.npy").open("ab") as file:
        file.write(b"\x01" * 30)
    with writer(directory) as store:
        store.add("u1", frames(1), dialect="cmn")
    np.testing.assert_array_equal(EmbeddingStore(directory)["u1"], frames(1))


def test_a_kill_before_the_first_frame(tmp_path):
    directory = tmp_path / "store"
    stop_after(directory, [])
    (tmp_path / "store.partial" / "frames.npy").write_bytes(b"")
    with writer(directory) as store:
        store.add("u0", frames(0), dialect="cmn")
    np.testing.assert_array_equal(EmbeddingStore(directory)["u0"], frames(0))


@pytest.mark.parametrize("change", [{"mark": "model-b"}, {"dtype": "float16"}])
def test_work_of_another_model_is_not_continued(tmp_path, change):
    directory = tmp_path / "store"
    stop_after(directory, ["u0"])
    with writer(directory, **change) as store:
        assert not store.written
        store.add("u5", frames(5), dialect="cmn")
    assert list(EmbeddingStore(directory).utterances) == ["u5"]


def test_a_finished_store_is_replaced_only_when_the_next_is_whole(tmp_path):
    directory = tmp_path / "store"
    with writer(directory) as store:
        store.add("u0", frames(0), dialect="cmn")
    stop_after(directory, ["u7"], mark="model-b")
    assert list(EmbeddingStore(directory).utterances) == ["u0"]
    with writer(directory, mark="model-b") as store:
        store.add("u8", frames(8), dialect="cmn")
    assert list(EmbeddingStore(directory).utterances) == ["u7", "u8"]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((2, 3), np.nan), "utterance u1: the embeddings hold values that are not finite"),
        (np.full((2, 3), 1e6), "not finite in float16"),
        (np.ones((2, 4)), r"utterance u1: embeddings must be \(frames >= 1, 3\), found \(2, 4\)"),
        (np.ones((0, 3)), r"found \(0, 3\)"),
    ],
)
def test_bad_embeddings_are_named(tmp_path, array, message):
    with writer(tmp_path / "store", dtype="float16") as store:
        with pytest.raises(ValueError, match=message):
            store.add("u1", array, dialect="cmn")
        store.add("u1", np.ones((1, 3)), dialect="cmn")  # the failed one left nothing behind
    assert len(EmbeddingStore(tmp_path / "store").frames) == 1


def test_bad_ids_are_named(tmp_path):
    with writer(tmp_path / "store") as store:
        store.add("u1", frames(1), dialect="cmn")
        with pytest.raises(ValueError, match="utterance u1 is embedded twice"):
            store.add("u1", frames(1), dialect="cmn")
        with pytest.raises(ValueError, match="a tab or line break"):
            store.add("u2", frames(1), dialect="cmn", site="a\tb")
        with pytest.raises(ValueError, match="a tab or line break"):
            store.add("u2\u2028", frames(1), dialect="cmn")
    with pytest.raises(KeyError, match="no utterance 'u9' among the 1 of"):
        EmbeddingStore(tmp_path / "store")["u9"]


def test_unknown_storage_type(tmp_path):
    with pytest.raises(ValueError, match="must be one of float32, float16; found 'int8'"):
        writer(tmp_path / "store", dtype="int8")


def test_missing_store_says_how_to_make_it(tmp_path):
    with pytest.raises(UserError, match=r"no embeddings at .*fangyan embed"):
        EmbeddingStore(tmp_path / "store")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("utterance_id", "id", "line 1: columns must be utterance_id, offset"),
        ("u1\t4\t4", "u1\t5\t4", "line 3: utterance u1 has offset 5 and 4 frames, expected offset 4"),
        ("u1\t4\t4", "u1\tx\t4", "line 3: not an entry of an index"),
        ("u1\t4\t4", "u0\t4\t4", "line 3: utterance u0 is there twice"),
        ("u1\t4\t4", "u1\t4\t3", r"describes 7 frames and frames\.npy holds 8"),
    ],
)
def test_damaged_index_is_named(tmp_path, old, new, message):
    directory = tmp_path / "store"
    with writer(directory) as store:
        store.add("u0", frames(0), dialect="cmn")
        store.add("u1", frames(1), dialect="cmn")
    path = directory / "index.tsv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        EmbeddingStore(directory)


def test_fingerprint_follows_content_and_options(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"abc")
    first = fingerprint([path], {"storage": "float32"})
    assert first == fingerprint([path], {"storage": "float32"})
    assert first != fingerprint([path], {"storage": "float16"})
    path.write_bytes(b"abd")
    assert first != fingerprint([path], {"storage": "float32"})


def test_description_says_what_made_it(tmp_path):
    with writer(tmp_path / "store") as store:
        store.add("u0", frames(0), dialect="cmn")
    content = json.loads((tmp_path / "store" / "embeddings.json").read_text())
    assert content == {
        "embedder": "test",
        "fingerprint": "model-a",
        "dimension": 3,
        "dtype": "float32",
        "weights": None,
        "dataset": None,
    }


@pytest.mark.parametrize("file", ["frames.npy", "index.tsv", "embeddings.json"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_a_damaged_store_is_named_and_made_again(tmp_path, caplog, file, damage):
    directory = tmp_path / "store"

    def embed():
        """As fangyan embed does."""
        if is_complete(directory, "model-a"):
            return False
        with writer(directory, mark="model-a") as store:
            store.add("u0", frames(0), dialect="cmn")
        return True

    assert embed()
    assert not embed()
    damage(directory / file)
    with pytest.raises(UserError, match=r"embed"):
        EmbeddingStore(directory)
    assert embed()
    assert str(directory) in caplog.text
    assert not embed()
    np.testing.assert_array_equal(EmbeddingStore(directory)["u0"], frames(0))


def test_damaged_unfinished_work_is_named_and_done_again(tmp_path, caplog):
    directory = tmp_path / "store"
    stop_after(directory, ["u0", "u1"])
    index = tmp_path / "store.partial" / "index.tsv"
    index.write_text(index.read_text().replace("u0", "u0\tu0"))
    with writer(directory) as store:
        assert not store.written
        store.add("u0", frames(0), dialect="cmn")
    assert "damaged, starting again" in caplog.text
    assert list(EmbeddingStore(directory).utterances) == ["u0"]


def test_a_kill_at_any_file_operation_leaves_a_whole_store(tmp_path):
    for point in kill_points():
        directory = tmp_path / str(point.number) / "store"
        for mark in ("model-a", "model-b"):
            killed = point if mark == "model-b" else contextlib.nullcontext()
            with killed, writer(directory, mark=mark) as store:
                store.add(mark, frames(3), dialect="cmn")
        assert list(EmbeddingStore(directory).utterances) in (["model-a"], ["model-b"])
        with writer(directory, mark="model-b") as store:
            if not store.written:
                store.add("model-b", frames(3), dialect="cmn")
        assert list(EmbeddingStore(directory).utterances) == ["model-b"]
        assert [path.name for path in directory.parent.iterdir()] == ["store"]
    assert point.number > 5
