"""Two gloo processes, started as torchrun starts them."""

import os
import signal
from pathlib import Path

import pytest
import torch
from processes import in_processes, whole_batch
from tiny_corpus import tiny_model_config, write_tiny_corpus
from torch import Tensor
from training_runs import config_for, newest, records

from zipformer.data.batches import Batch
from zipformer.distributed import World
from zipformer.tasks.recognition import Recognition
from zipformer.tasks.validation import ValidationConfig
from zipformer.training.trainer import Trainer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_corpus(tmp_path_factory.mktemp("corpus"))


def gradients(corpus: Path, exp_dir: Path, world: World) -> dict[str, Tensor]:
    """Gradients of a fresh model for one batch, which the processes share; nothing is drawn."""
    trainer = Trainer(config_for(corpus, exp_dir, max_steps=1), world, Recognition)
    trainer.task.model.eval()
    batch = whole_batch(corpus)
    mine = slice(world.rank, None, world.size)
    share = Batch(
        batch.features[mine],
        batch.lengths[mine],
        batch.tokens[mine],
        batch.ids[mine],
        batch.supervisions[mine],
    )
    trainer._backward(share)
    return {
        name: parameter.grad
        for name, parameter in trainer.task.model.named_parameters()
        if parameter.grad is not None
    }


def _save_gradients(rank: int, corpus: Path, exp_dir: Path) -> None:
    world = World.join("cpu")
    torch.save(gradients(corpus, exp_dir, world), exp_dir / f"gradients-{rank}.pt")
    world.leave()


def test_two_processes_have_the_gradient_of_one(corpus: Path, tmp_path: Path) -> None:
    in_processes(_save_gradients, corpus, tmp_path)
    expected = gradients(corpus, tmp_path / "alone", World(0, 1, torch.device("cpu")))
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for rank in range(2):
        found = torch.load(tmp_path / f"gradients-{rank}.pt")
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6 * largest, msg=name)


def _train(rank: int, corpus: Path, exp_dir: Path) -> None:
    world = World.join("cpu")
    for max_steps in (3, 5):  # the second goes on from the first
        validation = ValidationConfig(interval=2, utterances_per_dialect=2)
        config = config_for(corpus, exp_dir, max_steps=max_steps, validation=validation)
        trainer = Trainer(config, world, Recognition)
        if max_steps == 3 and rank == 1:
            spoil_second_step(trainer)
        trainer.run()
    torch.save(trainer.task.model.state_dict(), exp_dir / f"weights-{rank}.pt")
    world.leave()


def spoil_second_step(trainer: Trainer) -> None:
    """Let the loss of the second batch be NaN, in this process only."""
    original = trainer._backward

    def backward(batch: Batch) -> Tensor:
        if trainer.state.counters.step == 1:
            batch.features[0, 40, 3] = torch.nan
        return original(batch)

    trainer._backward = backward  # type: ignore[method-assign]


def test_processes_stay_together(corpus: Path, tmp_path: Path) -> None:
    in_processes(_train, corpus, tmp_path)
    left, right = (torch.load(tmp_path / f"weights-{rank}.pt") for rank in range(2))
    assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())
    saved = newest(tmp_path)
    assert saved.step == 5
    assert all(torch.equal(tensor, left[name]) for name, tensor in saved.weights().items())
    processes = saved.training_state()["processes"]
    assert len(processes) == 2
    assert processes[0]["clock"]["random"] != processes[1]["clock"]["random"]

    # A step that is bad in one process is skipped in both, and the utterance of the other process is named.
    skipped = records(tmp_path, "skipped")
    assert [record["step"] for record in skipped] == [2]
    assert len(skipped[0]["utterances"]) == 1
    assert [record["step"] for record in records(tmp_path, "train")] == [1, 2, 3, 4, 5]
    assert [record["step"] for record in records(tmp_path, "valid")] == [2, 3, 4, 5]


def _signal_one(rank: int, corpus: Path, exp_dir: Path) -> None:
    world = World.join("cpu")
    trainer = Trainer(config_for(corpus, exp_dir, max_steps=50, log_interval=50), world, Recognition)
    train_on = trainer._train_on

    def train_and_signal(batch: Batch) -> None:
        train_on(batch)
        if rank == 1 and trainer.state.counters.step == 2:  # in the third step
            os.kill(os.getpid(), signal.SIGTERM)

    trainer._train_on = train_and_signal  # type: ignore[method-assign]
    with pytest.raises(SystemExit) as stopped:
        trainer.run()
    assert stopped.value.code == 143
    assert trainer.state.counters.step == 4  # the others learn of it one step later
    world.leave()


def test_a_signal_to_one_process_stops_all_at_the_same_step(corpus: Path, tmp_path: Path) -> None:
    in_processes(_signal_one, corpus, tmp_path)
    assert newest(tmp_path).step == 4


def test_tiny_model_has_every_head() -> None:
    """The tests above are about all of them."""
    config = tiny_model_config()
    assert config.transducer
    assert config.ctc
    assert config.attention_decoder.num_layers
