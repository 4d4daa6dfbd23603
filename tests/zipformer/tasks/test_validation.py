from pathlib import Path
from typing import Any

import pytest
import torch
from lhotse import CutSet
from tiny_corpus import tiny_model_config, write_tiny_corpus

from data_prep.tokens import train_token_model
from zipformer.data.cuts import read_cuts
from zipformer.data.tokenizer import Tokenizer
from zipformer.distributed import World
from zipformer.heads.transducer import TransducerHead
from zipformer.model import AsrModel
from zipformer.scoring import align
from zipformer.tasks import validation as module
from zipformer.tasks.validation import ValidationConfig, Validator, choose_utterances


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_corpus(tmp_path_factory.mktemp("corpus"))


def test_error_rates_by_dialect(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that leaves out the last character of every text has as many errors as utterances."""
    tokenizer = Tokenizer.load(corpus / "tokens")
    cuts = sorted(read_cuts(corpus / "cuts_valid.jsonl.gz"), key=lambda cut: -cut.duration)
    answers = iter([tokenizer.encode(cut.supervisions[0].text)[:-1] for cut in cuts])

    def search(head: TransducerHead, frames: torch.Tensor, lengths: torch.Tensor) -> list[list[int]]:
        assert not head.training
        return [next(answers) for _ in lengths]

    monkeypatch.setattr(module, "greedy_search", search)
    config = ValidationConfig(max_duration=4.0)
    validator = Validator(corpus, tokenizer, config, World(0, 1, torch.device("cpu")))
    model = AsrModel(tiny_model_config(tokenizer.size)).train()
    rates = validator(model)["cer"]
    assert model.training
    expected: dict[str, Any] = {"overall": [0, 0]}
    for cut in cuts:
        supervision = cut.supervisions[0]
        for name in ("overall", supervision.language):
            errors, characters = expected.get(name, (0, 0))
            expected[name] = (errors + 1, characters + len(supervision.text))
    assert rates == pytest.approx({name: 100 * e / n for name, (e, n) in expected.items()})


def test_a_fixed_choice_of_each_dialect(corpus: Path) -> None:
    cuts = read_cuts(corpus / "cuts_train.jsonl.gz")
    chosen = choose_utterances(cuts, 3)
    assert sorted(cut.supervisions[0].language for cut in chosen) == ["cmn"] * 3 + ["nan"] * 3 + ["yue"] * 3
    assert [cut.id for cut in choose_utterances(cuts, 3)] == [cut.id for cut in chosen]
    assert len(list(choose_utterances(cuts, 100))) == 24
    assert isinstance(chosen, CutSet)


def test_a_dialect_without_reference_characters_has_no_rate() -> None:
    counted = {"overall": align("你好", "你").counts, "yue": align("", "").counts}
    assert module._rates([counted]) == {"overall": 50.0}


def test_texts_that_the_tokens_cannot_write_are_named(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    known, unknown = Tokenizer.load(corpus / "tokens"), Tokenizer(train_token_model(["口"]))
    for tokenizer, warnings in ((known, 0), (unknown, 1)):
        Validator(corpus, tokenizer, ValidationConfig(), World(0, 1, torch.device("cpu")))
        found = [record for record in caplog.records if "of the split valid are no tokens" in record.message]
        assert len(found) == warnings
