"""The results of a layer study, as JSON and CSV, on the terminal and for the report."""

import csv
import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from retrieval.depth.probe_design import NotIdentifiable, ProbeTask
from retrieval.depth.probes import ProbeScore
from retrieval.depth.study import STEPS, LayersConfig, Tap
from retrieval.results.naming import LAYERS_FILE
from retrieval.results.weights import Digests, recorded_weights
from retrieval.statistics.bootstrap import resampled
from zipformer.files import write_text
from zipformer.typed_json import MalformedResultError, names_or_none

logger = logging.getLogger(__name__)

MAKER = "layers"  # the script


@dataclass(frozen=True)
class Rate:
    """A rate in per cent with the ends of its 95 % interval; the ends are None if there is no interval."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class TapResult:
    """Measurements at a tap; None or empty if not measured.

    Attributes:
        tap: place in the encoder.
        recall: recall@1, mean over the ordered pairs of groups.
        chance: chance level of the recall.
        cer: character error rate of an exit after the layer, by method; for layers only.
        probes: scores of the probes, by task.
    """

    tap: Tap
    recall: Rate | None = None
    chance: float | None = None
    cer: dict[str, Rate] = field(default_factory=dict)
    probes: dict[str, ProbeScore] = field(default_factory=dict)


@dataclass(frozen=True)
class LayerStudy:
    """Results by depth in the encoder.

    Attributes:
        model_dir, split: model directory and split that were studied.
        taps: results in order of depth, the output last.
        sound: recall@1 of MFCCs with SeqSim, which ignores the order of sounds; None if not measured.
        sound_in_order: recall@1 of MFCCs with dynamic time warping, which respects the order; None if not
            measured.
        tasks: description of the held-out part and a note, by name of the property.
        not_identifiable: reason why a property cannot be probed, by name of the property.
        weights: SHA-256 of the weights of the model, as a list of one; None if not recorded.
        data: digest of the data set, as a list of one; None if not recorded.
        groups: groups of the retrieval; None without retrieval.
        single_site_groups: groups with one site, which the intervals do not resample.
        made_from: fingerprint of the model, the cuts and the settings behind the results, by step.
    """

    model_dir: str
    split: str
    taps: list[TapResult]
    sound: Rate | None = None
    sound_in_order: Rate | None = None
    tasks: dict[str, tuple[str, str]] = field(default_factory=dict)
    not_identifiable: dict[str, str] = field(default_factory=dict)
    weights: Digests = None
    data: Digests = None
    groups: list[str] | None = None
    single_site_groups: list[str] | None = None
    made_from: dict[str, str] = field(default_factory=dict)

    @property
    def layers(self) -> list[TapResult]:
        """Results of the layers, without stacks and output."""
        return [result for result in self.taps if result.tap.kind == "layer"]

    @property
    def resampled(self) -> str:
        """Resampled units of the intervals of recall, for captions."""
        return resampled(self.groups or [], self.single_site_groups)

    @property
    def methods(self) -> list[str]:
        """Methods of recognition, in order."""
        return list(dict.fromkeys(method for result in self.taps for method in result.cer))


def describe_tasks(
    tasks: Sequence[ProbeTask], missing: Sequence[NotIdentifiable]
) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """Values of ``tasks`` and ``not_identifiable`` of a :class:`LayerStudy`."""
    return {task.name: (task.held_out, task.note) for task in tasks}, {
        task.name: task.reason for task in missing
    }


def fill(
    study: LayerStudy, before: LayerStudy | None, identity_of: Callable[[str, Sequence[str]], str]
) -> LayerStudy:
    """Add to a study those steps of an earlier one that it has not done itself.

    A step of the earlier study with another model, other cuts or other settings is left out, with a log
    message.

    Args:
        study: new study, with ``made_from`` of the steps that it has done.
        before: earlier study of the same model directory and split; None if there is none.
        identity_of: function from a step and the methods of recognition to the fingerprint of the step with
            the present settings.
    """
    if before is None:
        return study
    done = {
        "retrieval": any(result.recall for result in before.taps),
        "exits": bool(before.methods),
        "probes": bool(before.tasks or before.not_identifiable),
    }
    for step in STEPS:
        if step in study.made_from or not done[step]:
            continue
        if before.made_from.get(step) == identity_of(step, before.methods):
            study = _take_over(study, before, step)
        else:
            logger.warning(
                "the earlier results of the step %s are left out: they are of another model, of other cuts or"
                " of other settings than this run. To have them as well, run fangyan layers with"
                " steps=[%s] and the settings of this run",
                step,
                step,
            )
    return study


def _take_over(study: LayerStudy, before: LayerStudy, step: str) -> LayerStudy:
    """The study with one step copied from an earlier study."""
    names = {"retrieval": ("recall", "chance"), "exits": ("cer",), "probes": ("probes",)}[step]
    found = {result.tap.name: result for result in before.taps}
    taps = [
        replace(result, **{name: getattr(found[result.tap.name], name) for name in names})
        for result in study.taps
    ]
    study = replace(study, taps=taps, made_from=study.made_from | {step: before.made_from[step]})
    if step == "retrieval":
        return replace(
            study,
            sound=before.sound,
            sound_in_order=before.sound_in_order,
            groups=before.groups,
            single_site_groups=before.single_site_groups,
        )
    if step == "probes":
        return replace(study, tasks=before.tasks, not_identifiable=before.not_identifiable)
    return study


def write_study(study: LayerStudy, config: LayersConfig) -> None:
    """Write ``layers.json`` (complete) and ``layers.csv`` (one line for each tap) into the study's folder."""
    content = {"settings": asdict(config)} | asdict(study)
    write_text(config.folder / LAYERS_FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["tap", "layer", "stack", "channels", "frames_per_second", "recall_at_1", "recall_low", "recall_high"]
        + ["chance"]
        + [f"cer_{method}" for method in study.methods]
        + [f"{task}: {what}" for task in study.tasks for what in ("accuracy", "control", "selectivity")]
    )
    for result in study.taps:
        tap, recall = result.tap, result.recall or Rate(float("nan"))
        row: list[object] = [tap.name, tap.layer, tap.stack, tap.channels, tap.frame_rate]
        row += ["" if result.recall is None else value for value in (recall.value, recall.low, recall.high)]
        row.append("" if result.chance is None else result.chance)
        row += [result.cer[method].value if method in result.cer else "" for method in study.methods]
        for task in study.tasks:
            score = result.probes.get(task)
            row += ["", "", ""] if score is None else [score.accuracy, score.control, score.selectivity]
        writer.writerow(row)
    write_text(config.folder / "layers.csv", buffer.getvalue())


def read_study(folder: Path) -> LayerStudy | None:
    """The study in a folder of fangyan layers; None if there is none.

    Raises:
        MalformedResultError: a file is damaged.
    """
    path = folder / LAYERS_FILE
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return LayerStudy(
            content["model_dir"],
            content["split"],
            [_tap_result(row) for row in content["taps"]],
            _estimate(content["sound"]),
            _estimate(content["sound_in_order"]),
            {name: (held_out, note) for name, (held_out, note) in content["tasks"].items()},
            dict(content["not_identifiable"]),
            recorded_weights(content),
            names_or_none(content, "data", path, MAKER),
            names_or_none(content, "groups", path, MAKER),
            names_or_none(content, "single_site_groups", path, MAKER),
            dict(content["made_from"]),
        )
    except MalformedResultError:
        raise
    except json.JSONDecodeError as error:
        raise MalformedResultError(path, f"not JSON ({error})", MAKER) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedResultError(path, f"not the results of a layer study ({error!r})", MAKER) from error


def _tap_result(row: Mapping[str, Any]) -> TapResult:
    cer: dict[str, Rate] = {method: Rate(**value) for method, value in row["cer"].items()}
    probes = {name: ProbeScore(**score) for name, score in row["probes"].items()}
    return TapResult(Tap(**row["tap"]), _estimate(row["recall"]), row["chance"], cer, probes)


def _estimate(value: Mapping[str, Any] | None) -> Rate | None:
    return None if value is None else Rate(**value)


def study_tables(study: LayerStudy) -> list[Table]:
    """Two tables for the terminal: retrieval and recognition, and the probes."""
    first = Table(title=f"layers, {study.split}: recall@1 and CER of early exits in %", box=box.SIMPLE_HEAD)
    for name in ("tap", "frames/s", "channels", "recall@1", "interval"):
        first.add_column(name, justify="left" if name == "tap" else "right", no_wrap=True)
    for method in study.methods:
        first.add_column(f"CER {method}", justify="right", no_wrap=True)
    for result in study.taps:
        recall = result.recall
        first.add_row(
            result.tap.name,
            f"{result.tap.frame_rate:g}",
            str(result.tap.channels),
            "" if recall is None else f"{recall.value:.1f}",
            "" if recall is None or recall.low is None else f"{recall.low:.1f} to {recall.high:.1f}",
            *(f"{result.cer[method].value:.1f}" if method in result.cer else "" for method in study.methods),
        )
    chance = next((result.chance for result in study.taps if result.chance is not None), None)
    if chance is not None:
        sounds = {"SeqSim": study.sound, "DTW": study.sound_in_order}
        measured = ", ".join(f"{recall.value:.1f} ({name})" for name, recall in sounds.items() if recall)
        first.caption = (f"MFCCs, without a model: {measured}; " if measured else "") + f"chance {chance:.1f}"
        first.caption += f"\nintervals of recall: over {study.resampled}"
    second = Table(title="linear probes: accuracy (selectivity) in %", box=box.SIMPLE_HEAD)
    second.add_column("tap", no_wrap=True)
    for task in study.tasks:
        second.add_column(task.replace(", ", ",\n"), justify="right", no_wrap=True)
    for result in study.taps:
        scores = [result.probes.get(task) for task in study.tasks]
        if any(scores):
            cells = ["" if s is None else f"{s.accuracy:.1f} ({s.selectivity:+.1f})" for s in scores]
            second.add_row(result.tap.name, *cells)
    chances = [
        next((r.probes[task].chance for r in study.taps if task in r.probes), None) for task in study.tasks
    ]
    if any(value is not None for value in chances):
        second.add_section()
        second.add_row("chance", *("" if value is None else f"{value:.1f}" for value in chances))
    notes = [f"{name}: {reason}" for name, reason in study.not_identifiable.items()]
    if notes:
        second.caption = "not probed:\n" + "\n".join(notes)
    return [first, second] if study.tasks or notes else [first]
