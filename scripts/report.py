"""One self-contained HTML page from the results in a model directory."""

import sys
from pathlib import Path
from typing import cast

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data_prep.command_line import run_main
from retrieval.challenge.comparison import comparison_table
from retrieval.report import ReportConfig, collect, write_report
from retrieval.tables import print_tables

ConfigStore.instance().store(name="report_schema", node=ReportConfig)


@hydra.main(version_base="1.3", config_path="../conf", config_name="report")
def main(settings: DictConfig) -> None:
    try:
        config = cast(ReportConfig, OmegaConf.to_object(settings))
        model_dir = Path(config.model_dir)
        report = collect(model_dir, config.split, metrics=Path(config.metrics) if config.metrics else None)
        page = write_report(
            report, model_dir / "results" / "report", samples=config.samples, confusions=config.confusions
        )
    except (FileNotFoundError, ValueError, OmegaConfBaseException) as error:
        sys.exit(f"error: {error}")
    if report.challenges is not None:
        print_tables([comparison_table(report.challenges)])
    print(f"report: {page}")


if __name__ == "__main__":
    run_main(main)
