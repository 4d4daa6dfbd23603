import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from tiny_corpus import tiny_model_config
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from zipformer import device
from zipformer import model as model_module
from zipformer.device import HostCopy, upload
from zipformer.layers import regularizers, schedule
from zipformer.model import AsrModel
from zipformer.optim import scaled_adam
from zipformer.optim.scaled_adam import ScaledAdam

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

# Operations whose result the host must know before it can go on. On a GPU each waits for all queued work.
READING_OPERATIONS = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "is_nonzero",
    "equal",
    "unique",
    "_unique2",
    "unique_consecutive",
    "unique_dim",
    "bincount",
)
READING_METHODS = ("tolist", "item", "numpy", "__bool__", "__int__", "__float__", "__index__", "cpu")


class ReadError(AssertionError):
    """The host looked at a value."""


class _NoReadingOperations(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func._schema.name.removeprefix("aten::") in READING_OPERATIONS:
            raise ReadError(func._schema.name)
        if func._schema.name in ("aten::index", "aten::index_put_"):
            indices = [index for index in args[1] if index is not None]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                raise ReadError("indexing with a mask")
        return func(*args, **(kwargs or {}))


class _NoReadingMethods(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if getattr(func, "__name__", "") in READING_METHODS:
            raise ReadError(func.__name__)
        return func(*args, **(kwargs or {}))


@contextmanager
def no_reading() -> Iterator[None]:
    with _NoReadingOperations(), _NoReadingMethods():
        yield


class UnreadableHostCopy(HostCopy):
    """May be read where nothing else may, one step late."""

    def read(self) -> list[float]:
        with torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes():
            return super().read()


def deferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat host memory as that of a GPU: nothing may be read when it is asked for."""
    for module in (scaled_adam, model_module, regularizers, schedule):
        monkeypatch.setattr(module, "on_host", lambda tensor: False)
    for module in (scaled_adam, schedule):
        monkeypatch.setattr(module, "HostCopy", UnreadableHostCopy)


def training(device_name: str) -> tuple[AsrModel, ScaledAdam]:
    torch.manual_seed(0)
    model = AsrModel(tiny_model_config(20)).to(device_name).train()
    model.clock.batch = 0.0
    return model, ScaledAdam(model.parameters(), lr=0.03, clipping_scale=2.0, clipping_update_period=5)


def take_step(model: AsrModel, optimizer: ScaledAdam, *, only: list[str]) -> None:
    to = next(model.parameters()).device
    features = upload(torch.randn(3, 100, 80), to)
    losses = model.losses(features, upload(torch.tensor([100, 90, 80]), to), [[3, 4], [5], [6]], only=only)
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    model.clock.settle()
    optimizer.take_verdicts()


def test_a_training_step_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    deferred(monkeypatch)
    monkeypatch.setattr(schedule.Clock, "chance", lambda self, probability: probability > 0.0)
    model, optimizer = training("cpu")
    for _ in range(12):
        with no_reading():
            take_step(model, optimizer, only=["ctc", "attention"])
    assert optimizer.skipped_steps == 0


def test_reading_would_be_noticed() -> None:
    x = torch.arange(3.0)
    for read in (
        x.sum().item,
        x.tolist,
        lambda: x[x > 1],
        lambda: bool(x[0]),
        x.nonzero,
        lambda: float(x[0]),
    ):
        with pytest.raises(ReadError), no_reading():
            read()


def test_deferred_switches_follow_two_steps_later(monkeypatch: pytest.MonkeyPatch) -> None:
    deferred(monkeypatch)
    clock = schedule.Clock()
    first, second = clock.add_flag(True), clock.add_flag(True)
    clock.answer(second, torch.tensor(False))
    assert clock.flag(second)
    clock.settle()
    assert clock.flag(second)
    restored = schedule.Clock()
    for _ in range(2):
        restored.add_flag(True)
    restored.load_state_dict(clock.state_dict())
    for each in (clock, restored, copy.deepcopy(clock)):
        each.answer(first, torch.tensor(False))
        each.settle()
        assert (each.flag(first), each.flag(second)) == (True, False)
        each.settle()
        assert (each.flag(first), each.flag(second)) == (False, False)


def test_host_copies_keep_the_values_of_their_moment() -> None:
    values = torch.tensor([1.0, 2.0])
    host_copy = HostCopy(values)
    values.zero_()
    assert host_copy.read() == [1.0, 2.0]
    assert copy.deepcopy(host_copy).read() == [1.0, 2.0]
    assert device.on_host(values)


def gradient_steps(bad: int | None) -> tuple[list[Tensor], ScaledAdam]:
    """Parameters after 40 steps, of which the one at ``bad`` is not finite."""
    generator = torch.Generator().manual_seed(3)
    parameters = [
        torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
        for shape in ((130, 130), (130, 130), (4, 4), (4, 4), ())
    ]
    optimizer = ScaledAdam(parameters, lr=0.03, clipping_scale=1.2, clipping_update_period=15)
    for step in range(40):
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64) * (1 + step % 7)
        if step == bad:
            before = copy.deepcopy((parameters, optimizer.state_dict()["state"]))
            grads = [p.grad for p in parameters]
            assert grads[0] is not None
            grads[0] = grads[0].clone().fill_(torch.nan)
            parameters[0].grad = grads[0]
            optimizer.step()
            after = copy.deepcopy((parameters, optimizer.state_dict()["state"]))
            if step:  # the first step makes the state
                after[1][0]["skipped"] = 0
                torch.testing.assert_close(after, before, rtol=0, atol=0)
        else:
            optimizer.step()
    return [p.detach() for p in parameters], optimizer


@pytest.mark.parametrize("bad", [None, 0, 1, 10, 15, 19, 23])
def test_deferred_steps_are_the_steps(monkeypatch: pytest.MonkeyPatch, bad: int | None) -> None:
    expected, reference = gradient_steps(bad)
    deferred(monkeypatch)
    parameters, optimizer = gradient_steps(bad)
    torch.testing.assert_close(parameters, expected, rtol=1e-12, atol=0)
    verdicts = [step != bad for step in range(40)]
    assert reference.take_verdicts() == verdicts
    assert optimizer.take_verdicts() == verdicts[:-1]
    assert optimizer.take_verdicts(wait=True) == verdicts[-1:]
    assert optimizer.skipped_steps == reference.skipped_steps == (bad is not None)


@cuda
@pytest.mark.parametrize("losses", [["ctc", "attention"], ["simple", "pruned", "ctc", "attention"]])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_training_step_on_a_gpu_waits_for_nothing(losses: list[str], checkpointing: bool) -> None:
    model, optimizer = training("cuda")
    model.encoder.checkpointing = checkpointing
    for _ in range(3):
        take_step(model, optimizer, only=losses)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(12):
            take_step(model, optimizer, only=losses)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert optimizer.skipped_steps == 0
