"""Train a model. The same command again resumes; torchrun starts it in several processes."""

import sys
from typing import cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fangyan.command_line import command
from zipformer.data.loader_workers import LoaderError
from zipformer.files import place_errors
from zipformer.lock import DirectoryInUseError
from zipformer.training.bad_steps import TrainingError
from zipformer.training.checkpoint import CheckpointError
from zipformer.training.config import TrainConfig
from zipformer.training.trainer import train

ConfigStore.instance().store(name="train_schema", node=TrainConfig)


@command("train")
def main(settings: DictConfig) -> None:
    try:
        config = cast(TrainConfig, OmegaConf.to_object(settings))
        with place_errors(config.exp_dir, "free space there, or choose another exp_dir"):
            train(config)
    except (
        OmegaConfBaseException,
        FileNotFoundError,
        ValueError,
        CheckpointError,
        DirectoryInUseError,
        LoaderError,
        TrainingError,
    ) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
