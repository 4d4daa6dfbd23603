"""Print what a model directory holds: error rates by method, recall between dialects, place of the report."""

import sys
from pathlib import Path
from typing import cast

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data_prep.command_line import run_main
from retrieval.report import ReportConfig, collect
from retrieval.tables import print_tables, recall_matrix, recall_summary
from zipformer.scoring import ScoreRow
from zipformer.scoring.files import rate_table

ConfigStore.instance().store(name="report_schema", node=ReportConfig)


@hydra.main(version_base="1.3", config_path="../conf", config_name="report")
def main(settings: DictConfig) -> None:
    try:
        config = cast(ReportConfig, OmegaConf.to_object(settings))
        report = collect(Path(config.model_dir), config.split)
    except (FileNotFoundError, ValueError, OmegaConfBaseException) as error:
        sys.exit(f"error: {error}")
    tables = []
    for decoding in report.decodings:
        rows = [ScoreRow(**vars(row)) for row in decoding.rows]
        tables.append(
            rate_table(rows, title=f"{config.split}, {decoding.method}", trained=report.trained_groups)
        )
    if report.recall is not None:
        tables.append(recall_matrix(report.recall.table))
        tables.append(recall_summary(report.recall.table, report.recall.settings["confidence"]))
    print_tables(tables)
    page = Path(config.model_dir) / "results" / "report" / "index.html"
    if page.is_file():
        print(f"report: {page.absolute()}")


if __name__ == "__main__":
    run_main(main)
