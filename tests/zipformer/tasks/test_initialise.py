import json
import logging
from pathlib import Path

import pytest
import torch
from tiny_corpus import tiny_model_config

from data_prep.tokens import train_token_model
from zipformer.data.tokenizer import Tokenizer
from zipformer.errors import UserError
from zipformer.model import AsrModel
from zipformer.model_dir import dialects_of
from zipformer.tasks.initialise import initialise_from, vocabulary_modules


def tokenizer_of(text: str) -> Tokenizer:
    return Tokenizer(train_token_model([text]))


def saved_model(directory: Path, tokenizer: Tokenizer) -> AsrModel:
    torch.manual_seed(0)
    model = AsrModel(tiny_model_config(tokenizer.size))
    model.save_pretrained(directory)
    tokenizer.save(directory)
    return model


def fresh_model(tokenizer: Tokenizer) -> AsrModel:
    torch.manual_seed(1)
    return AsrModel(tiny_model_config(tokenizer.size))


def test_the_same_vocabulary_loads_everything(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("甲乙丙丁")
    source = saved_model(tmp_path, tokenizer)
    model = fresh_model(tokenizer)
    transfer = initialise_from(model, tmp_path, tokenizer)
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert len(transfer.loaded) == len(source.state_dict())
    assert (transfer.by_token, transfer.not_loaded, transfer.unused) == ([], [], [])


@pytest.mark.parametrize("text", ["丙戊乙", "丙戊己甲"])  # another size; the same size with other characters
def test_another_vocabulary_keeps_the_rows_of_common_tokens(tmp_path: Path, text: str) -> None:
    old, new = tokenizer_of("甲乙乙丙丙丙丁丁丁丁"), tokenizer_of(text)
    source = saved_model(tmp_path, old).state_dict()
    model = fresh_model(new)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    transfer = initialise_from(model, tmp_path, new)
    after = model.state_dict()
    assert transfer.shared_tokens == sum(piece in old.pieces for piece in new.pieces)
    assert len(transfer.by_token) == 12
    assert set(transfer.by_token) | set(transfer.loaded) == set(after)
    for name in transfer.by_token:
        for row, piece in enumerate(new.pieces):
            known = piece in old.pieces
            expected = source[name][old.pieces.index(piece)] if known else before[name][row]
            assert torch.equal(after[name][row], expected)
    assert all(torch.equal(after[name], source[name]) for name in transfer.loaded)


def test_every_parameter_with_a_row_per_token_is_known() -> None:
    sizes = [
        {name: t.shape for name, t in AsrModel(tiny_model_config(v)).state_dict().items()} for v in (300, 301)
    ]
    depend_on_tokens = [name for name, shape in sizes[0].items() if shape != sizes[1][name]]
    assert len(depend_on_tokens) == 12
    assert all(name.startswith(vocabulary_modules()) for name in depend_on_tokens)


def test_what_does_not_fit_is_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = tokenizer_of("甲乙丙丁")
    saved_model(tmp_path, tokenizer)
    config = tiny_model_config(tokenizer.size)
    config.joiner_dim = 48
    config.attention_decoder.num_layers = 0
    model = AsrModel(config)
    transfer = initialise_from(model, tmp_path, tokenizer)
    assert (
        "heads.transducer.joiner.encoder_proj.weight ((32, 48) there, (48, 48) here)" in transfer.not_loaded
    )
    assert all(line.startswith("heads.transducer.joiner.") for line in transfer.not_loaded)
    assert transfer.unused
    assert all(name.startswith("heads.attention_decoder.") for name in transfer.unused)
    with caplog.at_level(logging.WARNING):
        transfer.report(tmp_path)
    not_loaded, unused = caplog.messages
    assert not_loaded == (
        f"{len(transfer.not_loaded)} tensors not loaded, they start at random: {len(transfer.not_loaded)} of "
        "heads.transducer, the first heads.transducer.joiner.encoder_proj.weight ((32, 48) there, (48, 48) "
        "here)"
    )
    assert unused.startswith(f"{len(transfer.unused)} tensors of {tmp_path} not used: ")


def test_a_model_of_another_size_is_refused_with_the_sizes(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("甲乙丙丁")
    saved_model(tmp_path, tokenizer)
    config = tiny_model_config(tokenizer.size)
    config.encoder.encoder_dim = [64, 96]
    config.encoder.feedforward_dim = [64, 96]
    with pytest.raises(ValueError, match="is a model of another size") as caught:
        initialise_from(AsrModel(config), tmp_path, tokenizer)
    message = str(caught.value)
    assert "encoder.encoder_dim [32, 48] there, [64, 96] here" in message
    assert "\n" not in message


def test_a_deeper_encoder_starts_from_a_shallower_one(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("甲乙丙丁")
    saved_model(tmp_path, tokenizer)
    config = tiny_model_config(tokenizer.size)
    config.encoder.num_encoder_layers = [4, 8]
    transfer = initialise_from(AsrModel(config), tmp_path, tokenizer)
    assert any(name.startswith("encoder.stacks.1.layers.0.") for name in transfer.loaded)
    assert all("layers." in line for line in transfer.not_loaded)


@pytest.mark.parametrize("name", ["model.safetensors", "tokens.model"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    tokenizer = tokenizer_of("甲乙")
    saved_model(tmp_path, tokenizer)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=name):
        initialise_from(fresh_model(tokenizer), tmp_path, tokenizer)


def test_a_source_says_what_it_was_trained_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert dialects_of(tmp_path) == []
    assert "has no provenance.json" in caplog.text
    record = {"trained_hours": {"yue": 1.5}, "known_dialects": ["cmn", "yue"]}
    (tmp_path / "checkpoint.json").write_text(json.dumps(record))
    assert dialects_of(tmp_path) == ["cmn", "yue"]
    (tmp_path / "provenance.json").write_text(json.dumps({"trained_dialects": ["nan", "cmn"]}))
    assert dialects_of(tmp_path) == ["cmn", "nan"]


def test_an_encoder_without_heads_and_tokens_is_a_start(tmp_path: Path) -> None:
    config = tiny_model_config()
    config.transducer = config.ctc = False
    config.attention_decoder.num_layers = 0
    source = AsrModel(config)
    source.save_pretrained(tmp_path)
    tokenizer = tokenizer_of("甲乙丙丁")
    model = fresh_model(tokenizer)
    transfer = initialise_from(model, tmp_path, tokenizer)
    loaded = model.state_dict()
    assert set(transfer.loaded) == set(source.state_dict())
    assert all(torch.equal(loaded[name], tensor) for name, tensor in source.state_dict().items())
    assert not transfer.unused
    assert all(line.endswith("(not in the source)") for line in transfer.not_loaded)
