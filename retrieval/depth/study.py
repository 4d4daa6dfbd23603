"""A layer study: retrieval, recognition by early exit, and probes, for every layer of an encoder.

A *tap* is a place where frames can be read: after a layer, after a stack, and at the output. Every tap keeps
its own frame rate and channels. Probes use means over time, for which the rate does not matter. SeqSim is a
mean of best matches, which repeating every frame (upsampling) would not change, while averaging neighbours
(downsampling) would add an operation that is not part of the layer.

Every step writes a file for every tap, with the fingerprint of its inputs. A stopped study resumes at the
first missing file; a file made from another model, other data or other settings is made again.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, astuple, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse import CutSet
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from retrieval.depth.probe_design import NoFoldsError, NotIdentifiable, ProbeConfig, ProbeTask, folds_of
from retrieval.depth.probe_tasks import (
    Facts,
    Spans,
    character_tasks,
    span_means,
    utterance_means,
    utterance_tasks,
)
from retrieval.depth.probes import probe
from retrieval.embedding.acoustic import MfccConfig
from retrieval.embedding.cuts import batches, collate, count_cuts, labels_of
from retrieval.embedding.store import EmbeddingStore, EmbeddingWriter, fingerprint, is_complete
from retrieval.protocol.recall import retrieve
from retrieval.protocol.sites import Duplicates, Level, sites_of
from retrieval.protocol.tables import tabulate
from retrieval.results.naming import result_folder
from retrieval.similarity.scores import ScoreKind
from zipformer.data.dataset import DataSet, name_of
from zipformer.errors import UserError
from zipformer.files import write_text

logger = logging.getLogger(__name__)

STEPS = ("retrieval", "exits", "probes")

Frames = Mapping[str, tuple[Tensor, Tensor]]  # by tap: frames (N,T,D) and lengths (N,)


@dataclass
class LayersConfig:
    """Settings of a layer study.

    Attributes:
        model_dir: model directory; results go to ``results/{dataset}/layers-{split}`` in it, embeddings of
            the layers to the folders of fangyan embed.
        data_dir: prepared corpus that holds ``cuts_{split}.jsonl.gz``.
        split: name of the split.
        dataset: name of the corpus, for the folder of its results; null = the name from preparation.
        steps: steps to do: ``retrieval`` (needs parallel sentences), ``exits`` and ``probes``. Results of
            other steps are kept from an earlier run with the same weights, cuts and settings.
        methods: methods of recognition at every early exit, as in fangyan decode. Methods whose head the
            model lacks are left out, but one must remain.
        beam: number of hypotheses that the method ``beam`` keeps.
        level: rows of the retrieval: dialect groups, or varieties (subdialects).
        duplicates: ``error`` or ``first``, for a sentence that a site has more than once.
        probes: settings of the probes.
        mfcc: settings of the MFCCs, the control without a model.
        storage: number type of the embeddings, ``float32``, or ``float16`` for half the disk space.
        batch_seconds: seconds of padded audio in a batch; larger batches are faster on a GPU and need more
            memory.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for CUDA where there is one.
        resamples: number of bootstrap resamples.
        seed: random seed of the bootstrap.
    """

    model_dir: str
    data_dir: str
    split: str = "test"
    dataset: str | None = None
    steps: list[str] = field(default_factory=lambda: list(STEPS))
    methods: list[str] = field(default_factory=lambda: ["ctc", "greedy"])
    beam: int = 4
    level: Level = Level.group
    duplicates: Duplicates = Duplicates.error
    probes: ProbeConfig = field(default_factory=ProbeConfig)
    mfcc: MfccConfig = field(default_factory=MfccConfig)
    storage: str = "float32"
    batch_seconds: float = 60.0
    device: str = "auto"
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.steps) - set(STEPS))
        if unknown or not self.steps:
            raise UserError(f"steps={self.steps} must be some of {', '.join(STEPS)}")
        if not self.methods:
            raise UserError("methods is empty; give some of ctc, greedy, beam, attention")
        if self.batch_seconds < 0:
            raise UserError(f"batch_seconds={self.batch_seconds} is negative; give 0 or more")
        if self.resamples < 1:
            raise UserError(f"resamples={self.resamples} gives no interval; take 1000")

    @property
    def folder(self) -> Path:
        """Folder of the results."""
        return result_folder(Path(self.model_dir), "layers", self.split, dataset=self.dataset_name)

    @property
    def dataset_name(self) -> str:
        """The given name, or that of the prepared corpus."""
        return name_of(Path(self.data_dir), self.dataset)


@dataclass(frozen=True)
class Tap:
    """A place in the encoder where frames are read.

    Attributes:
        name: ``layer03``, ``stack2`` or ``output``.
        layer: number of the last layer before the tap, 0 = front end.
        stack: number of the stack of the tap, 0 = front end.
        channels: number D of channels.
        factor: number of frames at 50 per second in one frame of the tap.
    """

    name: str
    layer: int
    stack: int
    channels: int
    factor: int

    @property
    def kind(self) -> str:
        return self.name.rstrip("0123456789")

    @property
    def frame_rate(self) -> float:
        return 50.0 / self.factor

    def store(self, config: LayersConfig) -> Path:
        """Folder of the embeddings; for a layer, the folder of fangyan embed."""
        if self.kind == "layer":
            model_dir, name = Path(config.model_dir), config.dataset_name
            return result_folder(model_dir, "embeddings", config.split, dataset=name, layer=self.layer)
        return config.folder / f"embeddings-{self.name}"


def taps_of(layers: Sequence[tuple[int, int, int]], output_channels: int) -> list[Tap]:
    """All taps of an encoder, in order of depth.

    The output of a stack without downsampling is that of its last layer and has no tap of its own.

    Args:
        layers: stack, channels and downsampling factor of every layer, the front end first.
        output_channels: channels of the encoder's output.
    """
    taps = []
    for number, (stack, channels, factor) in enumerate(layers):
        taps.append(Tap(f"layer{number:02}", number, stack, channels, factor))
        last = number + 1 == len(layers) or layers[number + 1][0] != stack
        if stack and last and factor != 1:
            taps.append(Tap(f"stack{stack}", number, stack, channels, 1))
    return [*taps, Tap("output", len(layers) - 1, layers[-1][0], output_channels, 2)]


def embed_taps(
    cuts: CutSet,
    encode: Callable[[Tensor, Tensor], Frames],
    taps: Sequence[Tap],
    config: LayersConfig,
    identities: Mapping[str, str],
    *,
    minimum_frames: int,
    margin: int,
    weights: str | None = None,
    dataset: DataSet | None = None,
) -> None:
    """Write the embeddings of all taps in one pass of the encoder; a stopped run is resumed.

    Memory holds one batch with the outputs of all layers; everything else is on disk.

    Args:
        cuts: cuts with stored features and one supervision each.
        encode: function from padded features (N,F,bins) and lengths (N,) to the frames of every tap, by name.
        taps: taps to read.
        config: settings of the study.
        identities: fingerprint of the embeddings of every tap; a complete store with this fingerprint is
            kept.
        minimum_frames: smallest number of feature frames that give one frame.
        margin: frames of silence after the longest utterance of a batch, ``AsrModel.margin``.
        weights: SHA-256 of the weights of the model, for the record.
        dataset: data set of the cuts, for the record.

    Raises:
        UserError: a cut cannot be embedded, or frames are not finite.
    """
    missing = [tap for tap in taps if not is_complete(tap.store(config), identities[tap.name])]
    if not missing:
        return
    total = count_cuts(cuts, minimum_frames)
    columns = (TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with ExitStack() as stack, Progress(*columns) as progress:
        writers = {
            tap.name: stack.enter_context(
                EmbeddingWriter(
                    tap.store(config),
                    dimension=tap.channels,
                    dtype=config.storage,
                    embedder="zipformer" if tap.kind == "output" else f"zipformer {tap.name}",
                    fingerprint=identities[tap.name],
                    weights=weights,
                    dataset=None if dataset is None else dataset.record(),
                )
            )
            for tap in missing
        }
        done = frozenset.intersection(*(frozenset(writer.written) for writer in writers.values()))
        task = progress.add_task("embedding", total=total, completed=len(done))
        for batch in batches((cut for cut in cuts if cut.id not in done), config.batch_seconds):
            outputs = encode(*collate(batch, margin))
            for name, writer in writers.items():
                frames, lengths = outputs[name]
                arrays = frames.float().cpu().numpy()
                for cut, row, length in zip(batch, arrays, lengths.tolist(), strict=True):
                    if cut.id not in writer.written:
                        writer.add(cut.id, row[:length], **asdict(labels_of(cut)))
            progress.advance(task, len(batch))


def kept(path: Path, identity: str, make: Callable[[], Any]) -> Any:
    """The value in a JSON file; made again if the file is missing or has another identity.

    The file is replaced atomically when the value is complete, so that a kill leaves no partial file.
    """
    if path.is_file():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError:
            content = None
        if isinstance(content, dict) and content.get("identity") == identity and "value" in content:
            return content["value"]
    value = make()
    write_text(path, json.dumps({"identity": identity, "value": value}, ensure_ascii=False) + "\n")
    return value


def recall_of(
    store: EmbeddingStore,
    config: LayersConfig,
    device: torch.device,
    score: ScoreKind = ScoreKind.seqsim,
) -> dict[str, Any]:
    """Mean recall@1 over the ordered pairs of groups, with interval and chance level, in per cent.

    The result also has ``groups``, and the groups with one site, which the interval does not resample.

    Raises:
        UserError: the split has no parallel sentences.
    """
    sites = sites_of(store, level=config.level, duplicates=config.duplicates)
    outcome = retrieve(store, sites, score=score, device=device)
    table = tabulate(outcome, trained_groups=None, resamples=config.resamples, seed=config.seed)
    (row,) = (row for row in table.summary if row.name == "all")
    rates = {key: asdict(row)[key] for key in ("recall_at_1", "low", "high", "chance")}
    return rates | {"groups": table.groups, "single_site_groups": table.single_site_groups}


def _if_divisible(task: ProbeTask | NotIdentifiable, config: ProbeConfig) -> ProbeTask | NotIdentifiable:
    """The task, or the reason why it has no folds; checked here, before hours of computation."""
    if isinstance(task, ProbeTask):
        try:
            folds_of(task, config)
        except NoFoldsError as error:
            logger.warning("%s. It is left out", error)
            return NotIdentifiable(task.name, error.reason)
    return task


class Probes:
    """The probes of a split: the tasks, and their scores at a tap.

    A task that cannot be divided into folds is left out, with a warning, and listed in ``not_identifiable``.

    Args:
        facts: facts of all utterances.
        spans: spans of the characters; None without alignment, with the reason in ``no_spans``.
        config: settings of the probes.
        no_spans: reason why there are no spans.
    """

    def __init__(
        self, facts: Sequence[Facts], spans: Spans | None, config: ProbeConfig, *, no_spans: str = ""
    ) -> None:
        self.facts, self.spans, self.config = facts, spans, config
        found = utterance_tasks(facts, config)
        if spans:
            found += character_tasks(facts, spans, config)
        else:
            reason = no_spans or "no utterance could be aligned"
            found += [NotIdentifiable(name, reason) for name in ("character", "tone")]
        found = [_if_divisible(task, config) for task in found]
        self.tasks = [task for task in found if isinstance(task, ProbeTask)]
        self.not_identifiable = [task for task in found if isinstance(task, NotIdentifiable)]

    def of_taps(self, taps: Sequence[Tap], config: LayersConfig) -> dict[str, list[dict[str, Any]]]:
        """Scores of all tasks at all taps, by tap."""
        results = {}
        columns = (
            TextColumn("probes, {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns) as progress:
            bar = progress.add_task("", total=len(taps) * len(self.tasks))
            for number, tap in enumerate(taps):
                progress.update(bar, description=tap.name, completed=number * len(self.tasks))
                store = EmbeddingStore(tap.store(config))
                advance = partial(progress.advance, bar)
                results[tap.name] = kept(
                    config.folder / "probes" / f"{tap.name}.json",
                    self._identity(store),
                    partial(self.scores, store, tap.factor, advance),
                )
            progress.update(bar, completed=len(taps) * len(self.tasks))
        return results

    def _identity(self, store: EmbeddingStore) -> str:
        content = {
            "embeddings": store.description["fingerprint"],
            "probes": asdict(self.config),
            "utterances": [fact.utterance_id for fact in self.facts],
            "spans": None if self.spans is None else [astuple(span) for span in self.spans],
            "tasks": [
                {
                    key: value.tolist() if isinstance(value, np.ndarray) else value
                    for key, value in vars(task).items()
                }
                for task in self.tasks
            ],
        }
        return fingerprint([], content)

    def scores(self, store: EmbeddingStore, factor: int, advance: Callable[[], None]) -> list[dict[str, Any]]:
        """Scores of all tasks on the frames of a store, at 50/factor frames a second."""
        units: dict[str, NDArray[np.float32]] = {}
        results = []
        for task in self.tasks:
            if task.unit not in units:
                units[task.unit] = (
                    utterance_means(store, self.facts)
                    if task.unit == "utterance"
                    else span_means(store, self.spans or (), factor)
                )
            results.append(asdict(probe(units[task.unit][task.rows], task, self.config)))
            advance()
        return results
