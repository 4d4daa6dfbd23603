"""BEST-RQ: loss against its definition, what the encoder hears, and training with the trainer."""

import gzip
import json
import logging
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import in_processes
from reference import best_rq as reference
from tiny_corpus import tiny_model_config, write_tiny_corpus
from training_runs import ALONE, assert_same_run, config_for, newest, records

from data_prep.tokens import train_token_model
from zipformer.data.batches import PADDING_VALUE, Batch
from zipformer.data.tokenizer import Tokenizer
from zipformer.distributed import World
from zipformer.errors import UserError
from zipformer.model import AsrModel
from zipformer.run_averaging import main as average
from zipformer.tasks.best_rq import BestRq, BestRqConfig, BestRqTrainConfig
from zipformer.tasks.initialise import initialise_from
from zipformer.training.averaging import AverageConfig
from zipformer.training.config import check
from zipformer.training.trainer import Trainer

SMALL = BestRqConfig(num_codebooks=2, codebook_size=20, code_dim=4, mask_span=3, mask_start=0.1)


def batch_of(*frames: int) -> Batch:
    """Utterances of random features, padded as batches are."""
    lengths = torch.tensor(frames)
    features = torch.full((len(frames), max(frames), 80), PADDING_VALUE)
    generator = torch.Generator().manual_seed(0)
    for row, length in zip(features, frames, strict=True):
        row[:length] = torch.randn(length, 80, generator=generator) * 3 - 8
    return Batch(features, lengths, [[] for _ in frames], list("abcdefgh"[: len(frames)]), [])


def small_task(rank: int = 0, **settings: Any) -> BestRq:
    config = BestRqTrainConfig(exp_dir="", data_dir="", model=tiny_model_config(), best_rq=SMALL, **settings)
    task = BestRq(config, World(rank, 1, torch.device("cpu")))
    task.eval()
    return task


def heard_by(task: BestRq, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Receives what the encoder hears and its frames at every step."""
    heard: list[torch.Tensor] = []
    encode = task.model.encode

    def listen(features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frames, frame_lengths = encode(features, lengths)
        heard.extend([features, frames])
        return frames, frame_lengths

    monkeypatch.setattr(task.model, "encode", listen)
    return heard


def test_loss_is_that_of_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    task = small_task()
    heard = heard_by(task, monkeypatch)
    batch = batch_of(120, 47, 9)
    features, lengths = batch.features, batch.lengths
    loss = task(batch, 7)["best_rq"]
    _, labels, places = task.predict(batch, 7)

    hidden, frames = heard[:2]
    weight = task.label_head.weight.detach().numpy().reshape(2, 20, -1)
    bias = task.label_head.bias.detach().numpy().reshape(2, 20)
    expected, found = 0.0, []
    for n, length in enumerate(lengths.tolist()):
        assert torch.equal(hidden[n, length:], features[n, length:])  # padding is left as it is
        for i, stack in enumerate(reference.stacks(features[n, :length].numpy())):
            changed = (hidden[n] != features[n]).any(dim=1)[4 * i + 3 : 4 * i + 7]
            assert changed.all() or not changed.any()  # hidden wholly or not at all
            if not changed.any():
                continue
            found.append(n * frames.shape[1] + i)
            for book in range(2):
                projection = task.quantiser.projections[book].numpy()
                target, margin = reference.label(stack, projection, task.quantiser.codes[book].numpy())
                assert margin > 1e-5
                expected += reference.cross_entropy(
                    frames[n, i].detach().numpy(), weight[book], bias[book], target
                )
    assert places.tolist() == found
    assert labels.shape == (len(found), 2)
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)
    assert (loss.terms, loss.weight) == (2 * len(found), 1.0)


def test_an_utterance_has_the_same_mask_noise_and_loss_alone_and_in_any_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = small_task()
    heard = heard_by(task, monkeypatch)
    batch = batch_of(120, 47, 200, 9, 16)
    together = task(batch, 7)["best_rq"]
    hidden = heard[0]
    total, terms = 0.0, 0.0
    for index, length in enumerate(batch.lengths.tolist()):
        heard.clear()
        loss = task(batch.alone(index), 7)["best_rq"]
        torch.testing.assert_close(heard[0][0], hidden[index, :length], rtol=1e-5, atol=1e-4)
        total, terms = total + loss.total.item(), terms + loss.terms
    assert terms == together.terms
    assert total == pytest.approx(together.total.item(), rel=1e-4)


def test_it_learns_the_labels_of_one_batch() -> None:
    task, batch = small_task(), batch_of(120, 47)
    optimizer = torch.optim.Adam(task.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        loss = task(batch, 7)["best_rq"].total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_masks_and_noise_depend_on_seed_step_and_utterance_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(200, 150)
    inputs = []
    for step, rank, seed in ((5, 0, 42), (5, 1, 42), (6, 0, 42), (5, 0, 43)):
        task = small_task(rank, seed=seed)
        heard = heard_by(task, monkeypatch)
        torch.manual_seed(len(inputs))
        task.predict(batch, step)
        inputs.append(heard[0])
    assert torch.equal(inputs[0], inputs[1])
    assert not any(torch.equal(inputs[0], other) for other in inputs[2:])


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_codebooks", 0),
        ("codebook_size", 1),
        ("code_dim", 0),
        ("mask_span", 0),
        ("mask_start", 1.5),
        ("noise", -1.0),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: str, value: float) -> None:
    with pytest.raises(UserError, match=f"best_rq.{setting}="):
        BestRqConfig(**{setting: value})


@pytest.fixture(scope="module")
def untranscribed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus without transcripts and without tokens."""
    corpus = write_tiny_corpus(tmp_path_factory.mktemp("corpus"))
    manifest = corpus / "cuts_train.jsonl.gz"
    with gzip.open(manifest, "rt", encoding="utf-8") as stream:
        cuts = [json.loads(line) for line in stream]
    with gzip.open(manifest, "wt", encoding="utf-8") as stream:
        for cut in cuts:
            del cut["supervisions"][0]["text"]
            stream.write(json.dumps(cut) + "\n")
    for file in (corpus / "tokens").iterdir():
        file.unlink()
    return corpus


def best_rq_config(corpus: Path, exp_dir: Path, **settings: Any) -> BestRqTrainConfig:
    config = config_for(corpus, exp_dir, **settings)
    config.data.spec_augment.probability = 0.0
    shared = {item.name for item in fields(BestRqTrainConfig)} - {"task", "best_rq"}
    return BestRqTrainConfig(**{name: getattr(config, name) for name in shared}, best_rq=SMALL)


def test_it_trains_without_transcripts_and_resumes_with_the_same_bits(
    untranscribed: Path, tmp_path: Path
) -> None:
    for exp_dir, ends in ((tmp_path / "whole", [8]), (tmp_path / "parts", [3, 8])):
        for max_steps in ends:
            config = best_rq_config(untranscribed, exp_dir, max_steps=max_steps)
            check(config, BestRq.problems(config))
            Trainer(config, ALONE, BestRq).run()
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    steps = records(tmp_path / "whole", "train")
    for step in steps:
        assert 1 <= step["distinct"] <= 20
        assert 1 <= step["perplexity"] <= step["distinct"]
        assert 0 <= step["accuracy"] <= 1
        assert 0 < step["masked_share"] < 1
    # Neither trained nor averaged: the codebooks are those of the start.
    start = BestRq(best_rq_config(untranscribed, tmp_path / "none"), ALONE).own_state()
    trained = newest(tmp_path / "whole").training_state()["task"]
    for name in ("quantiser.projections", "quantiser.codes"):
        assert torch.equal(trained[name], start[name])
    assert not torch.equal(trained["label_head.weight"], start["label_head.weight"])


def _train(rank: int, corpus: Path, exp_dir: Path) -> None:
    world = World.join("cpu")
    for exp, ends in (("whole", [5]), ("parts", [2, 5])):
        for max_steps in ends:
            trainer = Trainer(best_rq_config(corpus, exp_dir / exp, max_steps=max_steps), world, BestRq)
            trainer.run()
        torch.save(trainer.task.state_dict(), exp_dir / exp / f"weights-{rank}.pt")
    world.leave()


def test_two_processes_stay_equal_and_resume_with_the_same_bits(untranscribed: Path, tmp_path: Path) -> None:
    in_processes(_train, untranscribed, tmp_path)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    first, second = (torch.load(tmp_path / "whole" / f"weights-{rank}.pt") for rank in range(2))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_other_codebooks_cannot_be_resumed(untranscribed: Path, tmp_path: Path) -> None:
    Trainer(best_rq_config(untranscribed, tmp_path, max_steps=2), ALONE, BestRq).run()
    config = best_rq_config(untranscribed, tmp_path, max_steps=4)
    config.best_rq = replace(SMALL, codebook_size=30)
    with pytest.raises(UserError, match=r"best_rq\.codebook_size: 20 -> 30"):
        Trainer(config, ALONE, BestRq)


def test_its_model_is_a_start_for_recognition(
    untranscribed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Trainer(
        best_rq_config(untranscribed, tmp_path / "exp", max_steps=6, save_interval=2), ALONE, BestRq
    ).run()
    directory = average(AverageConfig(exp_dir=str(tmp_path / "exp"), last_fraction=0.7))
    tokenizer = Tokenizer(train_token_model(["一二三"]))
    model = AsrModel(tiny_model_config(tokenizer.size))
    with caplog.at_level(logging.WARNING):
        transfer = initialise_from(model, directory, tokenizer)
        transfer.report(directory)
    encoder = {name for name in model.state_dict() if name.startswith(("frontend.", "encoder."))}
    assert set(transfer.loaded) == encoder
    assert not transfer.unused
    assert AsrModel.from_pretrained(directory).config == model.config.without_heads()


def test_labels_that_say_little_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    config = BestRqTrainConfig(exp_dir="", data_dir="", model=tiny_model_config())
    task = BestRq(config, ALONE)
    labels = torch.zeros(1000, 4, dtype=torch.int64)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            task.counts.add(labels, torch.zeros(1000, 4, 8192), frames=3000)
            monitors = task.monitors()
    assert monitors == {
        "distinct": 1.0,
        "perplexity": 1.0,
        "top_share": 1.0,
        "accuracy": 1.0,
        "masked_share": pytest.approx(1 / 3),
    }
    assert caplog.text.count("codebook 0 has a perplexity of 1.0, and one code is the label of 100 %") == 1


def test_distorted_features_are_refused(untranscribed: Path, tmp_path: Path) -> None:
    config = best_rq_config(untranscribed, tmp_path / "exp", max_steps=1)
    config.data.spec_augment.probability = 0.9
    with pytest.raises(UserError, match=r"data\.spec_augment\.probability=0\.9"):
        check(config, BestRq.problems(config))
