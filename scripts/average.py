"""Average the weights of a training run and write a model directory."""

import sys
from typing import cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fangyan.command_line import command
from zipformer.training.averaging import AverageConfig, write_averaged_model
from zipformer.training.checkpoint import CheckpointError

ConfigStore.instance().store(name="average_schema", node=AverageConfig)


@command("average")
def main(settings: DictConfig) -> None:
    try:
        write_averaged_model(cast(AverageConfig, OmegaConf.to_object(settings)))
    except (OmegaConfBaseException, ValueError, CheckpointError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
