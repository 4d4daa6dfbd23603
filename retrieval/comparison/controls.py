"""A model and its controls: how much of the recall do sounds, lengths or the architecture explain?

A recall above chance does not show which information retrieved the right answers. Every control runs the same
queries on the same pools with less information:

- ``zipformer-pooled``, ``zipformer-dtw``, ``zipformer-transport``: the frames of the model with other scores
  (:mod:`retrieval.similarity.scores`); the difference is the gain of SeqSim.
- ``random``: the same encoder before training. It shows the effect of the architecture alone.
- ``fbank``, ``mfcc``, with any score: sounds alone. They retrieve sentences that are pronounced alike.
- ``speech_embedding``, with any score: a small published encoder that was trained to spot English keywords
  (:mod:`retrieval.embedding.speech_embedding`). It shows the effect of speech training without Chinese.
- ``duration``: length alone. Long sentences are long in every variety.
- ``permuted``: the model, with the sentences of every group permuted at random, mean of several draws
  (:mod:`retrieval.comparison.permuted`). If it is not at chance, there is an error in the experiment.

The interval of a difference uses the same resamples of sentences and sites for both recalls, so that
variation common to both does not widen it. For ``permuted``, the two recalls are treated as independent.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from retrieval.comparison.permuted import square_and_add
from retrieval.embedding.acoustic import FbankConfig, MfccConfig
from retrieval.embedding.embedder import EmbedderKind
from retrieval.protocol.outcome import Outcome
from retrieval.protocol.sites import Duplicates, Level
from retrieval.protocol.tables import SUMMARY_NAMES, RecallTable
from retrieval.results.naming import CONTROLS_FILE, result_folder
from retrieval.similarity.scores import ScoreKind
from retrieval.statistics.bootstrap import Resamples, difference_interval
from zipformer.data.dataset import name_of
from zipformer.errors import UserError
from zipformer.files import column_names, replacing_folder, write_csv, write_json
from zipformer.typed_json import read_json, read_rows, require

MODEL, PERMUTED = "zipformer", "permuted"
DEFAULT = (
    "zipformer-pooled",
    "zipformer-dtw",
    "random",
    "fbank-dtw",
    "mfcc",
    "mfcc-dtw",
    "duration",
    "permuted",
)
EMBEDDERS = {
    "zipformer": "model",
    "random": "untrained encoder",
    "fbank": "FBANK",
    "mfcc": "MFCC",
    "speech_embedding": "speech_embedding (Google)",
}
SOUND = ("fbank", "mfcc")  # embedders of sound alone, without anything learnt
SCORES = {"seqsim": "SeqSim", "pooled": "mean frames", "dtw": "DTW", "transport": "transport"}


@dataclass
class ControlsConfig:
    """Settings of the comparison of a model with controls.

    Attributes:
        model_dir: model directory; its ``results`` receive the embeddings and the table.
        data_dir: prepared corpus that holds ``cuts_{split}.jsonl.gz``.
        split: name of the split.
        dataset: name of the corpus, for the folder of its results; null = the name from preparation.
        controls: names of controls: an embedder, or an embedder and a score (``mfcc-dtw``), or ``permuted``;
            ``speech_embedding`` needs the extra ``speech-embedding`` and the recordings.
        huggingface: models of the Hub or folders, as in fangyan embed; each is a control with SeqSim. For
            other scores, use the last part of the name in ``controls`` (``whisper-small-dtw``).
        fbank: settings of the embedder ``fbank``, as in fangyan embed.
        mfcc: settings of the embedder ``mfcc``.
        storage: number type of the embeddings, ``float32``, or ``float16`` for half the disk.
        level: dialect groups, or varieties (subdialects).
        groups: groups to compare, in this order; empty = all.
        trained: dialect groups that the encoder was trained on; null = those in ``provenance.json``.
        duplicates: ``error`` or ``first``, for a sentence that a site has more than once.
        batch_seconds: seconds of padded audio in a batch of the embedders.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for CUDA where there is one.
        resamples: number of bootstrap resamples.
        permuted_draws: number of draws of the control ``permuted``; more draws make its interval narrower.
        confidence: confidence level of the intervals.
        seed: random seed of the untrained encoder, of the permutations and of the bootstrap.
    """

    model_dir: str
    data_dir: str
    split: str = "test"
    dataset: str | None = None
    controls: list[str] = field(default_factory=lambda: list(DEFAULT))
    huggingface: list[str] = field(default_factory=list)
    fbank: FbankConfig = field(default_factory=FbankConfig)
    mfcc: MfccConfig = field(default_factory=MfccConfig)
    storage: str = "float32"
    level: Level = Level.group
    groups: list[str] = field(default_factory=list)
    trained: list[str] | None = None
    duplicates: Duplicates = Duplicates.error
    batch_seconds: float = 60.0
    device: str = "auto"
    resamples: int = 1000
    permuted_draws: int = 20
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise UserError(f"resamples={self.resamples} gives no interval; take 1000")
        if self.permuted_draws < 2:
            raise UserError(f"permuted_draws={self.permuted_draws} gives no interval; take 20")
        if not 0 < self.confidence < 1:
            raise UserError(f"confidence={self.confidence} must be between 0 and 1")

    @property
    def folder(self) -> Path:
        """Folder of the table."""
        name = name_of(Path(self.data_dir), self.dataset)
        return result_folder(Path(self.model_dir), "controls", self.split, dataset=name)


@dataclass(frozen=True)
class Control:
    """An embedder and a score; for ``permuted``, the right answers are wrong sentences."""

    name: str
    embedder: str
    score: ScoreKind
    permuted: bool = False

    @property
    def label(self) -> str:
        """Name in figures and tables."""
        if self.permuted:
            return "model, sentences permuted"
        if self.embedder == EmbedderKind.duration.value:
            return "duration only"
        return f"{EMBEDDERS.get(self.embedder, self.embedder)}, {SCORES[self.score.value]}"


@dataclass(frozen=True)
class ControlRow:
    """Recall of the model or a control over some ordered pairs of groups; rates in per cent.

    ``pairs`` is a name of :data:`retrieval.protocol.tables.SUMMARY_NAMES`. ``difference`` is the recall of
    the model minus that of the control, with interval; None for the model itself.
    """

    name: str
    label: str
    pairs: str
    recall_at_1: float
    low: float
    high: float
    chance: float
    difference: float | None
    difference_low: float | None
    difference_high: float | None


def parse_controls(names: Iterable[str], embedders: Iterable[str] = ()) -> list[Control]:
    """The model and the named controls, in this order and without repetitions.

    Args:
        names: names of controls, see :class:`ControlsConfig`.
        embedders: names of further embedders, beside those of :class:`EmbedderKind`.

    Raises:
        UserError: a name is not known.
    """
    known = [kind.value for kind in EmbedderKind if kind is not EmbedderKind.huggingface] + list(embedders)
    controls = {MODEL: Control(MODEL, MODEL, ScoreKind.seqsim)}
    for name in names:
        found = {f"{embedder}-{score.value}": (embedder, score) for embedder in known for score in ScoreKind}
        found |= {embedder: (embedder, ScoreKind.seqsim) for embedder in known}
        found[PERMUTED] = (MODEL, ScoreKind.seqsim)
        if name not in found:
            raise UserError(
                f"no control {name}: give {PERMUTED}, or an embedder ({', '.join(known)}), alone or with a"
                f" score ({', '.join(score.value for score in ScoreKind)}), for example mfcc-dtw"
            )
        embedder, score = found[name]
        short = name.removesuffix(f"-{ScoreKind.seqsim.value}")
        controls[short] = Control(short, embedder, score, permuted=name == PERMUTED)
    return list(controls.values())


def control_rows(
    outcomes: Mapping[str, Outcome],
    results: Mapping[str, RecallTable],
    controls: Sequence[Control],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[ControlRow]:
    """Rows of all controls, the model first, for each part of the pairs of groups.

    Args:
        outcomes: outcomes by name of the control, all of the same queries; ``permuted`` needs none.
        results: table of each outcome, by the same names.
        controls: controls from :func:`parse_controls`.
        resamples, confidence, seed: number of resamples, confidence level and random seed of the bootstrap.
    """
    model = outcomes[MODEL]
    group_of_site = [site.group for site in model.sites]
    draws = Resamples.draw(group_of_site, len(model.sentences), resamples=resamples, seed=seed)
    parts = results[MODEL].parts
    of_model = {row.name: row for row in results[MODEL].summary}
    rows = []
    for control in controls:
        summary = {row.name: row for row in results[control.name].summary}
        gain = None if control.permuted else model.hits - outcomes[control.name].hits  # (S,S,Q)
        for name, pairs in parts.items():
            row = summary[name]
            difference: tuple[float, float, float] | tuple[None, None, None] = (None, None, None)
            if gain is None:
                difference = square_and_add(of_model[name], row)
            elif control.name != MODEL:
                replicates = np.mean([draws.recall(gain, *pair) for pair in pairs], axis=0)
                asked = [np.isfinite(gain[np.ix_(draws.members[a], draws.members[b])]) for a, b in pairs]
                value = of_model[name].recall_at_1 - row.recall_at_1
                low, high = difference_interval(
                    value / 100,
                    replicates,
                    factors=draws.factors,
                    sentences=int(np.any([block.any(axis=(0, 1)) for block in asked], axis=0).sum()),
                    confidence=confidence,
                )
                difference = (value, 100 * low, 100 * high)
            rows.append(
                ControlRow(
                    control.name,
                    control.label,
                    name,
                    row.recall_at_1,
                    row.low,
                    row.high,
                    row.chance,
                    *difference,
                )
            )
    return rows


def shown_parts(rows: Sequence[ControlRow]) -> list[str]:
    """Parts to show side by side: trained and held out if there are both, else all pairs."""
    names = {row.pairs for row in rows}
    return ["trained", "held_out"] if {"trained", "held_out"} <= names else ["all"]


def write_controls(
    directory: Path,
    rows: Sequence[ControlRow],
    results: Mapping[str, RecallTable],
    header: Mapping[str, object],
) -> None:
    """Write ``controls.json`` and ``controls.csv``, each complete or not at all; older files are replaced.

    Args:
        directory: folder to write into.
        rows: rows, from :func:`control_rows`.
        results: tables of all controls, for the recall of each pair of groups.
        header: fields of the JSON file beside rows and pairs.
    """
    content = dict(header) | {
        "rows": [asdict(row) for row in rows],
        "pairs": {name: [asdict(row) for row in table.pairs] for name, table in results.items()},
    }
    with replacing_folder(directory) as folder:
        write_json(folder / CONTROLS_FILE, content)
        write_csv(folder / "controls.csv", column_names(ControlRow), map(asdict, rows))


def read_controls(path: Path) -> tuple[list[ControlRow], dict[str, Any]] | None:
    """Rows and header of ``controls.json``, or None where there is none.

    Raises:
        MalformedResultError: a row without its fields.
    """
    content = read_json(path, "controls")
    if content is None:
        return None
    require(content, {"rows": list}, path, "controls")
    return read_rows(ControlRow, content.pop("rows"), path, "rows", "controls"), content


def control_table(rows: Sequence[ControlRow], confidence: float, resampled: str) -> Table:
    """The comparison for the terminal; ``resampled`` names the resampled units of the intervals."""
    interval = f"{100 * confidence:g} % interval"
    view = Table(title="recall@1 in %: the model and its controls", box=box.SIMPLE_HEAD)
    view.add_column("")
    view.add_column("pairs")
    for name in ("recall@1", interval, "chance", "model - control", interval):
        view.add_column(name, justify="right")
    parts = shown_parts(rows)
    for row in rows:
        if row.pairs not in parts:
            continue
        view.add_row(
            row.label if row.pairs == parts[0] else "",
            SUMMARY_NAMES[row.pairs],
            f"{row.recall_at_1:.1f}",
            f"{row.low:.1f} to {row.high:.1f}",
            f"{row.chance:.1f}",
            *_difference(row),
            end_section=row.pairs == parts[-1] and len(parts) > 1,
        )
    draws = "; of permuted sentences: over the draws" if any(row.name == PERMUTED for row in rows) else ""
    view.caption = f"intervals: over {resampled}{draws}"
    return view


def _difference(row: ControlRow) -> tuple[str, str]:
    if row.difference is None or row.difference_low is None or row.difference_high is None:
        return "", ""
    return f"{row.difference:+.1f}", f"{row.difference_low:+.1f} to {row.difference_high:+.1f}"
