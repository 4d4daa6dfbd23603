"""The window of the average is the one that recognises the validation split best, by brute force."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from lhotse import CutSet
from small_model import write_cuts, write_model
from torch import Tensor
from training_runs import WithTokens

from zipformer.decoding.methods import DecodeConfig
from zipformer.decoding.recognise import decode
from zipformer.model import AsrModel
from zipformer.run_averaging import main as write_averaged_model
from zipformer.scoring import align_all
from zipformer.tasks.validation import ValidationConfig
from zipformer.tasks.windows import CerScorer
from zipformer.training.averaging import AverageConfig, RunningAverage
from zipformer.training.checkpoint import CheckpointError, save_checkpoint

STEPS = range(10, 110, 10)


@pytest.fixture(scope="module")
def exp_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 100 steps whose weights wander, trained on one of the two dialects of its validation split."""
    root = tmp_path_factory.mktemp("run")
    data, exp = root / "data", root / "exp"
    write_cuts(data, "valid")
    model = write_model(exp)  # for the tokens beside it
    average = RunningAverage()
    generator = torch.Generator().manual_seed(3)
    for step in STEPS:
        with torch.no_grad():
            for weight in (parameter for parameter in model.parameters() if parameter.dim() > 1):
                weight += 0.3 * weight.std() * torch.randn(weight.shape, generator=generator)
        average.update(model.state_dict())
        save_checkpoint(
            exp / "checkpoints",
            model=WithTokens(model, exp),
            average=average.tensors,
            training={},
            record={
                "step": step,
                "average_samples": average.samples,
                "trained_hours": {"yue": 1.0},
                "known_dialects": [],
                "config": {
                    "task": "recognition",
                    "data_dir": str(data),
                    "validation": asdict(ValidationConfig(interval=0)),
                    "loss": {"ctc_first_steps": 0},
                },
            },
        )
    return exp


def error_rates(model_dir: Path, data_dir: Path) -> dict[str, float]:
    """CER in per cent of the trained dialect, by the script's own decoding."""
    rates = {}
    for method in ("greedy", "ctc"):
        _, transcripts = decode(DecodeConfig(str(model_dir), str(data_dir), split="valid", method=method))
        scored = align_all([transcript for transcript in transcripts if transcript.dialect == "yue"])
        counts = sum((item.alignment.counts for item in scored[1:]), scored[0].alignment.counts)
        assert counts.rate is not None
        rates[method] = counts.rate
    return rates


def test_the_best_window_is_chosen(exp_dir: Path, tmp_path: Path) -> None:
    data = exp_dir.parent / "data"
    expected = {}
    for start in (50, 70, 80, 90):  # nearest to the last 5 and 10, 15, 25 and 50 %, the earlier of equals
        config = AverageConfig(str(exp_dir), start_step=start, model_dir=str(tmp_path / f"{start}"))
        expected[start, 100] = error_rates(write_averaged_model(config), data)
    last = tmp_path / "last"
    AsrModel.from_pretrained(exp_dir / "checkpoints" / "step-00000100").save_pretrained(last)
    for name in ("tokens.model", "tokens.txt"):
        (last / name).write_bytes((exp_dir / name).read_bytes())
    expected[100,] = error_rates(last, data)

    directory = write_averaged_model(AverageConfig(str(exp_dir), model_dir=str(tmp_path / "averaged")))
    provenance = json.loads((directory / "provenance.json").read_text())
    window = provenance["window"]
    found = {tuple(candidate["steps"]): candidate["cer"] for candidate in window["candidates"]}
    assert found.keys() == expected.keys()
    for steps, rates in expected.items():
        assert found[steps] == pytest.approx(rates)
    means = {steps: sum(rates.values()) for steps, rates in found.items()}
    assert len(set(means.values())) > 1
    assert means[tuple(provenance["steps"])] == min(means.values())
    assert window["dialects"] == ["yue"]
    assert "3 utterances of the split valid" in window["by"]
    torch.testing.assert_close(error_rates(directory, data), expected.get(tuple(provenance["steps"])))


def test_a_restart_decodes_nothing_twice(
    exp_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = AverageConfig(str(exp_dir), model_dir=str(tmp_path / "averaged"), windows=[0.1, 0.5])
    score = CerScorer.__call__
    calls = []

    def count_and_stop(self: CerScorer, weights: Mapping[str, Tensor]) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(self, weights)

    monkeypatch.setattr(CerScorer, "__call__", count_and_stop)
    with pytest.raises(KeyboardInterrupt):
        write_averaged_model(config)
    with caplog.at_level(logging.INFO):
        write_averaged_model(config)
    assert len(calls) == 4  # two, the one that was interrupted, and that one again
    assert "chosen" in caplog.text
    write_averaged_model(config)
    assert len(calls) == 4


def test_windows_are_not_chosen_without_validation_data(exp_dir: Path, tmp_path: Path) -> None:
    data = tmp_path / "empty"
    config = AverageConfig(str(exp_dir), model_dir=str(tmp_path / "averaged"), data_dir=str(data))
    with pytest.raises(CheckpointError, match=r"cuts_valid\.jsonl\.gz is not there.*last_fraction=0\.25"):
        write_averaged_model(config)
    cuts = write_cuts(data, "valid")
    CutSet.from_cuts(cut for cut in cuts if cut.supervisions[0].language == "wuu").to_file(
        data / "cuts_valid.jsonl.gz"
    )
    with pytest.raises(CheckpointError, match=r"no utterance of a trained dialect \(yue\)"):
        write_averaged_model(config)
    assert not (tmp_path / "averaged").exists()


def test_windows_are_never_chosen_on_the_test_split(exp_dir: Path, tmp_path: Path) -> None:
    for record in exp_dir.glob("checkpoints/*/checkpoint.json"):
        target = tmp_path / "exp" / "checkpoints" / record.parent.name
        target.mkdir(parents=True)
        for file in record.parent.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
        content = json.loads(record.read_text())
        content["config"]["validation"]["split"] = "test"
        (target / "checkpoint.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="split test, on which no window may be chosen"):
        write_averaged_model(AverageConfig(str(tmp_path / "exp")))
