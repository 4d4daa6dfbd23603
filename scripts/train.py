"""Train a model. The same command again resumes; torchrun starts it in several processes."""

from typing import cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from fangyan.command_line import command
from zipformer.files import place_errors
from zipformer.training.config import TrainConfig
from zipformer.training.trainer import train

ConfigStore.instance().store(name="train_schema", node=TrainConfig)


@command("train")
def main(settings: DictConfig) -> None:
    config = cast(TrainConfig, OmegaConf.to_object(settings))
    with place_errors(config.exp_dir, "free space there, or choose another exp_dir"):
        train(config)


if __name__ == "__main__":
    main()
