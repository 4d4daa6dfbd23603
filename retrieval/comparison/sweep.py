"""Sweeps: several variants of a training, each with several seeds, all measured in the same way.

A run is one variant with one seed. It has a directory, ``exp_dir/{folder}/seed-{seed}``, and steps, which are
commands of the toolkit with settings. ``run.json`` records the finished steps and the settings that affect
the outcome, so that a stopped sweep resumes and runs with other settings are refused.

All variants are run with the first seed, then all with the second, so that the variants can be compared
whenever a sweep is stopped.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from zipformer.data.tokenizer import TOKENS_FILE
from zipformer.errors import UserError
from zipformer.files import file_sha256, write_json
from zipformer.model_dir import WEIGHTS_FILE, trained_groups
from zipformer.typed_json import read_json

RUN_FILE = "run.json"
RESOLVED = "resolved"  # key in run.json for all settings of the training, including conf/ and defaults
STEPS = ("train", "average", "decode", "embed")

# Settings of fangyan train that do not affect the outcome, have an entry of their own in run.json, or are
# filled in by the training from its tokens and its teacher.
_WITHOUT_EFFECT = frozenset(
    [
        "data_dir",
        "exp_dir",
        "init_from",
        "seed",
        "device",
        "num_threads",
        "activation_checkpointing",
        "log_interval",
        "data.num_workers",
        "data.prefetch_batches",
        "model.vocab_size",
        "model.text_alignment.text_dim",
    ]
)
_PLAIN = re.compile(r"[\w/.+@%: -]*", re.ASCII)  # values that Hydra reads without quotes

Resolve = Callable[[Sequence[str]], Mapping[str, Any]]


@dataclass
class Variant:
    """A variant to compare.

    Attributes:
        train: settings of fangyan train that make this variant.
        left_out: dialect groups that are left out of training.
        data_dir: prepared corpus of this variant, with the same test set; none = that of the sweep.
        start: model directory that the runs start from; none = that of the sweep.
        folder: folder of the runs, below ``exp_dir``; none = the name of the variant. If several sweeps have
            the same variant, give it the same folder, and it is trained only once.
    """

    train: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    data_dir: str | None = None
    start: str | None = None
    folder: str | None = None


@dataclass
class SweepConfig:
    """Variants to train, and settings of the measurement.

    Attributes:
        data_dir: prepared corpus.
        name: name of the folder of the tables, ``exp_dir/results/{name}``.
        exp_dir: folder of all runs and of the tables; sweeps may share it.
        variants: variants by name.
        baseline: name of the variant that the others are compared with.
        seeds: random seeds; every variant is trained once with each seed.
        train: settings of fangyan train for all runs.
        further: more settings of fangyan train, which override those of the variant; e.g. ``model=large`` on
            a GPU.
        machine: settings of fangyan train that do not affect the outcome (``num_threads=1``); they may change
            between runs.
        launcher: command that starts a training, e.g. ``[torchrun, --nproc-per-node, "8"]``; none = Python.
            More processes make larger batches, so this setting must not change between runs.
        at_once: number of runs that run in parallel and share the cores; 0 = one on CUDA, otherwise one for
            each core, but at most four. Several runs with one thread each use a processor better than one run
            with many threads.
        start: model directory that all runs start from; none = from scratch.
        last_fraction: share of the training over which the weights are averaged; none = each run takes the
            window with the lowest error rate on its validation split, as ``fangyan average`` does.
        method: decoding method whose error rates are compared.
        split: name of the split to measure.
        resamples: number of bootstrap resamples.
        confidence: confidence level of the intervals.
        bootstrap_seed: random seed of the bootstrap.
        table_only: train nothing, only tabulate the finished runs.
    """

    name: str = MISSING
    data_dir: str = MISSING
    exp_dir: str = MISSING
    variants: dict[str, Variant] = MISSING
    baseline: str = MISSING
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    train: list[str] = field(default_factory=list)
    further: list[str] = field(default_factory=list)
    machine: list[str] = field(default_factory=list)
    launcher: list[str] = field(default_factory=list)
    at_once: int = 0
    start: str | None = None
    last_fraction: float | None = None
    method: str = "ctc"
    split: str = "test"
    resamples: int = 1000
    confidence: float = 0.95
    bootstrap_seed: int = 0
    table_only: bool = False

    def __post_init__(self) -> None:
        if self.variants == MISSING or self.baseline == MISSING:
            return  # to be filled in by Hydra
        if self.baseline not in self.variants:
            raise UserError(f"baseline={self.baseline} is none of the variants {', '.join(self.variants)}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds={self.seeds} must name at least one seed, and each once")
        if self.at_once < 0:
            raise UserError(f"at_once={self.at_once} must be positive, or 0 for what fits the machine")
        folders = [variant.folder or name for name, variant in self.variants.items()]
        if shared := sorted({folder for folder in folders if folders.count(folder) > 1}):
            raise UserError(f"several variants have the folder {', '.join(shared)}: give each its own")


@dataclass(frozen=True)
class SweepRun:
    """One variant with one seed.

    Attributes:
        variant: name of the variant.
        seed: random seed of the training.
        directory: folder of the run.
        data_dir: prepared corpus.
        settings: settings that affect the outcome.
        commands: arguments of the command of each step, in the order of ``STEPS``.
    """

    variant: str
    seed: int
    directory: Path
    data_dir: Path
    settings: Mapping[str, Any]
    commands: Mapping[str, list[str]]

    @property
    def model_dir(self) -> Path:
        return self.directory / "averaged"

    def finished(self) -> list[str]:
        """Finished steps.

        Raises:
            UserError: the directory has a run with other settings.
        """
        file = self.directory / RUN_FILE
        content = read_json(file, "sweep")
        if content is None:
            return []
        before = content["settings"]
        differing = _differing(before, self.settings)
        if differing:
            raise UserError(
                f"{self.directory} holds a run with other settings:\n  " + "\n  ".join(differing) + "\n"
                "Set them as they were, choose another exp_dir, or delete that run"
            )
        return list(content["finished"])

    def note(self, finished: list[str]) -> None:
        """Record the finished steps in ``run.json``."""
        write_json(self.directory / RUN_FILE, {"settings": dict(self.settings), "finished": finished})


def plan_runs(config: SweepConfig, resolve: Resolve) -> list[SweepRun]:
    """All runs of a sweep, in the order of execution.

    Args:
        config: settings of the sweep.
        resolve: function from the command line of fangyan train to all its settings, nested.

    Raises:
        UserError: a corpus or the model to start from is missing, or this model was trained on a dialect that
            a variant leaves out.
    """
    return [_plan(config, name, seed, resolve) for seed in config.seeds for name in config.variants]


def _plan(config: SweepConfig, name: str, seed: int, resolve: Resolve) -> SweepRun:
    variant = config.variants[name]
    for key, meaning in (("data_dir", "the prepared corpus"), ("start", "the model to start from")):
        if getattr(variant, key) == MISSING:
            raise UserError(f"variants.{name}.{key} is missing: give {meaning} of this variant")
    given = variant.start or config.start
    start = None if given is None else _start(Path(given).resolve(), name, variant)
    data_dir = Path(variant.data_dir or config.data_dir).resolve()
    train = [*config.train, *variant.train, *config.further]
    if variant.left_out:
        train.append(f"data.left_out_dialects=[{','.join(variant.left_out)}]")
    settings = {
        "train": train,
        "seed": seed,
        "start": start and _digest(start / WEIGHTS_FILE),
        "corpus": [_digest(data_dir / f"cuts_{split}.jsonl.gz") for split in ("train", config.split)],
        "tokens": _digest(data_dir / "tokens" / TOKENS_FILE),
        "launcher": config.launcher,
        RESOLVED: {key: value for key, value in _flat(resolve(train)).items() if key not in _WITHOUT_EFFECT},
        "last_fraction": config.last_fraction,
        "method": config.method,
        "split": config.split,
    }
    directory = Path(config.exp_dir).resolve() / (variant.folder or name) / f"seed-{seed}"
    where = _path_setting("data_dir", data_dir)
    run = _path_setting("exp_dir", directory)
    measured = [_path_setting("model_dir", directory / "averaged"), where, f"split={config.split}"]
    commands = {
        "train": [*train, *config.machine, where, run, f"seed={seed}"]
        + ([_path_setting("init_from", start)] if start else []),
        "average": [run]
        + ([] if config.last_fraction is None else [f"last_fraction={config.last_fraction}"]),
        "decode": [*measured, f"method={config.method}"],
        "embed": measured,
    }
    return SweepRun(name, seed, directory, data_dir, settings, commands)


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each setting that differs.

    Settings that only one side has belong to another version of the toolkit; they are not compared.
    """
    then, today = ({**settings, **settings.get(RESOLVED, {})} for settings in (before, now))
    return [
        f"{key}: {then[key]} then, {today[key]} now"
        for key in today
        if key in then and key != RESOLVED and then[key] != today[key]
    ]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key, e.g. ``{"optim.lr": 0.045, ...}``."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _path_setting(name: str, path: Path) -> str:
    """``name=path`` for a command line, in quotes where Hydra needs them."""
    text = str(path)
    if _PLAIN.fullmatch(text):
        return f"{name}={text}"
    quoted = text.replace('"', '\\"')
    return f'{name}="{quoted}"'


def _start(directory: Path, name: str, variant: Variant) -> Path:
    trained = trained_groups(directory)
    if trained is None or not (directory / WEIGHTS_FILE).is_file():
        raise UserError(f"start={directory} is no model directory; fangyan average writes one")
    if seen := sorted(set(variant.left_out) & set(trained)):
        raise UserError(
            f"start={directory} was trained on {', '.join(seen)}, which variant {name} leaves out: the "
            "variant would know it already. Set start=null"
        )
    return directory


@cache
def _digest(file: Path) -> str:
    if not file.is_file():
        raise UserError(f"{file} does not exist: prepare the corpus first (fangyan prepare)")
    return file_sha256(file)
