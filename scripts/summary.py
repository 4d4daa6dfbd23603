"""Print what a model directory holds: error rates by method, recall between dialects, place of the report."""

import sys
from pathlib import Path
from typing import cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from fangyan.command_line import command
from retrieval.protocol.tables import print_tables, recall_matrix, recall_summary
from retrieval.report.page import Report, ReportConfig, collect, report_folder
from zipformer.data.dataset import dataset_names
from zipformer.scoring import ScoreRow
from zipformer.scoring.files import rate_table

ConfigStore.instance().store(name="report_schema", node=ReportConfig)


@command("report")
def main(settings: DictConfig) -> None:
    config = cast(ReportConfig, OmegaConf.to_object(settings))
    model_dir = Path(config.model_dir)
    names = [config.dataset] if config.dataset else dataset_names(model_dir) or [None]
    reports = {name: collect(model_dir, config.split, dataset=name) for name in names}
    if not any(report.decodings or report.recall is not None for report in reports.values()):
        sys.exit(
            f"error: {config.model_dir} has no results of the split {config.split}: make them with"
            " scripts/decode.py, scripts/embed.py and scripts/retrieve.py"
        )
    for name, report in reports.items():
        show(report, report_folder(model_dir, name) / "index.html", name)


def show(report: Report, page: Path, dataset: str | None) -> None:
    """Print the tables of one data set, and where its page is."""
    tables = []
    for decoding in report.decodings:
        rows = [ScoreRow(**vars(row)) for row in decoding.rows]
        title = f"{dataset}, {report.split}, {decoding.method}"
        tables.append(rate_table(rows, title=title, trained=report.trained_groups))
    if report.recall is not None:
        tables.append(recall_matrix(report.recall.table))
        tables.append(recall_summary(report.recall.table, report.recall.settings["confidence"]))
    print_tables(tables)
    if page.is_file():
        print(f"report: {page.absolute()}")


if __name__ == "__main__":
    main()
