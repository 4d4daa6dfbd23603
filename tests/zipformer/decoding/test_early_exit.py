"""Recognition at every exit: the last is ordinary decoding, the others that of their own frames; resumed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_model import TEXTS, write_cuts, write_model

from zipformer.data.batches import PADDING_VALUE
from zipformer.data.cuts import read_test_cuts
from zipformer.data.tokenizer import Tokenizer
from zipformer.decoding import ctc_greedy_search
from zipformer.decoding.methods import DecodeConfig
from zipformer.decoding.recognise import decode, decode_exits
from zipformer.heads.ctc import CtcHead
from zipformer.model import AsrModel

METHODS = ("ctc", "greedy", "beam", "attention")


@pytest.fixture
def config(tmp_path: Path) -> DecodeConfig:
    write_cuts(tmp_path / "data", "test")
    write_model(tmp_path / "model", decoder_layers=1)
    return DecodeConfig(str(tmp_path / "model"), str(tmp_path / "data"), device="cpu", max_duration=2.5)


def test_the_last_exit_is_ordinary_decoding(config: DecodeConfig, tmp_path: Path) -> None:
    exits = decode_exits(config, METHODS, tmp_path / "exits")
    assert set(exits) == {(method, layer) for method in METHODS for layer in (0, 1, 2)}
    for method in METHODS:
        _, transcripts = decode(replace(config, method=method))
        assert exits[method, 2] == transcripts
        assert [transcript.reference for transcript in exits[method, 0]] == list(TEXTS)


def test_an_early_exit_recognises_its_own_frames(config: DecodeConfig, tmp_path: Path) -> None:
    exits = decode_exits(config, ["ctc"], tmp_path / "exits")
    model, tokenizer = AsrModel.from_pretrained(config.model_dir), Tokenizer.load(config.model_dir)
    for layer in (0, 1):
        expected = []
        for cut in read_test_cuts(Path(config.data_dir) / "cuts_test.jsonl.gz"):
            features = torch.from_numpy(cut.load_features())
            silence = torch.full((model.margin, features.shape[1]), PADDING_VALUE)
            with torch.inference_mode():
                outputs = model.encode_layers(
                    torch.cat([features, silence])[None], torch.tensor([len(features)])
                )
                frames = outputs.exit(layer)
                expected.append(tokenizer.decode(ctc_greedy_search(model.head(CtcHead), *frames)[0]))
        assert [transcript.hypothesis for transcript in exits["ctc", layer]] == expected
    assert exits["ctc", 0] != exits["ctc", 2]


def test_goes_on_after_being_stopped(
    config: DecodeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = decode_exits(config, METHODS[:2], tmp_path / "whole")
    folder, seen = tmp_path / "stopped", []
    encode_layers = AsrModel.encode_layers

    def dies_in_the_third(
        model: AsrModel, features: torch.Tensor, lengths: torch.Tensor, **chunks: int | None
    ):
        seen.append(len(lengths))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return encode_layers(model, features, lengths, **chunks)

    monkeypatch.setattr(AsrModel, "encode_layers", dies_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        decode_exits(config, METHODS[:2], folder)
    done = sum(seen[:2])
    assert decode_exits(config, METHODS[:2], folder) == expected
    assert sum(seen[3:]) == len(TEXTS) - done
    count = len(seen)
    assert decode_exits(config, METHODS[:2], folder) == expected
    assert len(seen) == count, "nothing is recognised twice"


def test_another_model_starts_again(config: DecodeConfig, tmp_path: Path) -> None:
    before = decode_exits(config, ["ctc"], tmp_path / "exits")
    write_model(Path(config.model_dir), seed=1)
    assert decode_exits(config, ["ctc"], tmp_path / "exits") != before


def test_a_method_without_its_head_is_an_error(config: DecodeConfig, tmp_path: Path) -> None:
    write_model(Path(config.model_dir), ctc=False)
    with pytest.raises(ValueError, match=r"method=ctc needs a model with model\.ctc=true"):
        decode_exits(config, ["ctc"], tmp_path / "exits")
