"""Average the weights of a training run and write a model directory."""

from pathlib import Path

from zipformer.distributed import World
from zipformer.tasks import task_named
from zipformer.training.averaging import AverageConfig, write_averaged_model
from zipformer.training.averaging_window import WindowScorer
from zipformer.training.checkpoint import Checkpoint


def main(config: AverageConfig) -> Path:
    """Average as configured; the task of the training scores the windows among which it is chosen."""
    return write_averaged_model(config, scorer_of_task)


def scorer_of_task(end: Checkpoint, data_dir: Path | None, world: World) -> WindowScorer | None:
    """What scores averages of a training's weights, from the task that a checkpoint is of."""
    task = task_named(end.record["config"]["task"]).task_class
    return task.window_scorer(end, data_dir, world)
