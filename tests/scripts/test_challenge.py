"""The challenge script from prepared cuts to sets, and retrieval and report with them."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from lhotse import CutSet, MonoCut, SupervisionSegment

from retrieval.embedding.store import EmbeddingWriter
from zipformer.data.dataset import read_dataset

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
WORDS = ["他在北京", "我喜欢吃饭", "天很冷", "他不来", "书在这里", "我们走吧"]
# One letter a phone. Sentence 1 sounds alike in both, sentence 2 nearly so, the rest not at all.
PHONES = {
    "cmn": ["kaka", "mama", "tata", "pa", "sisi", "lu"],
    "yue": ["ni", "mama", "tati", "fu", "eo", "mi"],
}


def run(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Cuts of two sites, without audio or features: the builder needs neither."""
    cuts = [
        MonoCut(
            id=f"{dialect}-{n}",
            start=0.0,
            duration=1.0 + 0.1 * n,
            channel=0,
            supervisions=[
                SupervisionSegment(
                    id=f"{dialect}-{n}",
                    recording_id=f"{dialect}-{n}",
                    start=0.0,
                    duration=1.0,
                    language=dialect,
                    text=text,
                    custom={"site": dialect, "sentence_id": str(n), "translation": text, "ipa": phones[n]},
                )
            ],
        )
        for dialect, phones in PHONES.items()
        for n, text in enumerate(WORDS)
    ]
    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts_test.jsonl.gz")
    return tmp_path


@pytest.fixture
def model_dir(tmp_path: Path, data_dir: Path) -> Path:
    """A model that hears: sentences 0 and 3 are taken for each other, sentence 1 and 2 are found."""
    dataset = read_dataset(data_dir, "test", "data")
    for embedder in ("", "-mfcc"):
        folder = dataset.claim(tmp_path / "model") / f"embeddings-test{embedder}"
        writer = EmbeddingWriter(
            folder,
            dimension=6,
            dtype="float32",
            embedder="e",
            fingerprint="f",
            dataset=dataset.record(),
        )
        with writer:
            for dialect in PHONES:
                for n in range(6):
                    word = {0: 3, 3: 0}.get(n, n) if dialect == "yue" else n
                    writer.add(
                        f"{dialect}-{n}",
                        np.eye(6)[[word, word]],
                        dialect=dialect,
                        site=dialect,
                        sentence_id=str(n),
                    )
    return tmp_path / "model"


def test_from_cuts_to_the_report(
    data_dir: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build = (f"data_dir={data_dir}", "removals=[sound,duration]", "sound.threshold=0.3", "random=false")
    run(monkeypatch, "challenge", *build, "duration.candidates=2")
    folder = data_dir / "challenge-test"
    names = ("no-close-sound", "duration-matched", "combined")
    assert {path.name for path in folder.iterdir()} == {
        f"{n}.{kind}" for n in names for kind in ("json", "tsv")
    }
    printed = capsys.readouterr().out
    assert f"fangyan retrieve challenge={folder / 'combined.json'}" in printed
    assert "66.7" in printed  # per cent of the sentences that no-close-sound keeps
    common = (f"model_dir={model_dir}", "device=cpu", "resamples=50")
    run(monkeypatch, "retrieve", *common)
    run(monkeypatch, "retrieve", *common, f"challenge={folder / 'no-close-sound.json'}")
    content = json.loads(
        (model_dir / "results" / "data" / "retrieval-test-no-close-sound" / "recall.json").read_text()
    )
    assert [row["recall_at_1"] for row in content["pairs"]] == pytest.approx([50, 50])  # of 0, 3, 4, 5
    assert content["pairs"][0]["chance"] == 25
    assert content["challenge"] == "no-close-sound"
    challenge = json.loads((folder / "no-close-sound.json").read_text())
    assert content["challenge_fingerprint"] == challenge["fingerprint"]
    capsys.readouterr()
    run(monkeypatch, "report", f"model_dir={model_dir}")
    assert "full set, same pairs" in capsys.readouterr().out
    rows = json.loads((model_dir / "results" / "data" / "report" / "challenge.json").read_text())["overall"]
    assert [row["challenge"] for row in rows] == ["full", "no-close-sound"]
    assert rows[0]["recall_at_1"] == pytest.approx(400 / 6)


def test_a_set_that_was_built_again_is_another_one(
    data_dir: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model keeps its results on the set of before; MFCCs are asked the new one and its counterpart."""
    folder = data_dir / "challenge-test"
    common = (f"model_dir={model_dir}", "device=cpu", "resamples=20", "permutations=0")
    hard, random = (f"challenge={folder / name}.json" for name in ("no-close-sound", "no-close-sound-random"))

    def rows() -> set[tuple[str, str]]:
        run(monkeypatch, "report", f"model_dir={model_dir}")
        content = json.loads((model_dir / "results" / "data" / "report" / "challenge.json").read_text())
        return {(row["system"], row["challenge"]) for row in content["overall"]}

    for threshold in (0.3, 0.0):
        run(
            monkeypatch,
            "challenge",
            f"data_dir={data_dir}",
            "removals=[sound]",
            f"sound.threshold={threshold}",
        )
        if threshold:
            run(monkeypatch, "retrieve", *common, hard)
            run(monkeypatch, "retrieve", *common, random)
            assert rows() == {("zipformer", "no-close-sound"), ("zipformer", "no-close-sound-random")}
    run(monkeypatch, "retrieve", *common, hard, "embedder=mfcc")
    assert rows() == {("zipformer", "no-close-sound"), ("zipformer", "no-close-sound-random")}
    run(monkeypatch, "retrieve", *common, hard)
    assert rows() == {("zipformer", "no-close-sound"), ("mfcc", "no-close-sound")}
    warnings = json.loads((model_dir / "results" / "data" / "report" / "results.json").read_text())[
        "warnings"
    ]
    assert len(warnings) == 1
    assert "no-close-sound-random/recall.json (zipformer) is left out" in warnings[0]


def test_the_acoustic_control(data_dir: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its frames are equal but for sentences 0 and 3, which are as far as different ones."""
    run(
        monkeypatch,
        "challenge",
        f"data_dir={data_dir}",
        f"model_dir={model_dir}",
        "dataset=data",
        "removals=[sound]",
        "sound.measure=acoustic",
        "sound.threshold=0.5",
        "random=false",
        f"out_dir={data_dir / 'sets'}",
    )
    content = json.loads((data_dir / "sets" / "no-close-sound.json").read_text())
    assert content["pairs"][0]["kept"] == ["0", "3"]
    assert content["removals"]["sound"]["measure"] == "acoustic"


def test_errors_are_one_message_and_leave_nothing(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = data_dir / "challenge-test"
    data = f"data_dir={data_dir}"
    with pytest.raises(SystemExit, match=r"^error: .*cuts_dev\..* does not exist; the splits there are test"):
        run(monkeypatch, "challenge", data, "split=dev")
    with pytest.raises(SystemExit, match=r"^error: challenge set 'no-close-sound' is empty"):
        run(monkeypatch, "challenge", data, "removals=[duration,sound]", "sound.threshold=1")
    with pytest.raises(SystemExit, match=r"^error: .*tagger=none.*removals=\[sound,duration\]"):
        run(monkeypatch, "challenge", data, "names.tagger=none")
    with pytest.raises(SystemExit, match=r"^error: no embeddings at .*embeddings-test-mfcc"):
        run(monkeypatch, "challenge", data, "model_dir=none", "removals=[sound]", "sound.measure=acoustic")
    with pytest.raises(SystemExit, match=r"^error: .*field romaji of the cuts: 12 of 12 .*no phones"):
        run(monkeypatch, "challenge", data, "removals=[sound]", "sound.field=romaji", "sound.measure=phones")
    assert not folder.exists()


def test_a_file_that_is_no_challenge_set(
    data_dir: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("{", "[]", '{"format": 2}', '{"format": 1, "name": "x"}'):
        (data_dir / "set.json").write_text(text)
        with pytest.raises(
            SystemExit, match=r"^error: .*set\.json is not a challenge set \(.*fangyan challenge"
        ):
            run(monkeypatch, "retrieve", f"model_dir={model_dir}", f"challenge={data_dir / 'set.json'}")
    with pytest.raises(SystemExit, match=r"^error: no challenge set at .*none\.json"):
        run(monkeypatch, "retrieve", f"model_dir={model_dir}", f"challenge={data_dir / 'none.json'}")
    assert not (model_dir / "results" / "data" / "retrieval-test").exists()
