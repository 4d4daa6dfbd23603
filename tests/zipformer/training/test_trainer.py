import json
import logging
import os
import shutil
import signal
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from tiny_corpus import write_tiny_corpus
from training_runs import ALONE, assert_same_run, config_for, newest, records, trained

from zipformer.data import batches
from zipformer.data.batches import Batch, FeatureDataset
from zipformer.data.cuts import read_cuts
from zipformer.data.tokenizer import Tokenizer
from zipformer.errors import UserError
from zipformer.model import AsrModel
from zipformer.run_averaging import main as write_averaged_model
from zipformer.tasks.recognition import Recognition
from zipformer.tasks.validation import ValidationConfig
from zipformer.training import trainer as trainer_module
from zipformer.training.averaging import AverageConfig
from zipformer.training.checkpoint import CheckpointError, restore_random_state
from zipformer.training.config import OptimConfig
from zipformer.training.task import Loss
from zipformer.training.trainer import Trainer, train


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize(("num_workers", "state_interval"), [(0, 100), (1, 1)])
def test_stopping_and_going_on_changes_nothing(
    corpus: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    num_workers: int,
    state_interval: int,
) -> None:
    """Also where the epoch is sampled from the state in the checkpoint on, not from its start."""
    monkeypatch.setattr(batches, "STATE_INTERVAL", state_interval)
    trained(config_for(corpus, tmp_path / "straight", max_steps=12))
    trained(config_for(corpus, tmp_path / "broken", max_steps=7))
    torch.rand(100)  # a new process is in another random state
    with caplog.at_level(logging.INFO):
        trained(config_for(corpus, tmp_path / "broken", max_steps=12, num_workers=num_workers))
    assert "step-00000007: step 7, epoch 2 after" in caplog.text
    assert "Setting changed since that checkpoint: max_steps: 7 -> 12" in caplog.text
    assert ("Epoch 2 is sampled again up to batch" in caplog.text) == (state_interval == 100)
    assert_same_run(tmp_path / "straight", tmp_path / "broken")


def test_weights_and_schedules_move(corpus: Path, tmp_path: Path) -> None:
    config = config_for(corpus, tmp_path, max_steps=20)
    config.optim = replace(config.optim, warmup_batches=5.0)
    config.loss = replace(config.loss, warm_steps=4)
    trainer = trained(config)
    losses = [record["loss"] for record in records(tmp_path, "train")]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    assert trainer.task.model.clock.batch == 20.0  # 8 s of 8 s reference a step
    assert trainer.state.average.samples == 10
    first, later = records(tmp_path, "train")[0], records(tmp_path, "train")[10]
    parts = ("simple", "pruned", "ctc", "attention")
    for record, weights in ((first, (1.0, 0.1, 0.2, 0.8)), (later, (0.5, 1.0, 0.2, 0.8))):
        expected = sum(weight * record[part] for weight, part in zip(weights, parts, strict=True))
        assert record["loss"] == pytest.approx(expected, rel=1e-5)
    assert {"lr", "audio_seconds_per_second", "data_wait_share", "elapsed_seconds"} <= first.keys()


def test_ctc_alone_then_all_losses(corpus: Path, tmp_path: Path) -> None:
    config = config_for(corpus, tmp_path, max_steps=8)
    config.loss = replace(config.loss, ctc_first_steps=4, warm_steps=2)
    config.validation = replace(config.validation, interval=4)
    config.clock_start = 100.0
    trainer = trained(config)
    assert trainer.task.model.clock.batch == 108.0
    lines = records(tmp_path, "train")
    assert all("simple" not in line and line["loss"] == line["ctc"] for line in lines[:4])
    assert all({"simple", "pruned", "attention"} <= line.keys() for line in lines[4:])
    first, later = records(tmp_path, "valid")[:2]
    assert ("cer" in first, "cer_ctc" in first, "cer" in later) == (False, True, True)


def test_it_ends_after_epochs_steps_or_minutes(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    by_epochs = trained(config_for(corpus, tmp_path / "epochs", num_epochs=1))
    names = [name for batch in by_epochs.data.epoch(1) for name in batch.ids]
    assert len(names) == 24
    assert by_epochs.state.counters.step == sum(1 for _ in by_epochs.data.epoch(1))

    config = config_for(corpus, tmp_path / "minutes", max_minutes=0.001, max_steps=500)
    trainer = trained(config)
    assert trainer.state.counters.step < 20
    assert newest(tmp_path / "minutes").step == trainer.state.counters.step
    with caplog.at_level(logging.INFO):
        again = trained(config)
    assert "Nothing left to train" in caplog.text
    assert again.state.counters.step == trainer.state.counters.step


def test_a_checkpoint_is_a_model_directory(corpus: Path, tmp_path: Path) -> None:
    trainer = trained(config_for(corpus, tmp_path, max_steps=2))
    model = AsrModel.from_pretrained(newest(tmp_path).directory)
    for name, parameter in trainer.task.model.named_parameters():
        assert torch.equal(model.get_parameter(name), parameter)
    assert (newest(tmp_path).directory / "tokens.model").read_bytes() == (
        corpus / "tokens" / "tokens.model"
    ).read_bytes()


def make_infinite(monkeypatch: pytest.MonkeyPatch, names: set[str]) -> None:
    """From now on the features of some utterances are infinite at one place."""
    load = FeatureDataset._load

    def spoilt(self: FeatureDataset, cut: Cut) -> np.ndarray:
        features = load(self, cut)
        if cut.id in names:
            features[50, 7] = np.inf
        return features

    monkeypatch.setattr(FeatureDataset, "_load", spoilt)


def test_a_step_that_is_not_finite_is_skipped_and_its_utterance_named(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_infinite(monkeypatch, {"train-005"})
    with caplog.at_level(logging.WARNING):
        trainer = trained(config_for(corpus, tmp_path, num_epochs=2))
    skipped = records(tmp_path, "skipped")
    assert [record["utterances"] for record in skipped] == [["train-005"], ["train-005"]]  # once an epoch
    assert trainer.state.counters.bad_steps == 2
    assert "Not finite by themselves: train-005" in caplog.text
    assert all(parameter.isfinite().all() for parameter in trainer.task.model.parameters())
    losses = {record["step"]: record["loss"] for record in records(tmp_path, "train")}
    assert [step for step, loss in losses.items() if np.isnan(loss)] == [record["step"] for record in skipped]


def test_a_skipped_step_leaves_the_weights_alone(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(config_for(corpus, tmp_path, num_epochs=1), ALONE, Recognition)
    trainer._open_logs()
    batches = list(trainer.data.epoch(1))
    trainer._train_on(batches[0])
    before = {name: tensor.clone() for name, tensor in trainer.task.model.state_dict().items()}
    batches[1].features[0, 50, 7] = torch.inf
    trainer._train_on(batches[1])
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.task.model.state_dict().items())
    trainer._train_on(batches[2])
    assert not all(
        torch.equal(tensor, before[name]) for name, tensor in trainer.task.model.state_dict().items()
    )


def test_what_the_start_was_trained_on_is_not_held_out(corpus: Path, tmp_path: Path) -> None:
    trained(config_for(corpus, tmp_path / "start", max_steps=2))
    start = write_averaged_model(AverageConfig(exp_dir=str(tmp_path / "start")))
    for max_steps in (2, 4):  # the second goes on from the first
        config = config_for(corpus, tmp_path / "next", max_steps=max_steps, init_from=str(start))
        config.data.left_out_dialects = ["yue"]
        trained(config)
    model_dir = write_averaged_model(AverageConfig(exp_dir=str(tmp_path / "next")))
    provenance = json.loads((model_dir / "provenance.json").read_text(encoding="utf-8"))
    assert list(provenance["training"]["trained_hours"]) == ["cmn", "nan"]
    assert provenance["trained_dialects"] == ["cmn", "nan", "yue"]


def test_a_step_under_bf16_autocast(corpus: Path, tmp_path: Path) -> None:
    trainer = Trainer(config_for(corpus, tmp_path, num_epochs=1), ALONE, Recognition)
    batch = next(trainer.data.epoch(1))
    trainer.task.model.eval()
    exact = trainer._backward(batch)
    trainer.autocast_dtype = torch.bfloat16
    rough = trainer._backward(batch)
    assert rough != exact
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.02, atol=0.0)
    assert all(parameter.dtype == torch.float32 for parameter in trainer.task.model.parameters())


def test_an_infinite_loss_with_finite_gradients_is_skipped_too(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(config_for(corpus, tmp_path, num_epochs=1), ALONE, Recognition)
    trainer._open_logs()
    batch = next(trainer.data.epoch(1))
    honest = trainer.task.forward

    def infinite(batch: Batch, step: int) -> dict[str, Loss]:
        losses = honest(batch, step)
        if len(batch.ids) == 1:
            return losses
        return losses | {"ctc": losses["ctc"]._replace(total=losses["ctc"].total + torch.inf)}

    monkeypatch.setattr(trainer.task, "forward", infinite)
    before = {name: tensor.clone() for name, tensor in trainer.task.model.state_dict().items()}
    trainer._train_on(batch)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.task.model.state_dict().items())
    # Alone every utterance is finite, so the whole batch is named.
    assert records(tmp_path, "skipped")[0]["utterances"] == batch.ids


def test_too_many_bad_steps_in_a_row_end_the_training(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_infinite(monkeypatch, {f"train-{index:03d}" for index in range(24)})
    with pytest.raises(
        UserError, match=r"4 steps in a row were not finite, the last at step 4: lower optim.lr"
    ):
        trained(config_for(corpus, tmp_path, num_epochs=9, max_bad_steps=3))


def signal_during(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, number: int, *, after: int) -> None:
    """Let this process get a signal at the end of some call, counted from 1, of a function."""
    original, calls = getattr(place, name), iter(range(1, 1000))

    def call(*arguments: Any, **settings: Any) -> Any:
        result = original(*arguments, **settings)
        if next(calls) == after:
            os.kill(os.getpid(), number)
        return result

    monkeypatch.setattr(place, name, call)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_a_checkpoint(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    number: int,
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    trainer = Trainer(config_for(corpus, tmp_path, max_steps=50), ALONE, Recognition)
    signal_during(monkeypatch, trainer, "_report", number, after=3)
    with pytest.raises(SystemExit) as stopped:
        trainer.run()
    assert stopped.value.code == 128 + number
    assert newest(tmp_path).step == 3
    assert f"{signal.Signals(number).name}: finishing the step at hand" in capfd.readouterr().err
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_signal_while_a_checkpoint_is_written_is_obeyed_after_it(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(config_for(corpus, tmp_path, max_steps=50, save_interval=2), ALONE, Recognition)
    signal_during(monkeypatch, trainer.task.model, "save_pretrained", signal.SIGTERM, after=2)
    with pytest.raises(SystemExit):
        trainer.run()
    assert trainer.state.counters.step == newest(tmp_path).step == 4
    newest(tmp_path).verify()


def test_a_signal_breaks_validation_off(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    validation = ValidationConfig(interval=2, max_duration=2.0)  # several batches
    trainer = Trainer(config_for(corpus, tmp_path, max_steps=50, validation=validation), ALONE, Recognition)
    signal_during(
        monkeypatch, trainer.task.model, "encode", signal.SIGTERM, after=3
    )  # two steps, then a batch
    with caplog.at_level(logging.INFO), pytest.raises(SystemExit):
        trainer.run()
    assert "Validation at step 2 is broken off" in caplog.text
    assert records(tmp_path, "valid") == []
    assert newest(tmp_path).step == 2
    assert trainer.task.model.training


def test_a_signal_in_the_last_step_is_obeyed_too(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(corpus, tmp_path, max_steps=2, validation=ValidationConfig(interval=2))
    trainer = Trainer(config, ALONE, Recognition)
    signal_during(monkeypatch, trainer, "_report", signal.SIGTERM, after=2)
    with pytest.raises(SystemExit):
        trainer.run()
    assert newest(tmp_path).step == 2
    assert records(tmp_path, "valid") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_first_step_ends_it_at_once(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    signal_during(monkeypatch, trainer_module, "seed_everything", number, after=1)
    monkeypatch.setattr(trainer_module, "prepare_cpu", lambda threads: None)
    with pytest.raises(SystemExit) as stopped:
        train(config_for(corpus, tmp_path, max_steps=50, device="cpu"), Recognition)
    assert stopped.value.code == 128 + number
    assert not (tmp_path / "checkpoints").exists()
    assert (tmp_path / ".lock").read_bytes() == b""


def test_a_worker_that_dies_is_explained(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, load = os.getpid(), FeatureDataset._load

    def die(self: FeatureDataset, cut: Cut) -> np.ndarray:
        if os.getpid() != main:
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory is short
        return load(self, cut)

    monkeypatch.setattr(FeatureDataset, "_load", die)
    monkeypatch.setattr(trainer_module, "prepare_cpu", lambda threads: None)
    with pytest.raises(
        UserError, match=r"DataLoader worker .*lower data.num_workers or data.prefetch_batches"
    ):
        train(config_for(corpus, tmp_path, max_steps=5, num_workers=1, device="cpu"), Recognition)


def test_validation_reports_error_rates_by_dialect(corpus: Path, tmp_path: Path) -> None:
    validation = ValidationConfig(interval=2, utterances_per_dialect=1, ctc=True)
    trained(config_for(corpus, tmp_path, max_steps=4, validation=validation))
    found = records(tmp_path, "valid")
    assert [record["step"] for record in found] == [2, 4]
    for record in found:
        assert list(record["cer"]) == list(record["cer_ctc"]) == ["overall", "cmn", "nan", "yue"]
    trained(config_for(corpus, tmp_path / "without", max_steps=4))
    # Validation draws nothing and changes nothing.
    with_it, without = newest(tmp_path).weights(), newest(tmp_path / "without").weights()
    assert all(torch.equal(tensor, without[name]) for name, tensor in with_it.items())


def test_the_first_steps_are_reported_early(corpus: Path, tmp_path: Path) -> None:
    trained(config_for(corpus, tmp_path, max_steps=12, log_interval=6))
    assert [record["step"] for record in records(tmp_path, "train")] == [1, 6, 10, 12]


def test_metrics_after_the_checkpoint_are_taken_back(corpus: Path, tmp_path: Path) -> None:
    trained(config_for(corpus, tmp_path, max_steps=3))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 4, "epoch": 1, "loss": 7}\n{"kind": "tra')
    trained(config_for(corpus, tmp_path, max_steps=5))
    assert [record["step"] for record in records(tmp_path, "train")] == [1, 2, 3, 4, 5]


def test_another_model_in_the_same_directory_is_an_error(corpus: Path, tmp_path: Path) -> None:
    config = config_for(corpus, tmp_path, max_steps=2)
    trained(config)
    config.model.joiner_dim = 48
    with pytest.raises(CheckpointError, match=r"model.joiner_dim: 32 -> 48"):
        Trainer(config, ALONE, Recognition)


def test_other_batches_start_the_epoch_over(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained(config_for(corpus, tmp_path, max_steps=7))
    config = config_for(corpus, tmp_path, max_steps=8)
    config.data.max_duration = 6.0
    with caplog.at_level(logging.WARNING):
        trainer = Trainer(config, ALONE, Recognition)
    assert trainer.state.counters.epoch == 2
    assert trainer.state.counters.batches == 0
    assert "Epoch 2 starts over" in caplog.text
    assert "max_duration: 8.0 -> 6.0" in caplog.text


def test_other_tokens_are_refused_and_the_old_ones_stay(corpus: Path, tmp_path: Path) -> None:
    """As many tokens, of which two have changed places: nothing but their meaning tells."""
    data_dir, exp_dir = tmp_path / "data", tmp_path / "exp"
    shutil.copytree(corpus, data_dir)
    trained(config_for(data_dir, exp_dir, max_steps=2))
    model = (data_dir / "tokens" / "tokens.model").read_bytes()
    first, second = (character.encode() for character in "一二")
    other = model.replace(first, b"???").replace(second, first).replace(b"???", second)
    Tokenizer(other).save(data_dir / "tokens")
    config = config_for(data_dir, exp_dir, max_steps=4)
    pattern = (
        rf"2 ids with another meaning.*copy tokens.model and tokens.txt from {exp_dir}.* to {data_dir}/tokens"
    )
    with pytest.raises(UserError, match=pattern):
        trained(config)
    assert (exp_dir / "tokens.model").read_bytes() == model

    for name in ("tokens.model", "tokens.txt"):  # the remedy
        shutil.copy(newest(exp_dir).directory / name, data_dir / "tokens" / name)
    assert trained(config).state.counters.step == 4


def test_corrected_transcripts_start_the_epoch_over_and_are_spoken_of(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data_dir, exp_dir = tmp_path / "data", tmp_path / "exp"
    shutil.copytree(corpus, data_dir)
    trained(config_for(data_dir, exp_dir, max_steps=7))
    cuts = list(read_cuts(data_dir / "cuts_train.jsonl.gz"))
    cuts[3].supervisions[0].text = cuts[3].supervisions[0].text[::-1]
    CutSet.from_cuts(cuts).to_file(data_dir / "cuts_train.jsonl.gz")
    with caplog.at_level(logging.WARNING):
        counters = Trainer(config_for(data_dir, exp_dir, max_steps=8), ALONE, Recognition).state.counters
    assert (counters.step, counters.epoch, counters.batches) == (7, 2, 0)
    assert "The training utterances or their texts have changed" in caplog.text
    assert "Epoch 2 starts over" in caplog.text


@pytest.mark.parametrize(("name", "value"), [("clock_start", 100.0), ("init_from", "elsewhere")])
def test_settings_of_the_start_cannot_change_later(
    corpus: Path, tmp_path: Path, name: str, value: Any
) -> None:
    trained(config_for(corpus, tmp_path, max_steps=2))
    with pytest.raises(CheckpointError, match=rf"{name}: .* -> {value}: this matters only at the start"):
        Trainer(config_for(corpus, tmp_path, max_steps=4, **{name: value}), ALONE, Recognition)


CHANGED_OPTIM = {
    "lr": 0.01,
    "clipping_scale": 0.05,
    "lr_batches": 2.0,
    "lr_epochs": 0.5,
    "warmup_batches": 7.0,
    "warmup_start": 0.9,
    "cooldown": 0.9,
}


@pytest.mark.parametrize("name", [field.name for field in fields(OptimConfig)])
def test_a_changed_setting_of_the_optimiser_takes_effect(corpus: Path, tmp_path: Path, name: str) -> None:
    """The step after resuming is that of a run whose setting is changed by hand at that step."""
    config = config_for(corpus, tmp_path, max_steps=12)
    config.optim = replace(config.optim, warmup_batches=20.0)
    trained(config)
    changed = replace(config, max_steps=13, optim=replace(config.optim, **{name: CHANGED_OPTIM[name]}))

    by_hand = Trainer(replace(config, max_steps=13), ALONE, Recognition)
    optimizer, scheduler = by_hand.optimizer, by_hand.scheduler
    if name == "clipping_scale":
        ratio = CHANGED_OPTIM[name] / config.optim.clipping_scale
        optimizer.param_groups[0][name] = CHANGED_OPTIM[name]
        optimizer._group_state(optimizer.param_groups[0])["threshold"] *= ratio
    elif name == "lr":
        scheduler.base_lrs = [CHANGED_OPTIM[name]]
    elif name == "cooldown":
        scheduler.cooldown_batches = CHANGED_OPTIM[name] * 13
    else:
        setattr(scheduler, name, CHANGED_OPTIM[name])
    scheduler._set_rates()

    random = newest(tmp_path).training_state()["processes"][0]["random"]
    trainers = [
        by_hand,
        Trainer(changed, ALONE, Recognition),
        Trainer(replace(config, max_steps=13), ALONE, Recognition),
    ]
    weights = []
    for trainer in trainers:
        restore_random_state(random)
        trainer.run()
        weights.append(
            torch.cat([parameter.detach().flatten() for parameter in trainer.task.model.parameters()])
        )
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


def test_an_epoch_without_batches_is_an_error(corpus: Path, tmp_path: Path) -> None:
    config = config_for(corpus, tmp_path, max_steps=8)
    config.data.max_duration, config.data.drop_last = 500.0, True
    with pytest.raises(UserError, match=r"data.max_duration"):
        trained(config)


def test_vocabulary_size_comes_from_the_tokens(corpus: Path, tmp_path: Path) -> None:
    config = config_for(corpus, tmp_path, max_steps=1)
    config.model.vocab_size = 7
    with pytest.raises(UserError, match=r"model.vocab_size=7.*leave the setting out"):
        Trainer(config, ALONE, Recognition)


@pytest.mark.parametrize(
    ("group", "setting", "value"),
    [
        ("optim", "lr", -1.0),
        ("optim", "lr_batches", 0.0),
        ("optim", "warmup_start", 2.0),
        ("loss", "prune_range", 1),
    ],
)
def test_a_setting_out_of_range_is_an_error_of_its_user(
    corpus: Path, tmp_path: Path, group: str, setting: str, value: float
) -> None:
    """A command shows it as one message; any other exception would be shown as a bug, with its traceback."""
    config = config_for(corpus, tmp_path, max_steps=1)
    setattr(getattr(config, group), setting, value)
    with pytest.raises(UserError, match=setting):
        trained(config)
