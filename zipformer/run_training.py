"""Train a model. The same command again resumes; torchrun starts it in several processes."""

from zipformer.files import place_errors
from zipformer.training.config import TrainConfig
from zipformer.training.trainer import train


def main(config: TrainConfig) -> None:
    """Train, or resume a training that was stopped."""
    with place_errors(config.exp_dir, "free space there, or choose another exp_dir"):
        train(config)
