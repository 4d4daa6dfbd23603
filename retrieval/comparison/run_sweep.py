"""The command ``sweep``: trains variants with several seeds, measures them and tabulates the results.

The same command resumes a stopped sweep; ``table_only=true`` tabulates the finished runs. The variants are in
conf/sweep/, the other settings are described in retrieval/comparison/sweep.py.
"""

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from hydra import compose
from omegaconf import OmegaConf

from retrieval.comparison.runs import retrieve_run
from retrieval.comparison.sweep import STEPS, SweepConfig, SweepRun, plan_runs
from retrieval.comparison.variant_tables import transfer_rows, variant_rows, variants_view, write_tables
from retrieval.comparison.variants import Errors, Run, VariantMeasures
from retrieval.protocol.sites import Site
from retrieval.results.decodings import read_decoding
from retrieval.results.weights import Sieve
from zipformer.console import print_tables
from zipformer.data.dataset import name_of
from zipformer.device import choose_device
from zipformer.errors import UserError
from zipformer.scoring import align
from zipformer.scoring.files import CER_FILE

LINES_SHOWN = 15  # lines of the log of a failed step
MOST_AT_ONCE = 4  # runs by default: each holds a model and its optimiser in memory


def main(config: SweepConfig) -> None:
    """Finish all runs of the sweep, print and write the tables."""
    runs = plan_runs(config, settings_of_training)
    done = [run for run in runs if run.finished() == list(STEPS)]  # checks all runs before any training
    if not config.table_only:
        finish_all(runs, config)
        done = runs
    tabulate(config, done)


def settings_of_training(overrides: Sequence[str]) -> Mapping[str, Any]:
    """All settings of fangyan train for this command line; settings without a value are ``???``."""
    composed = compose("train", overrides=list(overrides))
    return cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True, enum_to_str=True))


def finish_all(runs: Sequence[SweepRun], config: SweepConfig) -> None:
    """Do all runs, several at once. If one fails, the others finish their current step, then all stop."""
    cores = len(os.sched_getaffinity(0))
    at_once = config.at_once or (1 if choose_device("auto").type == "cuda" else min(cores, MOST_AT_ONCE))
    threads = max(1, cores // at_once) if at_once > 1 else None
    stop = threading.Event()

    def note_failure(job: Future[None]) -> None:
        if not job.cancelled() and job.exception() is not None:
            stop.set()

    with ThreadPoolExecutor(at_once) as pool:
        jobs = []
        for number, run in enumerate(runs, start=1):
            jobs.append(pool.submit(finish, run, config.launcher, f"[{number}/{len(runs)}]", threads, stop))
            jobs[-1].add_done_callback(note_failure)
        try:
            for job in as_completed(jobs):
                job.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def finish(
    run: SweepRun, launcher: list[str], place: str, threads: int | None, stop: threading.Event
) -> None:
    """Do the unfinished steps of a run and record each finished step; ``stop`` ends the run after a step."""
    finished = run.finished()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)} if threads else dict(os.environ)
    for step in STEPS[len(finished) :]:
        if stop.is_set():
            return
        began = time.monotonic()
        run.note(finished)
        command = [sys.executable, "-m", "fangyan", step, *run.commands[step]]
        if step == "train":
            command[:1] = launcher or command[:1]
            if threads and not any(setting.startswith("num_threads=") for setting in command):
                command.append(f"num_threads={threads}")
        log = run.directory / f"{step}.log"
        with log.open("a", encoding="utf-8") as file:
            result = subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False
            )
        if result.returncode:
            end = "\n  ".join(log.read_text(encoding="utf-8").splitlines()[-LINES_SHOWN:])
            raise UserError(
                f"{step} of {run.directory} ended with exit status {result.returncode}; the end of its log "
                f"{log}:\n  {end}"
            )
        finished.append(step)
        run.note(finished)
        seconds = time.monotonic() - began
        print(f"{place} {run.variant}, seed {run.seed}: {step} {seconds:.0f} s", flush=True)


def tabulate(config: SweepConfig, done: list[SweepRun]) -> None:
    """Measure the finished runs, print and write the tables into ``exp_dir/results/{name}``."""
    variants: dict[str, list[Run]] = {}
    for run in done:
        variants.setdefault(run.variant, []).append(measured(run, config))
    if config.baseline not in variants:
        raise UserError(f"no run of the baseline {config.baseline} is finished: there is nothing to compare")
    comparison = VariantMeasures(
        {name: variants[name] for name in config.variants if name in variants},
        resamples=config.resamples,
        confidence=config.confidence,
        seed=config.bootstrap_seed,
    )
    rows = variant_rows(comparison, config.baseline)
    left_out = {name: variant.left_out for name, variant in config.variants.items()}
    transfer = transfer_rows(comparison, config.baseline, left_out)
    directory = Path(config.exp_dir) / "results" / config.name
    header = {
        "settings": asdict(config),
        "runs": [str(run.directory) for run in done],
        "single_site_groups": comparison.single_site_groups,
    }
    write_tables(directory, rows, transfer, baseline=config.baseline, header=header)
    title = f"{config.split}, {100 * config.confidence:g} % intervals"
    print_tables([variants_view(rows, title, comparison.resampled)])
    print(f"tables: {directory}")


def measured(run: SweepRun, config: SweepConfig) -> Run:
    """Retrieve with the embeddings of a run, and count its recognition errors."""
    dataset = name_of(run.data_dir)
    found = retrieve_run(run.model_dir, config.split, dataset=dataset, device=choose_device("auto"))
    return replace(found, errors=count_errors(run, config, found.sites, found.sentences))


def count_errors(
    run: SweepRun, config: SweepConfig, sites: Sequence[Site], sentences: Sequence[str]
) -> Errors:
    """Recognition errors in the hypotheses of fangyan decode, by site and sentence.

    Raises:
        UserError: an embedded utterance has no hypothesis, or the hypotheses were made with other weights
            than the model has now.
    """
    folder = run.model_dir / "results" / name_of(run.data_dir) / f"decode-{config.split}-{config.method}"
    place = {
        utterance: (row, sentences.index(sentence))
        for row, site in enumerate(sites)
        for sentence, utterance in site.utterances.items()
    }
    errors, characters = (np.zeros((len(sites), len(sentences))) for _ in range(2))
    decoding = read_decoding(folder)
    Sieve(run.model_dir).require(decoding.weights, folder / CER_FILE, "fangyan decode")
    hypotheses = {item.id: item for item in decoding.hypotheses}
    if missing := sorted(place.keys() - hypotheses.keys()):
        raise UserError(
            f"{folder} lacks {len(missing)} of the {len(place)} utterances that were embedded, such as"
            f" {missing[0]}: recognise that split again with fangyan decode"
        )
    transcripts = hashlib.blake2b(digest_size=16)
    for utterance, where in sorted(place.items()):
        reference = hypotheses[utterance].reference
        transcripts.update(f"{utterance}\t{reference}\n".encode())
        counts = align(reference, hypotheses[utterance].hypothesis).counts
        errors[where], characters[where] = counts.errors, counts.reference_characters
    return Errors(errors, characters, transcripts.hexdigest())
