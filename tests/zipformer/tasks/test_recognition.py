"""Recognition as a task: which utterances are to blame for a step that is not finite, and its settings."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_corpus import write_tiny_corpus
from training_runs import ALONE, config_for, records

from zipformer.data.batches import Batch
from zipformer.heads.attention_decoder import AttentionDecoder
from zipformer.tasks import task_named, tasks
from zipformer.tasks.recognition import Recognition, RecognitionConfig
from zipformer.training.config import check
from zipformer.training.trainer import Trainer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_corpus(tmp_path_factory.mktemp("corpus"))


def test_an_utterance_is_judged_by_the_losses_that_are_trained(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The translation of one utterance is not finite; all that recognition alone computes is."""
    config = config_for(corpus, tmp_path, num_epochs=1)
    config.model.attention_decoder.translation = True
    config.translation_field = "text"
    trainer = Trainer(config, ALONE, Recognition)
    trainer._open_logs()
    batch = next(trainer.data.epoch(1))
    assert batch.translations is not None
    assert len(batch.ids) > 1
    guilty = batch.translations[1]
    decoder = trainer.task.model.head(AttentionDecoder)
    honest = decoder.loss

    def spoilt(frames: Any, lengths: Any, tokens: Any, *, translate: bool = False) -> torch.Tensor:
        loss = honest(frames, lengths, tokens, translate=translate)
        return loss + torch.inf if translate and guilty in tokens else loss

    monkeypatch.setattr(decoder, "loss", spoilt)
    with caplog.at_level(logging.WARNING):
        trainer._train_on(batch)
    blamed = [name for name, tokens in zip(batch.ids, batch.translations, strict=True) if tokens == guilty]
    assert records(tmp_path, "skipped")[0]["utterances"] == blamed
    assert "Not finite by themselves" in caplog.text
    caplog.clear()
    config.loss.translation = 0.0  # a loss that is not trained spoils no step
    trainer._train_on(batch)
    assert not caplog.text


def test_a_batch_of_one_utterance_has_no_padding(corpus: Path, tmp_path: Path) -> None:
    trainer = Trainer(config_for(corpus, tmp_path, num_epochs=1), ALONE, Recognition)
    batch: Batch = next(trainer.data.epoch(1))
    for index, name in enumerate(batch.ids):
        alone = batch.alone(index)
        assert (alone.ids, alone.tokens) == ([name], [batch.tokens[index]])
        assert alone.features.shape[1] == int(alone.lengths) == int(batch.lengths[index])
        assert torch.equal(alone.features[0], batch.features[index, : int(alone.lengths)])


def test_tasks_are_found_by_name() -> None:
    assert {"recognition", "best_rq"} <= tasks().keys()
    assert task_named("recognition").config_class is RecognitionConfig
    with pytest.raises(ValueError, match=r"task=recogniton is not known: choose one of best_rq, recognition"):
        task_named("recogniton")


def test_a_model_without_transducer_and_ctc_cannot_be_trained_to_recognise(
    corpus: Path, tmp_path: Path
) -> None:
    config = config_for(corpus, tmp_path, max_steps=1)
    config.model.transducer = config.model.ctc = False
    with pytest.raises(ValueError, match=r"neither model\.transducer nor model\.ctc"):
        check(config, Recognition.problems(config))
