"""Run units of synthesis side by side, and keep what an earlier run has finished."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import data_prep
from data_prep.corpora.mini.unit import DESCRIPTION, DONE, Unit
from data_prep.progress import progress
from zipformer.files import replacing_folder


def run_units(units: Mapping[Path, Unit], workers: int) -> dict[Path, dict[str, int]]:
    """Synthesise every unit into its directory, ``workers`` processes at a time.

    A directory that holds the finished audio of the same description is kept; one that holds anything else is
    made anew. A unit appears under its name only when it is complete, so a killed run leaves nothing
    half-made.

    Returns:
        Number of samples by utterance id, by directory.

    Raises:
        RuntimeError: a unit failed; the message holds its directory and what it printed.
    """
    counts: dict[Path, dict[str, int]] = {}
    total = sum(len(unit.lines) for unit in units.values())
    with progress("synthesis", total, "utterances") as advance, ThreadPoolExecutor(workers) as pool:
        jobs = {pool.submit(_run_or_keep, unit, directory): directory for directory, unit in units.items()}
        try:
            for job in as_completed(jobs):
                counts[jobs[job]] = job.result()
                advance(len(counts[jobs[job]]))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return counts


def _run_or_keep(unit: Unit, directory: Path) -> dict[str, int]:
    description, done = directory / DESCRIPTION, directory / DONE
    if not (done.exists() and description.read_text(encoding="utf-8") == unit.to_json()):
        with replacing_folder(directory, keep_others=False) as folder:
            (folder / DESCRIPTION).write_text(unit.to_json(), encoding="utf-8")
            _run_in_fresh_process(folder)
    counts: dict[str, int] = json.loads(done.read_text(encoding="utf-8"))
    return counts


def _run_in_fresh_process(directory: Path) -> None:
    root = str(Path(data_prep.__file__).resolve().parents[1])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "data_prep.corpora.mini.unit", str(directory / DESCRIPTION)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(
            f"synthesis of {directory} failed with exit status {result.returncode}; run it again, finished "
            f"units are kept. It printed:\n{result.stdout}{result.stderr}"
        )
