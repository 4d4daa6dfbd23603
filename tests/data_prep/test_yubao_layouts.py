"""Layouts of YuBao's files that its users have: other names, links, a cache of the Hugging Face Hub."""

import os
import shutil
from pathlib import Path

import pytest
from lhotse import load_manifest
from yubao_data import SITES, Benchmark, refused, run

from data_prep.corpora.yubao.metadata import COLUMNS, metadata_files, read_metadata
from data_prep.corpora.yubao.sites import read_sites
from zipformer.errors import UserError


def test_recordings_named_by_city_and_number(
    benchmark_data: Benchmark, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in sorted((benchmark_data.audio / SITES["11127"][1]).iterdir()):
        path.rename(path.with_name(f"河北_{path.stem[-4:]}.wav"))
    folder = benchmark_data.audio / SITES["10G71"][1]
    for path in sorted(folder.iterdir()):
        path.rename(path.with_name(f"苏州_{path.stem[-4:]}.wav"))
    folder.rename(benchmark_data.audio / "10G71")  # the id of a site is a name as well
    with caplog.at_level("WARNING"):
        prepared = run(tmp_path, benchmark_data.config())
    cuts = {cut.id: cut for cut in load_manifest(prepared / "cuts_test.jsonl.gz")}
    assert len(cuts) == 11
    for site_id in ("11127", "10G71"):
        for number in range(1, 5):
            source = cuts[f"{site_id}mb01yf{number:04d}"].recording.sources[0].source
            assert source.endswith(f"_{number:04d}.wav")
            assert cuts[f"{site_id}mb01yf{number:04d}"].supervisions[0].custom["sentence_id"] == str(number)
    assert "8 recordings are named by number" in caplog.text


def test_numbers_that_do_not_tell_the_sentence_are_named(benchmark_data: Benchmark, tmp_path: Path) -> None:
    # The site lacks sentence 3: is the third video sentence 3 or 4?
    for path in sorted((benchmark_data.audio / SITES["08207"][1]).iterdir()):
        path.rename(path.with_name(f"杭州_{path.stem[-4:]}.wav"))
    message = refused(tmp_path, benchmark_data.config())
    assert "08207 浙江_杭州_上城 (wuu) has no recording" in message
    assert "3 recordings are named by number (浙江_杭州_上城/杭州_0001.wav" in message
    assert "rename them to their utterance ids (15J15mb01yf0001.mp4)" in message


def test_linked_folders_and_cycles_of_links(benchmark_data: Benchmark, tmp_path: Path) -> None:
    folder = benchmark_data.audio / SITES["11127"][1]
    folder.rename(tmp_path / "other disk")
    folder.symlink_to(tmp_path / "other disk")
    (tmp_path / "other disk" / "back").symlink_to(benchmark_data.audio)
    config = benchmark_data.config()
    prepared = run(tmp_path, config)
    assert len(list(load_manifest(prepared / "cuts_test.jsonl.gz"))) == 11
    (tmp_path / "other disk" / "new.wav").touch()  # is noticed, although it is behind a link
    with pytest.raises(UserError, match="prepared with other settings"):
        run(tmp_path, config)


def test_a_cache_of_the_hugging_face_hub_as_metadata(benchmark_data: Benchmark, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    config = benchmark_data.config()
    hub = tmp_path / "hub"

    def add(name: str, revision: str, table: object, time: int) -> Path:
        home = hub / f"datasets--kalbin--{name}"
        blob = home / "blobs" / f"{name}{revision}"
        blob.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, blob)
        link = home / "snapshots" / revision / "data" / "train-00000-of-00001.parquet"
        link.parent.mkdir(parents=True)
        link.symlink_to(blob)
        os.utime(home / "snapshots" / revision, (time, time))
        return blob

    def table(rows: list[dict[str, str]]) -> object:
        return pyarrow.table({name: [row[name] for row in rows] for name in COLUMNS})

    add("yubao_sites", "r1", pyarrow.table({"site_id": ["11127"], "site": ["x"]}), 1)
    add("yubao_videos", "aa", table(benchmark_data.rows), 2)
    add("yubao_videos", "ab", table(benchmark_data.rows[:4]), 1)  # an older revision
    config.metadata = str(hub)
    prepared = run(tmp_path, config)
    assert len(list(load_manifest(prepared / "cuts_test.jsonl.gz"))) == 11
    # The blob itself has no suffix.
    files = metadata_files(hub / "datasets--kalbin--yubao_videos" / "blobs" / "yubao_videosaa")
    assert len(read_metadata(files, read_sites(Path(config.site_list or ""))).sentences["11127"]) == 4
    config.metadata = str(hub / "datasets--kalbin--yubao_sites")
    shutil.rmtree(prepared)
    message = refused(tmp_path, config)
    assert "no table of utterances (yubao_videos)" in message
    assert "its columns are site_id, site" in message
