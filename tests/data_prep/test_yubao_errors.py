"""Data of YuBao that cannot be used: one message that names them, and nothing prepared."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console
from yubao_data import RATE, SITES, Benchmark, full_config, refused, run, tone, write_video

from data_prep.pipeline import prepare
from zipformer.errors import UserError


def test_further_recordings_ask_for_preparation_anew(benchmark_data: Benchmark, tmp_path: Path) -> None:
    run(tmp_path, benchmark_data.config())
    benchmark_data.add("08207", [3])
    with pytest.raises(UserError, match=r"content of .*/audio: '\w+' then, '\w+' now"):
        run(tmp_path, benchmark_data.config())


@pytest.mark.parametrize(
    ("row", "changes", "message"),
    [
        (1, {"utterance_id": "11127mb01yf0001"}, "videos.tsv:3: 11127mb01yf0001 is there twice, first in"),
        (
            1,
            {"utterance_id": "11127mb02yf0001"},
            "11127mb02yf0001 is sentence 1 of site 11127 河北_承德市_滦平县",
        ),
        (1, {"utterance_id": "11127mb01yf0051"}, "videos.tsv:3: '11127mb01yf0051' is no utterance id"),
        (1, {"utterance_id": "11127"}, "'11127' is no utterance id"),
        (
            1,
            {"site": "江苏_苏州市_姑苏区"},
            "belongs to site 11127 河北_承德市_滦平县 (cmn), but its row names",
        ),
        (1, {"site": "河北_承德市"}, "but its row names the site '河北_承德市'"),
    ],
)
def test_rows_that_cannot_be_used(
    row: int, changes: dict[str, str], message: str, benchmark_data: Benchmark, tmp_path: Path
) -> None:
    benchmark_data.rows[row].update(changes)
    assert message in refused(tmp_path, benchmark_data.config())


def test_a_site_that_is_not_in_the_table_and_one_without_recordings(
    benchmark_data: Benchmark, tmp_path: Path
) -> None:
    benchmark_data.rows = [row for row in benchmark_data.rows if not row["utterance_id"].startswith("08207")]
    shutil.rmtree(benchmark_data.audio / SITES["10G71"][1])
    message = refused(tmp_path, benchmark_data.config())
    assert "08207 浙江_杭州_上城 (wuu) is not in the metadata" in message
    assert "10G71 江苏_苏州市_姑苏区 (wuu) has no recording: none of its 4 utterances has a file" in message
    assert "corpus.site_list" in message


def test_a_recording_in_the_folder_of_another_site(benchmark_data: Benchmark, tmp_path: Path) -> None:
    name = "10G71mb01yf0001.wav"
    (benchmark_data.audio / SITES["10G71"][1] / name).rename(benchmark_data.audio / SITES["11127"][1] / name)
    message = refused(tmp_path, benchmark_data.config())
    assert f"{SITES['11127'][1]}/{name} has the id of 10G71" in message


def test_files_that_cannot_be_read(benchmark_data: Benchmark, tmp_path: Path) -> None:
    pytest.importorskip("av")
    folder = benchmark_data.audio / SITES["11127"][1]
    (folder / "11127mb01yf0001.wav").write_bytes(b"RIFF")
    soundfile.write(folder / "11127mb01yf0002.wav", np.zeros(0), RATE)
    for number in (3, 4):
        (folder / f"11127mb01yf{number:04d}.wav").unlink()
    write_video(folder / "11127mb01yf0003.mp4", None)
    write_video(folder / "11127mb01yf0004.mp4", tone(0, 4, seconds=3.0))
    cut_off(folder / "11127mb01yf0004.mp4")
    message = refused(tmp_path, benchmark_data.config())
    assert "11127mb01yf0001.wav: " in message
    assert "11127mb01yf0002.wav: there are no samples in it" in message
    assert "11127mb01yf0003.mp4: the video has no sound" in message
    assert "11127mb01yf0004.mp4: cut off: the header promises 3.0" in message


def cut_off(video: Path) -> None:
    """Keep half of the packets of the sound, all of them whole."""
    av = pytest.importorskip("av")
    with av.open(str(video)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(audio=0) if packet.size]
    video.write_bytes(video.read_bytes()[: sorted(ends)[len(ends) // 2]])


def test_a_recording_that_is_cut_off_stops_preparation(benchmark_data: Benchmark, tmp_path: Path) -> None:
    path = benchmark_data.audio / SITES["11127"][1] / "11127mb01yf0001.wav"
    path.write_bytes(path.read_bytes()[:20000])
    assert "1 utterances have an error" in refused(tmp_path, benchmark_data.config())


def test_a_site_that_the_checks_leave_nothing_of(benchmark_data: Benchmark, tmp_path: Path) -> None:
    for path in (benchmark_data.audio / SITES["08207"][1]).glob("*.wav"):
        path.write_bytes(path.read_bytes()[:20000])
    config = full_config(tmp_path, benchmark_data.config())
    config.checks.on_problem = type(config.checks.on_problem).drop
    with pytest.raises(UserError, match=r"no usable recording of site 08207; .*problems\.tsv says"):
        prepare(config, Console(quiet=True))
    assert not list((tmp_path / "prepared").glob("cuts_*"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda config: setattr(config, "metadata", config.metadata + "/none"), "no metadata at"),
        (lambda config: setattr(config, "audio_dir", "/nowhere"), "recordings /nowhere does not exist"),
        (lambda config: setattr(config, "site_list", "/nowhere.tsv"), "sites /nowhere.tsv cannot be read"),
        (lambda config: setattr(config, "min_sentences", 51), "corpus.min_sentences is 51"),
    ],
)
def test_settings_that_lead_nowhere(
    spoil: object, message: str, benchmark_data: Benchmark, tmp_path: Path
) -> None:
    config = benchmark_data.config()
    spoil(config)  # type: ignore[operator]
    assert message in refused(tmp_path, config)


def test_tables_that_cannot_be_used(benchmark_data: Benchmark, tmp_path: Path) -> None:
    config = benchmark_data.config()
    table = tmp_path / "metadata" / "videos.tsv"
    sound = table.read_text(encoding="utf-8")
    table.write_text(sound.replace("english\tutterance_id", "english\tutt_id"), encoding="utf-8")
    assert "the table has no column utterance_id; its columns are transcript" in refused(tmp_path, config)
    table.write_text(sound + "one value\n", encoding="utf-8")
    assert "videos.tsv:13: 1 values instead of 7" in refused(tmp_path, config)
    table.write_bytes(sound.encode("gb18030"))
    assert "not UTF-8" in refused(tmp_path, config)
    sites = tmp_path / "sites.tsv"
    table.write_text(sound, encoding="utf-8")
    sites.write_text("group\tsite_id\tsite\nklingon\t11127\tx\n", encoding="utf-8")
    assert "sites.tsv:2: group 'klingon' is not one of cdo, cjy, cmn" in refused(tmp_path, config)
    sites.write_text("group\tsite_id\tsite\ncmn\t11127\tx\nyue\t11127\ty\n", encoding="utf-8")
    assert "sites.tsv:3: 11127 y has the id or name of line 2" in refused(tmp_path, config)


def test_missing_packages_are_named_with_the_remedy(
    benchmark_data: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    wav = benchmark_data.audio / SITES["11127"][1] / "11127mb01yf0001.wav"
    wav.rename(wav.with_suffix(".mp4"))
    config = benchmark_data.config()
    message = refused(tmp_path, config)
    assert "needs PyAV: pip install 'fangyan[yubao]'; or convert the videos to WAV" in message
    (tmp_path / "metadata" / "videos.parquet").touch()
    assert "needs pyarrow: pip install 'fangyan[yubao]', or save the table as TSV" in refused(
        tmp_path, config
    )
