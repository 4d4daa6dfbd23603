"""The layers script from its command line to the figure: two dialects, an untrained model."""

import hashlib
import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from lhotse import CutSet, MonoCut, NumpyFilesWriter, SupervisionSegment
from lhotse.features.base import Features
from matplotlib.image import imread
from small_model import TEXTS, write_model

from retrieval.depth.results import read_study
from retrieval.embedding.store import EmbeddingStore
from zipformer.decoding.methods import DecodeConfig
from zipformer.decoding.recognise import decode
from zipformer.model import AsrModel
from zipformer.scoring import align_all, score

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "layers.py"
SENTENCES = TEXTS[:5]


def write_corpus(data_dir: Path, *, dialects: tuple[str, ...] = ("yue", "wuu")) -> None:
    """Two sites a dialect, two speakers a site who share five sentences out, a pattern for each character."""
    random = np.random.default_rng(0)
    patterns = {character: random.normal(size=80) * 4 for text in SENTENCES for character in text}
    cuts = []
    with NumpyFilesWriter(data_dir / "fbank") as storage:
        for place in range(2 * len(dialects)):
            dialect = dialects[place // 2]
            for number, text in enumerate(SENTENCES):
                name = f"{place}-{number}"
                frames = np.concatenate([np.tile(patterns[character], (20, 1)) for character in text])
                matrix = (frames + random.normal(size=frames.shape) - 8).astype(np.float32)
                features = Features(
                    type="kaldi-fbank",
                    num_frames=len(matrix),
                    num_features=80,
                    frame_shift=0.01,
                    sampling_rate=16000,
                    start=0.0,
                    duration=len(matrix) / 100,
                    storage_type=storage.name,
                    storage_path=str(storage.storage_path),
                    storage_key=storage.write(name, matrix),
                    recording_id=name,
                    channels=0,
                )
                supervision = SupervisionSegment(
                    name,
                    name,
                    0.0,
                    len(matrix) / 100,
                    text=text,
                    language=dialect,
                    speaker=f"{place}-{number % 2}",
                    custom={
                        "site": f"site{place}",
                        "sentence_id": str(number),
                        "ipa": " ".join(f"a{ord(character) % 3}" for character in text),
                    },
                )
                cuts.append(
                    MonoCut(name, 0.0, len(matrix) / 100, 0, supervisions=[supervision], features=features)
                )
    CutSet.from_cuts(cuts).to_file(data_dir / "cuts_test.jsonl.gz")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "data").mkdir()
    write_corpus(tmp_path / "data")
    write_model(tmp_path / "model")
    return tmp_path / "model", tmp_path / "data"


def run(monkeypatch: pytest.MonkeyPatch, folders: tuple[Path, Path], *more: str) -> None:
    model_dir, data_dir = folders
    small = [
        "probes.folds=2",
        "probes.min_occurrences=4",
        "probes.iterations=30",
        "resamples=20",
        "device=cpu",
    ]
    arguments = [f"model_dir={model_dir}", f"data_dir={data_dir}", *small, *more]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_all_steps(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model_dir, _ = folders
    run(monkeypatch, folders)
    printed = capsys.readouterr().out
    assert "layer02" in printed
    assert "selectivity" in printed
    study = read_study(model_dir / "results" / "data" / "layers-test")
    assert study is not None
    assert [result.tap.name for result in study.taps] == ["layer00", "layer01", "layer02", "stack2", "output"]
    assert all(result.recall is not None and result.chance == 20 for result in study.taps)
    assert study.sound is not None
    # All say the same sounds, so that their order finds sentences without a model; chance is 20 %.
    assert study.sound_in_order is not None
    assert study.sound_in_order.value > 20
    # The same features in every dialect: the front end alone finds the sentence.
    assert study.taps[0].recall is not None
    assert study.taps[0].recall.value == 100
    assert study.methods == ["ctc", "greedy"]
    assert [set(result.cer) for result in study.taps] == [{"ctc", "greedy"}] * 3 + [set()] * 2
    named = set(study.taps[0].probes) | set(study.not_identifiable)
    assert {"dialect", "site", "speaker", "sentence", "character", "tone"} <= named
    assert study.taps[0].probes["sentence, unseen dialect"].accuracy == 100
    folder = model_dir / "results" / "data" / "layers-test"
    assert imread(folder / "layers.png").std() > 0.05
    assert (folder / "layers.csv").read_text().count("\n") == 6
    assert len(EmbeddingStore(model_dir / "results" / "data" / "embeddings-test-layer01")) == 20


def test_the_last_exit_and_the_output_are_those_of_the_other_scripts(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir, data_dir = folders
    run(monkeypatch, folders, "steps=[retrieval,exits]")
    study = read_study(model_dir / "results" / "data" / "layers-test")
    assert study is not None
    scripts = SCRIPT.parent
    for name, more in (
        ("decode", ["method=ctc", f"data_dir={data_dir}"]),
        ("embed", [f"data_dir={data_dir}"]),
        ("retrieve", []),
    ):
        arguments = [f"model_dir={model_dir}", "device=cpu", *more]
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(scripts / f"{name}.py"), run_name="__main__")
    rows = json.loads((model_dir / "results" / "data" / "decode-test-ctc" / "cer.json").read_text())["rows"]
    (overall,) = (row for row in rows if row["level"] == "overall")
    assert study.taps[2].cer["ctc"].value == overall["cer"]
    summary = json.loads((model_dir / "results" / "data" / "retrieval-test" / "recall.json").read_text())[
        "summary"
    ]
    (mean,) = (row for row in summary if row["name"] == "all")
    assert study.taps[-1].recall is not None
    assert study.taps[-1].recall.value == mean["recall_at_1"]
    assert study.tasks == {}


def test_a_stopped_study_goes_on(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from retrieval.depth import run as depth
    from retrieval.depth import study

    model_dir, _ = folders
    steps = "steps=[retrieval,probes]"
    run(monkeypatch, folders, steps)
    expected = (model_dir / "results" / "data" / "layers-test" / "layers.json").read_text()
    shutil.rmtree(model_dir / "results")
    recall_of, calls = depth.recall_of, []

    def dies_in_the_third(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return recall_of(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(depth, "recall_of", dies_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, folders, steps)
    assert not (model_dir / "results" / "data" / "layers-test" / "layers.json").exists()
    encoded = []
    encode = AsrModel.encode_layers
    monkeypatch.setattr(
        AsrModel, "encode_layers", lambda model, *a, **k: (encoded.append(1), encode(model, *a, **k))[1]
    )
    run(monkeypatch, folders, steps)
    assert len(calls) == 3 + 7 - 2  # of MFCCs by two scores and five taps, two were done
    assert encoded == []  # the embeddings were there
    assert (model_dir / "results" / "data" / "layers-test" / "layers.json").read_text() == expected
    monkeypatch.setattr(study, "probe", lambda *_: pytest.fail("probes are kept"))
    run(monkeypatch, folders, steps)


def test_a_later_run_of_one_step_keeps_the_others(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model_dir, _ = folders
    run(monkeypatch, folders)
    study = read_study(model_dir / "results" / "data" / "layers-test")
    assert study is not None
    assert study.weights == [hashlib.sha256((model_dir / "model.safetensors").read_bytes()).hexdigest()]
    run(monkeypatch, folders, "steps=[probes]", "methods=[greedy]", "beam=2")  # neither is asked of this step
    assert read_study(model_dir / "results" / "data" / "layers-test") == study
    assert "cer_ctc,cer_greedy" in (model_dir / "results" / "data" / "layers-test" / "layers.csv").read_text()
    assert "results of the step" not in capsys.readouterr().out
    # Another seed of the bootstrap: of retrieval, too, but not of the probes.
    run(monkeypatch, folders, "steps=[exits]", "methods=[ctc]", "seed=1")
    printed = capsys.readouterr().out
    assert "results of the step retrieval are left out" in printed
    assert "results of the step probes" not in printed
    changed = read_study(model_dir / "results" / "data" / "layers-test")
    assert changed is not None
    assert (changed.methods, changed.sound, changed.tasks) == (["ctc"], None, study.tasks)
    assert [result.probes for result in changed.taps] == [result.probes for result in study.taps]
    assert all(result.recall is None for result in changed.taps)
    write_model(model_dir, seed=1)
    run(monkeypatch, folders, "steps=[retrieval]", "seed=1")
    printed = capsys.readouterr().out
    assert all(f"results of the step {step} are left out" in printed for step in ("exits", "probes"))
    changed = read_study(model_dir / "results" / "data" / "layers-test")
    assert changed is not None
    assert all(result.recall and not result.probes and not result.cer for result in changed.taps)
    assert (changed.tasks, changed.not_identifiable) == ({}, {})


def test_a_model_without_ctc(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model_dir, _ = folders
    write_model(model_dir, ctc=False)
    run(monkeypatch, folders, "steps=[exits,probes]")
    study = read_study(model_dir / "results" / "data" / "layers-test")
    assert study is not None
    assert study.methods == ["greedy"]
    assert study.not_identifiable["character"] == "the model has no CTC head to align with"


def test_exits_through_the_attention_decoder(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir, data_dir = folders
    write_model(model_dir, decoder_layers=1)
    run(monkeypatch, folders, "steps=[exits]", "methods=[attention]")
    study = read_study(model_dir / "results" / "data" / "layers-test")
    assert study is not None
    assert [set(result.cer) for result in study.layers] == [{"attention"}] * 3
    _, transcripts = decode(DecodeConfig(str(model_dir), str(data_dir), method="attention", device="cpu"))
    (overall,) = (row for row in score(align_all(transcripts)) if row.level == "overall")
    assert study.layers[-1].cer["attention"].value == overall.cer


def test_methods_of_which_the_model_has_none_are_an_error(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir, _ = folders
    write_model(model_dir, ctc=False)
    with pytest.raises(
        SystemExit, match=r"^error: .*no head for ctc, attention; set methods=\[beam,greedy\]"
    ):
        run(monkeypatch, folders, "methods=[ctc,attention]")
    assert not (model_dir / "results").exists()  # found out before anything was computed
    with pytest.raises(SystemExit, match=r"^error: methods=\['greedy', 'best'\]: best is not known"):
        run(monkeypatch, folders, "methods=[greedy,best]")


def test_errors_are_one_message(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model_dir, _ = folders
    with pytest.raises(SystemExit, match=r"^error: .*cuts_dev\..* does not exist; the splits there are test"):
        run(monkeypatch, folders, "split=dev")
    with pytest.raises(SystemExit, match=r"^error: .*steps=\['probe'\] must be some of retrieval"):
        run(monkeypatch, folders, "steps=[probe]")
    with pytest.raises(SystemExit, match=r"^error: .*probes\.folds=1"):
        run(monkeypatch, folders, "probes.folds=1")
    write_corpus(folders[1], dialects=("yue",))
    with pytest.raises(SystemExit, match=r"^error: retrieval needs at least two groups"):
        run(monkeypatch, folders)
    assert not (model_dir / "results" / "data" / "layers-test" / "layers.json").exists()
    (model_dir / "tokens.model").unlink()
    with pytest.raises(SystemExit, match=r"^error: .*lacks tokens\.model"):
        run(monkeypatch, folders)
