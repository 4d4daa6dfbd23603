"""Files and folders that change as a whole, with the mode of the umask; places that cannot be written."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from kill_points import kill_points
from safetensors.torch import load_file
from small_model import write_model

from zipformer import files
from zipformer.files import (
    StorageError,
    check_writable,
    place_errors,
    replacing,
    replacing_folder,
    write_csv,
    write_tensors,
)
from zipformer.results_place import results_place

CONTENT = {"a.txt", "b.txt", "other"}


@pytest.fixture(params=[0o022, 0o002, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_file_of_a_model_has_the_mode_of_the_umask(tmp_path: Path, umask: int) -> None:
    write_model(tmp_path / "model")
    written = [tmp_path / "model", *(tmp_path / "model").iterdir()]
    assert len(written) == 5
    for path in written:
        assert mode(path) == (0o777 if path.is_dir() else 0o666) & ~umask, path.name


def test_tensors_over_an_older_file_keep_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for value in (1.0, 2.0):
        write_tensors({"a": torch.full((3,), value)}, path)
        path.chmod(0o640)
    write_tensors({"a": torch.full((3,), 3.0)}, path)
    assert mode(path) == 0o640
    assert load_file(path)["a"].tolist() == [3.0] * 3


def write_both(directory: Path, text: str) -> None:
    with replacing_folder(directory) as folder:
        for name in ("a.txt", "b.txt"):
            (folder / name).write_text(text)


@pytest.mark.parametrize("exchange", [True, False])
def test_a_kill_at_any_file_operation_mixes_no_two_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda left, right: False)
    for point in kill_points():
        directory = tmp_path / str(point.number) / "results"
        write_both(directory, "old")
        (directory / "other" / "deep").mkdir(parents=True)
        (directory / "other" / "deep" / "file").write_text("stays")
        with point:
            write_both(directory, "new")
        if directory.exists():  # always where folders can be exchanged
            assert {path.name for path in directory.iterdir()} == CONTENT
            texts = {(directory / name).read_text() for name in ("a.txt", "b.txt")}
            assert texts in ({"old"}, {"new"})
        else:
            assert not exchange
        write_both(directory, "new")
        assert (directory / "other" / "deep" / "file").read_text() == "stays"
        assert (directory / "a.txt").read_text() == "new"
        assert [path.name for path in directory.parent.iterdir()] == ["results"]
    assert point.number > 5


def test_other_files_of_a_folder_go_where_they_are_not_kept(tmp_path: Path) -> None:
    write_both(tmp_path / "results", "old")
    with replacing_folder(tmp_path / "results", keep_others=False) as folder:
        (folder / "a.txt").write_text("new")
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["a.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_table_has_a_line_of_names_and_empty_fields_for_none(tmp_path: Path) -> None:
    rows = [{"name": "a,b", "value": 0.5}, {"name": "方言", "value": None}]
    write_csv(tmp_path / "rows.csv", ["name", "value"], rows)
    assert (tmp_path / "rows.csv").read_bytes().decode() == 'name,value\r\n"a,b",0.5\r\n方言,\r\n'
    write_csv(tmp_path / "rows.csv", ["name", "value"], [])
    assert (tmp_path / "rows.csv").read_bytes() == b"name,value\r\n"


def test_an_error_leaves_a_folder_as_it_was(tmp_path: Path) -> None:
    def write() -> None:
        with replacing_folder(tmp_path / "results") as folder:
            (folder / "a.txt").write_text("new")
            raise KeyError

    write_both(tmp_path / "results", "old")
    with pytest.raises(KeyError):
        write()
    assert (tmp_path / "results" / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_linked_folder_stays_a_link_and_keeps_its_mode(tmp_path: Path) -> None:
    real, link = tmp_path / "disk" / "model", tmp_path / "model"
    write_both(real, "old")
    real.chmod(0o2775)
    link.symlink_to(real)
    (real / "latest").symlink_to("a.txt")
    write_both(link, "new")
    assert link.is_symlink()
    assert (real / "latest").readlink() == Path("a.txt")
    assert (real / "latest").read_text() == "new"
    assert mode(real) == 0o2775


def test_a_mount_point_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_both(tmp_path / "results", "old")
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    with pytest.raises(StorageError, match=r"is a mount point.*give a folder in it"):
        write_both(tmp_path / "results", "new")


def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    for point in kill_points():
        path = tmp_path / f"{point.number}.json.gz"
        path.write_text("old")
        with point, replacing(path) as temporary:
            assert temporary.suffixes == path.suffixes
            temporary.write_text("new")
        assert path.read_text() == ("old" if point.killed else "new")


def test_two_processes_write_a_shared_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "dataset.json"
    with replacing(path, shared=True) as first:
        first.write_text("first")
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with replacing(path, shared=True) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_errors_of_a_place_are_one_line_with_the_remedy(code: int) -> None:
    with pytest.raises(StorageError) as caught, place_errors("exp/a", "choose another exp_dir"):
        raise OSError(code, os.strerror(code), "exp/a/metrics.jsonl")
    assert str(caught.value) == f"exp/a/metrics.jsonl: {os.strerror(code)}; choose another exp_dir"


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(FileNotFoundError), place_errors("exp/a", "choose another exp_dir"):
        raise FileNotFoundError(errno.ENOENT, "not there", "x")


def test_a_full_disk_is_said_by_tensors_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "save_file", full_disk)
    with pytest.raises(StorageError, match="give it more"), place_errors(tmp_path, "give it more"):
        write_tensors({"a": torch.zeros(1 << 40, device="meta")}, tmp_path / "model.safetensors")


def full_disk(*args: object) -> None:
    raise files.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_what_cannot_be_written_is_found_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file is a file; choose another exp_dir"):
        check_writable(tmp_path / "file" / "exp", "choose another exp_dir")
    check_writable(tmp_path / "a" / "b", "")
    monkeypatch.setattr(os, "access", lambda path, rights: False)
    with pytest.raises(StorageError, match=r"is read-only or belongs to .*; choose another exp_dir"):
        check_writable(tmp_path / "a" / "b", "choose another exp_dir")
    assert not (tmp_path / "a").exists()


def test_results_of_a_read_only_model_go_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = tmp_path / "model", tmp_path / "other"
    write_model(model)
    write_model(other, seed=1)
    (model / "results").mkdir()
    assert results_place(model, None) == model
    place = results_place(model, str(tmp_path / "mine"))
    assert results_place(model, str(place)) == place  # for the second time
    assert {path.name: path.read_bytes() for path in place.iterdir()} == {
        path.name: path.read_bytes() for path in model.iterdir() if path.is_file()
    }
    with pytest.raises(StorageError, match="belongs to another model"):
        results_place(other, str(place))
    monkeypatch.setattr(os, "access", lambda path, rights: False)
    with pytest.raises(StorageError, match="results_dir=DIR"):
        results_place(model, None)
