"""Fixtures for tests of data preparation."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sound_folder import COLUMNS, WriteTable
from yubao_data import Benchmark

from data_prep.corpora.folder import FolderConfig
from data_prep.pipeline import PrepareConfig


@pytest.fixture
def write_table(tmp_path: Path) -> WriteTable:
    """Write rows to ``table.tsv`` in the folder of the recordings; gives the config of the corpus."""

    def write(rows: list[dict[str, str]], columns: tuple[str, ...] = COLUMNS) -> FolderConfig:
        lines = ["\t".join(columns), *("\t".join(row[name] for name in columns) for row in rows)]
        table = tmp_path / "table.tsv"
        table.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return FolderConfig(tsv=str(table))

    return write


@pytest.fixture
def prepare_config(tmp_path: Path) -> Callable[[FolderConfig], PrepareConfig]:
    """Settings that prepare into ``tmp_path / "prepared"``, in this process and at one speed."""

    def make(corpus: FolderConfig) -> PrepareConfig:
        config = PrepareConfig(corpus=corpus, data_dir=str(tmp_path / "prepared"), num_workers=1)
        config.fbank.speed_factors = []
        return config

    return make


@pytest.fixture
def benchmark_data(tmp_path: Path) -> Benchmark:
    """Three sites with sentences 1 to 4; the last one lacks the third."""
    data = Benchmark(tmp_path)
    data.add("11127", range(1, 5))
    data.add("10G71", range(1, 5))
    data.add("08207", (1, 2, 4))
    return data
