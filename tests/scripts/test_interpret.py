"""The interpret script from prepared features and a model directory to tables and page."""

import csv
import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from lhotse import CutSet
from small_model import write_cuts, write_model

from retrieval.interpretation.sources import clock_of

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "interpret.py"
SENTENCE_IDS = ("1", "1", "1", "1", "2", "2")  # yue-0 and yue-1, wuu-0 and wuu-1 say them


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Path, Path]:
    model_dir, data_dir = tmp_path / "model", tmp_path / "data"
    data_dir.mkdir()
    write_model(model_dir)
    (model_dir / "provenance.json").write_text('{"trained_dialects": ["yue", "wuu"]}')
    cuts = list(write_cuts(data_dir, "test"))
    for cut, sentence in zip(cuts, SENTENCE_IDS, strict=True):
        cut.supervisions[0].custom["sentence_id"] = sentence
    CutSet.from_cuts(cuts).to_file(data_dir / "cuts_test.jsonl.gz")
    return model_dir, data_dir


def run(monkeypatch: pytest.MonkeyPatch, prepared: tuple[Path, Path], *more: str) -> None:
    model_dir, data_dir = prepared
    arguments = [
        str(SCRIPT),
        f"model_dir={model_dir}",
        f"data_dir={data_dir}",
        "device=cpu",
        "shown=1",
        *more,
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.mark.parametrize("aligner", ["ctc", "transducer"])
def test_tables_figures_and_page(
    monkeypatch: pytest.MonkeyPatch,
    prepared: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    aligner: str,
) -> None:
    run(monkeypatch, prepared, f"aligner={aligner}")
    folder = prepared[0] / "results" / "data" / f"interpret-test-{aligner}"
    assert str(folder) in capsys.readouterr().out
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "words.tsv",
        "word_pairs.tsv",
        "summary.json",
        "validation.png",
        "index.html",
        "pair-01.png",
    }
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["utterance_pairs"] == 5  # sentence 1: two sites by two; sentence 2: one by one
    assert summary["tests"]["characters"]["overall"]["sentences"] == 2
    with (folder / "words.tsv").open(encoding="utf-8") as file:
        texts: dict[str, str] = {}
        for row in csv.DictReader(file, delimiter="\t"):
            texts[row["utterance_id"]] = texts.get(row["utterance_id"], "") + row["word"]
    assert texts["test-0"] == "我係香港人"
    assert len(texts) == 6


def embed(monkeypatch: pytest.MonkeyPatch, prepared: tuple[Path, Path]) -> None:
    model_dir, data_dir = prepared
    arguments = ["embed.py", f"model_dir={model_dir}", f"data_dir={data_dir}", "device=cpu"]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(str(SCRIPT.with_name("embed.py")), run_name="__main__")


def test_words_and_frames_of_others(monkeypatch: pytest.MonkeyPatch, prepared: tuple[Path, Path]) -> None:
    run(monkeypatch, prepared)
    embed(monkeypatch, prepared)
    results = prepared[0] / "results" / "data"
    words, store = results / "interpret-test-ctc" / "words.tsv", results / "embeddings-test"
    run(monkeypatch, prepared, f"words={words}", f"embeddings={store}")
    # The same words and the same encoder, by way of the disk: the same matches.
    first, second = (
        json.loads((results / name / "summary.json").read_text(encoding="utf-8"))
        for name in ("interpret-test-ctc", "interpret-test-words-embeddings-test")
    )
    assert first["tests"] == second["tests"]
    assert first["word_pairs"] == second["word_pairs"]


def test_directories_relative_to_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, prepared: tuple[Path, Path]
) -> None:
    model_dir, data_dir = prepared
    cuts = CutSet.from_file(data_dir / "cuts_test.jsonl.gz").to_eager()
    for cut in cuts:
        cut.features.storage_path = str(Path(cut.features.storage_path).relative_to(data_dir))
    cuts.to_file(data_dir / "cuts_test.jsonl.gz")
    monkeypatch.chdir(data_dir.parent)
    relative = model_dir.relative_to(data_dir.parent), Path(data_dir.name)
    embed(monkeypatch, relative)
    run(monkeypatch, relative)
    assert (model_dir / "results" / "data" / "interpret-test-ctc" / "summary.json").is_file()


def test_times_in_milliseconds_are_an_error(
    monkeypatch: pytest.MonkeyPatch, prepared: tuple[Path, Path], tmp_path: Path
) -> None:
    embed(monkeypatch, prepared)
    words = tmp_path / "words.tsv"
    words.write_text("utterance_id\tword\tstart\tend\ntest-0\t我\t120\t300\n", encoding="utf-8")
    with pytest.raises(
        SystemExit, match=r"words\.tsv: '我' is spoken from 120 to 300 s in test-0, which lasts 1\.1 s"
    ):
        run(
            monkeypatch,
            prepared,
            f"words={words}",
            f"embeddings={prepared[0] / 'results' / 'data' / 'embeddings-test'}",
        )


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_frames_of_a_layer_begin_with_the_front_end(tmp_path: Path, factor: int) -> None:
    cut = write_cuts(tmp_path, "test", frames=(110,))[0]  # 51 frames of the front end
    store = SimpleNamespace(description={"embedder": "zipformer layer03"})
    clock = clock_of(store, cut, -(-51 // factor))
    # Frame 3 is the mean of the front end's 3 f to 4 f - 1; its frame n is centred on feature frame 2 n + 4,
    # and that on 20 n + 45 ms.
    centres = [0.02 * n + 0.045 for n in range(3 * factor, 4 * factor)]
    assert clock.seconds(3.5) == pytest.approx(sum(centres) / factor)
    store.description["embedder"] = "whisper-small"
    frames = -(-51 // factor)
    assert clock_of(store, cut, frames).seconds(frames) == pytest.approx(1.1)
    assert clock_of(store, cut, frames).seconds(0) == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("aligner=attention", "aligner=attention needs a model trained with"),
        ("aligner=viterbi", "aligner=viterbi is not known"),
        ("segmenter=longest_match", "table=FILE"),
        ("similarities=[table]", "table=FILE"),
        ("table=none.tsv", "no translation table at none.tsv"),
        ("pairs=[yue:hak]", "'yue:hak' fits no two sites"),
        ("split=valid", "cuts_valid.jsonl.gz does not exist"),
        ("groups=[yue]", "at least two groups"),
        ("transcript=both", "transcript=both is not known"),
    ],
)
def test_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, prepared: tuple[Path, Path], setting: str, message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, prepared, setting)
    assert str(stopped.value.code).startswith("error: ")
    assert message in str(stopped.value.code)
    assert (
        not list((prepared[0] / "results").glob("interpret*")) if (prepared[0] / "results").is_dir() else True
    )
