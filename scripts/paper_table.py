"""The 8 x 8 table of the YuBao paper from the results in a model directory."""

import sys
from pathlib import Path
from typing import cast

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from retrieval.naming import result_folder
from retrieval.paper_table import PaperTableConfig, paper_table, write_paper_table
from retrieval.results import read_recall
from retrieval.tables import print_tables

ConfigStore.instance().store(name="paper_table_schema", node=PaperTableConfig)


@hydra.main(version_base="1.3", config_path="../conf", config_name="paper_table")
def main(settings: DictConfig) -> None:
    try:
        config = cast(PaperTableConfig, OmegaConf.to_object(settings))
        folder = result_folder(Path(config.model_dir), "retrieval", config.split, embedder=config.embedder)
        recall = read_recall(folder / "recall.json")
        if recall is None:
            raise FileNotFoundError(f"no results at {folder}: make them with scripts/retrieve.py")
        write_paper_table(folder / "paper_table.csv", recall.table)
    except (FileNotFoundError, ValueError, OmegaConfBaseException) as error:
        sys.exit(f"error: {error}")
    print_tables([paper_table(recall.table, candidates=int(recall.settings.get("candidates", 0)))])


if __name__ == "__main__":
    main()
