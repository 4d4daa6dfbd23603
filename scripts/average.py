"""Average the weights of a training run and write a model directory."""

from typing import cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from fangyan.command_line import command
from zipformer.training.averaging import AverageConfig, write_averaged_model

ConfigStore.instance().store(name="average_schema", node=AverageConfig)


@command("average")
def main(settings: DictConfig) -> None:
    write_averaged_model(cast(AverageConfig, OmegaConf.to_object(settings)))


if __name__ == "__main__":
    main()
