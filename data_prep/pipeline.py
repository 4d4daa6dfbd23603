"""Prepares a corpus for training, in stages: manifests, checks, FBANK, tokens, final cuts.

Each stage writes its files atomically and is recorded in ``prepare.json`` when it is done. To resume a killed
run, start it again: finished stages are skipped, and the two long ones (decoding all audio for the checks,
FBANK) resume after their finished shards.
"""

import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lhotse import CutSet, MonoCut, load_manifest_lazy
from omegaconf import MISSING
from rich.console import Console

from data_prep.audio.probe import AudioConfig
from data_prep.checks import CHECK_ORDER, CheckConfig, CorpusChecker, OnProblem
from data_prep.cluster import DaskWorkers
from data_prep.corpora import corpus_of
from data_prep.executors import Executor, Pool, Workers
from data_prep.fbank import FeatureConfig, FeatureShard, cuts_file, extract_shard, read_lost
from data_prep.manifests import (
    SPLITS,
    ProbeShard,
    batches,
    checked_file,
    converted_folder,
    final_cuts_file,
    grouped,
    probe_shard,
    probes_file,
    read_checked_cuts,
    read_probes,
    read_recordings,
    read_recordings_to_mix,
    read_supervisions,
    shuffle_lines,
    write_jsonl,
    write_manifests,
)
from data_prep.problems import Problem, ProblemLog, append_problems
from data_prep.progress import progress
from data_prep.shar import SHAR_FOLDER, SharConfig, Storage, check_settings, write_splits
from data_prep.state import PreparationState, file_digest, fingerprint
from data_prep.taxonomy import label_fault
from data_prep.text.normaliser import TextConfig, TextNormaliser
from data_prep.tokens import TokenConfig, further_texts, read_token_model, train_token_model, write_tokens
from zipformer.data.dataset import record_name
from zipformer.data.tokenizer import TOKENS_FILE
from zipformer.errors import UserError, listed
from zipformer.files import remove_leftovers, replacing
from zipformer.scoring.token_coverage import TokenCoverage

logger = logging.getLogger(__name__)

PROBLEMS_FILE = "problems.tsv"
_PROBE_SHARD = 1000  # recordings
_LOUD_LOSS = 0.1  # share of a split
# Settings that do not affect the prepared data.
_NOT_COMPARED = (
    "data_dir", "dataset", "executor", "scheduler", "num_workers", "corpus.workers", "storage"
)  # fmt: skip


@dataclass
class PrepareConfig:
    """All settings of preparation.

    Attributes:
        corpus: config of one of the registered corpora.
        data_dir: folder of the prepared corpus.
        dataset: name of the prepared corpus, for the folders of its results; null = name of ``data_dir``.
        executor: executor of decoding and features: ``processes`` of this machine, or ``dask`` for the
            workers of a cluster that see data_dir and the audio under the same paths.
        scheduler: address of the scheduler of the cluster (tcp://host:8786), or its scheduler file.
        num_workers: number of processes of this machine that decode audio and compute features.
        storage: final storage of the features: ``files``, or ``shar`` for tar files of Lhotse Shar below
            data_dir/shar. To convert a corpus that was prepared with ``files``, run the same command with
            storage=shar; ``fbank`` is then removed.
        audio: settings of reading recordings.
        text: normalisation of the transcripts.
        checks: limits of the checks, and treatment of problems.
        fbank: features and speed perturbation.
        shar: settings of Shar.
        tokens: choice of the tokens.
    """

    corpus: Any = MISSING
    data_dir: str = MISSING
    dataset: str | None = None
    executor: Executor = Executor.processes
    scheduler: str | None = None
    num_workers: int = 2
    storage: Storage = Storage.files
    audio: AudioConfig = field(default_factory=AudioConfig)
    text: TextConfig = field(default_factory=TextConfig)
    checks: CheckConfig = field(default_factory=CheckConfig)
    fbank: FeatureConfig = field(default_factory=FeatureConfig)
    shar: SharConfig = field(default_factory=SharConfig)
    tokens: TokenConfig = field(default_factory=TokenConfig)

    def __post_init__(self) -> None:
        if self.executor is Executor.dask and not self.scheduler:
            raise UserError("executor=dask needs the address of a scheduler: scheduler=tcp://host:8786")
        if self.executor is not Executor.dask and self.scheduler:
            raise UserError(f"scheduler={self.scheduler} is used with executor=dask only: set that as well")

    @property
    def directory(self) -> Path:
        """Absolute path of ``data_dir``, because manifests contain it."""
        return Path(self.data_dir).resolve()


def prepare(config: PrepareConfig, console: Console | None = None) -> None:
    """Prepare a corpus, resuming an earlier run.

    Raises:
        UserError: the settings, the corpus or the machine prevent it; finished stages are kept.
    """
    with _workers(config) as workers:
        _Preparation(config, workers, console or Console()).run()


def _workers(config: PrepareConfig) -> Pool:
    if config.executor is Executor.processes:
        return Workers(config.num_workers)
    assert config.scheduler is not None
    return DaskWorkers(config.scheduler, config.directory)


class _Preparation:
    """One run over the stages."""

    def __init__(self, config: PrepareConfig, workers: Pool, console: Console) -> None:
        self.config = config
        self.workers = workers
        self.console = console
        self.directory = config.directory
        self.corpus = corpus_of(config.corpus)
        self.state = PreparationState(self.directory, self._settings())

    def run(self) -> None:
        stages = {
            "manifests": self._manifests,
            "checks": self._checks,
            "fbank": self._fbank,
            "tokens": self._tokens,
            "cuts": self._cuts,
        }
        if self.config.storage is Storage.shar:
            stages["shar"] = self._shar
            if "shar" in self.state.stages:
                check_settings(self.directory, fingerprint(self.config.shar), finished=True)
        finished = [name for name in stages if name in self.state.stages]
        if finished:
            following = next((name for name in stages if name not in finished), None)
            next_step = f"resuming with {following}" if following else "nothing is left to do"
            logger.info("%s: %s finished before, %s", self.directory, ", ".join(finished), next_step)
        for name, stage in stages.items():
            if name not in self.state.stages:
                logger.info("stage %s", name)
                begin = time.monotonic()
                report = stage()
                self.state.finish(name, {**report, "seconds": round(time.monotonic() - begin, 1)})
        record_name(self.directory, self.config.dataset)
        if "shar" in self.state.stages:
            shutil.rmtree(self.directory / "fbank", ignore_errors=True)

    def _settings(self) -> dict[str, Any]:
        settings = {
            name: value
            for name, value in fingerprint(self.config).items()
            if name not in _NOT_COMPARED and not name.startswith("shar.")
        }
        settings["corpus"] = self.corpus.name
        for file in self.corpus.inputs(self.config.corpus):
            settings[f"content of {file}"] = file_digest(Path(file))
        return settings

    @property
    def splits(self) -> list[str]:
        recordings = self.state.stages["manifests"]["recordings"]
        return [split for split in SPLITS if split in recordings]

    # The stages. Each returns its entry in prepare.json.

    def _manifests(self) -> dict[str, Any]:
        # Shards of another corpus must not count as finished.
        for outdated in ("manifests", "converted", "fbank", "tokens", SHAR_FOLDER):
            shutil.rmtree(self.directory / outdated, ignore_errors=True)
        manifests = self.corpus.prepare(self.config.corpus, self.directory)
        return {"recordings": write_manifests(manifests, self.directory)}

    def _checks(self) -> dict[str, Any]:
        for split in self.splits:
            self._probe(split)
        counts: dict[str, dict[str, Any]] = {}
        file = self.directory / PROBLEMS_FILE
        with replacing(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
            log = ProblemLog(stream, self.config.checks.severities)
            checker = CorpusChecker(
                self.config.checks, TextNormaliser(self.config.text), self.config.fbank.sampling_rate, log
            )
            for split in (split for split in CHECK_ORDER if split in self.splits):
                recordings = zip(
                    read_recordings(self.directory, split), read_probes(self.directory, split), strict=True
                )
                cuts = checker.check_split(split, recordings, read_supervisions(self.directory, split))
                usable = write_jsonl(CutSet, cuts, checked_file(self.directory, split))
                counts[split] = {"usable": usable, "dropped": log.dropped[split]}
        self._judge(log, counts, file)
        self._judge_labels(checker.unknown_labels, counts)
        return {"utterances": counts, "problems": log.counts.total()}

    def _judge(self, log: ProblemLog, counts: dict[str, dict[str, Any]], file: Path) -> None:
        """Show the problems; raise UserError if they are a reason to stop."""
        if not log.counts:
            return
        self.console.print(log.table())
        dropped = log.dropped.total()
        logger.info("%d problems, all in %s; %d utterances are not used", log.counts.total(), file, dropped)
        stop = self.config.checks.on_problem is OnProblem.stop and dropped > 0
        empty = [split for split, count in counts.items() if not count["usable"]]
        if stop or empty:
            self.state.forget()  # at the next run the corpus will have changed
            reason = (
                f"{dropped} utterances have an error"
                if stop
                else f"no usable utterance is left in {', '.join(empty)}"
            )
            advice = "Correct them and start again" + (
                ", or set checks.on_problem=drop to go on without them" if stop and not empty else ""
            )
            raise UserError(f"{reason}. {file} names every one with its remedy. {advice}")
        for split, count in counts.items():
            share = count["dropped"] / (count["usable"] + count["dropped"])
            if share > _LOUD_LOSS:
                message = "%.0f %% of the split %s are not used (%d utterances); %s says why of each"
                logger.warning(message, 100 * share, split, count["dropped"], file)

    def _judge_labels(self, labels: Counter[str], counts: dict[str, dict[str, Any]]) -> None:
        """List unknown dialect labels; raise UserError if too many utterances have one."""
        if not labels:
            return
        total = sum(count["usable"] + count["dropped"] for count in counts.values())
        lost = labels.total()
        names = [f"{count} utterances: {label_fault(label)}" for label, count in labels.most_common()]
        message = listed(f"{lost} of {total} utterances have a dialect label without a variety", names)
        if lost > self.config.checks.max_unknown_dialects * total:
            self.state.forget()  # a mapping changes the settings
            raise UserError(
                f"{message}\nMap the labels and start again, or set checks.max_unknown_dialects=1 to go on "
                "without these utterances"
            )
        logger.warning("%s", message)

    def _probe(self, split: str) -> None:
        total = self.state.stages["manifests"]["recordings"][split]
        with progress(f"decode {split}", total, "recordings", console=self.console) as advance:

            def jobs() -> Iterator[ProbeShard]:
                recordings = read_recordings_to_mix(self.directory, split)
                for index, batch in enumerate(batches(recordings, _PROBE_SHARD)):
                    path = probes_file(self.directory, split, index)
                    if path.is_file():
                        advance(len(batch))
                    else:
                        converted = converted_folder(self.directory, split, index)
                        yield ProbeShard(batch, path, converted, self.config.audio)

            for count in self.workers.map(probe_shard, jobs()):
                advance(count)
        probes = probes_file(self.directory, split, 0).parent
        for folder in (probes, *(self.directory / "converted" / split).glob("*")):
            remove_leftovers(folder)

    def _fbank(self) -> dict[str, Any]:
        begin = time.monotonic()
        seconds = sum(self._extract(split) for split in self.splits)
        elapsed = time.monotonic() - begin
        logger.info(
            "features of %.2f h of audio in %.1f s (%.0f times real time)",
            seconds / 3600,
            elapsed,
            seconds / elapsed,
        )
        lost = [
            Problem(utterance_id, split, "lost_audio", detail)
            for split in self.splits
            for utterance_id, detail in read_lost(self.directory / "fbank" / split)
        ]
        if lost:
            file = self.directory / PROBLEMS_FILE
            append_problems(file, lost, self.config.checks.severities)
            logger.warning(
                "%d utterances are not used: their audio changed or vanished during the run; %s names them",
                len(lost),
                file,
            )
        return {"seconds_of_audio_in_last_run": round(seconds, 1), "lost": len(lost)}

    def _extract(self, split: str) -> float:
        """Compute the missing shards of features of a split; returns their seconds of audio."""
        folder = self.directory / "fbank" / split
        shards = self._feature_shards(split)
        there = sum(cuts_file(folder, index).is_file() for index in range(shards))
        if there:
            logger.info(
                "fbank: %d of %d shards of %s are finished; resuming with the rest", there, shards, split
            )
        factors = tuple(self.config.fbank.speed_factors) if split == "train" else ()
        may_lose = self.config.checks.on_problem is OnProblem.drop
        seconds = 0.0
        with progress(f"fbank {split}", shards, "shards", done=there, console=self.console) as advance:
            jobs = (
                FeatureShard(
                    folder,
                    index,
                    cuts,
                    factors,
                    self.config.fbank.sampling_rate,
                    may_lose=may_lose,
                )
                for index, cuts in enumerate(self._feature_groups(split))
                if not cuts_file(folder, index).is_file()
            )
            for shard_seconds in self.workers.map(extract_shard, jobs):
                seconds += shard_seconds
                advance(1)
        remove_leftovers(folder)
        return seconds

    def _feature_groups(self, split: str) -> Iterator[list[MonoCut]]:
        """The utterances of each shard of features."""
        config = self.config.fbank
        return grouped(read_checked_cuts(self.directory, split), config.shard_size, config.shard_seconds)

    def _feature_shards(self, split: str) -> int:
        if self.config.fbank.shard_seconds is None:
            usable: int = self.state.stages["checks"]["utterances"][split]["usable"]
            return -(-usable // self.config.fbank.shard_size)
        return sum(1 for _ in self._feature_groups(split))

    def _tokens(self) -> dict[str, Any]:
        tokens = self.config.tokens
        if tokens.reuse:
            model = read_token_model(tokens.reuse)
        elif "train" not in self.splits:
            logger.info("no split train: no tokens are made; use those of the model")
            return {"tokens": 0}
        else:
            model = train_token_model(self._training_texts(), tokens.min_count)
        size = write_tokens(model, self.directory / "tokens")
        logger.info("%d tokens in %s", size, self.directory / "tokens")
        return {"tokens": size}

    def _training_texts(self) -> Iterator[str]:
        for cut in read_checked_cuts(self.directory, "train"):
            yield cut.supervisions[0].text
        yield from further_texts(self.config.tokens.further_data_dirs)

    def _cuts(self) -> dict[str, Any]:
        report: dict[str, Any] = {}
        tokens = self.directory / "tokens"
        for split in self.splits:
            usable = self.state.stages["checks"]["utterances"][split]["usable"]
            folder = self.directory / "fbank" / split
            shards = [cuts_file(folder, index) for index in range(self._feature_shards(split))]
            file = final_cuts_file(self.directory, split)
            with replacing(file) as temporary:
                if split == "train":
                    copies = len(self.config.fbank.speed_factors) or 1
                    shuffle_lines(shards, usable * copies, temporary)
                else:
                    with temporary.open("wb") as final:
                        for shard in shards:  # gzip files one after the other are a gzip file
                            final.write(shard.read_bytes())
            coverage = TokenCoverage.of_model(tokens) if (tokens / TOKENS_FILE).is_file() else None
            report[split] = _summary(load_manifest_lazy(file), coverage)
            logger.info("%s: %s", file, report[split])
            if coverage is not None and (warning := coverage.warning(f"the split {split}")):
                logger.warning("%s", warning)
        self.corpus.finish(self.config.corpus, self.directory)
        return report

    def _shar(self) -> dict[str, Any]:
        check_settings(self.directory, fingerprint(self.config.shar), finished=False)
        totals = {split: self.state.stages["cuts"][split]["cuts"] for split in self.splits}
        shards = write_splits(self.directory, totals, self.config.shar, self.workers, self.console)
        return {split: {"shards": count} for split, count in shards.items()}


def _summary(cuts: Iterator[MonoCut], coverage: TokenCoverage | None) -> dict[str, Any]:
    """Utterances and hours, in all and by dialect group; adds the texts to the coverage."""
    utterances: dict[str, int] = {}
    seconds = 0.0
    for cut in cuts:
        group = cut.supervisions[0].language
        utterances[group] = utterances.get(group, 0) + 1
        seconds += cut.duration
        if coverage is not None:
            coverage.add(cut.supervisions[0].text, group)
    return {"cuts": sum(utterances.values()), "hours": round(seconds / 3600, 3), "by_dialect": utterances}
