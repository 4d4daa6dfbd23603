"""One self-contained HTML page about a model: error rates, retrieval, training, examples, provenance.

The page has no script and loads no other files. The same numbers are beside it as CSV and JSON.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2

from data_prep.taxonomy import entries
from retrieval.challenge.figure import challenge_figure
from retrieval.challenge.results import (
    ChallengeResults,
    read_challenge_results,
    report_context,
    write_challenge_results,
)
from retrieval.comparison.controls_figure import control_dots
from retrieval.figures.style import save_png, svg_data_uri
from retrieval.interpretation.summary import InterpretationRow, read_interpretations
from retrieval.protocol.figure import recall_heat_map
from retrieval.protocol.reading import RETRIEVED_WITH, RecallResult, read_recall
from retrieval.protocol.tables import SUMMARY_NAMES, PairRow, RecallTable
from retrieval.report.cards import cer_cards, recall_cards
from retrieval.report.controls import ControlsSection, controls_section
from retrieval.report.depth import LayersSection, layers_section
from retrieval.report.examples import draw_examples
from retrieval.report.figures import cer_bars, training_curves
from retrieval.report.headline import VALIDATION_SPLIT, Headline, choose_headline, evidence_for, method_name
from retrieval.report.origin import machine, training_facts
from retrieval.report.ranks import ComparisonSection, comparison_section, ranks_section
from retrieval.results.decodings import CerResult, read_decodings
from retrieval.results.naming import COMPARISON_FILE, CONTROLS_FILE, LAYERS_FILE, RECALL_FILE, result_folder
from retrieval.results.training import Metrics, read_metrics
from retrieval.results.weights import Sieve
from zipformer.data.dataset import DataSet, choose_dataset, claimed, dataset_names, unplaced_results
from zipformer.errors import UserError
from zipformer.files import column_names, replacing_folder, write_csv, write_json, write_text
from zipformer.model_dir import CONFIG_FILE, METRICS_FILE, PROVENANCE_FILE, trained_groups
from zipformer.scoring.files import CER_FILE, scored_as
from zipformer.scoring.tables import Confusion, ScoreRow
from zipformer.typed_json import read_json

NAMED_LEVELS = ("dialect", "subdialect")
# Folder used if there are no results of any data set: it has only the page on the training.
NO_DATASET = "report"
METHOD_ORDER = ("ctc", "greedy", "beam", "attention")  # order in tables and figures


@dataclass
class ReportConfig:
    """Settings of a report.

    A result is left out if it was computed with other weights than the model directory has now, on other data
    than the other results, or on another challenge set of the same name. The page names the result and the
    command that makes it again.

    Attributes:
        model_dir: model directory with ``results``; the page goes to ``results/{dataset}/report``.
        split: split of the results.
        dataset: name of the data set; null = a page for each data set with results.
        metrics: ``metrics.jsonl`` of the training; null = that of the experiment folder around the model.
        samples: number of utterances of each dialect to show as examples.
        confusions: number of the most frequent errors of each kind to show.
        seed: random seed of the draw of the examples.
    """

    model_dir: str
    split: str = "test"
    dataset: str | None = None
    metrics: str | None = None
    samples: int = 3
    confusions: int = 15
    seed: int = 0


@dataclass(frozen=True)
class Report:
    """Contents of the page; None or an empty list for a result that is missing or was left out.

    ``warnings`` name the results that were left out, with reasons. All results are on ``dataset``; the model
    directory also has results on ``other_datasets``.
    """

    model_dir: str
    split: str
    decodings: list[CerResult]
    recall: RecallResult | None
    control: RecallResult | None
    comparison: ComparisonSection | None
    controls: ControlsSection | None
    challenges: ChallengeResults | None
    interpretations: list[InterpretationRow] | None
    layers: LayersSection | None
    metrics: Metrics | None
    trained_groups: list[str] | None
    provenance: dict[str, Any] | None
    config: dict[str, Any] | None
    warnings: list[str] = field(default_factory=list)
    headline: Headline | None = None
    dataset: DataSet | None = None
    other_datasets: list[str] = field(default_factory=list)

    @property
    def shown(self) -> list[CerResult]:
        """Results of the headline method, or of all methods if none could be chosen."""
        method = None if self.headline is None else self.headline.method
        return [result for result in self.decodings if method in (None, result.method)]


def collect(
    model_dir: Path, split: str, *, dataset: str | None = None, metrics: Path | None = None
) -> Report:
    """Read the results on a data set, without results of other weights than the model has now.

    Args:
        model_dir: model directory with ``results``.
        split: split of the results.
        dataset: name of the data set; None = the only data set with results, if there is one.
        metrics: ``metrics.jsonl``; by default that of the experiment folder around the model directory.

    Raises:
        UserError: there is no such model directory, there are no results on the data set, or there are
            results on several data sets.
        MalformedResultError: a file is damaged.
    """
    if not model_dir.is_dir():
        raise UserError(f"no model directory {model_dir}: make it with fangyan average")
    names = dataset_names(model_dir)
    name = choose_dataset(model_dir, dataset) if names or dataset else NO_DATASET
    data = claimed(model_dir, name, split)
    sieve = Sieve(model_dir, data)
    for text in unplaced_results(model_dir):
        sieve.warn(text)
    decodings = _decodings(model_dir, name, split, sieve)
    known = trained_groups(model_dir)
    config = read_json(model_dir / CONFIG_FILE, "average")
    provenance = read_json(model_dir / PROVENANCE_FILE, "average")
    training = read_metrics(metrics or model_dir.absolute().parent / METRICS_FILE)
    valid = Sieve(model_dir, claimed(model_dir, name, VALIDATION_SPLIT))
    evidence = evidence_for(
        _decodings(model_dir, name, VALIDATION_SPLIT, valid),
        provenance,
        training,
        trained=known,
        transducer=bool(((config or {}).get("model") or {}).get("transducer", True)),
    )
    return Report(
        model_dir=str(model_dir),
        split=split,
        decodings=decodings,
        recall=_recall(model_dir, name, split, sieve),
        control=_recall(model_dir, name, split, sieve, embedder="mfcc"),
        comparison=_comparison(model_dir, name, split, sieve),
        controls=_controls(model_dir, name, split, sieve),
        challenges=read_challenge_results(model_dir / "results" / name, split, sieve),
        interpretations=read_interpretations(model_dir / "results" / name, split, sieve),
        layers=_layers(model_dir, name, split, sieve),
        metrics=training,
        trained_groups=known,
        provenance=provenance,
        config=config,
        warnings=[
            *sieve.warnings,
            *(text for text in valid.warnings if text not in sieve.warnings),
            *_unequal_scoring(decodings),
        ],
        headline=choose_headline([result.method for result in decodings], evidence),
        dataset=data,
        other_datasets=[other for other in names if other != name],
    )


def report_folder(model_dir: Path, dataset: str | None) -> Path:
    """Folder of the page on a data set; None for the page without results."""
    results = model_dir / "results"
    return results / NO_DATASET if dataset is None else results / dataset / "report"


def _recall(
    model_dir: Path, name: str, split: str, sieve: Sieve, *, embedder: str = "zipformer"
) -> RecallResult | None:
    """Retrieval with the current weights, or with another embedder."""
    path = result_folder(model_dir, "retrieval", split, dataset=name, embedder=embedder) / RECALL_FILE
    recall = read_recall(path)
    return recall and sieve.keep(recall, path, RETRIEVED_WITH)


def _decodings(model_dir: Path, name: str, split: str, sieve: Sieve) -> list[CerResult]:
    """Error rates of the current weights, in the order of the methods."""
    kept = [
        result
        for result in read_decodings(model_dir / "results" / name, split)
        if sieve.passes(result.weights, result.data, result.folder / CER_FILE, "fangyan decode")
    ]
    return sorted(kept, key=lambda result: (_method_rank(result.method), result.method))


def _comparison(model_dir: Path, name: str, split: str, sieve: Sieve) -> ComparisonSection | None:
    """Comparison of models, if it used the current weights of this directory."""
    path = result_folder(model_dir, "comparison", split, dataset=name) / COMPARISON_FILE
    return sieve.keep(comparison_section(path), path, f"{RETRIEVED_WITH}, then fangyan compare")


def _controls(model_dir: Path, name: str, split: str, sieve: Sieve) -> ControlsSection | None:
    """The controls, if they used the current weights."""
    path = result_folder(model_dir, "controls", split, dataset=name) / CONTROLS_FILE
    return sieve.keep(controls_section(path), path, "fangyan controls")


def _layers(model_dir: Path, name: str, split: str, sieve: Sieve) -> LayersSection | None:
    """The layer study, if it used the current weights."""
    folder = result_folder(model_dir, "layers", split, dataset=name)
    return sieve.keep(layers_section(folder), folder / LAYERS_FILE, "fangyan layers")


def write_report(
    report: Report, directory: Path, *, samples: int = 3, confusions: int = 15, seed: int = 0
) -> Path:
    """Write ``index.html``, ``cer.csv``, ``recall.csv`` and ``results.json``; returns the page.

    With results on challenge sets, also ``challenge.csv``, ``challenge.json`` and ``challenge.png``.

    Args:
        report: results, from :func:`collect`.
        directory: folder of the page; created if missing. The files are replaced together.
        samples: number of utterances of each dialect to show as examples.
        confusions: number of the most frequent errors of each kind to show.
        seed: random seed of the draw of the examples.
    """
    retrievals = [result for result in (report.recall, report.control) if result is not None]
    numbers = {
        "model_dir": report.model_dir,
        "split": report.split,
        "dataset": None if report.dataset is None else report.dataset.record(),
        "warnings": report.warnings,
        "trained_groups": report.trained_groups,
        "headline": None if report.headline is None else asdict(report.headline),
        "cer": [
            {
                "method": result.method,
                "scoring": result.scoring.name,
                "rows": [asdict(row) for row in result.rows],
            }
            for result in report.decodings
        ],
        "recall": [{"embedder": result.embedder} | asdict(result.table) for result in retrievals],
    }
    error_rates = [
        {"method": result.method} | asdict(row) for result in report.decodings for row in result.rows
    ]
    recalls = [
        {"embedder": result.embedder} | asdict(row)
        for result in retrievals
        for row in [*result.table.pairs, *result.table.within]
    ]
    with replacing_folder(directory) as folder:
        page = render(report, samples=samples, confusions=confusions, seed=seed)
        write_text(folder / "index.html", page)
        write_csv(folder / "cer.csv", ["method", *column_names(ScoreRow)], error_rates)
        write_csv(folder / "recall.csv", ["embedder", *column_names(PairRow)], recalls)
        if report.challenges is not None:
            write_challenge_results(folder, report.challenges)
            save_png(challenge_figure(report.challenges), folder / "challenge.png")
        write_json(folder / "results.json", numbers)
    return directory / "index.html"


def render(report: Report, *, samples: int = 3, confusions: int = 15, seed: int = 0) -> str:
    """The page as HTML; arguments as in :func:`write_report`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("retrieval.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["rate"] = lambda value: "–" if value is None else f"{value:.1f}"
    environment.filters["json"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    held_out = _held_out(report)
    bars = cer_bars(report.decodings, held_out=held_out) if report.decodings else None
    confidence = 0.95 if report.recall is None else float(report.recall.settings.get("confidence", 0.95))
    heat = report.recall and recall_heat_map(report.recall.table, confidence=confidence)
    controls = report.controls
    dots = None if controls is None else control_dots(controls.rows, confidence=controls.confidence)
    curves = None if report.metrics is None else training_curves(report.metrics)
    hard = None if report.challenges is None else challenge_figure(report.challenges)
    return environment.get_template("report.html.j2").render(
        report=report,
        held_out=held_out,
        cards=[
            *cer_cards(report.shown, report.trained_groups),
            *recall_cards(report.recall, report.control, controls),
        ],
        names=dialect_names(_named(report)),
        method_name=method_name,
        scored_as=scored_as,
        cer_figure=bars and svg_data_uri(bars),
        recall_figure=heat and svg_data_uri(heat),
        controls=controls,
        interpretations=report.interpretations,
        layers=report.layers,
        controls_figure=dots and svg_data_uri(dots),
        challenge=report.challenges and report_context(report.challenges),
        challenge_figure=hard and svg_data_uri(hard),
        training_figure=curves and svg_data_uri(curves),
        confusions={r.method: _frequent(r.confusions, confusions) for r in report.shown if r.confusions},
        samples=draw_examples(report.shown, samples, seed=seed),
        facts=training_facts(report.provenance),
        ranks=ranks_section(report.recall),
        comparison=report.comparison,
        confidence=f"{100 * confidence:g}",
        doubtful=set() if report.recall is None else report.recall.table.doubtful_pairs,
        recall_rows={} if report.recall is None else _recall_cells(report.recall.table),
        summary_names=SUMMARY_NAMES,
        machine=machine(),
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _unequal_scoring(decodings: Sequence[CerResult]) -> list[str]:
    """A warning if methods were scored by different conventions, so that error rates are not comparable."""
    found = {result.method: result.scoring.name for result in decodings}
    if len(set(found.values())) < 2:
        return []
    methods = ", ".join(f"{method}: {name}" for method, name in found.items())
    return [
        f"Error rates of the decoding methods cannot be compared: they are scored by different conventions"
        f" ({methods}). Score them alike with fangyan score."
    ]


def _method_rank(method: str) -> int:
    return METHOD_ORDER.index(method) if method in METHOD_ORDER else len(METHOD_ORDER)


def _held_out(report: Report) -> list[str]:
    """Dialects in the results that the model was not trained on."""
    if report.trained_groups is None:
        return []
    seen = {row.name for result in report.decodings for row in result.level("dialect")}
    if report.recall is not None:
        seen |= set(report.recall.table.held_out_groups)
    return sorted(seen - set(report.trained_groups))


def _frequent(confusions: Sequence[Confusion], count: int) -> dict[str, list[Confusion]]:
    """Most frequent errors over all dialects, by kind."""
    overall = [row for row in confusions if not row.dialect]
    kinds = dict.fromkeys(row.kind for row in overall)
    return {
        kind: sorted((row for row in overall if row.kind == kind), key=lambda row: -row.count)[:count]
        for kind in kinds
    }


def _named(report: Report) -> list[str]:
    """Dialects and varieties that the page names."""
    names = [row.name for result in report.decodings for row in result.rows if row.level in NAMED_LEVELS]
    if report.recall is not None:
        names += report.recall.table.groups
    if report.metrics is not None:
        names += report.metrics.validated_dialects()
    return list(dict.fromkeys([*names, *(report.trained_groups or [])]))


def dialect_names(ids: Sequence[str]) -> dict[str, str]:
    """English and Chinese names of the given dialects and varieties, in the order of the taxonomy."""
    known = {entry.variety.id: f"{entry.english} ({entry.chinese})" for entry in entries()}
    return {name: full for name, full in known.items() if name in ids}


def _recall_cells(table: RecallTable) -> dict[str, list[PairRow | None]]:
    """Rows of the matrix: cells in the order of the groups, by source group."""
    rows = {(row.source, row.target): row for row in table.pairs}
    return {source: [rows.get((source, target)) for target in table.groups] for source in table.groups}
