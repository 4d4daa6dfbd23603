"""One self-contained HTML page from the results in a model directory."""

from pathlib import Path
from typing import cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from fangyan.command_line import command
from retrieval.challenge.comparison import comparison_table
from retrieval.protocol.tables import print_tables
from retrieval.report.page import ReportConfig, collect, report_folder, write_report
from zipformer.data.dataset import dataset_names
from zipformer.results_place import writable_results

ConfigStore.instance().store(name="report_schema", node=ReportConfig)


@command("report")
def main(settings: DictConfig) -> None:
    config = cast(ReportConfig, OmegaConf.to_object(settings))
    model_dir = Path(config.model_dir)
    metrics = Path(config.metrics) if config.metrics else None
    # A page for each data set, or one on the training where there are no results yet.
    for name in [config.dataset] if config.dataset else dataset_names(model_dir) or [None]:
        report = collect(model_dir, config.split, dataset=name, metrics=metrics)
        with writable_results(model_dir):
            page = write_report(
                report,
                report_folder(model_dir, name),
                samples=config.samples,
                confusions=config.confusions,
                seed=config.seed,
            )
        if report.challenges is not None:
            print_tables([comparison_table(report.challenges)])
        print(f"report: {page}")


if __name__ == "__main__":
    main()
