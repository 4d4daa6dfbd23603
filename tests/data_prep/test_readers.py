"""Readers of public corpora, each on a miniature in the layout of the corpus."""

import csv
import logging
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from lhotse import MonoCut, SupervisionSegment, load_manifest
from miniature import Miniature
from miniatures import MINIATURES
from omegaconf import OmegaConf
from rich.console import Console

from data_prep import pipeline
from data_prep.fbank import extract_shard
from data_prep.pipeline import PrepareConfig, prepare
from fangyan.commands import CONF_DIR, register
from zipformer.errors import UserError

register("prepare")


def config_of(miniature: Miniature, directory: Path, *more: str) -> PrepareConfig:
    overrides = [f"data_dir={directory}", "num_workers=1", "fbank.speed_factors=[]", *miniature.settings]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = OmegaConf.to_object(compose("prepare", [*overrides, *more]))
    assert isinstance(config, PrepareConfig)
    return config


def run(config: PrepareConfig) -> None:
    prepare(config, Console(quiet=True))


def final_cuts(directory: Path) -> dict[str, list[MonoCut]]:
    files = sorted(directory.glob("cuts_*.jsonl.gz"))
    return {path.name.removeprefix("cuts_").partition(".")[0]: list(load_manifest(path)) for path in files}


def dropped(directory: Path) -> set[tuple[str, str]]:
    with (directory / "problems.tsv").open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t")
        return {(row["utterance_id"], row["problem"]) for row in rows if row["severity"] == "error"}


def supervision(directory: Path, utterance_id: str) -> SupervisionSegment:
    cuts = {cut.id: cut for split in final_cuts(directory).values() for cut in split}
    return cuts[utterance_id].supervisions[0]


@pytest.mark.parametrize("name", MINIATURES)
def test_prepared_after_a_kill(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    miniature = MINIATURES[name](tmp_path / "corpus")
    directory = tmp_path / "data"
    config = config_of(miniature, directory, "fbank.shard_size=1")

    class KilledError(Exception):
        pass

    def dying(shard: object) -> float:
        raise KilledError

    monkeypatch.setattr(pipeline, "extract_shard", dying)
    with pytest.raises(KilledError):
        run(config)
    monkeypatch.setattr(pipeline, "extract_shard", extract_shard)
    run(config)
    found = {
        split: {
            cut.id: (
                cut.supervisions[0].text,
                cut.supervisions[0].custom.get("subdialect", cut.supervisions[0].language),
            )
            for cut in cuts
        }
        for split, cuts in final_cuts(directory).items()
    }
    assert found == miniature.cuts
    # Speakers are compared over all corpora by name: those of a corpus begin as its utterances do.
    for cut in (cut for cuts in final_cuts(directory).values() for cut in cuts):
        speaker = cut.supervisions[0].speaker
        assert speaker is None or speaker.startswith(f"{cut.id.partition('-')[0]}-"), cut.id
    assert dropped(directory) == miniature.problems
    for cuts in final_cuts(directory).values():
        assert all(1.4 < cut.duration < 2.1 and cut.num_frames == round(cut.duration * 100) for cut in cuts)


@pytest.mark.parametrize("name", MINIATURES)
def test_a_missing_list_is_named(name: str, tmp_path: Path) -> None:
    miniature = MINIATURES[name](tmp_path / "corpus")
    for number, path in enumerate(miniature.lists):
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(UserError) as caught:
            run(config_of(miniature, tmp_path / f"data{number}"))
        assert str(path) in str(caught.value) or str(path.parent.parent) in str(caught.value)
        assert "corpus.root" in str(caught.value)
        path.write_bytes(content)
    missing = [
        setting.replace(str(tmp_path / "corpus"), str(tmp_path / "nowhere")) for setting in miniature.settings
    ]
    with pytest.raises(UserError, match="nowhere"):
        run(config_of(Miniature(missing, {}), tmp_path / "data"))


IN_TEXT = [name for name in MINIATURES if name not in ("ascend", "wu_bench")]


@pytest.mark.parametrize("name", IN_TEXT)
def test_a_list_in_another_encoding_is_named_with_its_line(name: str, tmp_path: Path) -> None:
    miniature = MINIATURES[name](tmp_path / "corpus")
    path = miniature.texts[0]
    path.write_bytes(path.read_bytes() + b"\xff\xfe\xff 1\n")
    with pytest.raises(UserError, match=rf"{re.escape(str(path))}:\d+: .*(UTF-8|JSON)"):
        run(config_of(miniature, tmp_path / "data"))


DOCUMENTS = (
    *("wenetspeech", "wenetspeech_yue", "wenetspeech_chuan", "primewords", "wu_bench"),
    *("tat", "teochew_wild", "ascend", "aishell4", "alimeeting"),
)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_file_that_is_cut_off(name: str, tmp_path: Path) -> None:
    miniature = MINIATURES[name](tmp_path / "corpus")
    path = miniature.documents[0]
    content, binary = path.read_bytes(), path.suffix == ".parquet"
    path.write_bytes(content[:-30] if binary else content[: content.rindex(b'"')])
    line = "" if binary else r":\d+"
    message = rf"{re.escape(str(path))}{line}: damaged or cut off .*download (it|the file) again"
    with pytest.raises(UserError, match=message):
        run(config_of(miniature, tmp_path / "data"))


def test_fields_of_kespeech(tmp_path: Path) -> None:
    run(config_of(MINIATURES["kespeech"](tmp_path / "corpus"), tmp_path / "data"))
    dialect = supervision(tmp_path / "data", "kespeech-1001_a1")
    standard = supervision(tmp_path / "data", "kespeech-1001_b1")
    assert dialect.custom["sentence_id"] == standard.custom["sentence_id"]
    assert (
        (dialect.speaker, dialect.gender)
        == (standard.speaker, standard.gender)
        == ("kespeech-1001", "female")
    )
    assert (dialect.custom["site"], dialect.custom["raw_text"]) == ("Chengdu", "你好<SPOKEN_NOISE>世界")
    assert dialect.custom["part"] == "train_phase1"


def test_segments_are_cut_out_of_their_recording_once(tmp_path: Path) -> None:
    miniature = MINIATURES["wenetspeech"](tmp_path / "corpus")
    directory = tmp_path / "data"
    run(config_of(miniature, directory))
    clips = sorted(path.relative_to(directory / "audio").as_posix() for path in directory.rglob("*.flac"))
    assert clips == [
        *("Y1/Y1_S00000.flac", "Y1/Y1_S00002.flac", "Y2/Y2_S00000.flac", "Y3/Y3_S00000.flac"),
        "Y4/Y4_S00000.flac",
    ]
    whole = config_of(miniature, tmp_path / "whole", "corpus.cut=false")
    run(whole)
    for split, cuts in final_cuts(directory).items():
        uncut = {cut.id: cut for cut in final_cuts(tmp_path / "whole")[split]}
        assert set(uncut) == {cut.id for cut in cuts}
        for cut in cuts:
            difference = cut.load_audio() - uncut[cut.id].load_audio()
            assert abs(difference).max() < 0.03 * abs(cut.load_audio()).max()  # resampled at other borders


def test_parallel_sentences_of_fleurs(tmp_path: Path) -> None:
    run(config_of(MINIATURES["fleurs"](tmp_path / "corpus"), tmp_path / "data"))
    ids = {
        cut.supervisions[0].language: cut.supervisions[0].custom["sentence_id"]
        for cut in final_cuts(tmp_path / "data")["test"]
    }
    assert ids == {"cmn": "fleurs-3", "yue": "fleurs-3"}


def test_published_sizes_are_compared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        run(config_of(MINIATURES["aishell"](tmp_path / "corpus"), tmp_path / "data"))
    assert "split test: 7176 utterances are published, the lists name 1, and 1 are used" in caplog.text
    assert "split test: 104765 characters are published, the 1 utterances in use have 6" in caplog.text
    assert "1 audio files have no transcript" in caplog.text
    assert "BAC009S0002W0123" in caplog.text
