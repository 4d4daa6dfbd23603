"""A small YuBao: tables and recordings in the form of the real ones, with tones for speech."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console

from data_prep.corpora.yubao.corpus import YubaoConfig
from data_prep.corpora.yubao.metadata import COLUMNS
from data_prep.pipeline import PrepareConfig, prepare
from fangyan.commands import CONF_DIR, register
from zipformer.errors import UserError

SITES = {
    "11127": ("cmn", "河北_承德市_滦平县"),
    "10G71": ("wuu", "江苏_苏州市_姑苏区"),
    "08207": ("wuu", "浙江_杭州_上城"),
}
ENGLISH = {n: f"English of sentence {n}." for n in range(1, 51)}


@dataclass
class Benchmark:
    """Files of a benchmark in a folder, and what is in its table, to be spoilt before it is written."""

    folder: Path
    sites: dict[str, tuple[str, str]] = field(default_factory=lambda: dict(SITES))
    rows: list[dict[str, str]] = field(default_factory=list)

    @property
    def audio(self) -> Path:
        return self.folder / "audio"

    def config(self, **settings: object) -> YubaoConfig:
        """Write the table and the list of sites; gives the config of the corpus."""
        lines = ["group\tsite_id\tsite", *(f"{g}\t{i}\t{name}" for i, (g, name) in self.sites.items())]
        (self.folder / "sites.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (self.folder / "metadata").mkdir(exist_ok=True)
        write_tsv(self.folder / "metadata" / "videos.tsv", self.rows)
        return YubaoConfig(
            metadata=str(self.folder / "metadata"),
            audio_dir=str(self.audio),
            site_list=str(self.folder / "sites.tsv"),
            **{"min_sentences": 4, **settings},
        )

    def add(self, site_id: str, numbers: Iterable[int], suffix: str = ".wav") -> None:
        """Rows and recordings of some sentences of a site."""
        name = self.sites[site_id][1]
        for number in numbers:
            row = row_of(site_id, number, name)
            self.rows.append(row)
            path = self.audio / name / f"{row['utterance_id']}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            sound = tone(list(self.sites).index(site_id), number)
            if suffix == ".wav":
                soundfile.write(path, sound, RATE)
            else:
                write_video(path, sound)


RATE = 44100


def row_of(site_id: str, number: int, name: str) -> dict[str, str]:
    return {
        "transcript": f"第{chr(0x4E00 + number)}句，{chr(0x4F00 + number)}。/别的说法。",
        "translation": f"普通话{chr(0x5200 + number)}。",
        "ipa": f"tsɿ{number}",
        "english": ENGLISH[number],
        "utterance_id": f"{site_id}mb01yf{number:04d}",
        "site": name,
        "subgrouping": "太湖片" if site_id != "11127" else "",
    }


def tone(site: int, number: int, seconds: float = 0.4) -> np.ndarray:
    """Samples at ``RATE`` of a tone of its own for each site and sentence."""
    time = np.arange(int(seconds * RATE)) / RATE
    return (0.1 * np.sin(2 * np.pi * (300 + 200 * site + 11 * number) * time)).astype(np.float32)


def write_tsv(path: Path, rows: Sequence[dict[str, str]]) -> None:
    lines = ["\t".join(COLUMNS), *("\t".join(row[name] for name in COLUMNS) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_video(path: Path, sound: np.ndarray | None, rate: int = RATE) -> None:
    """MP4 with moving pictures and, unless it is None, stereo sound in AAC, as the platform serves it.

    The table of contents stands before the data, so that a file that is cut off can still be opened.
    """
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        pictures = container.add_stream("mpeg4", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
        stream = None if sound is None else container.add_stream("aac", rate=rate, layout="stereo")
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(np.stack([sound, sound]), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


def full_config(tmp_path: Path, corpus: YubaoConfig) -> PrepareConfig:
    """All settings of ``fangyan prepare corpus=yubao``."""
    register("prepare")
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        paths = [f"data_dir={tmp_path / 'prepared'}", "corpus.metadata=m", "corpus.audio_dir=a"]
        settings = compose("prepare", ["corpus=yubao", "num_workers=1", *paths])
    config = OmegaConf.to_object(settings)
    assert isinstance(config, PrepareConfig)
    config.corpus = corpus
    return config


def run(tmp_path: Path, corpus: YubaoConfig) -> Path:
    prepare(full_config(tmp_path, corpus), Console(quiet=True))
    return tmp_path / "prepared"


def refused(tmp_path: Path, corpus: YubaoConfig) -> str:
    """The message of the error; nothing that could be taken for a prepared corpus is there after it."""
    with pytest.raises(UserError) as error:
        run(tmp_path, corpus)
    assert not list((tmp_path / "prepared").glob("cuts_*"))
    assert not (tmp_path / "prepared" / "sites").exists()
    return str(error.value)
