"""scripts/train.py and scripts/average.py as a user starts them."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from tiny_corpus import write_tiny_corpus

from fangyan.commands import register
from zipformer.model import AsrModel
from zipformer.tasks import task_named
from zipformer.tasks.recognition import Recognition
from zipformer.training.checkpoint import Checkpoint, list_checkpoints
from zipformer.training.config import TrainConfig, check
from zipformer.training.trainer import train

register("train")

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "model=tiny",
    "model.encoder.num_encoder_layers=[1,1]",
    "model.encoder.downsampling_factor=[1,2]",
    "model.encoder.encoder_dim=[32,48]",
    "model.encoder.encoder_unmasked_dim=[32,32]",
    "model.encoder.feedforward_dim=[32,48]",
    "model.encoder.cnn_module_kernel=[7]",
    "model.encoder.frontend_channels=[4,4,8]",
    "model.predictor_dim=32",
    "model.joiner_dim=32",
    "model.attention_decoder.num_layers=0",
    "data.max_duration=8",
    "data.max_utterance_seconds=5",
    "data.num_workers=1",
    "validation.interval=0",
    "average_period=2",
    "log_interval=1",
    "save_interval=3",
    "num_threads=1",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def cpu_settings_restored() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def command(script: str, *overrides: str) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / script), *overrides]


def run(script: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(script, *overrides), capture_output=True, text=True, timeout=300)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.usefixtures("cpu_settings_restored")
def test_kill_and_start_again(corpus: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of an epoch; the same command goes on, and ends where an unbroken run does."""
    settings = [*TINY, f"data_dir={corpus}", "max_steps=14"]
    broken = [*settings, f"exp_dir={tmp_path / 'broken'}"]
    process = subprocess.Popen(
        command("train.py", *broken), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for(tmp_path / "broken" / "checkpoints" / "step-00000003", process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    step = Checkpoint.open(list_checkpoints(tmp_path / "broken" / "checkpoints")[-1]).step
    assert step < 14

    again = run("train.py", *broken)
    assert again.returncode == 0, again.stdout + again.stderr
    assert re.search(
        rf"Resuming from {tmp_path}/broken/checkpoints/step-0*{step}: step {step}, epoch", again.stdout
    )
    train(composed(*settings, f"exp_dir={tmp_path / 'straight'}"), Recognition)
    weights = [
        Checkpoint.open(tmp_path / name / "checkpoints" / "step-00000014").weights()
        for name in ("broken", "straight")
    ]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())

    averaged = run("average.py", f"exp_dir={tmp_path / 'straight'}")
    assert averaged.returncode == 0, averaged.stdout + averaged.stderr
    assert not AsrModel.from_pretrained(tmp_path / "straight" / "averaged").training


def test_torchrun(corpus: Path, tmp_path: Path) -> None:
    """The same command under torchrun; two gloo processes write one run."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [*TINY, f"data_dir={corpus}", f"exp_dir={tmp_path}", "max_steps=2"]
    result = subprocess.run(
        [*launcher, *command("train.py", *arguments)[1:]], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "processes 2" in result.stdout
    record = Checkpoint.open(tmp_path / "checkpoints" / "step-00000002").record
    assert record["order"]["world_size"] == 2
    assert result.stdout.count("Training data:") == 1


def test_a_wrong_key_is_named_without_a_traceback(corpus: Path, tmp_path: Path) -> None:
    result = run("train.py", *TINY, f"data_dir={corpus}", f"exp_dir={tmp_path}", "optim.learning_rate=1")
    assert result.returncode == 1
    assert result.stderr.startswith("error: optim.learning_rate cannot be set: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr


def test_a_value_of_the_wrong_type_is_named() -> None:
    with pytest.raises(ConfigCompositionException) as error:
        composed("data_dir=data", "exp_dir=exp", "max_steps=many")
    assert "Value 'many' of type 'str' could not be converted to Integer" in str(error.value.__cause__)
    assert "full_key: max_steps" in str(error.value.__cause__)


def test_missing_data_says_what_to_do(tmp_path: Path) -> None:
    result = run("train.py", *TINY, f"data_dir={tmp_path}", f"exp_dir={tmp_path}", "max_steps=1")
    assert result.returncode == 1
    assert f"data_dir={tmp_path} has no cuts_train.jsonl.gz, " in result.stderr
    assert "prepare it with fangyan prepare" in result.stderr


def composed(*overrides: str) -> Any:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = OmegaConf.to_object(compose("train", list(overrides)))
    assert isinstance(config, TrainConfig)
    return config


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")))
def test_every_experiment_is_a_valid_configuration(corpus: Path, name: str) -> None:
    length = ["num_epochs=30"] if name == "cpu" else []  # its user chooses how long it trains
    config = composed(f"experiment={name}", f"data_dir={corpus}", "exp_dir=exp", *length)
    config.init_from = None  # a folder that an earlier stage of the recipe makes
    check(config, task_named(config.task).task_class.problems(config))


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")))
def test_every_model_is_a_valid_configuration(name: str) -> None:
    assert composed(f"model={name}", "data_dir=data", "exp_dir=exp").model.encoder.encoder_dim


def test_experiment_wins_over_the_defaults_and_the_command_line_over_both() -> None:
    config = composed("experiment=mini", "data_dir=data", "exp_dir=exp", "optim.lr=0.02")
    assert config.data.max_duration == composed("data=mini", "data_dir=data", "exp_dir=exp").data.max_duration
    assert (config.max_steps, config.num_threads) == (5000, 1)
    defaults = composed("data_dir=data", "exp_dir=exp")
    assert (defaults.max_steps, defaults.num_threads) == (None, 0)
    assert config.optim.lr == 0.02
