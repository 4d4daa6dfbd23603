"""Print what a model directory holds: error rates by method, recall between dialects, place of the report."""

import sys
from pathlib import Path
from typing import cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from retrieval.report import ReportConfig, collect
from retrieval.tables import print_tables, recall_matrix, recall_summary
from zipformer.command_line import command
from zipformer.scoring import ScoreRow
from zipformer.scoring.files import rate_table

ConfigStore.instance().store(name="report_schema", node=ReportConfig)


@command("report")
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
    if not tables:
        sys.exit(
            f"error: {config.model_dir} has no results of the split {config.split}: make them with"
            " scripts/decode.py, scripts/embed.py and scripts/retrieve.py"
        )
    print_tables(tables)
    page = Path(config.model_dir) / "results" / "report" / "index.html"
    if page.is_file():
        print(f"report: {page.absolute()}")


if __name__ == "__main__":
    main()
