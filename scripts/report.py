"""One self-contained HTML page from the results in a model directory."""

import sys
from pathlib import Path
from typing import cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from retrieval.challenge.comparison import comparison_table
from retrieval.report import ReportConfig, collect, write_report
from retrieval.tables import print_tables
from zipformer.command_line import command
from zipformer.results_place import writable_results

ConfigStore.instance().store(name="report_schema", node=ReportConfig)


@command("report")
def main(settings: DictConfig) -> None:
    try:
        config = cast(ReportConfig, OmegaConf.to_object(settings))
        model_dir = Path(config.model_dir)
        report = collect(model_dir, config.split, metrics=Path(config.metrics) if config.metrics else None)
        with writable_results(model_dir):
            page = write_report(
                report,
                model_dir / "results" / "report",
                samples=config.samples,
                confusions=config.confusions,
                seed=config.seed,
            )
    except (FileNotFoundError, ValueError, OmegaConfBaseException) as error:
        sys.exit(f"error: {error}")
    if report.challenges is not None:
        print_tables([comparison_table(report.challenges)])
    print(f"report: {page}")


if __name__ == "__main__":
    main()
