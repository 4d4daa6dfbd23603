"""A head that the toolkit has never heard of, in a file of its own: it trains, resumes and travels."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import in_processes
from tiny_corpus import tiny_model_config, write_tiny_corpus
from toy_head import LengthHead
from training_runs import assert_same_run, config_for, newest, records, trained

from zipformer.distributed import World
from zipformer.errors import UserError
from zipformer.heads import heads
from zipformer.model import AsrModel
from zipformer.model_config import AsrModelConfig, config_from_dict
from zipformer.tasks.recognition import LossConfig, Recognition, RecognitionConfig
from zipformer.training.trainer import Trainer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_corpus(tmp_path_factory.mktemp("corpus"))


def with_the_head(corpus: Path, exp_dir: Path, **settings: Any) -> RecognitionConfig:
    """CTC alone in the first three steps, then all heads."""
    config = config_for(corpus, exp_dir, loss=LossConfig(ctc_first_steps=3, warm_steps=4), **settings)
    config.model.heads = {"length": {"hidden": 6}}
    return config


def test_it_trains_and_resumes_bit_by_bit(corpus: Path, tmp_path: Path) -> None:
    trained(with_the_head(corpus, tmp_path / "straight", max_steps=40))
    for steps in (15, 40):
        torch.rand(7)  # a new process is in another random state
        trained(with_the_head(corpus, tmp_path / "broken", max_steps=steps))
    assert_same_run(tmp_path / "straight", tmp_path / "broken")
    lines = records(tmp_path / "straight", "train")
    assert all("length" not in line for line in lines[:3])
    line = lines[3]
    weights = {"simple": 1.0, "pruned": 0.1, "ctc": 0.2, "attention": 0.8, "length": 0.5}
    assert line["loss"] == pytest.approx(sum(weight * line[name] for name, weight in weights.items()))
    learnt = [sum(line["length"] for line in part) / len(part) for part in (lines[3:10], lines[-7:])]
    assert learnt[1] < 0.8 * learnt[0]


def test_every_parameter_has_a_gradient_with_and_without_its_loss(corpus: Path, tmp_path: Path) -> None:
    task = Trainer(with_the_head(corpus, tmp_path), World(0, 1, torch.device("cpu")), Recognition).task
    head = task.model.head(LengthHead)
    batch = next(iter(Trainer(with_the_head(corpus, tmp_path), task.world, Recognition).data.epoch(1)))
    for step, learns in ((2, False), (3, True)):
        task.zero_grad(set_to_none=True)
        losses = task(batch, step)
        assert ("length" in losses) == learns
        sum(loss.weight * loss.total for loss in losses.values()).backward()
        assert all(parameter.grad is not None for parameter in task.model.parameters())
        assert any(parameter.grad.any() for parameter in head.parameters()) == learns


def _train(rank: int, corpus: Path, root: Path) -> None:
    world = World.join("cpu")
    trainer = Trainer(with_the_head(corpus, root / "exp", max_steps=6), world, Recognition)
    trainer.run()
    torch.save(trainer.task.model.state_dict(), root / f"{rank}.pt")
    world.leave()


def test_two_processes_train_one_head(corpus: Path, tmp_path: Path) -> None:
    in_processes(_train, corpus, tmp_path)
    one, two = torch.load(tmp_path / "0.pt"), torch.load(tmp_path / "1.pt")
    assert any(name.startswith("heads.length.") for name in one)
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    assert newest(tmp_path / "exp").weights().keys() == one.keys()


def test_a_model_directory_brings_it_back(tmp_path: Path) -> None:
    config = tiny_model_config(20)
    config.heads = {"length": {"hidden": 3}}
    model = AsrModel(config).eval()
    model.save_pretrained(tmp_path)
    again = AsrModel.from_pretrained(tmp_path)
    assert again.config == config
    assert again.head(LengthHead).layers[0].out_features == 3
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert AsrModel(tiny_model_config(20)).find(LengthHead) is None

    content = json.loads((tmp_path / "config.json").read_text())
    content["model"]["heads"] = {"lenght": {}}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"config\.json: .*model\.heads\.lenght is not a further head"):
        AsrModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": {"hiden": 3}}, r"model\.heads\.length: .*hiden"),
        ({"length": {"hidden": "wide"}}, r"model\.heads\.length: .*wide"),
        ({"nothing": {}}, r"model\.heads\.nothing is not a further head: registered are .*length"),
        ({"ctc": {}}, r"model\.heads\.ctc is not a further head: set model\.ctc=true"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        AsrModelConfig(vocab_size=10, heads=settings)


def test_a_head_without_rows_for_tokens_needs_none() -> None:
    alone = AsrModelConfig(transducer=False, ctc=False, heads={"length": {}})
    assert not alone.has_tokens
    assert AsrModelConfig(transducer=False).has_tokens
    assert alone.without_heads().head_settings() == {}
    assert config_from_dict(vars(alone) | {"encoder": vars(alone.encoder)} | _nested(alone)) == alone


def _nested(config: AsrModelConfig) -> dict[str, Any]:
    names = ("attention_decoder", "text_alignment")
    return {name: vars(getattr(config, name)) for name in names}


def test_every_module_of_the_package_is_found() -> None:
    assert {"transducer", "ctc", "attention_decoder", "text_alignment"} <= heads().keys()
