"""Train the variants of an experiment with several seeds, measure them all, and tabulate them with intervals.

    python scripts/sweep.py sweep=decoder_depth data_dir=data/mini exp_dir=exp/decoder_depth

The same command again goes on where it stopped; ``table_only=true`` tabulates what is finished. The variants
are in conf/sweep/, the other settings are described in zipformer/sweep.py.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import hydra
import numpy as np
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from retrieval.results import read_decoding
from retrieval.sites import Site
from retrieval.tables import print_tables
from retrieval.variants.comparison import Comparison, Errors, Run
from retrieval.variants.runs import retrieve_run
from retrieval.variants.tables import transfer_rows, variant_rows, variants_view, write_tables
from zipformer.evaluation import choose_device
from zipformer.scoring import align
from zipformer.sweep import STEPS, SweepConfig, SweepRun, plan_runs

ConfigStore.instance().store(name="sweep_schema", node=SweepConfig)

SCRIPTS = Path(__file__).resolve().parent
LINES_SHOWN = 15  # of the log of a step that failed


class StepFailedError(RuntimeError):
    """A step of a run ended with an error; the message has the end of its log."""


@hydra.main(version_base="1.3", config_path="../conf", config_name="sweep")
def main(settings: DictConfig) -> None:
    try:
        config = cast(SweepConfig, OmegaConf.to_object(settings))
        runs = plan_runs(config)
        done = [run for run in runs if run.finished() == list(STEPS)]  # looks at all before one is trained
        if not config.table_only:
            for number, run in enumerate(runs, start=1):
                finish(run, config.launcher, f"[{number}/{len(runs)}]")
            done = runs
        tabulate(config, done)
    except (FileNotFoundError, ValueError, OmegaConfBaseException, StepFailedError) as error:
        sys.exit(f"error: {error}")


def finish(run: SweepRun, launcher: list[str], place: str) -> None:
    """Do the steps of a run that are not finished, and note each one that is."""
    finished = run.finished()
    for step in STEPS[len(finished) :]:
        print(f"{place} {run.variant}, seed {run.seed}: {step} ...", end="", flush=True)
        began = time.monotonic()
        run.note(finished)
        program = launcher if launcher and step == "train" else [sys.executable]
        log = run.directory / f"{step}.log"
        with log.open("a", encoding="utf-8") as file:
            result = subprocess.run(
                [*program, str(SCRIPTS / f"{step}.py"), *run.commands[step]],
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if result.returncode:
            print()
            end = "\n  ".join(log.read_text(encoding="utf-8").splitlines()[-LINES_SHOWN:])
            raise StepFailedError(
                f"{step} of {run.directory} ended with exit status {result.returncode}; the end of its log "
                f"{log}:\n  {end}"
            )
        finished.append(step)
        run.note(finished)
        print(f" {time.monotonic() - began:.0f} s", flush=True)


def tabulate(config: SweepConfig, done: list[SweepRun]) -> None:
    """Measure the finished runs, print and write the tables into ``exp_dir/results/{name}``."""
    variants: dict[str, list[Run]] = {}
    for run in done:
        variants.setdefault(run.variant, []).append(measured(run, config))
    if config.baseline not in variants:
        raise ValueError(f"no run of the baseline {config.baseline} is finished: there is nothing to compare")
    comparison = Comparison(
        {name: variants[name] for name in config.variants if name in variants},
        resamples=config.resamples,
        confidence=config.confidence,
        seed=config.bootstrap_seed,
    )
    rows = variant_rows(comparison, config.baseline)
    left_out = {name: variant.left_out for name, variant in config.variants.items()}
    transfer = transfer_rows(comparison, config.baseline, left_out)
    directory = Path(config.exp_dir) / "results" / config.name
    header = {"settings": asdict(config), "runs": [str(run.directory) for run in done]}
    write_tables(directory, rows, transfer, baseline=config.baseline, header=header)
    print_tables([variants_view(rows, f"{config.split}, {100 * config.confidence:g} % intervals")])
    print(f"tables: {directory}")


def measured(run: SweepRun, config: SweepConfig) -> Run:
    """Retrieve in the embeddings of a run, and count its recognition errors."""
    found = retrieve_run(run.model_dir, config.split, device=choose_device("auto"))
    return replace(found, errors=count_errors(run, config, found.sites, found.sentences))


def count_errors(
    run: SweepRun, config: SweepConfig, sites: Sequence[Site], sentences: Sequence[str]
) -> Errors:
    """Errors of what scripts/decode.py recognised, by site and sentence.

    Raises:
        ValueError: an utterance that was embedded and not recognised.
    """
    folder = run.model_dir / "results" / f"decode-{config.split}-{config.method}"
    place = {
        utterance: (row, sentences.index(sentence))
        for row, site in enumerate(sites)
        for sentence, utterance in site.utterances.items()
    }
    errors, characters = (np.zeros((len(sites), len(sentences))) for _ in range(2))
    hypotheses = {item.id: item for item in read_decoding(folder).hypotheses}
    if missing := sorted(place.keys() - hypotheses.keys()):
        raise ValueError(
            f"{folder} lacks {len(missing)} of the {len(place)} utterances that were embedded, such as"
            f" {missing[0]}: recognise that split again with scripts/decode.py"
        )
    for utterance, where in place.items():
        counts = align(hypotheses[utterance].reference, hypotheses[utterance].hypothesis).counts
        errors[where], characters[where] = counts.errors, counts.reference_characters
    return Errors(errors, characters)


if __name__ == "__main__":
    main()
