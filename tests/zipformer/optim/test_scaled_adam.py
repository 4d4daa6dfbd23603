"""ScaledAdam and Eden against icefall's trajectory, a version without stacking, and what they promise."""

import copy
import io
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.scaled_adam import trajectory
from torch import Tensor

from zipformer.optim.eden import Eden
from zipformer.optim.scaled_adam import ScaledAdam

SHAPES = [(7, 5), (5,), (1,), (7, 5), (), (3, 4, 2), (5,), (1, 1), (7, 5)]


def make_parameters(seed: int = 0, shapes: list[tuple[int, ...]] = SHAPES) -> list[torch.nn.Parameter]:
    random = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=random, dtype=torch.float64)) for shape in shapes]


def make_gradients(steps: int, seed: int = 0, shapes: list[tuple[int, ...]] = SHAPES) -> list[list[Tensor]]:
    """Gradients with a bias, so that parameters travel, and with an outburst now and then."""
    random = torch.Generator().manual_seed(seed + 1)
    bias = [torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]
    result = []
    for step in range(steps):
        scale = 30.0 if step % 17 == 16 else 1.0
        noise = [torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]
        result.append([scale * (b + n) for b, n in zip(bias, noise, strict=True)])
    return result


def run(optimizer: ScaledAdam, parameters: list[torch.nn.Parameter], gradients: list[list[Tensor]]) -> None:
    for step in gradients:
        for p, gradient in zip(parameters, step, strict=True):
            p.grad = gradient.clone()
        optimizer.step()


def test_icefall_trajectory(golden_dir: Path) -> None:
    golden = np.load(golden_dir / "scaled_adam.npz")
    parameters = [torch.nn.Parameter(torch.from_numpy(golden[f"init{i}"])) for i in range(5)]
    optimizer = ScaledAdam(parameters, lr=0.045, clipping_scale=2.0, clipping_update_period=10)
    scheduler = Eden(optimizer, lr_batches=20, lr_epochs=2, warmup_batches=8, warmup_start=0.5)
    for step in range(40):
        scheduler.step_epoch(step // 10)
        scheduler.step_batch(step)
        assert scheduler.get_last_lr() == pytest.approx([golden["lr"][step]], rel=1e-12)
        for i, p in enumerate(parameters):
            p.grad = torch.from_numpy(golden[f"grad{i}"][step])
        optimizer.step()
        for i, p in enumerate(parameters):
            expected = torch.from_numpy(golden[f"traj{i}"][step])
            torch.testing.assert_close(p.detach(), expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 99),
    clipping_scale=st.sampled_from([None, 1.0, 2.0]),
    size_update_period=st.integers(1, 5),
    clipping_update_period=st.sampled_from([1, 15, 25, 100]),
    param_max_rms=st.sampled_from([0.5, 1.1, 3.0]),
    scalar_max=st.sampled_from([0.2, 10.0]),
)
def test_every_tensor_moves_as_if_it_were_alone(
    seed: int,
    clipping_scale: float | None,
    size_update_period: int,
    clipping_update_period: int,
    param_max_rms: float,
    scalar_max: float,
) -> None:
    options = {
        "lr": 0.04,
        "clipping_scale": clipping_scale,
        "size_update_period": size_update_period,
        "clipping_update_period": clipping_update_period,
        "param_max_rms": param_max_rms,
        "scalar_max": scalar_max,
    }
    parameters, gradients = make_parameters(seed), make_gradients(60, seed)
    with torch.no_grad():
        parameters[0].zero_()  # a tensor without a size yet
    expected = trajectory(
        [p.detach().numpy() for p in parameters],
        [[g.numpy() for g in step] for step in gradients],
        **options,
    )
    optimizer = ScaledAdam(parameters, **options)
    for step, after in zip(gradients, expected, strict=True):
        run(optimizer, parameters, [step])
        for p, reference in zip(parameters, after, strict=True):
            np.testing.assert_allclose(p.detach().numpy(), reference, rtol=1e-9, atol=1e-12)


def test_a_whole_clipping_period() -> None:
    """And past the step from which the mean square counts as unbiased."""
    options = {"lr": 0.02, "betas": (0.8, 0.9), "clipping_scale": 1.2, "clipping_update_period": 30}
    parameters, gradients = make_parameters(), make_gradients(95)
    expected = trajectory(
        [p.detach().numpy() for p in parameters],
        [[g.numpy() for g in step] for step in gradients],
        **options,
    )
    run(ScaledAdam(parameters, **options), parameters, gradients)
    for p, reference in zip(parameters, expected[-1], strict=True):
        np.testing.assert_allclose(p.detach().numpy(), reference, rtol=1e-9)


@pytest.mark.parametrize("clipping_scale", [None, 1.1])
def test_large_tensors_move_alike(clipping_scale: float | None) -> None:
    """Large enough for blocks, also where the last block is short and where memory is in another order."""
    shapes = [(300, 250), (300, 250), (128, 16, 3, 3), (40, 5)]
    options = {"lr": 0.03, "clipping_scale": clipping_scale, "clipping_update_period": 15}
    parameters, gradients = make_parameters(1, shapes), make_gradients(25, 1, shapes)
    parameters[2].data = parameters[2].data.contiguous(memory_format=torch.channels_last)
    expected = trajectory(
        [p.detach().numpy().copy() for p in parameters],
        [[g.numpy() for g in step] for step in gradients],
        **options,
    )
    run(ScaledAdam(parameters, **options), parameters, gradients)
    assert not parameters[2].is_contiguous()
    for p, reference in zip(parameters, expected[-1], strict=True):
        np.testing.assert_allclose(p.detach().numpy(), reference, rtol=1e-9, atol=1e-12)


def test_gradients_are_left_as_they_are() -> None:
    parameters = make_parameters(shapes=[(200, 200), (3,)])
    optimizer = ScaledAdam(parameters, lr=0.03, clipping_scale=0.5, clipping_update_period=2)
    for step in make_gradients(6, shapes=[(200, 200), (3,)]):
        run(optimizer, parameters, [step])
        for p, gradient in zip(parameters, step, strict=True):
            assert p.grad is not None
            assert torch.equal(p.grad, gradient)


def test_the_scale_of_the_loss_does_not_matter() -> None:
    one, other = make_parameters(), make_parameters()
    gradients = make_gradients(50)
    run(ScaledAdam(one, lr=0.03, clipping_scale=2.0), one, gradients)
    run(
        ScaledAdam(other, lr=0.03, clipping_scale=2.0),
        other,
        [[1000 * g for g in step] for step in gradients],
    )
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(bad: float) -> None:
    parameters, undisturbed = make_parameters(), make_parameters()
    optimizer, undisturbed_optimizer = (
        ScaledAdam(p, lr=0.03, clipping_scale=2.0, clipping_update_period=5)
        for p in (parameters, undisturbed)
    )
    gradients = make_gradients(20)
    poison = [g.clone() for g in gradients[0]]
    poison[5][1, 2, 0] = bad
    run(optimizer, parameters, gradients[:9])
    before = copy.deepcopy((parameters, optimizer.state_dict()["state"]))
    run(optimizer, parameters, [poison, poison])
    assert optimizer.skipped_steps == 2
    after = copy.deepcopy((parameters, optimizer.state_dict()["state"]))
    after[1][0]["skipped"] = 0
    torch.testing.assert_close(after, before, rtol=0, atol=0)

    run(optimizer, parameters, gradients[9:])
    run(undisturbed_optimizer, undisturbed, gradients)
    torch.testing.assert_close(parameters, undisturbed, rtol=0, atol=0)
    assert undisturbed_optimizer.skipped_steps == 0


def test_a_bad_gradient_in_one_group_stops_all_groups() -> None:
    parameters = make_parameters(shapes=[(3,), (4,)])
    optimizer = ScaledAdam([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.1}], lr=0.03)
    before = copy.deepcopy(parameters)
    run(optimizer, parameters, [[torch.ones(3).double(), torch.full((4,), math.nan).double()]])
    torch.testing.assert_close(parameters, before, rtol=0, atol=0)


def test_state_saved_in_the_middle_goes_on_exactly() -> None:
    gradients = make_gradients(50)
    parameters = make_parameters()
    optimizer = ScaledAdam(parameters, lr=0.04, clipping_scale=2.0, clipping_update_period=10)
    scheduler = Eden(optimizer, lr_batches=30, lr_epochs=3, warmup_batches=10, warmup_start=0.5)
    file = io.BytesIO()
    for step, gradient in enumerate(gradients):
        if step == 23:
            torch.save((parameters, optimizer.state_dict(), scheduler.state_dict()), file)
        run(optimizer, parameters, [gradient])
        scheduler.step_batch()
        if step % 10 == 9:
            scheduler.step_epoch()

    file.seek(0)
    restored, optimizer_state, scheduler_state = torch.load(file, weights_only=False)
    optimizer = ScaledAdam(restored, lr=0.04, clipping_scale=2.0, clipping_update_period=10)
    optimizer.load_state_dict(optimizer_state)
    scheduler = Eden(optimizer, lr_batches=30, lr_epochs=3, warmup_batches=10, warmup_start=0.5)
    scheduler.load_state_dict(scheduler_state)
    for step, gradient in enumerate(gradients[23:], start=23):
        run(optimizer, restored, [gradient])
        scheduler.step_batch()
        if step % 10 == 9:
            scheduler.step_epoch()
    torch.testing.assert_close(restored, parameters, rtol=0, atol=0)


def test_a_copied_optimizer_updates_the_copied_parameters() -> None:
    parameters, gradients = make_parameters(), make_gradients(12)
    optimizer = ScaledAdam(parameters, lr=0.03)
    run(optimizer, parameters, gradients[:6])
    copied_parameters, copied = copy.deepcopy((parameters, optimizer))
    before = copy.deepcopy(parameters)
    run(copied, copied_parameters, gradients[6:])
    torch.testing.assert_close(parameters, before, rtol=0, atol=0)
    run(optimizer, parameters, gradients[6:])
    torch.testing.assert_close(copied_parameters, parameters, rtol=0, atol=0)


def test_a_missing_gradient_is_a_gradient_of_zero() -> None:
    parameters, others = make_parameters(), make_parameters()
    optimizer, other = ScaledAdam(parameters, lr=0.03), ScaledAdam(others, lr=0.03)
    for step, gradient in enumerate(make_gradients(10)):
        for i, (p, q, g) in enumerate(zip(parameters, others, gradient, strict=True)):
            dropped = (step + i) % 3 == 0
            p.grad = None if dropped else g.clone()
            q.grad = torch.zeros_like(g) if dropped else g.clone()
        optimizer.step()
        other.step()
    torch.testing.assert_close(parameters, others, rtol=0, atol=0)


def test_groups_have_their_own_learning_rate_and_schedule() -> None:
    parameters = make_parameters(shapes=[(6,), (6,)])
    with torch.no_grad():
        parameters[1].copy_(parameters[0])
    optimizer = ScaledAdam([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.003}], lr=0.03)
    before = parameters[0].detach().clone()
    scheduler = Eden(optimizer, lr_batches=100, lr_epochs=5, warmup_batches=0, warmup_start=1.0)
    scheduler.step_batch(100)
    assert scheduler.get_last_lr() == pytest.approx([0.03 * 2**-0.25, 0.003 * 2**-0.25])
    run(optimizer, parameters, [[torch.ones(6).double()] * 2])
    torch.testing.assert_close(parameters[0] - before, 10 * (parameters[1] - before))


def test_strong_clipping_names_the_parameter(caplog: pytest.LogCaptureFixture) -> None:
    parameters = make_parameters(shapes=[(4,), (4,)])
    names = ["encoder.weight", "joiner.weight"]
    optimizer = ScaledAdam(
        list(zip(names, parameters, strict=True)), lr=0.03, clipping_scale=2.0, clipping_update_period=3
    )
    usual = [torch.ones(4).double()] * 2
    with caplog.at_level(logging.INFO):
        run(optimizer, parameters, [usual] * 4)
        assert not caplog.records
        run(optimizer, parameters, [[usual[0], 100 * usual[1]]])
    assert "parameter joiner.weight makes up 100 %" in caplog.text


@pytest.mark.parametrize(
    ("batch", "epoch", "expected"),
    [
        (0, 0, 0.1),
        (250, 0, 0.55 * (1 + (250 / 7500) ** 2) ** -0.25),
        (500, 0, (1 + (500 / 7500) ** 2) ** -0.25),
        (7500, 0, 2**-0.25),
        (7500, 3.5, 2**-0.5),
        (750000, 0, 0.1),
    ],
)
def test_eden(batch: int, epoch: float, expected: float) -> None:
    optimizer = ScaledAdam(make_parameters(), lr=0.045)
    scheduler = Eden(optimizer, 7500, 3.5, warmup_batches=500.0, warmup_start=0.1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0045)
    scheduler.step_batch(batch)
    scheduler.step_epoch(epoch)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.045 * expected, rel=1e-4)


@pytest.mark.parametrize(
    ("batch", "share"), [(0, 1), (600, 1), (800, 0.5), (900, 0.25), (1000, 0), (1200, 0)]
)
def test_eden_cools_down_to_zero_at_the_last_batch(batch: int, share: float) -> None:
    optimizer = ScaledAdam(make_parameters(), lr=0.045)
    scheduler = Eden(
        optimizer, 7500, 3.5, warmup_batches=0, warmup_start=1.0, cooldown_batches=400, last_batch=1000
    )
    scheduler.step_batch(batch)
    eden = 0.045 * (1 + (batch / 7500) ** 2) ** -0.25
    assert optimizer.param_groups[0]["lr"] == pytest.approx(eden * share)


def test_settings_out_of_range_are_refused() -> None:
    parameters = make_parameters()
    with pytest.raises(ValueError, match="lr is 0"):
        ScaledAdam(parameters, lr=0.0)
    with pytest.raises(ValueError, match="betas are"):
        ScaledAdam(parameters, lr=0.03, betas=(0.9, 1.0))
    with pytest.raises(ValueError, match="size_update_period is 0"):
        ScaledAdam(parameters, lr=0.03, size_update_period=0)
    optimizer = ScaledAdam(parameters, lr=0.03)
    with pytest.raises(ValueError, match="lr_batches is 0"):
        Eden(optimizer, 0, 3.5, warmup_batches=0, warmup_start=1.0)
    with pytest.raises(ValueError, match="warmup_start is 2"):
        Eden(optimizer, 100, 3.5, warmup_batches=0, warmup_start=2.0)
    with pytest.raises(ValueError, match="it needs an end"):
        Eden(optimizer, 100, 3.5, warmup_batches=0, warmup_start=1.0, cooldown_batches=10)
