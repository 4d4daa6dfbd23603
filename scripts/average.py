"""Average the weights of a training run and write a model directory."""

import sys
from typing import cast

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data_prep.command_line import run_main
from zipformer.averaging import AverageConfig, write_averaged_model
from zipformer.checkpoint import CheckpointError

ConfigStore.instance().store(name="average_schema", node=AverageConfig)


@hydra.main(version_base="1.3", config_path="../conf", config_name="average")
def main(settings: DictConfig) -> None:
    try:
        write_averaged_model(cast(AverageConfig, OmegaConf.to_object(settings)))
    except (OmegaConfBaseException, ValueError, CheckpointError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run_main(main)
