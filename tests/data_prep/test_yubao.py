"""The YuBao benchmark, from tables and recordings in its form to prepared cuts and the paper's table."""

import csv
import logging
import runpy
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from dataset_files import DATA, results_of
from lhotse import CutSet
from yubao_data import RATE, SITES, Benchmark, refused, row_of, run, tone, write_video

from data_prep.corpora.yubao.completeness import ranges
from data_prep.corpora.yubao.corpus import Incomplete, prepare_yubao
from data_prep.corpora.yubao.sites import groups_named, read_sites
from retrieval.embedding.cuts import labels_of
from retrieval.embedding.store import EmbeddingWriter
from zipformer.data.cuts import find_manifest, read_cuts
from zipformer.data.manifest import with_present_paths

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
FOUR = range(1, 5)


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_the_sites_of_the_benchmark() -> None:
    sites = read_sites()
    counts = Counter(site.group for site in sites)
    assert list(counts) == ["cmn", "mandarin", "nan", "wuu", "hak", "yue", "hsn", "gan"]
    assert list(counts.values()) == [1, *[11] * 7]
    assert len({site.site_id for site in sites}) == len({site.name for site in sites}) == 78
    assert str(sites[0]) == "11127 河北_承德市_滦平县 (cmn)"


def test_prepared_cuts_of_wav_files(benchmark_data: Benchmark, tmp_path: Path) -> None:
    directory = run(tmp_path, benchmark_data.config())
    cuts = {cut.id: cut for cut in CutSet.from_jsonl_lazy(directory / "cuts_test.jsonl.gz")}
    assert len(cuts) == 11
    assert not list(directory.glob("cuts_train*"))
    cut = cuts["10G71mb01yf0002"]
    assert cut.sampling_rate == 16000
    assert with_present_paths(cut, directory).load_features().shape == (40, 80)
    (supervision,) = cut.supervisions
    assert (supervision.text, supervision.language, supervision.speaker) == ("第丂句伂", "wuu", "10G71mb01")
    assert supervision.custom == {
        "site": "江苏_苏州市_姑苏区",
        "site_id": "10G71",
        "sentence_id": "2",
        "translation": "普通话刂",
        "ipa": "tsɿ2",
        "english": "English of sentence 2.",
        "subgrouping": "太湖片",
        "raw_text": "第丂句，伂。/别的说法。",
    }


def test_a_cut_set_for_each_site(benchmark_data: Benchmark, tmp_path: Path) -> None:
    directory = run(tmp_path, benchmark_data.config())
    found = {
        path.relative_to(directory / "sites").as_posix(): [cut.id[-1] for cut in CutSet.from_file(path)]
        for path in (directory / "sites").rglob("*.jsonl.gz")
    }
    assert found == {
        "cmn/11127.jsonl.gz": ["1", "2", "3", "4"],
        "wuu/10G71.jsonl.gz": ["1", "2", "3", "4"],
        "wuu/08207.jsonl.gz": ["1", "2", "4"],
    }


def test_videos_are_decoded_once(benchmark_data: Benchmark, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    benchmark_data.sites["15556"] = ("nan", "广东_潮州_湘桥区")
    benchmark_data.add("15556", FOUR, suffix=".mp4")
    config = benchmark_data.config()
    directory = tmp_path / "prepared"
    recordings = {recording.id: recording for recording in prepare_yubao(config, directory)["test"][0]}
    with pytest.MonkeyPatch.context() as patch:  # the second time, nothing is left to decode
        patch.setattr(av, "open", None)
        prepare_yubao(config, directory)
    recording = recordings["15556mb01yf0003"]
    assert (recording.sampling_rate, recording.num_channels) == (16000, 2)
    assert recording.duration == pytest.approx(0.4, abs=0.1)  # AAC pads to blocks of 1024 samples
    samples = recording.load_audio()[0]
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    peak = np.fft.rfftfreq(len(samples), 1 / 16000)[spectrum.argmax()]
    assert peak == pytest.approx(300 + 200 * 3 + 11 * 3, abs=5)
    video = benchmark_data.audio / "广东_潮州_湘桥区" / "15556mb01yf0003.mp4"
    write_video(video, tone(0, 1, seconds=1.0))
    assert prepare_yubao(config, directory)["test"][0]["15556mb01yf0003"].duration > 0.9


def test_wav_is_preferred_and_two_files_of_a_kind_are_refused(
    benchmark_data: Benchmark, tmp_path: Path
) -> None:
    wav = benchmark_data.audio / SITES["11127"][1] / "11127mb01yf0001.wav"
    wav.with_suffix(".mp4").write_bytes(b"not looked at")
    assert len(prepare_yubao(benchmark_data.config(), tmp_path / "prepared")["test"][0]) == 11
    shutil.copy(wav, benchmark_data.audio / wav.name)
    assert "two recordings of 11127mb01yf0001: " in refused(tmp_path, benchmark_data.config())


def test_tables_in_parquet_and_in_parts(benchmark_data: Benchmark, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    config = benchmark_data.config()
    from_tsv = prepare_yubao(config, tmp_path / "prepared")["test"][1]
    for part in range(2):
        rows = benchmark_data.rows[part::2]
        table = pyarrow.Table.from_pylist(
            [{**row, "subgrouping": row["subgrouping"] or None} for row in rows]
        )
        parquet.write_table(table, tmp_path / "metadata" / f"train-{part}.parquet")
    from_parquet = prepare_yubao(config, tmp_path / "prepared")["test"][1]
    without_origin = [
        [(s.id, s.text, {**s.custom, "origin": ""}) for s in supervisions]
        for supervisions in (from_tsv, from_parquet)
    ]
    assert without_origin[0] == without_origin[1]
    assert from_parquet["11127mb01yf0003"].custom["origin"] == "train-0.parquet:2"
    (tmp_path / "metadata" / "train-1.parquet").write_bytes(b"PAR1 and no more")
    assert "train-1.parquet cannot be read as Parquet" in refused(tmp_path, config)


def test_what_is_missing_is_reported(
    benchmark_data: Benchmark, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = SITES["10G71"][1]
    (benchmark_data.audio / name / "10G71mb01yf0001.wav").unlink()
    (benchmark_data.audio / name / "10G71mb01yf0002.wav").unlink()
    soundfile.write(benchmark_data.audio / name / "10G71mb01yf0050.wav", tone(1, 50), RATE)
    benchmark_data.rows[0]["english"] = "Something else."
    with caplog.at_level(logging.INFO):
        manifests = prepare_yubao(benchmark_data.config(), tmp_path / "prepared")
    assert len(manifests["test"][0]) == 9
    first, second, third = table_of(tmp_path / "prepared" / "completeness.tsv")
    assert (first["recordings"], first["below_threshold"], first["not_in_table"]) == ("4", "no", "5-50")
    assert second == {
        "group": "wuu",
        "site_id": "10G71",
        "site": name,
        "sentences_in_table": "4",
        "recordings": "2",
        "below_threshold": "yes",
        "not_in_table": "5-50",
        "without_recording": "1-2",
    }
    assert (third["recordings"], third["not_in_table"], third["below_threshold"]) == ("3", "3,5-50", "yes")
    assert f"3 sites, 9 of 150 sentences; 2 sites have less than 4: {name} 2, 浙江_杭州_上城 3" in caplog.text
    assert "1 recordings of wanted sites have no row in the metadata" in caplog.text
    assert "sentence 1 has 2 English texts, 'Something else.' and 'English of sentence 1.'" in caplog.text


def test_incomplete_sites_can_be_left_out_or_refused(benchmark_data: Benchmark, tmp_path: Path) -> None:
    config = benchmark_data.config(incomplete=Incomplete.drop)
    kept = prepare_yubao(config, tmp_path / "prepared")["test"][1]
    assert Counter(s.custom["site_id"] for s in kept) == {"11127": 4, "10G71": 4}
    config.min_sentences = 5
    assert "leaves no site with 5 recordings" in refused(tmp_path, config)
    config = benchmark_data.config(incomplete=Incomplete.stop)
    message = refused(tmp_path, config)
    assert "08207 浙江_杭州_上城 (wuu) has 3 recordings, less than 4" in message
    assert "11127" not in message


def test_a_site_under_another_id(
    benchmark_data: Benchmark, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With rows of its own id, the other is a namesake; without them, one of the two is wrong."""
    namesake = {**row_of("10G71", 1, SITES["10G71"][1]), "utterance_id": "10A00mb01yf0001"}
    benchmark_data.rows.append(namesake)
    with caplog.at_level(logging.INFO):
        prepare_yubao(benchmark_data.config(), tmp_path / "prepared")
    assert "other sites of the name of 10G71, which are not used: ['10A00']" in caplog.text
    benchmark_data.rows = [row for row in benchmark_data.rows if not row["utterance_id"].startswith("10G71")]
    message = refused(tmp_path, benchmark_data.config())
    assert (
        "10A00mb01yf0001 has site id 10A00, but 10G71 江苏_苏州市_姑苏区 (wuu) is the site of this" in message
    )


def test_a_site_of_another_group_in_the_metadata(
    benchmark_data: Benchmark, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert groups_named("客家话粤台片梅惠小片") == {"hak"}
    assert groups_named("广府片，湘桥区") == set()
    for row in benchmark_data.rows:
        row["subgrouping"] = {"1": "北京官话", "0": "客家话", "2": ""}[row["utterance_id"][0]]
    prepare_yubao(benchmark_data.config(), tmp_path / "prepared")
    warnings = [r.getMessage() for r in caplog.records if "another group" in r.getMessage()]
    assert warnings == [
        "10G71 江苏_苏州市_姑苏区 (wuu) is of another group in the metadata: '北京官话'",
        "08207 浙江_杭州_上城 (wuu) is of another group in the metadata: '客家话'",
    ]


def test_names_are_compared_without_width_and_spaces(tmp_path: Path) -> None:
    data = Benchmark(tmp_path, sites={"11127": SITES["11127"], "10G68": ("mandarin", "江苏_南京_（无）")})
    data.add("11127", FOUR)
    data.add("10G68", FOUR)
    for row in data.rows[4:]:
        row["site"] = "江苏_ 南京_(无)"
    supervisions = prepare_yubao(data.config(), tmp_path / "prepared")["test"][1]
    assert supervisions["10G68mb01yf0001"].custom["site"] == "江苏_南京_（无）"


def test_ranges() -> None:
    assert [ranges(numbers) for numbers in ([], [7], [1, 2, 3, 5, 9, 10])] == ["", "7", "1-3,5,9-10"]


def test_from_recordings_to_the_table_of_the_paper(
    benchmark_data: Benchmark,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every sentence has a direction of its own, but 08207 says the first two with each other's.

    Sentences in common with 08207 are 1, 2 and 4; it takes 1 for 2 and 2 for 1. Recall of a pair of sites
    with it is 1/3, of the others 1; over the two pairs of cmn and wuu the mean is 2/3, and chance is
    (1/4 + 1/3) / 2.
    """
    cuts = read_cuts(find_manifest(run(tmp_path, benchmark_data.config()), "test"))
    model_dir = tmp_path / "model"
    writer = EmbeddingWriter(
        results_of(model_dir) / "embeddings-test",
        dimension=4,
        dtype="float32",
        embedder="planted",
        fingerprint="planted",
        dataset=DATA.record(),
    )
    with writer:
        for cut in cuts:
            labels = labels_of(cut)
            direction = int(labels.sentence_id) - 1
            if cut.id.startswith("08207") and direction < 2:
                direction = 1 - direction
            writer.add(
                cut.id,
                np.repeat(np.eye(4, dtype=np.float32)[[direction]], 3 + direction, axis=0),
                dialect=labels.dialect,
                site=labels.site,
                sentence_id=labels.sentence_id,
            )

    def call(script: str, *settings: str) -> None:
        path = SCRIPTS / f"{script}.py"
        monkeypatch.setattr(sys, "argv", [str(path), f"model_dir={model_dir}", *settings])
        runpy.run_path(str(path), run_name="__main__")

    call("retrieve", "groups=[cmn,wuu]", "device=cpu", "resamples=10")
    file = results_of(model_dir) / "retrieval-test" / "paper_table.csv"
    file.write_text("of former results")
    with pytest.raises(SystemExit, match=r"^error: .*no results of mandarin; .*set allow_partial=true"):
        call("paper_table")
    assert not file.exists()
    call("paper_table", "allow_partial=true")
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    mark, *differing = [row.pop() for row in rows]
    assert mark == "NOT THE WHOLE BENCHMARK"
    assert len(set(differing)) == 1
    assert "wuu lacks 9 of 11 sites" in differing[0]
    assert "cmn lacks" not in differing[0]
    assert rows[0] == ["", "cmn", "mandarin", "nan", "wuu", "hak", "yue", "hsn", "gan"]
    assert rows[1] == ["Standard Mandarin", "-", "-", "-", "66.7", "-", "-", "-", "-"]
    assert rows[4] == ["Wu", "66.7", *["-"] * 7]
    printed = capsys.readouterr().out
    assert f"chance {100 * (1 / 4 + 1 / 3) / 2:.1f} to 29.2" in printed
    assert "NOT THE WHOLE BENCHMARK" in printed
