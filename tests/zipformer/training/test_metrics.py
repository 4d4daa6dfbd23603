import io
import json
import logging
import math
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from zipformer.distributed import World
from zipformer.training.metrics import Interval, MetricsLog, ProgressLine, progress_text
from zipformer.training.task import Loss

ALONE = World(0, 1, torch.device("cpu"))


def add(
    interval: Interval, losses: dict[str, tuple[float, int]], total: float, frames: int, seconds: float
) -> None:
    values = {name: Loss(torch.tensor(value), terms, 1.0) for name, (value, terms) in losses.items()}
    interval.add(values, torch.tensor(total), frames, seconds)


def test_losses_are_per_frame_of_the_finite_steps() -> None:
    interval = Interval()
    add(interval, {"ctc": (6.0, 4), "codes": (9.0, 30)}, 8.0, 4, 1.5)
    add(interval, {"ctc": (math.inf, 100), "codes": (5.0, 50)}, math.nan, 100, 1.5)
    add(interval, {"ctc": (2.0, 2), "codes": (3.0, 10)}, 4.0, 2, 1.0)
    summary = interval.summary(ALONE)
    assert summary["ctc"] == pytest.approx(8 / 6)
    assert summary["codes"] == pytest.approx(12 / 40)
    assert summary["loss"] == pytest.approx(12 / 6)
    assert interval.losses == ["ctc", "codes"]


def test_no_finite_step_gives_nan() -> None:
    interval = Interval()
    add(interval, {}, math.nan, 4, 1.0)
    assert math.isnan(interval.summary(ALONE)["loss"])


def test_waiting_is_measured_and_pauses_are_left_out() -> None:
    def slow() -> object:
        for number in range(3):
            time.sleep(0.05)
            yield number

    interval = Interval()
    seen = []
    for number in interval.waiting(slow()):
        seen.append(number)
        time.sleep(0.05)
        add(interval, {}, 1.0, 1, 2.0)
    with interval.pause():
        time.sleep(0.3)
    summary = interval.summary(ALONE)
    assert seen == [0, 1, 2]
    assert 0.35 < summary["data_wait_share"] < 0.65
    assert 10 < summary["audio_seconds_per_second"] <= 6 / 0.3


def test_metrics_go_to_the_file_and_to_tensorboard(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.write("train", 5, 1, {"loss": 2.5, "lr": 0.01})
    log.write("valid", 5, 1, {"cer": {"overall": 50.0, "yue": 60.0}})
    log.write("skipped", 6, 1, {"bad_steps": 1, "utterances": ["a"]})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [
        {"kind": "train", "step": 5, "epoch": 1, "loss": 2.5, "lr": 0.01},
        {"kind": "valid", "step": 5, "epoch": 1, "cer": {"overall": 50.0, "yue": 60.0}},
        {"kind": "skipped", "step": 6, "epoch": 1, "bad_steps": 1, "utterances": ["a"]},
    ]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {
        "train/loss",
        "train/lr",
        "valid/cer/overall",
        "valid/cer/yue",
        "skipped/bad_steps",
    }
    assert events.Scalars("valid/cer/yue")[0].value == 60.0


def test_a_resumed_log_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    for step in (1, 2, 3):
        log.write("train", step, 1, {"loss": float(step)})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    log = MetricsLog(tmp_path, from_step=2)
    log.write("train", 3, 1, {"loss": 33.0})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 2.0), (3, 33.0)]


VALUES = {
    "loss": 1.2345,
    "simple": 0.5,
    "ctc": 0.25,
    "lr": 0.0123,
    "audio_seconds_per_second": 91.4,
    "data_wait_share": 0.034,
}


def test_progress_text() -> None:
    assert progress_text(120, 3, VALUES, losses=["simple", "ctc"], done=0.25, elapsed=3700.0) == (
        "step 120 epoch 3 loss 1.234 (simple 0.500 ctc 0.250) lr 1.23e-02 91 audio-s/s, waiting for data 3%, "
        "1:01:40 gone, 3:05:00 left"
    )
    assert progress_text(1, 1, VALUES, losses=["simple", "ctc"], done=0.0, elapsed=5.0).endswith(
        "0:05 gone, ? left"
    )


def test_on_a_terminal_log_messages_go_above_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(
        "zipformer.training.metrics.Console",
        lambda stderr: Console(file=screen, force_terminal=True, width=200),
    )
    handlers = logging.getLogger().handlers
    with ProgressLine() as line:
        line.report(7, 1, VALUES, losses=["simple", "ctc"], done=0.5, elapsed=1.0)
        logging.getLogger("zipformer").warning("something happened")
    assert "something happened" in screen.getvalue()
    assert "step 7 epoch 1 loss" in screen.getvalue()
    assert logging.getLogger().handlers is handlers


def test_without_a_terminal_the_progress_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for enabled in (True, False):
        with ProgressLine(enabled=enabled) as line:
            line.report(7, 1, VALUES, losses=["simple", "ctc"], done=0.5, elapsed=1.0)
    assert caplog.text.count("step 7 epoch 1") == 1
