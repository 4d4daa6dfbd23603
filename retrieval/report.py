"""One self-contained HTML page about a model: error rates, retrieval, training, examples, where it came from.

The page has no script and loads nothing. The same numbers lie beside it as CSV and JSON.
"""

import csv
import json
import os
import platform
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2
import kaldialign
import torch

from retrieval.challenge.comparison import (
    ChallengeComparison,
    read_comparison,
    report_context,
    write_comparison,
)
from retrieval.comparison import CompareConfig
from retrieval.controls import Control, ControlRow, ControlsConfig
from retrieval.figures.challenge import challenge_figure
from retrieval.figures.controls import control_dots
from retrieval.figures.results import cer_bars, recall_heat_map, training_curves
from retrieval.figures.style import save_png, svg_data_uri
from retrieval.interpretation.summary import InterpretationRow, read_interpretations
from retrieval.layers.report import LayersSection, layers_section
from retrieval.layers.study import STEPS, LayersConfig
from retrieval.naming import result_folder
from retrieval.recall import calls_of
from retrieval.report_controls import ControlsSection, controls_section
from retrieval.report_ranks import ComparisonSection, comparison_section, ranks_section
from retrieval.results import (
    CerResult,
    CerRow,
    ConfusionRow,
    Hypothesis,
    Metrics,
    RecallResult,
    read_decodings,
    read_json,
    read_metrics,
    read_recall,
    trained_groups,
)
from retrieval.similarity.scores import ScoreKind
from retrieval.tables import SUMMARY_NAMES, PairRow, RecallTable, SummaryRow
from retrieval.weights import Sieve, command

METHOD_ORDER = ("beam", "greedy", "ctc")  # the first of these that was run gives the headline numbers


@dataclass
class ReportConfig:
    """What to report.

    Results that were computed with other weights than the model directory has now are left out, as are
    answers to challenge sets that share only their name; the page names them, with the commands that make
    them anew. Results of earlier versions, which do not say their weights, are shown with a note.

    Attributes:
        model_dir: model directory with ``results``; the page goes to ``results/report``.
        split: which results.
        metrics: ``metrics.jsonl`` of the training; null = that of the experiment folder around the model.
        samples: hypotheses of each dialect.
        confusions: most frequent errors of each kind.
    """

    model_dir: str
    split: str = "test"
    metrics: str | None = None
    samples: int = 3
    confusions: int = 15


@dataclass(frozen=True)
class Report:
    """What the page shows; None or an empty list for what has not been made yet, or was left out.

    ``warnings`` say what was left out because it is of other weights than the model directory's, or of other
    challenge sets, and of what this is not known.
    """

    model_dir: str
    split: str
    decodings: list[CerResult]
    recall: RecallResult | None
    control: RecallResult | None
    comparison: ComparisonSection | None
    controls: ControlsSection | None
    challenges: ChallengeComparison | None
    interpretations: list[InterpretationRow] | None
    layers: LayersSection | None
    metrics: Metrics | None
    trained_groups: list[str] | None
    provenance: dict[str, Any] | None
    config: dict[str, Any] | None
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Card:
    """A headline number: what it is, the number, and what to hold it against."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class Sample:
    """A hypothesis, with its reference marked where they differ: pairs of text and "is wrong"."""

    utterance_id: str
    dialect: str
    reference: list[tuple[str, bool]]
    hypothesis: list[tuple[str, bool]]


def collect(model_dir: Path, split: str, *, metrics: Path | None = None) -> Report:
    """Read the results in a model directory, without those that were computed with other weights than it has.

    Args:
        model_dir: with ``results/`` as the evaluation scripts leave it.
        split: which results.
        metrics: ``metrics.jsonl``; by default that of the experiment folder around the model directory.

    Raises:
        FileNotFoundError: no such model directory.
        MalformedResultError: a file that does not hold what it should.
    """
    if not model_dir.is_dir():
        raise FileNotFoundError(f"no model directory {model_dir}: make it with scripts/average.py")
    results = model_dir / "results"
    sieve = Sieve(model_dir)
    recall_file = results / f"retrieval-{split}" / "recall.json"
    recall = read_recall(recall_file)
    if recall is not None:
        recall = sieve.keep(recall, recall_file, calls_of(model_dir, split, recall.settings))
    return Report(
        model_dir=str(model_dir),
        split=split,
        decodings=_decodings(model_dir, split, sieve),
        recall=recall,
        control=read_recall(results / f"retrieval-{split}-mfcc" / "recall.json"),
        comparison=_comparison(model_dir, split, sieve),
        controls=_controls(model_dir, split, sieve),
        challenges=read_comparison(results, split, sieve),
        interpretations=read_interpretations(model_dir, split, sieve),
        layers=_layers(model_dir, split, sieve),
        metrics=read_metrics(metrics or model_dir.absolute().parent / "metrics.jsonl"),
        trained_groups=trained_groups(model_dir),
        provenance=read_json(model_dir / "provenance.json", "average"),
        config=read_json(model_dir / "config.json", "average"),
        warnings=sieve.warnings,
    )


def _decodings(model_dir: Path, split: str, sieve: Sieve) -> list[CerResult]:
    """Error rates of the present weights, in the order of the methods."""
    kept = []
    for result in read_decodings(model_dir / "results", split):
        settings = [f"model_dir={model_dir}", "data_dir=DATA_DIR", f"split={split}"]
        remedy = shlex.join(["python", "scripts/decode.py", *settings, f"method={result.method}"])
        if sieve.passes(result.weights, result.folder / "cer.json", remedy):
            kept.append(result)
    return sorted(kept, key=lambda result: (_method_rank(result.method), result.method))


def _comparison(model_dir: Path, split: str, sieve: Sieve) -> ComparisonSection | None:
    """Models side by side, if that of this directory has the present weights."""
    path = model_dir / "results" / f"comparison-{split}" / "comparison.json"
    section = comparison_section(path)
    if section is None:
        return None
    if "results" in section.settings:  # of scripts/compare.py
        remedy = command("compare", CompareConfig, section.settings)
    else:
        remedy = calls_of(model_dir, split, section.settings)
    return sieve.keep(section, path, remedy)


def _controls(model_dir: Path, split: str, sieve: Sieve) -> ControlsSection | None:
    """The controls, if they stand beside the present weights."""
    section = controls_section(model_dir, split)
    if section is None:
        return None
    settings = {"data_dir": "DATA_DIR", **section.settings, "model_dir": str(model_dir), "split": split}
    path = result_folder(model_dir, "controls", split) / "controls.json"
    return sieve.keep(section, path, command("controls", ControlsConfig, settings))


def _layers(model_dir: Path, split: str, sieve: Sieve) -> LayersSection | None:
    """The study of the layers, if it is of the present weights."""
    section = layers_section(model_dir, split)
    if section is None:
        return None
    path = model_dir / "results" / f"layers-{split}" / "layers.json"
    settings = (read_json(path, "layers") or {}).get("settings", {})
    if section.study.made_from:  # also of earlier runs
        settings = settings | {"steps": [step for step in STEPS if step in section.study.made_from]}
    settings = {"data_dir": "DATA_DIR", **settings, "model_dir": str(model_dir), "split": split}
    return sieve.keep(section, path, command("layers", LayersConfig, settings))


def write_report(report: Report, directory: Path, *, samples: int = 3, confusions: int = 15) -> Path:
    """Write ``index.html``, ``cer.csv``, ``recall.csv`` and ``results.json``; returns the page.

    Where challenge sets were asked, also ``challenge.csv``, ``challenge.json`` and ``challenge.png``.

    Args:
        report: from :func:`collect`.
        directory: made if absent; files in it are replaced.
        samples: hypotheses of each dialect.
        confusions: most frequent errors of each kind.
    """
    directory.mkdir(parents=True, exist_ok=True)
    page = directory / "index.html"
    page.write_text(render(report, samples=samples, confusions=confusions), encoding="utf-8")
    with (directory / "cer.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["method", *(field.name for field in fields(CerRow))])
        writer.writeheader()
        writer.writerows({"method": r.method} | asdict(row) for r in report.decodings for row in r.rows)
    retrievals = [result for result in (report.recall, report.control) if result is not None]
    with (directory / "recall.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["embedder", *(field.name for field in fields(PairRow))])
        writer.writeheader()
        for result in retrievals:
            rows = [*result.table.pairs, *result.table.within]
            writer.writerows({"embedder": result.embedder} | asdict(row) for row in rows)
    if report.challenges is not None:
        write_comparison(directory, report.challenges)
        save_png(challenge_figure(report.challenges), directory / "challenge.png")
    numbers = {
        "model_dir": report.model_dir,
        "split": report.split,
        "warnings": report.warnings,
        "trained_groups": report.trained_groups,
        "cer": [
            {"method": result.method, "rows": [asdict(row) for row in result.rows]}
            for result in report.decodings
        ],
        "recall": [{"embedder": result.embedder} | asdict(result.table) for result in retrievals],
    }
    text = json.dumps(numbers, indent=2, ensure_ascii=False)
    (directory / "results.json").write_text(text + "\n", encoding="utf-8")
    return page


def render(report: Report, *, samples: int = 3, confusions: int = 15) -> str:
    """The page as HTML; arguments as in :func:`write_report`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("retrieval"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["rate"] = lambda value: "–" if value is None else f"{value:.1f}"
    environment.filters["json"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    held_out = _held_out(report)
    main = report.decodings[0] if report.decodings else None
    bars = cer_bars(report.decodings, held_out=held_out) if report.decodings else None
    heat = None if report.recall is None else recall_heat_map(report.recall.table)
    controls = report.controls
    dots = None if controls is None else control_dots(controls.rows, confidence=controls.confidence)
    curves = None if report.metrics is None else training_curves(report.metrics)
    hard = None if report.challenges is None else challenge_figure(report.challenges)
    return environment.get_template("report.html.j2").render(
        report=report,
        held_out=held_out,
        cards=_cards(report, main),
        cer_figure=bars and svg_data_uri(bars),
        recall_figure=heat and svg_data_uri(heat),
        controls=controls,
        interpretations=report.interpretations,
        layers=report.layers,
        controls_figure=dots and svg_data_uri(dots),
        challenge=report.challenges and report_context(report.challenges),
        challenge_figure=hard and svg_data_uri(hard),
        training_figure=curves and svg_data_uri(curves),
        confusions={} if main is None else _frequent(main.confusions, confusions),
        samples=[] if main is None else _samples(main.hypotheses, samples),
        ranks=ranks_section(report.recall),
        comparison=report.comparison,
        recall_rows={} if report.recall is None else _recall_cells(report.recall.table),
        summary_names=SUMMARY_NAMES,
        machine=machine(),
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def machine() -> dict[str, str]:
    """What the page was made on."""
    return {
        "system": platform.platform(),
        "processors": str(os.cpu_count()),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def _method_rank(method: str) -> int:
    return METHOD_ORDER.index(method) if method in METHOD_ORDER else len(METHOD_ORDER)


def _held_out(report: Report) -> list[str]:
    """Dialects that occur in the results and were not trained on."""
    if report.trained_groups is None:
        return []
    seen = {row.name for result in report.decodings for row in result.level("dialect")}
    if report.recall is not None:
        seen |= set(report.recall.table.held_out_groups)
    return sorted(seen - set(report.trained_groups))


def _cards(report: Report, main: CerResult | None) -> list[Card]:
    cards = []
    if main is not None:
        rated = [row for row in main.level("dialect") if row.cer is not None]
        trained = [row for row in rated if report.trained_groups is None or row.name in report.trained_groups]
        if trained:
            mean = sum(row.cer or 0 for row in trained) / len(trained)
            worst = max(trained, key=lambda row: row.cer or 0)
            note = f"worst {worst.cer:.1f} % ({worst.name}); {main.method}"
            which = "dialects" if report.trained_groups is None else "trained dialects"
            cards.append(Card(f"mean CER of {which}", f"{mean:.1f} %", note))
        cards += [
            Card(
                f"CER of {row.name}, held out",
                f"{row.cer:.1f} %",
                "no interval" if row.low is None or row.high is None else f"{row.low:.1f} to {row.high:.1f}",
            )
            for row in rated
            if row not in trained
        ]
    if report.recall is not None:
        cards += [
            Card(f"recall@1 {SUMMARY_NAMES[row.name]}", f"{row.recall_at_1:.1f} %", _against(row))
            for row in report.recall.table.summary
            if row.name != "all" or len(report.recall.table.summary) == 1
        ]
    if sounds := _sounds(report):
        name, best = max(sounds, key=lambda sound: sound[1].recall_at_1)
        cards.append(Card(f"recall@1 of sound alone: {name}", f"{best.recall_at_1:.1f} %", _against(best)))
    return cards


def _sounds(report: Report) -> list[tuple[str, SummaryRow | ControlRow]]:
    """Sound alone over all pairs of groups: the best of the controls, and what scripts/retrieve.py left."""
    found: list[tuple[str, SummaryRow | ControlRow]] = []
    if report.controls is not None and report.controls.sound is not None:
        found.append((report.controls.sound.label, report.controls.sound))
    if report.control is not None:
        name = Control("mfcc", "mfcc", ScoreKind.seqsim).label
        found += [(name, row) for row in report.control.table.summary if row.name == "all"]
    return found


def _against(row: SummaryRow | ControlRow) -> str:
    return f"{row.low:.1f} to {row.high:.1f}; chance {row.chance:.1f} %"


def _frequent(confusions: Sequence[ConfusionRow], count: int) -> dict[str, list[ConfusionRow]]:
    """Most frequent errors over all dialects, by kind."""
    overall = [row for row in confusions if not row.dialect]
    kinds = dict.fromkeys(row.kind for row in overall)
    return {
        kind: sorted((row for row in overall if row.kind == kind), key=lambda row: -row.count)[:count]
        for kind in kinds
    }


def _samples(hypotheses: Sequence[Hypothesis], count: int) -> list[Sample]:
    """The first hypotheses of each dialect; taken by order, not by quality."""
    taken: dict[str, list[Sample]] = {}
    for item in hypotheses:
        of_dialect = taken.setdefault(item.dialect or "", [])
        if len(of_dialect) < count:
            pairs = kaldialign.align(list(item.reference), list(item.hypothesis), "")
            of_dialect.append(
                Sample(
                    item.id,
                    item.dialect or "",
                    [(reference, reference != hypothesis) for reference, hypothesis in pairs if reference],
                    [(hypothesis, reference != hypothesis) for reference, hypothesis in pairs if hypothesis],
                )
            )
    return [sample for dialect in sorted(taken) for sample in taken[dialect]]


def _recall_cells(table: RecallTable) -> dict[str, list[PairRow | None]]:
    """Rows of the matrix: source group to its cells in the order of the groups."""
    rows = {(row.source, row.target): row for row in table.pairs}
    return {source: [rows.get((source, target)) for target in table.groups] for source in table.groups}
