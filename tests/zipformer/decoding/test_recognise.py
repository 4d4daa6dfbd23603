"""Recognition of a split: the right texts in the right places, resumed where it was stopped, clear errors."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lhotse import CutSet
from small_model import DIALECTS, TEXTS, TRANSLATIONS, write_cuts, write_model

from zipformer.data.batches import PADDING_VALUE, Batch
from zipformer.data.cuts import read_test_cuts
from zipformer.data.tokenizer import BLANK, UNKNOWN, Tokenizer
from zipformer.decoding import (
    attention_greedy_search,
    ctc_greedy_search,
    greedy_search,
    modified_beam_search,
    recognise,
)
from zipformer.decoding.hypothesis_file import HypothesisFile
from zipformer.decoding.methods import DecodeConfig, methods
from zipformer.decoding.recognise import decode, decode_exits
from zipformer.device import choose_device
from zipformer.errors import UserError
from zipformer.heads.attention_decoder import AttentionDecoder
from zipformer.heads.ctc import CtcHead
from zipformer.heads.transducer import TransducerHead
from zipformer.model import AsrModel
from zipformer.model_dir import MODEL_FILES
from zipformer.scoring import Transcript

SEARCHES = {
    "greedy": greedy_search,
    "beam": modified_beam_search,
    "ctc": ctc_greedy_search,
    "attention": attention_greedy_search,
}


@pytest.fixture
def config(tmp_path: Path) -> DecodeConfig:
    """Settings for six utterances in batches of about two."""
    write_cuts(tmp_path / "data", "test")
    write_model(tmp_path / "model", decoder_layers=1, translation=True)
    return DecodeConfig(str(tmp_path / "model"), str(tmp_path / "data"), device="cpu", max_duration=2.5)


class Recorder:
    """Stands before the encoder; remembers what was recognised and can fail in the middle."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail_after: int | None = None) -> None:
        self.ids: list[str] = []
        self.batches = 0
        self.fail_after = fail_after
        self.original = recognise._frames
        monkeypatch.setattr(recognise, "_frames", self)

    def __call__(self, model: AsrModel, batch: Batch, *arguments: Any) -> dict[recognise.Exit, Any]:
        if self.batches == self.fail_after:
            raise KeyboardInterrupt
        self.batches += 1
        self.ids += batch.ids
        return self.original(model, batch, *arguments)


@pytest.mark.parametrize("method", SEARCHES)
def test_batches_give_what_each_utterance_gives_alone(config: DecodeConfig, method: str) -> None:
    config.method = method
    directory, transcripts = decode(config)
    assert directory == Path(config.model_dir) / "results" / "data" / f"decode-test-{method}"

    model, tokenizer = AsrModel.from_pretrained(config.model_dir), Tokenizer.load(config.model_dir)
    expected = []
    for cut in read_test_cuts(Path(config.data_dir) / "cuts_test.jsonl.gz"):
        features = torch.from_numpy(cut.load_features())
        silence = torch.full((model.margin, features.shape[1]), PADDING_VALUE)
        with torch.inference_mode():
            frames = model.encode(torch.cat([features, silence])[None], torch.tensor([len(features)]))
            expected.append(
                tokenizer.decode(SEARCHES[method](model.head(methods[method].head_class), *frames)[0])
            )
    assert [transcript.hypothesis for transcript in transcripts] == expected
    assert len(set(expected)) == len(TEXTS), "the untrained model should tell the utterances apart"


def test_transcripts_carry_text_and_labels_in_manifest_order(config: DecodeConfig) -> None:
    _, transcripts = decode(config)
    assert [transcript.id for transcript in transcripts] == [f"test-{number}" for number in range(6)]
    assert tuple(transcript.reference for transcript in transcripts) == TEXTS
    assert tuple(transcript.dialect for transcript in transcripts) == DIALECTS
    third = transcripts[2]
    assert (third.subdialect, third.site, third.sentence_id) == ("wuu-shanghai", "wuu-0", "2")


def test_the_attention_decoder_translates_into_a_folder_of_its_own(config: DecodeConfig) -> None:
    config.method = "attention"
    recognised, texts = decode(config)
    config.reference = "translation"
    translated, translations = decode(config)
    results = Path(config.model_dir) / "results" / "data"
    assert (recognised, translated) == (
        results / "decode-test-attention",
        results / "translation-test-attention",
    )
    assert tuple(item.reference for item in texts) == TEXTS
    assert tuple(item.reference for item in translations) == TRANSLATIONS

    model, tokenizer = AsrModel.from_pretrained(config.model_dir), Tokenizer.load(config.model_dir)
    for cut, text, translation in zip(
        read_test_cuts(Path(config.data_dir) / "cuts_test.jsonl.gz"),
        texts,
        translations,
        strict=True,
    ):
        features = torch.from_numpy(cut.load_features())
        silence = torch.full((model.margin, features.shape[1]), PADDING_VALUE)
        with torch.inference_mode():
            frames = model.encode(torch.cat([features, silence])[None], torch.tensor([len(features)]))
            for transcript, translate in ((text, False), (translation, True)):
                tokens = attention_greedy_search(model.head(AttentionDecoder), *frames, translate=translate)
                assert transcript.hypothesis == tokenizer.decode(tokens[0])
    assert [item.hypothesis for item in texts] != [item.hypothesis for item in translations]


def test_transcripts_can_be_scored_against_translations(config: DecodeConfig) -> None:
    config.method = "ctc"
    _, texts = decode(config)
    config.reference = "translation"
    directory, translations = decode(config)
    assert directory.name == "translation-test-ctc"
    assert [item.hypothesis for item in texts] == [item.hypothesis for item in translations]
    assert tuple(item.reference for item in translations) == TRANSLATIONS


def test_an_utterance_without_a_translation_is_named(config: DecodeConfig) -> None:
    cuts = write_cuts(Path(config.data_dir), "test")
    for cut in list(cuts)[1:3]:
        del cut.supervisions[0].custom["translation"]
    cuts.to_file(Path(config.data_dir) / "cuts_test.jsonl.gz")
    config.method = "attention"
    decode(config)
    config.reference = "translation"
    with pytest.raises(ValueError, match=r"2 utterances .*\n  test-1: no translation.*reference=text"):
        decode(config)


def test_goes_on_after_being_stopped(config: DecodeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    _, expected = decode(config)
    directory = Path(config.model_dir) / "results" / "data" / "decode-test-greedy"
    (directory / "hypotheses.jsonl").unlink()

    with monkeypatch.context() as patch:
        first = Recorder(patch, fail_after=1)
        with pytest.raises(KeyboardInterrupt):
            decode(config)
    # A kill can cut the last line short, here in the middle of a character of three bytes.
    with (directory / "hypotheses.jsonl").open("ab") as file:
        file.write('{"id": "test-0", "dialect": "yue", "reference": "我'.encode()[:-1])

    second = Recorder(monkeypatch)
    _, transcripts = decode(config)
    assert first.ids
    assert sorted(first.ids + second.ids) == [f"test-{number}" for number in range(6)]
    assert transcripts == expected
    lines = (directory / "hypotheses.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(json.loads(line)["id"] for line in lines) == [f"test-{number}" for number in range(6)]


def test_a_finished_split_is_not_recognised_again(
    config: DecodeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected = decode(config)
    recorder = Recorder(monkeypatch)
    assert decode(config)[1] == expected
    assert recorder.ids == []


@pytest.mark.parametrize("change", ["model", "beam"])
def test_starts_again_when_a_setting_changed(
    config: DecodeConfig, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    config.method = "beam"
    decode(config)
    if change == "model":
        write_model(Path(config.model_dir), seed=1)
    else:
        config.beam = 2
    recorder = Recorder(monkeypatch)
    _, transcripts = decode(config)
    assert sorted(recorder.ids) == [transcript.id for transcript in transcripts]
    lines = (
        (Path(config.model_dir) / "results/data/decode-test-beam/hypotheses.jsonl")
        .read_text("utf-8")
        .splitlines()
    )
    assert len(lines) == len(transcripts)


@pytest.mark.parametrize("method", ["greedy", "beam", "ctc"])
def test_the_settings_reach_the_search(config: DecodeConfig, method: str) -> None:
    config.method = method
    model, tokenizer = AsrModel.from_pretrained(config.model_dir), Tokenizer.load(config.model_dir)
    _, transcripts = decode(config)
    often, second = Counter("".join(item.hypothesis for item in transcripts)).most_common(2)
    with torch.no_grad():  # <unk> stands in for one character, blank for another
        for output in (model.head(TransducerHead).joiner.output_linear, model.head(CtcHead).linear):
            for token, (character, _) in ((UNKNOWN, often), (BLANK, second)):
                (copied,) = (number for number, piece in enumerate(tokenizer.pieces) if piece == character)
                output.weight[token] = output.weight[copied]
                output.bias[token] = output.bias[copied] + 0.1
    model.save_pretrained(config.model_dir)
    found = {}
    for name, settings in {
        "plain": {},
        "penalty": {"blank_penalty": 3.0},
        "skip": {"skip_unknown": True},
        "both": {"blank_penalty": 3.0, "skip_unknown": True},
    }.items():
        _, transcripts = decode(replace(config, **settings))
        found[name] = [item.hypothesis for item in transcripts]
        arguments = {
            "blank_penalty": settings.get("blank_penalty", 0.0),
            "unk": UNKNOWN if "skip_unknown" in settings else None,
        }
        for cut, transcript in zip(
            read_test_cuts(Path(config.data_dir) / "cuts_test.jsonl.gz"), transcripts, strict=True
        ):
            features = torch.from_numpy(cut.load_features())
            silence = torch.full((model.margin, features.shape[1]), PADDING_VALUE)
            with torch.inference_mode():
                frames = model.encode(torch.cat([features, silence])[None], torch.tensor([len(features)]))
                head = model.head(methods[method].head_class)
                assert transcript.hypothesis == tokenizer.decode(
                    SEARCHES[method](head, *frames, **arguments)[0]
                )
    assert len({tuple(texts) for texts in found.values()}) == 4, "every setting must show"


def test_the_chunk_size_reaches_the_encoder(
    config: DecodeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunked = replace(config, method="ctc", chunk_size=8, left_context_frames=16)
    with pytest.raises(UserError, match="causal"):
        decode(chunked)
    write_model(Path(config.model_dir), causal=True)
    asked = []

    def recorded(original: Any) -> Any:
        def encode(*arguments: Any, **settings: Any) -> Any:
            asked.append(settings)
            return original(*arguments, **settings)

        return encode

    for name in ("encode", "encode_layers"):
        monkeypatch.setattr(AsrModel, name, recorded(getattr(AsrModel, name)))
    decode(chunked)
    decode_exits(chunked, ["ctc"], tmp_path / "exits")
    expected = {"chunk_size": 8, "left_context_frames": 16}
    assert len(asked) > 2
    assert all(settings == expected for settings in asked)


def test_settings_of_another_head_are_refused(config: DecodeConfig) -> None:
    with pytest.raises(UserError, match="method=attention knows no blank_penalty"):
        decode(replace(config, method="attention", blank_penalty=1.0))


def test_results_of_usual_settings_name_no_others(config: DecodeConfig) -> None:
    directory, _ = decode(config)
    assert json.loads((directory / "decode.json").read_text()).keys() == {"method", "data", *MODEL_FILES}


def test_other_cuts_of_the_same_name_replace_nothing(config: DecodeConfig) -> None:
    directory, first = decode(config)
    write_cuts(Path(config.data_dir), "test", frames=(110, 97, 80))
    with pytest.raises(ValueError, match=r"results/data holds results of the split test of other.*dataset="):
        decode(config)
    config.dataset = "other"
    other, second = decode(config)
    assert other == directory.parents[1] / "other" / directory.name
    assert (len(first), len(second)) == (6, 3)
    assert len((directory / "hypotheses.jsonl").read_text(encoding="utf-8").splitlines()) == 6
    # Prepared again as they were: gzip notes the time, and the order may be another.
    cuts = write_cuts(Path(config.data_dir), "test")
    CutSet.from_cuts(list(cuts)[::-1]).to_file(Path(config.data_dir) / "cuts_test.jsonl.gz")
    config.dataset = None
    _, again = decode(config)
    assert sorted(again, key=lambda item: item.id) == first


def test_the_translation_is_that_of_the_training(config: DecodeConfig) -> None:
    model_dir, data_dir = Path(config.model_dir), Path(config.data_dir)
    cuts = write_cuts(data_dir, "test")
    for cut in cuts:
        cut.supervisions[0].custom["english"] = f"word {cut.id}"
    cuts.to_file(data_dir / "cuts_test.jsonl.gz")
    config.method, config.reference = "attention", "translation"
    assert [item.reference for item in decode(config)[1]] == list(TRANSLATIONS)
    training = {"config": {"translation_field": "english"}}
    (model_dir / "provenance.json").write_text(json.dumps({"training": training}), encoding="utf-8")
    directory, transcripts = decode(config)
    assert directory.name == "english-test-attention"
    assert [item.reference for item in transcripts] == [f"word test-{number}" for number in range(6)]
    config.translation_field = "translation"
    assert [item.reference for item in decode(config)[1]] == list(TRANSLATIONS)
    config.translation_field = "german"
    with pytest.raises(ValueError, match=r"test-0: no german; with reference=text it needs none"):
        decode(config)


def test_strange_characters_survive_the_file(tmp_path: Path) -> None:
    # Byte tokens can spell anything, also what str.splitlines takes for the end of a line.
    transcript = Transcript("a", "yue", None, None, None, "我", "x\u2028\u0085\n\x0b")
    HypothesisFile(tmp_path, {"beam": "4"}).append([transcript])
    assert HypothesisFile(tmp_path, {"beam": "4"}).done == {"a": transcript}


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_missing_model_file_is_named(config: DecodeConfig, name: str) -> None:
    (Path(config.model_dir) / name).unlink()
    with pytest.raises(UserError, match=rf"lacks {name}.*fangyan average"):
        decode(config)


def test_a_missing_model_directory_is_named(config: DecodeConfig) -> None:
    config.model_dir = "nowhere"
    with pytest.raises(UserError, match="nowhere is not there"):
        decode(config)


def test_a_missing_split_lists_the_others(config: DecodeConfig) -> None:
    write_cuts(Path(config.data_dir), "valid")
    config.split = "tset"
    with pytest.raises(UserError, match=r"cuts_tset.*test, valid"):
        decode(config)


def test_an_empty_split_is_an_error(config: DecodeConfig) -> None:
    write_cuts(Path(config.data_dir), "test", frames=())
    with pytest.raises(ValueError, match="holds no utterance"):
        decode(config)


def test_an_utterance_without_an_encoder_frame_is_named(config: DecodeConfig) -> None:
    write_cuts(Path(config.data_dir), "test", frames=(110, 8, 9))
    with pytest.raises(ValueError, match=r"test-1: 0\.08 s is too short"):
        decode(config)


def test_a_method_without_its_head_is_an_error(config: DecodeConfig) -> None:
    write_model(Path(config.model_dir), ctc=False)
    config.method = "ctc"
    with pytest.raises(ValueError, match=r"method=ctc .* model\.ctc=true; use method=beam or greedy$"):
        decode(config)
    config.method = "attention"
    with pytest.raises(ValueError, match=r"method=attention needs .*attention_decoder\.num_layers above 0"):
        decode(config)
    write_model(Path(config.model_dir), decoder_layers=1)
    config.reference = "translation"
    with pytest.raises(ValueError, match=r"attention_decoder\.translation=true; use reference=text"):
        decode(config)


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ValueError, match="device=gpu is not known"):
        choose_device("gpu")


@pytest.mark.parametrize(("field", "value"), [("method", "best"), ("reference", "gloss"), ("beam", 0)])
def test_settings_are_checked(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{field}={value}"):
        DecodeConfig("model", "data", **{field: value})  # type: ignore[arg-type]
