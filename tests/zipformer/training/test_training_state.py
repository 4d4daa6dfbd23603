import random
from pathlib import Path

import numpy as np
import torch
from toy_task import Toy, ToyConfig

from zipformer.distributed import World
from zipformer.optim.eden import Eden
from zipformer.optim.scaled_adam import ScaledAdam
from zipformer.training.checkpoint import Checkpoint
from zipformer.training.state import TrainingState, differences, seed_everything


def state_of(rank: int, size: int) -> TrainingState:
    task = Toy(ToyConfig(seed=rank), World(rank, size, torch.device("cpu")))
    optimizer = ScaledAdam(task.parameters(), lr=0.03)
    scheduler = Eden(optimizer, lr_batches=100.0, lr_epochs=5.0, warmup_batches=500.0, warmup_start=0.5)
    return TrainingState(task, optimizer, scheduler, World(rank, size, torch.device("cpu")))


def test_a_process_more_than_before_takes_the_clock_and_draws_its_own_numbers(tmp_path: Path) -> None:
    before = state_of(0, 1)
    before.task.clock.batch = 12.5
    before.counters.step, before.counters.batches = 7, 3
    checkpoint = before.save(
        tmp_path,
        config={"seed": 1},
        order={"world_size": 1},
        environment={},
        trained_hours={"yue": 0.5},
    )
    assert isinstance(checkpoint, Checkpoint)
    draws = []
    for rank, seed in ((0, 1), (1, 1), (1, 2)):
        state = state_of(rank, 2)
        state.restore(checkpoint, config={"seed": seed}, order={"world_size": 2})
        assert state.task.clock.batch == 12.5
        assert (state.counters.step, state.counters.batches) == (7, 0)
        assert torch.equal(
            state.task.state_dict()["model.output.weight"], before.task.state_dict()["model.output.weight"]
        )
        draws.append((torch.rand(1).item(), random.random(), state.task.clock.random.random()))
    assert len({value for values in draws for value in values}) == 9


def test_differences_by_dotted_name() -> None:
    old = {"a": 1, "b": {"c": 2, "d": [1]}, "gone": 5}
    new = {"a": 1, "b": {"c": 3, "d": [1]}, "new": None}
    assert differences(old, new) == {"b.c": "b.c: 2 -> 3", "gone": "gone: 5 -> None"}


def test_seeds_give_different_streams_and_repeat() -> None:
    def draws(*seed: int) -> tuple[float, float, float]:
        seed_everything(*seed)
        return random.random(), float(np.random.rand()), torch.rand(1).item()  # noqa: NPY002

    assert draws(1, 0) == draws(1, 0)
    streams = [draws(1), draws(1, 1), draws(2, 0), draws(0, 1)]
    assert len({value for stream in streams for value in stream}) == 12
