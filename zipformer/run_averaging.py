"""The command ``average``: averages the weights of a training and writes a model directory."""

from pathlib import Path

from zipformer.distributed import World
from zipformer.tasks import task_named
from zipformer.training.averaging import AverageConfig, write_averaged_model
from zipformer.training.averaging_window import WindowScorer
from zipformer.training.checkpoint import Checkpoint


def main(config: AverageConfig) -> Path:
    """Average as configured; the task of the training scores the candidate windows."""
    return write_averaged_model(config, scorer_of_task)


def scorer_of_task(end: Checkpoint, data_dir: Path | None, world: World) -> WindowScorer | None:
    """Scorer for averages of the weights, from the task of a checkpoint."""
    task = task_named(end.record["config"]["task"]).task_class
    return task.window_scorer(end, data_dir, world)
