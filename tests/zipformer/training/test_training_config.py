from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_corpus import tiny_model_config

from zipformer.data.selection import DataConfig
from zipformer.errors import UserError
from zipformer.training.config import (
    LossConfig,
    OptimConfig,
    TrainConfig,
    ValidationConfig,
    autocast_dtype,
    check,
)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    (tmp_path / "tokens").mkdir()
    for name in ("cuts_train.jsonl.gz", "cuts_valid.jsonl.gz", "tokens/tokens.model"):
        (tmp_path / name).touch()
    return tmp_path


def config_for(data_dir: Path, **settings: Any) -> TrainConfig:
    return TrainConfig(
        **{
            "exp_dir": "exp",
            "data_dir": str(data_dir),
            "model": tiny_model_config(),
            "max_steps": 10,
            **settings,
        }
    )


def test_a_sound_configuration_passes(data_dir: Path) -> None:
    check(config_for(data_dir))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_steps": None}, "set num_epochs, max_steps or max_minutes"),
        ({"max_steps": 0}, "max_steps=0 trains nothing"),
        ({"max_minutes": -1.0}, "max_minutes=-1.0 trains nothing"),
        ({"average_period": 0}, "average_period=0 must be positive"),
        ({"ref_duration": -5.0}, "ref_duration=-5.0 must be positive"),
        ({"data": DataConfig(max_duration=10.0)}, "data.max_utterance_seconds=20 does not fit"),
        ({"data": DataConfig(min_utterance_seconds=30.0)}, "data.min_utterance_seconds"),
        ({"precision": "fp16"}, "precision=fp16 is not known: choose one of auto, fp32, bf16"),
        ({"precision": "bf16", "device": "cpu"}, "set precision=auto or fp32"),
        ({"optim": OptimConfig(cooldown=1.5)}, "optim.cooldown=1.5 is not a share of the run"),
        ({"optim": OptimConfig(cooldown=0.5), "max_steps": None, "num_epochs": 1}, "set max_steps, or"),
        ({"loss": LossConfig(backend="fast")}, "loss.backend=fast: there is no backend 'fast'"),
        ({"validation": ValidationConfig(split="dev")}, "cuts_dev.jsonl.gz: prepare it"),
        ({"init_from": "/nowhere"}, "init_from=/nowhere is not a folder"),
    ],
)
def test_problems_name_the_setting(data_dir: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        check(config_for(data_dir, **settings))
    assert message in str(error.value)


def test_ctc_validation_needs_a_ctc_head(data_dir: Path) -> None:
    config = config_for(data_dir, validation=ValidationConfig(ctc=True))
    config.model.ctc = False
    with pytest.raises(UserError, match=r"set model.ctc=true or validation.ctc=false"):
        check(config)


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        check(config_for(tmp_path, max_steps=None, log_interval=0))
    lines = str(error.value).splitlines()
    assert len(lines) == 1 + 3  # two settings and the data
    assert "has no cuts_train.jsonl.gz, cuts_valid.jsonl.gz, tokens/tokens.model: prepare it" in lines[-1]


def test_validation_split_is_not_needed_without_validation(data_dir: Path) -> None:
    (data_dir / "cuts_valid.jsonl.gz").unlink()
    check(config_for(data_dir, validation=ValidationConfig(interval=0)))


@pytest.mark.parametrize(
    ("step", "simple", "pruned"),
    [(0, 1.0, 0.1), (500, 0.875, 0.325), (1000, 0.75, 0.55), (2000, 0.5, 1.0), (9999, 0.5, 1.0)],
)
def test_loss_weights_warm_up(step: int, simple: float, pruned: float) -> None:
    weights = LossConfig().weights(step)
    assert weights["simple"] == pytest.approx(simple)
    assert weights["pruned"] == pytest.approx(pruned)
    assert (weights["ctc"], weights["attention"]) == (0.2, 0.8)


def test_loss_weights_without_warm_up() -> None:
    assert LossConfig(warm_steps=0).weights(0)["pruned"] == 1.0


def present(weights: dict[str, float]) -> dict[str, float]:
    return {name: weight for name, weight in weights.items() if weight}


def test_ctc_comes_first_and_the_warm_up_counts_from_there() -> None:
    loss = LossConfig(ctc_first_steps=100, warm_steps=200, translation=0.0, text_alignment=0.0)
    assert present(loss.weights(99)) == {"ctc": 1.0}
    assert present(loss.weights(100)) == pytest.approx(
        {"simple": 1.0, "pruned": 0.1, "ctc": 0.2, "attention": 0.8}
    )
    assert present(loss.weights(200)) == pytest.approx(
        {"simple": 0.75, "pruned": 0.55, "ctc": 0.2, "attention": 0.8}
    )


def test_no_autocast_on_the_cpu(data_dir: Path) -> None:
    assert autocast_dtype(config_for(data_dir), torch.device("cpu")) is None
