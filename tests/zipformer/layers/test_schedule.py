import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zipformer.layers.schedule import Clock, Schedule, current

finite = st.floats(-1e4, 1e4)


@given(
    batches=st.lists(st.integers(-1000, 1000), min_size=1, max_size=5, unique=True),
    values=st.lists(finite, min_size=5, max_size=5),
    batch=st.floats(-2000, 2000),
)
def test_schedule_is_linear_interpolation(batches: list[int], values: list[float], batch: float) -> None:
    points = list(zip(sorted(batches), values, strict=False))
    schedule = Schedule(Clock(batch), *points)
    expected = np.interp(batch, *zip(*points, strict=True))
    assert schedule() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_schedule_gives_its_default_while_the_clock_is_not_set() -> None:
    clock = Clock()
    schedule = Schedule(clock, (0.0, 1.0), (10.0, 2.0), default=7.0)
    assert schedule() == 7.0
    clock.batch = 5.0
    assert schedule() == 1.5
    assert current(schedule) == 1.5
    assert current(0.25) == 0.25


@pytest.mark.parametrize("points", [[], [(1.0, 0.0), (1.0, 2.0)], [(2.0, 0.0), (1.0, 2.0)]])
def test_schedule_refuses_points_out_of_order(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match=r"schedule"):
        Schedule(Clock(), *points)


def test_chance_has_the_given_probability_and_draws_nothing_when_certain() -> None:
    clock = Clock(seed=3)
    state = clock.random.getstate()
    assert not clock.chance(0.0)
    assert clock.chance(1.0)
    assert clock.random.getstate() == state
    share = sum(clock.chance(0.3) for _ in range(20000)) / 20000
    assert share == pytest.approx(0.3, abs=0.015)


def test_a_restored_clock_draws_the_same_numbers() -> None:
    clock = Clock(batch=3.5, seed=1)
    flag = clock.add_flag(True)
    clock.random.random()
    clock.answer(flag, torch.tensor(False))
    state = json.loads(json.dumps(clock.state_dict()))

    other = Clock(seed=2)
    other.add_flag(True)
    other.load_state_dict(state)
    assert other.batch == 3.5
    assert other.flag(flag) is False
    assert [other.random.random() for _ in range(5)] == [clock.random.random() for _ in range(5)]


def test_a_clock_state_of_another_model_is_refused() -> None:
    clock = Clock()
    clock.add_flag(True)
    with pytest.raises(ValueError, match="1 switches, this model has 0"):
        Clock().load_state_dict(clock.state_dict())


def test_a_copied_model_reads_its_own_clock() -> None:
    clock = Clock(batch=0.0)
    pair = copy.deepcopy((clock, Schedule(clock, (0.0, 0.0), (10.0, 1.0))))
    pair[0].batch = 5.0
    assert pair[1]() == 0.5
    assert clock.batch == 0.0
