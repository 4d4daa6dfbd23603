"""Short trainings for tests: their settings, their logs, and whether two of them are the same."""

import json
from pathlib import Path
from typing import Any

import torch
from tiny_corpus import tiny_model_config

from zipformer.data.selection import DataConfig
from zipformer.distributed import World
from zipformer.training.checkpoint import Checkpoint, list_checkpoints
from zipformer.training.config import TrainConfig, ValidationConfig
from zipformer.training.trainer import Trainer

ALONE = World(0, 1, torch.device("cpu"))


def config_for(corpus: Path, exp_dir: Path, **settings: Any) -> TrainConfig:
    """Short epochs of about five batches."""
    return TrainConfig(
        exp_dir=str(exp_dir),
        data_dir=str(corpus),
        model=tiny_model_config(),
        data=DataConfig(
            max_duration=8.0, max_utterance_seconds=5.0, num_workers=settings.pop("num_workers", 0)
        ),
        validation=settings.pop("validation", ValidationConfig(interval=0)),
        **{"log_interval": 1, "average_period": 2, "save_interval": 1000, "ref_duration": 8.0, **settings},
    )


def trained(config: TrainConfig) -> Trainer:
    trainer = Trainer(config, ALONE)
    trainer.run()
    return trainer


def records(exp_dir: Path, kind: str) -> list[dict[str, Any]]:
    lines = (exp_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def newest(exp_dir: Path) -> Checkpoint:
    return Checkpoint.open(list_checkpoints(exp_dir / "checkpoints")[-1])


def assert_same_run(left: Path, right: Path) -> None:
    """Weights, running average, optimiser and generators are equal bit by bit; so are the logged losses."""
    a, b = newest(left), newest(right)
    assert a.step == b.step
    for one, two in ((a.weights(), b.weights()), (a.average(), b.average())):
        assert one.keys() == two.keys()
        assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    one_state, two_state = a.training_state(), b.training_state()
    assert str(one_state["optimizer"]) == str(two_state["optimizer"])
    assert str(one_state["processes"]) == str(two_state["processes"])
    timings = {"audio_seconds_per_second", "data_wait_share", "elapsed_seconds"}
    assert [{k: v for k, v in record.items() if k not in timings} for record in records(left, "train")] == [
        {k: v for k, v in record.items() if k not in timings} for record in records(right, "train")
    ]
