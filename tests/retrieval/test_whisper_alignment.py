"""Times by Whisper's cross-attention, on planted attention and tiny models with random weights."""

import csv
import json
import logging
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, Recording
from lhotse.utils import fastcopy
from small_model import FRAMES, TEXTS, write_cuts, write_model

from retrieval.interpretation.config import InterpretConfig
from retrieval.interpretation.spelling import bytes_of, spell
from retrieval.interpretation.summary import read_interpretations
from retrieval.interpretation.whisper import Whisper, WhisperConfig, align_with_whisper, load
from retrieval.interpretation.words import Word
from zipformer.alignment import Span
from zipformer.alignment.attention import attention_intervals

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

ROOT = Path(__file__).resolve().parents[2]
SPECIAL = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|zh|>",
    "<|yue|>",
    "<|transcribe|>",
    "<|notimestamps|>",
)
WINDOW = 2  # seconds
LAYERS, HEADS = 4, 2


def tokenizer(words: Sequence[str] = ()) -> Any:
    """Bytes, the words as one token each, and Whisper's marks."""
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    vocabulary = {character: n for n, character in enumerate(sorted(byte_level.alphabet()))}
    merges = []
    for word in words:
        ((written, _),) = byte_level.pre_tokenize_str(word)
        for length in range(1, len(written)):
            if written[: length + 1] not in vocabulary:
                merges.append((written[:length], written[length]))
                vocabulary[written[: length + 1]] = len(vocabulary)
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = byte_level
    backend.decoder = tokenizers.decoders.ByteLevel()
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=SPECIAL[0])
    made.add_special_tokens({"additional_special_tokens": list(SPECIAL[1:])})
    return made


def parts(words: Sequence[str] = (), **generation: Any) -> tuple[Any, Any, Any]:
    """A model with random weights, its feature extractor and tokenizer."""
    torch.manual_seed(0)
    made = tokenizer(words)
    ids = {mark: made.convert_tokens_to_ids(mark) for mark in SPECIAL}
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    config = transformers.WhisperConfig(
        d_model=32,
        encoder_layers=1,
        decoder_layers=LAYERS,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        vocab_size=len(made),
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        max_source_positions=50 * WINDOW,
        max_target_positions=48,
        init_std=0.3,  # so that attention has peaks
    )
    config._attn_implementation = "eager"
    model = transformers.WhisperForConditionalGeneration(config)
    settings = {
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": start,
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "lang_to_id": {mark: ids[mark] for mark in SPECIAL[2:4]},
        "task_to_id": {"transcribe": ids["<|transcribe|>"]},
        "is_multilingual": True,
        "max_length": 16,
    }
    settings |= generation
    model.generation_config = transformers.GenerationConfig(
        **{name: value for name, value in settings.items() if value is not None}
    )
    return model, transformers.WhisperFeatureExtractor(chunk_length=WINDOW), made


def plant(
    monkeypatch: pytest.MonkeyPatch,
    whisper: Whisper,
    starts: Sequence[int],
    frames: int,
    *,
    heads: Sequence[tuple[int, int]],
    prompt: int = 4,
) -> list[list[int]]:
    """Give heads attention of which row u is on the frames from ``starts[u]`` to the next start.

    All other heads look at the last frame. Returns the list to which the decoder's inputs are added.
    """
    stops = [*starts[1:], frames]
    attention = torch.zeros(LAYERS, 1, HEADS, prompt - 1 + len(starts), 50 * WINDOW)
    attention[..., frames - 1] = 1
    for layer, head in heads:
        rows = torch.full(attention.shape[-2:], 1e-3)
        for row, (start, stop) in enumerate(zip(starts, stops, strict=True), start=prompt - 1):
            rows[row, start:stop] = 1 / (stop - start)
        # The last token but the end gives the padding nearly all its mass: were that seen, the token would
        # last to the end of the window, and were the rest not made to sum to 1 again, it would have no time.
        rows[-2, frames:] = 20
        attention[layer, 0, head] = rows / rows.sum(dim=-1, keepdim=True)
    seen: list[list[int]] = []
    forward = whisper.model.forward

    def planted(**inputs: Any) -> Any:
        if not inputs.get("output_attentions"):
            return forward(**inputs)
        seen.append(inputs["decoder_input_ids"][0].tolist())
        assert len(seen[-1]) == attention.shape[-2]
        return SimpleNamespace(cross_attentions=tuple(attention))

    monkeypatch.setattr(whisper.model, "forward", planted)
    return seen


def test_planted_attention_gives_the_times_of_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    # 香港 is one token; 我 and 人 are three each; and there is the end: 8 rows, of which the space is one.
    model, extractor, made = parts(["香港"], alignment_heads=[[0, 1], [1, 0]])
    whisper = Whisper(model, extractor, made, language="zh")
    starts = [0, 10, 20, 30, 40, 48, 56, 64, 72]
    seen = plant(monkeypatch, whisper, starts, 80, heads=[(0, 1), (1, 0)])
    samples = torch.zeros(79 * 320 + 1)  # a sample of frame 80
    found = whisper.characters(samples, "我香港 人")
    marks = ["<|startoftranscript|>", "<|zh|>", "<|transcribe|>", "<|notimestamps|>"]
    assert seen[0][:4] == made.convert_tokens_to_ids(marks)
    assert seen[0][4:] == made("我香港 人", add_special_tokens=False).input_ids
    assert len(seen[0]) == 4 + 3 + 1 + 1 + 3
    # The bytes of 我 begin at 0, 10, 20; 香港 shares 30 to 40; the space is 40 to 48.
    assert found == [Span("我", 0, 30), Span("香", 30, 35), Span("港", 35, 40), Span("人", 48, 72)]
    # Another language is another prompt, and none is what the model takes the utterance for.
    for language in ("yue", None):
        whisper.language = None if language is None else f"<|{language}|>"
        assert whisper.characters(samples, "我香港 人") == found
    assert seen[1][1] == made.convert_tokens_to_ids("<|yue|>")
    with torch.inference_mode():
        features = extractor(samples.numpy(), sampling_rate=16000, return_tensors="pt").input_features
        assert seen[2][1] == int(model.detect_language(features)[0])


def test_without_alignment_heads_the_upper_half_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    whisper = Whisper(*parts(), language="zh")
    upper = [(layer, head) for layer in (2, 3) for head in range(HEADS)]
    plant(monkeypatch, whisper, [0, 5, 10, 15, 20, 25, 40], 50, heads=upper)
    assert whisper.characters(torch.zeros(16000), "我人") == [Span("我", 0, 15), Span("人", 15, 40)]


def test_an_english_model_gets_a_short_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    whisper = Whisper(*parts(lang_to_id=None, is_multilingual=False))
    seen = plant(monkeypatch, whisper, [0, 20, 40], 50, heads=[(2, 0), (2, 1), (3, 0), (3, 1)], prompt=2)
    assert whisper.characters(torch.zeros(16000), "ok") == [Span("o", 0, 20), Span("k", 20, 40)]
    marks = ["<|startoftranscript|>", "<|notimestamps|>"]
    assert seen[0][:2] == whisper.tokenizer.convert_tokens_to_ids(marks)


def test_attention_is_that_of_the_model_cut_to_the_utterance() -> None:
    model, extractor, made = parts(["香港"], alignment_heads=[[3, 1], [1, 0]])
    whisper = Whisper(model, extractor, made, language="zh")
    samples = torch.randn(20000, generator=torch.Generator().manual_seed(0))
    pieces, weights = whisper.attend(samples, "我係香港人")
    assert b"".join(pieces) == "我係香港人".encode()
    T = 63  # 20000 / 320 = 62.5
    assert weights.shape == (2, len(pieces) + 1, T)
    ids = (
        made.convert_tokens_to_ids(["<|startoftranscript|>", "<|zh|>", "<|transcribe|>", "<|notimestamps|>"])
        + made("我係香港人", add_special_tokens=False).input_ids
    )
    features = extractor(samples.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    with torch.inference_mode():
        output = model(features, decoder_input_ids=torch.tensor([ids]), output_attentions=True)
    for found, (layer, head) in zip(weights, ((3, 1), (1, 0)), strict=True):
        cut = output.cross_attentions[layer][0, head, 3:, :T].double()
        torch.testing.assert_close(found, cut / cut.sum(dim=-1, keepdim=True), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_token_times_are_those_of_transformers(seed: int) -> None:
    # Their function is private; it takes the attention of each layer, and drops no rows when told so.
    model = parts(alignment_heads=[[0, 0], [0, 1], [0, 2]])[0]
    if not hasattr(model, "_extract_token_timestamps"):
        pytest.skip("this release of transformers has no _extract_token_timestamps")
    U, T = 9, 60
    generator = torch.Generator().manual_seed(seed)
    near = -((torch.arange(U + 1)[:, None] - torch.arange(T) * (U + 1) / T) ** 2) / 2
    weights = (near + 2 * torch.randn(3, U + 1, T, generator=generator)).softmax(dim=-1)
    intervals = attention_intervals(weights, median_frames=7)
    padded = torch.cat([weights, torch.rand(3, U + 1, 7)], dim=-1)[None]
    output = transformers.utils.ModelOutput(
        sequences=torch.zeros(1, U + 1, dtype=torch.long),
        # One step, in it the layers (1, heads, rows, frames).
        cross_attentions=((padded,) * LAYERS,),
    )
    times = model._extract_token_timestamps(
        output, [[0, 0], [0, 1], [0, 2]], num_frames=2 * T, num_input_ids=0
    )
    np.testing.assert_allclose(0.02 * intervals[:, 0], times[0, :U], atol=1e-6)
    assert 0.02 * intervals[-1, 1] == pytest.approx(max(float(times[0, U]), float(times[0, U - 1]) + 0.02))


def test_bytes_are_those_of_the_vocabulary() -> None:
    made = tokenizer(["香港"])
    text = "我係 香港人 Ok.\u00a0é😀"
    tokens = made.convert_ids_to_tokens(made(text, add_special_tokens=False).input_ids)
    assert b"".join(map(bytes_of, tokens)).decode() == text
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    assert sorted(bytes_of("".join(alphabet))) == list(range(256))


def spans(pieces: Sequence[bytes], *intervals: tuple[int, int]) -> list[tuple[str, int, int]]:
    return [(s.text, s.start, s.stop) for s in spell(pieces, np.array(intervals).reshape(-1, 2))]


def test_characters_of_tokens_that_hold_parts_of_them() -> None:
    wo, ni = "我".encode(), "你".encode()
    assert spans([wo[:1], wo[1:2], wo[2:]], (2, 4), (4, 5), (5, 9)) == [("我", 2, 9)]
    # A whole character and the first byte of the next: the token has 4 bytes and 8 frames.
    assert spans([wo + ni[:1], ni[1:]], (0, 8), (8, 11)) == [("我", 0, 6), ("你", 6, 11)]
    # The end of one and the beginning of the next.
    assert spans([wo[:2], wo[2:] + ni[:1], ni[1:]], (0, 3), (3, 7), (7, 9)) == [("我", 0, 5), ("你", 5, 9)]
    # Two characters have one frame: they share it.
    assert spans([wo + ni], (4, 5)) == [("我", 4, 5), ("你", 4, 5)]
    assert spans([b" ", wo, b" \n"], (0, 3), (3, 4), (4, 9)) == [("我", 3, 4)]
    assert spans([]) == []


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xe6\x88", [("\ufffd", 0, 2)]),
        (b"\xe6\x88a", [("\ufffd", 0, 2), ("a", 2, 3)]),
        (b"\xe6\xe6\x88\x91", [("\ufffd", 0, 1), ("我", 1, 4)]),
        (b"a\x91\xff", [("a", 0, 1), ("\ufffd", 1, 2), ("\ufffd", 2, 3)]),
        (b"\xf0\x80b", [("\ufffd", 0, 1), ("\ufffd", 1, 2), ("b", 2, 3)]),
    ],
)
def test_bytes_that_are_no_character(data: bytes, expected: list[tuple[str, int, int]]) -> None:
    singly = [data[n : n + 1] for n in range(len(data))]
    assert spans(singly, *((n, n + 1) for n in range(len(data)))) == expected
    assert spans([data], (0, len(data))) == expected  # one token of the same bytes and frames
    assert "".join(text for text, _, _ in expected) == data.decode("utf-8", "replace")


def heard_cuts(data_dir: Path, seconds: Sequence[float] = ()) -> CutSet:
    """The cuts of the small corpus with recordings of noise at 8 kHz, of other durations where given."""
    data_dir.mkdir(exist_ok=True)
    cuts = []
    for number, cut in enumerate(write_cuts(data_dir, "test")):
        path = data_dir / f"{cut.id}.wav"
        duration = seconds[number] if number < len(seconds) else cut.duration
        noise = 0.1 * np.random.default_rng(number).standard_normal(round(8000 * duration))
        soundfile.write(path, noise, 8000)
        recording = Recording.from_file(path, recording_id=cut.id)
        cuts.append(fastcopy(cut, recording=recording, duration=recording.duration))
    manifest = CutSet.from_cuts(cuts)
    manifest.to_file(data_dir / "cuts_test.jsonl.gz")
    return manifest


def test_words_of_a_corpus_in_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whisper = Whisper(*parts(TEXTS[0], alignment_heads=[[0, 0]]), language="zh")  # a token a character
    cut = next(iter(heard_cuts(tmp_path)))  # 我係香港人, 1.1 s = 55 frames
    plant(monkeypatch, whisper, [0, 10, 22, 28, 34, 50], 55, heads=[(0, 0)])
    ((name, words),) = align_with_whisper(
        whisper, {cut.id: cut}, segment=lambda text: [text[:2], text[2:4], text[4:]]
    )
    assert name == "test-0"
    assert [(w.text, round(w.start, 6), round(w.end, 6)) for w in words] == [
        ("我係", 0.0, 0.44),
        ("香港", 0.44, 0.68),
        ("人", 0.68, 1.0),
    ]
    assert all(isinstance(word, Word) for word in words)


def test_what_cannot_be_aligned_is_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whisper = Whisper(*parts())
    cuts = list(heard_cuts(tmp_path, [2.0, 2.01]))
    for number, text in ((2, ""), (3, " \u3000"), (4, "天" * 15)):
        cuts[number].supervisions[0].text = text
    with caplog.at_level(logging.WARNING):
        found = dict(align_with_whisper(whisper, {cut.id: cut for cut in cuts}))
    assert list(found) == ["test-0", "test-5"]
    assert "".join(word.text for word in found["test-0"]) == TEXTS[0]
    assert max(word.end for word in found["test-0"]) <= 2.0
    assert [record.getMessage() for record in caplog.records] == [
        "1 of 6 utterances are longer than the 2 s that Whisper hears: test-1",
        "2 of 6 utterances have no text to align: test-2; test-3",
        "1 of 6 utterances cannot be aligned: test-4: 45 tokens; the decoder takes 44",
    ]
    cut = fastcopy(cuts[0], recording=None)
    with pytest.raises(ValueError, match="cut test-0 has no recording, which aligner=whisper needs"):
        list(align_with_whisper(whisper, {cut.id: cut}))


def test_what_whisper_recognises(tmp_path: Path) -> None:
    model, extractor, made = parts()
    whisper = Whisper(model, extractor, made, language="yue")
    cut = next(iter(heard_cuts(tmp_path)))
    samples = torch.from_numpy(cut.resample(16000).load_audio()[0])
    pieces, weights = whisper.attend(samples, None)
    features = extractor(samples.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    with torch.inference_mode():
        (ids,) = model.generate(features, language="yue", task="transcribe")
    assert pieces
    assert b"".join(pieces).decode("utf-8", "replace") == made.decode(ids, skip_special_tokens=True)
    assert weights.shape == (2 * HEADS, len(pieces) + 1, 55)
    found = dict(align_with_whisper(whisper, {cut.id: cut}, transcript="hypothesis"))
    heard = "".join(made.decode(ids, skip_special_tokens=True).split())
    assert "".join(word.text for words in found.values() for word in words) == heard


def run(monkeypatch: pytest.MonkeyPatch, script: str, *settings: str) -> None:
    path = ROOT / "scripts" / script
    monkeypatch.setattr(sys, "argv", [str(path), "device=cpu", *settings])
    runpy.run_path(str(path), run_name="__main__")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A model directory, a prepared corpus with recordings, and a Whisper model."""
    model_dir, data_dir, folder = tmp_path / "model", tmp_path / "data", tmp_path / "whisper-tiny"
    write_model(model_dir)
    cuts = heard_cuts(data_dir)
    for cut, sentence in zip(cuts, "111122", strict=True):
        cut.supervisions[0].custom["sentence_id"] = sentence
    cuts.to_file(data_dir / "cuts_test.jsonl.gz")
    for part in parts(["上海", "天气"], alignment_heads=[[3, 0], [2, 1]]):
        part.save_pretrained(folder)
    return model_dir, data_dir, folder


def match_cosines(folder: Path) -> list[float]:
    with (folder / "word_pairs.tsv").open(encoding="utf-8") as file:
        return sorted(float(row["cosine"]) for row in csv.DictReader(file, delimiter="\t"))


def test_from_recordings_to_a_page(monkeypatch: pytest.MonkeyPatch, folders: tuple[Path, Path, Path]) -> None:
    model_dir, data_dir, folder = folders
    common = (f"model_dir={model_dir}", f"data_dir={data_dir}")
    settings = (*common, "aligner=whisper", f"whisper.model={folder}", "whisper.language=zh", "shown=1")
    run(monkeypatch, "interpret.py", *settings)
    results = model_dir / "results" / data_dir.name
    first = results / "interpret-test-whisper-tiny"
    with (first / "words.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    texts: dict[str, str] = {}
    for row in rows:
        texts[row["utterance_id"]] = texts.get(row["utterance_id"], "") + row["word"]
        assert len(row["word"]) == 1
        assert 0 <= float(row["start"]) < float(row["end"])
        last = 0.02 * -(-FRAMES[int(row["utterance_id"][-1])] // 2)
        assert float(row["end"]) <= last + 1e-6
    assert texts == {f"test-{number}": text for number, text in enumerate(TEXTS)}
    summary = json.loads((first / "summary.json").read_text(encoding="utf-8"))
    assert summary["utterance_pairs"] == 5
    assert summary["settings"]["whisper"] == {"model": str(folder), "revision": "main", "language": "zh"}
    page = (first / "index.html").read_text(encoding="utf-8")
    assert f"<code>whisper</code> (<code>{folder}</code>)" in page
    # The frames of our encoder are those that scripts/embed.py stores. Among words that share a frame, which
    # is matched is a matter of rounding; so only how alike they are is compared.
    run(monkeypatch, "embed.py", *common)
    run(monkeypatch, "interpret.py", *settings, f"embeddings={results / 'embeddings-test'}", "shown=0")
    again = results / "interpret-test-whisper-tiny-embeddings-test"
    assert (again / "words.tsv").read_bytes() == (first / "words.tsv").read_bytes()
    np.testing.assert_allclose(match_cosines(again), match_cosines(first), atol=1e-4)
    # Whisper's own frames, without any other model.
    (model_dir / "model.safetensors").unlink()
    hub = ("embedder=huggingface", f"huggingface.model={folder}")
    run(monkeypatch, "embed.py", *common, *hub)
    own = results / "embeddings-test-whisper-tiny"
    run(monkeypatch, "interpret.py", *settings, f"embeddings={own}", "transcript=hypothesis", "shown=0")
    rows_of_report = read_interpretations(results, "test")
    assert rows_of_report is not None
    assert {(row.timed_by, row.frames) for row in rows_of_report} == {
        ("whisper whisper-tiny", "encoder"),
        ("whisper whisper-tiny", "embeddings-test"),
        ("whisper whisper-tiny", own.name),
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["whisper.model="], "aligner=whisper needs whisper.model=NAME"),
        (["whisper.language=hak"], "whisper.language=hak: FOLDER knows yue, zh"),
        (["whisper.model=NOTHING"], "whisper.model=NOTHING cannot be loaded"),
        (["transcript=both"], "transcript=both is not known; choose one of reference, hypothesis"),
    ],
)
def test_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, folders: tuple[Path, Path, Path], settings: list[str], message: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model_dir, data_dir, folder = folders
    names = {"FOLDER": str(folder), "NOTHING": str(folder / "nothing")}
    for name, path in names.items():
        settings = [setting.replace(name, path) for setting in settings]
        message = message.replace(name, path)
    common = [f"model_dir={model_dir}", f"data_dir={data_dir}", "aligner=whisper", f"whisper.model={folder}"]
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "interpret.py", *common, *settings)
    assert str(stopped.value.code).startswith("error: ")
    assert message in str(stopped.value.code)


def test_models_that_cannot_align(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"alignment_heads=\[4,0\].* 4 layers of 2 heads: remove"):
        Whisper(*parts(alignment_heads=[[0, 0], [4, 0]]))
    with pytest.raises(ValueError, match=r"no no_timestamps_token_id in its generation_config\.json: copy"):
        Whisper(*parts(no_timestamps_token_id=None))
    with pytest.raises(ValueError, match=r"whisper\.language=zh: whisper knows English alone"):
        Whisper(*parts(lang_to_id=None), language="zh")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for part in parts()[:2]:
        part.save_pretrained(tmp_path / "deaf")
    with pytest.raises(ValueError, match=r"deaf (has no byte-level tokenizer: save|cannot be loaded)"):
        load(WhisperConfig(str(tmp_path / "deaf")))
    transformers.Wav2Vec2Config().save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="other cannot be loaded: it is of the family wav2vec2"):
        load(WhisperConfig(str(tmp_path / "other")))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"aligner=whisper needs transformers.*'fangyan\[huggingface\]'"):
        load(WhisperConfig("openai/whisper-small"))


def test_the_model_names_the_folder() -> None:
    def folder(**settings: Any) -> str:
        return InterpretConfig("m", "d", **settings).folder.name

    small = WhisperConfig("openai/whisper-small")
    assert folder(aligner="whisper", whisper=small) == "interpret-test-whisper-small"
    assert folder(aligner="whisper", whisper=WhisperConfig("here/mine/"), segmenter="jieba") == (
        "interpret-test-whisper-mine-jieba"
    )
    assert folder(whisper=small) == "interpret-test-ctc"
    with pytest.raises(ValueError, match="choose one of attention, ctc, transducer, whisper"):
        folder(aligner="dtw")
