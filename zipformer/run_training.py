"""Train a model. The same command again resumes; torchrun starts it in several processes."""

from collections.abc import Mapping
from dataclasses import replace

from zipformer.data.mixture_file import with_listed_corpora
from zipformer.data.shar import open_data
from zipformer.files import place_errors
from zipformer.tasks import task_named, tasks
from zipformer.training.config import TrainConfig
from zipformer.training.trainer import train


def main(config: TrainConfig) -> None:
    """Train, or resume a training that was stopped."""
    # Here, so that a checkpoint records the corpora and weights, not only the name of their file.
    config = replace(config, data=replace(config.data, mixing=with_listed_corpora(config.data.mixing)))
    with place_errors(config.exp_dir, "free space there, or choose another exp_dir"):
        # A URL is replaced by the folder of the cache that stands for it.
        config.data_dir = str(open_data(config.data_dir, config.data.cache))
        train(config, task_named(config.task).task_class)


def config_groups() -> Mapping[str, Mapping[str, type]]:
    """The tasks, each with the dataclass of all its settings."""
    return {"task": {name: task.config_class for name, task in tasks().items()}}
