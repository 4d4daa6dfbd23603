"""Layer studies: taps, many stores from one pass, steps that are kept, files, figure and report section."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import jinja2
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from small_model import FRAMES, write_cuts

from retrieval.depth.figure import layer_figure
from retrieval.depth.probe_design import ProbeConfig
from retrieval.depth.probe_tasks import Facts
from retrieval.depth.probes import ProbeScore
from retrieval.depth.results import (
    LayerStudy,
    Rate,
    TapResult,
    fill,
    read_study,
    study_tables,
    write_study,
)
from retrieval.depth.study import STEPS, Frames, LayersConfig, Probes, embed_taps, kept, recall_of, taps_of
from retrieval.embedding.store import EmbeddingStore, EmbeddingWriter
from retrieval.figures.style import save_png
from retrieval.protocol.sites import Duplicates, Level
from retrieval.report.depth import layers_section
from retrieval.similarity.seqsim import pack, seqsim_packed
from zipformer.data.cuts import find_manifest, read_cuts
from zipformer.typed_json import MalformedResultError

TAPS = taps_of([(0, 3, 1), (1, 3, 1), (2, 4, 4), (2, 4, 4)], 4)
IDENTITIES = {tap.name: f"id of {tap.name}" for tap in TAPS}


def test_taps_of_an_encoder() -> None:
    assert [tap.name for tap in TAPS] == ["layer00", "layer01", "layer02", "layer03", "stack2", "output"]
    assert [tap.frame_rate for tap in TAPS] == [50, 50, 12.5, 12.5, 50, 25]
    assert [tap.layer for tap in TAPS] == [0, 1, 2, 3, 3, 3]
    assert [tap.kind for tap in TAPS] == ["layer"] * 4 + ["stack", "output"]


def test_a_layer_lies_where_the_embed_script_puts_it(tmp_path: Path) -> None:
    config = LayersConfig(str(tmp_path), "data")
    assert TAPS[2].store(config) == tmp_path / "results" / "data" / "embeddings-test-layer02"
    assert TAPS[4].store(config) == tmp_path / "results" / "data" / "layers-test" / "embeddings-stack2"


def test_repeated_frames_do_not_change_seqsim() -> None:
    """Why the frame rate of a layer is left as it is."""
    generator = torch.Generator().manual_seed(0)
    x, y = ([torch.randn(T, 5, generator=generator) for T in lengths] for lengths in ((3, 7), (4, 2)))
    repeated = [frames.repeat_interleave(4, dim=0) for frames in x]
    torch.testing.assert_close(seqsim_packed(pack(x), pack(y)), seqsim_packed(pack(repeated), pack(y)))


class Encoder:
    """Frames whose value is the tap; can die in the middle."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.calls: list[int] = []
        self.fail_at = fail_at

    def __call__(self, features: torch.Tensor, lengths: torch.Tensor) -> Frames:
        if len(self.calls) == self.fail_at:
            raise KeyboardInterrupt
        self.calls.append(len(lengths))
        result = {}
        for number, tap in enumerate(TAPS):
            T = -(-lengths // (2 * tap.factor))
            mean = features.mean(dim=(1, 2))[:, None, None]
            result[tap.name] = (number + mean.expand(len(T), int(T.max()), tap.channels), T)
        return result


def embed(tmp_path: Path, encode: Callable[..., Frames], **more: object) -> LayersConfig:
    config = LayersConfig(str(tmp_path / "model"), str(tmp_path / "data"), batch_seconds=2.5)
    if not (tmp_path / "data").exists():
        write_cuts(tmp_path / "data", "test")
    cuts = read_cuts(find_manifest(tmp_path / "data", "test"))
    embed_taps(cuts, encode, TAPS, config, IDENTITIES | more, minimum_frames=9, margin=20)
    return config


def test_one_pass_fills_the_stores_of_all_taps(tmp_path: Path) -> None:
    encode = Encoder()
    config = embed(tmp_path, encode)
    assert sum(encode.calls) == len(FRAMES)
    for tap in TAPS:
        store = EmbeddingStore(tap.store(config))
        assert store.description["fingerprint"] == IDENTITIES[tap.name]
        assert len(store) == len(FRAMES)
        for number, frames in enumerate(FRAMES):
            assert store[f"test-{number}"].shape == (-(-frames // (2 * tap.factor)), tap.channels)
        assert store.utterances["test-0"].site == "yue-0"
    again = Encoder()
    embed(tmp_path, again)
    assert again.calls == []


def test_a_pass_that_was_stopped_goes_on(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    expected = {tap.name: EmbeddingStore(tap.store(embed(whole, Encoder()))) for tap in TAPS}
    first, second = Encoder(fail_at=2), Encoder()
    with pytest.raises(KeyboardInterrupt):
        embed(tmp_path, first)
    config = embed(tmp_path, second)
    assert sum(first.calls) + sum(second.calls) == len(FRAMES)
    for tap in TAPS:
        store = EmbeddingStore(tap.store(config))
        for entry in store:
            np.testing.assert_array_equal(store[entry.utterance_id], expected[tap.name][entry.utterance_id])


def test_only_what_changed_is_embedded_again(tmp_path: Path) -> None:
    config = embed(tmp_path, Encoder())
    written = {tap.name: (tap.store(config) / "frames.npy").stat().st_mtime_ns for tap in TAPS}
    embed(tmp_path, Encoder(), layer02="another")
    changed = {
        name
        for name, tap in zip(written, TAPS, strict=True)
        if (tap.store(config) / "frames.npy").stat().st_mtime_ns != written[name]
    }
    assert changed == {"layer02"}


def test_values_are_kept_until_their_identity_changes(tmp_path: Path) -> None:
    path, made = tmp_path / "step" / "a.json", []

    def make() -> int:
        made.append(1)
        return len(made)

    assert [kept(path, "x", make), kept(path, "x", make), kept(path, "y", make)] == [1, 1, 2]
    path.write_text('{"identity": "y", "val')
    assert kept(path, "y", make) == 3
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


def test_a_sentence_that_a_site_has_twice(tmp_path: Path) -> None:
    writer = EmbeddingWriter(
        tmp_path / "store", dimension=3, dtype="float32", embedder="planted", fingerprint="x"
    )
    with writer:
        for dialect in ("yue", "wuu"):
            for take in (2, 1):
                for number in range(3):
                    # Of the second take, no sentence is like the same one of the other dialect.
                    word = (number + (take == 2 and dialect == "wuu")) % 3
                    writer.add(
                        f"{dialect}-{number}-{take}",
                        np.eye(3)[[word]],
                        dialect=dialect,
                        subdialect=f"{dialect}-{take}",
                        sentence_id=str(number),
                    )
    store, device = EmbeddingStore(tmp_path / "store"), torch.device("cpu")
    with pytest.raises(ValueError, match="duplicates=first"):
        recall_of(store, LayersConfig("model", "data"), device)
    config = LayersConfig("model", "data", duplicates=Duplicates.first, resamples=10)
    assert recall_of(store, config, device)["recall_at_1"] == 100
    varieties = LayersConfig("model", "data", level=Level.subdialect, resamples=10)
    assert recall_of(store, varieties, device)["recall_at_1"] == 50  # wuu-2 finds no other


def test_a_task_without_folds_is_left_out_and_the_others_are_probed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Of three sites, every sentence is said at two: whichever two are held out, one is not in training.
    said = {("yue", "a"): "13", ("yue", "b"): "12", ("wuu", "c"): "23", ("wuu", "d"): "--"}
    facts = [
        Facts(f"{site}{n}", dialect, dialect, site, f"{site}-speaker", sentence.strip("-"), "甲", ())
        for (dialect, site), sentences in said.items()
        for n, sentence in enumerate(sentences * 2)
    ]
    probes = Probes(facts, None, ProbeConfig(folds=2))
    reasons = {task.name: task.reason for task in probes.not_identifiable}
    reason = "in none of 50 divisions of the 3 groups into 2 folds does every class remain in training"
    assert reasons["sentence"] == f"{reason}; try another number of probes.folds"
    assert f"probe sentence: {reason}" in caplog.text
    assert [task.name for task in probes.tasks] == ["dialect", "sentence, unseen dialect"]
    with EmbeddingWriter(
        tmp_path, dimension=2, dtype="float32", embedder="planted", fingerprint="x"
    ) as writer:
        for fact in facts:
            writer.add(fact.utterance_id, np.eye(2)[[int(fact.dialect == "yue")]], dialect=fact.dialect)
    assert "sentence" in {task.name for task in Probes(facts, None, ProbeConfig(folds=3)).tasks}
    rows = probes.scores(EmbeddingStore(tmp_path), 2, lambda: None)
    assert [row["task"] for row in rows] == ["dialect", "sentence, unseen dialect"]
    assert rows[0]["accuracy"] == 100


def score(task: str, accuracy: float, control: float) -> ProbeScore:
    return ProbeScore(
        task,
        accuracy,
        accuracy - 4,
        min(100, accuracy + 4),
        control,
        accuracy - control,
        accuracy - control - 5,
        accuracy - control + 5,
        20.0,
        5,
        100,
        5,
    )


@pytest.fixture
def study() -> LayerStudy:
    results = []
    for tap in TAPS:
        depth = 10.0 * tap.layer
        cer = {"ctc": Rate(90 - depth, 88 - depth, 92 - depth), "greedy": Rate(95 - depth)}
        results.append(
            TapResult(
                tap,
                Rate(20 + depth, 15 + depth, 25 + depth),
                2.0,
                cer if tap.kind == "layer" else {},
                {
                    "speaker": score("speaker", 90 - depth, 50),
                    "sentence, unseen dialect": score("sentence, unseen dialect", 30 + depth, 2),
                },
            )
        )
    note = "1 of 9 classes left out"
    tasks = {"speaker": ("sentences", ""), "sentence, unseen dialect": ("dialects", note)}
    sounds = Rate(6.0, 5.0, 7.0), Rate(36.0, 31.0, 41.0)
    return LayerStudy("model", "test", results, *sounds, tasks, {"tone": "no romanisation"})


def test_files_come_back(study: LayerStudy, tmp_path: Path) -> None:
    config = LayersConfig(str(tmp_path), "data")
    assert read_study(config.folder) is None
    write_study(study, config)
    assert read_study(config.folder) == study
    with (config.folder / "layers.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["tap"] for row in rows] == [tap.name for tap in TAPS]
    assert float(rows[2]["recall_at_1"]) == 40
    assert float(rows[2]["cer_ctc"]) == 70
    assert rows[4]["cer_ctc"] == ""
    assert float(rows[0]["speaker: selectivity"]) == 40


@pytest.mark.parametrize("step", STEPS)
def test_steps_that_were_not_asked_for_are_those_of_before(
    study: LayerStudy, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    bare = LayerStudy("model", "test", [TapResult(tap) for tap in TAPS])
    before = replace(study, made_from={name: f"{name} of {study.methods}" for name in STEPS})

    def identity_of(name: str, methods: Sequence[str]) -> str:
        return f"{name} of {methods}"

    assert fill(bare, None, identity_of) == bare
    assert fill(bare, before, identity_of) == before
    assert not caplog.messages
    changed = fill(
        bare, before, lambda name, methods: identity_of("other" if name == step else name, methods)
    )
    assert [record.args for record in caplog.records] == [(step, step)]
    assert set(changed.made_from) == set(STEPS) - {step}
    found = {
        "retrieval": any(result.recall or result.chance for result in changed.taps) or changed.sound,
        "exits": changed.methods,
        "probes": changed.tasks or changed.not_identifiable or any(r.probes for r in changed.taps),
    }
    assert {name for name, value in found.items() if value} == set(STEPS) - {step}
    # A step that was done now is not that of before.
    done = replace(bare, made_from={step: "now"})
    assert fill(done, before, identity_of).made_from[step] == "now"
    # What an earlier version wrote does not say what it is of.
    caplog.clear()
    assert fill(bare, study, identity_of) == bare
    assert [record.args for record in caplog.records] == [(name, name) for name in STEPS]


def test_results_that_cannot_be_read_are_named(study: LayerStudy, tmp_path: Path) -> None:
    config = LayersConfig(str(tmp_path), "data")
    write_study(study, config)
    path = config.folder / "layers.json"
    content = json.loads(path.read_text())
    del content["taps"][0]["recall"]
    for text in (json.dumps(content), "{", "[]"):
        path.write_text(text)
        with pytest.raises(MalformedResultError, match=r"layers\.json.*fangyan layers"):
            read_study(config.folder)


def test_the_figure_and_the_tables_are_drawn(study: LayerStudy, tmp_path: Path) -> None:
    figure = layer_figure(study)
    save_png(figure, tmp_path / "layers.png")
    heights = {line.get_label(): line.get_ydata()[0] for line in figure.axes[0].lines}
    assert heights["sound alone: MFCCs, SeqSim"] == 6
    assert heights["sound alone: MFCCs, DTW"] == 36
    assert imread(tmp_path / "layers.png").std() > 0.05
    assert [table.row_count for table in study_tables(study)] == [6, 7]
    nothing = LayerStudy("model", "test", [TapResult(tap) for tap in TAPS])
    save_png(layer_figure(nothing), tmp_path / "nothing.png")
    assert len(study_tables(nothing)) == 1


def test_the_section_of_the_report(study: LayerStudy, tmp_path: Path) -> None:
    config = LayersConfig(str(tmp_path), "data")
    assert layers_section(config.folder) is None
    write_study(replace(study, groups=["cmn", "yue"], single_site_groups=["yue"]), config)
    section = layers_section(config.folder)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("retrieval.report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("_layers.html.j2").render(layers=section)
    assert "data:image/svg+xml;base64," in page
    assert "layer03" in page
    assert "recall@1 6.0 by SeqSim, 36.0 by DTW." in page
    assert "recall: over sentences and sites; sites cannot vary for yue (one each)" in page
    assert "Not probed: tone, because no romanisation." in page
    assert "sentence, unseen dialect: 1 of 9 classes left out." in page


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", ["recall"]), ("steps", []), ("methods", []), ("batch_seconds", -1.0), ("resamples", 0)],
)
def test_settings_are_checked(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        LayersConfig("model", "data", **{field: value})  # type: ignore[arg-type]
