"""Fair comparisons on a noisy machine: all cases take turns, round after round, in one process.

On a shared machine, absolute times mean little; compare cases by the ratio of their times within one run.
Every benchmark prints a table with the machine and the shapes of the inputs, and writes the same as JSON.
"""

import argparse
import ctypes
import gc
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from zipformer.training.environment import git_revision

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Timing:
    """Times of one case in all rounds.

    Attributes:
        name: name of the case.
        seconds: seconds of each round.
        mebibytes: peak memory of the call less the memory before it, in MiB; None if not measured.
        note: remark for the reader, e.g. why there are no numbers.
    """

    name: str
    seconds: list[float] = field(default_factory=list)
    mebibytes: float | None = None
    note: str = ""

    @property
    def minimum(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def take_turns(
    cases: Mapping[str, Callable[[], object]], *, rounds: int = 7, device: str = "cpu"
) -> dict[str, Timing]:
    """Time the cases A B C A B C ..., after one untimed call of each.

    Args:
        cases: functions to time, by name.
        rounds: timed calls of each case, at least 5.
        device: with ``cuda``, every call is timed between two synchronisations of the device.
    """
    wait = torch.cuda.synchronize if device == "cuda" else _nothing
    for call in cases.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in track(range(rounds), description="rounds", transient=True):
        for name, call in cases.items():
            gc.collect()
            wait()
            begin = time.perf_counter()
            call()
            wait()
            seconds[name].append(time.perf_counter() - begin)
    return {name: Timing(name, times) for name, times in seconds.items()}


def peak_mebibytes(prepare: Callable[..., Callable[[], object]], *arguments: Any) -> float:
    """Peak memory of a call less the memory before it, in MiB, measured in a process of its own.

    Args:
        prepare: module-level function that makes the inputs and returns the call to measure. The call runs
            once before on the same inputs, so that compiling and loading are not counted.
        arguments: arguments of ``prepare``.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (prepare, arguments))


def _peak(prepare: Callable[..., Callable[[], object]], arguments: tuple[Any, ...]) -> float:
    call = prepare(*arguments)
    call()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / MEBIBYTE
    ctypes.CDLL(None).malloc_trim(0)  # what glibc keeps for later would not count as the call's
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the highest resident size counts from now on
    before = status_kib("VmRSS")
    call()
    return (status_kib("VmHWM") - before) / 1024


def status_kib(field_name: str) -> int:
    """A memory size of this process as Linux reports it, in KiB, e.g. VmRSS (current) or VmHWM (peak)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field_name + ":"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field_name}")


def report(
    title: str, timings: Sequence[Timing], *, baseline: str, shapes: Mapping[str, Any], output: Path
) -> None:
    """Print the table of one comparison and add it to a JSON file.

    Args:
        title: title of the comparison.
        timings: times of the cases, in the order to print.
        baseline: name of the case to compare with. The table shows its time divided by that of each case: a
            case above 1 is faster.
        shapes: sizes of the inputs.
        output: JSON file; a comparison with the same title is replaced, others are kept.
    """
    by_name = {timing.name: timing for timing in timings}
    reference = by_name.get(baseline)
    table = Table(title=f"{title} ({', '.join(f'{key}={value}' for key, value in shapes.items())})")
    table.add_column("case")
    for column in ("min ms", "median ms", f"times {baseline}", "MiB"):
        table.add_column(column, justify="right")
    table.add_column("note")
    rows = []
    for timing in timings:
        ratio = None
        if timing.seconds and reference is not None and reference.seconds:
            ratio = reference.minimum / timing.minimum
        table.add_row(
            timing.name,
            f"{timing.minimum * 1e3:.2f}" if timing.seconds else "-",
            f"{timing.median * 1e3:.2f}" if timing.seconds else "-",
            f"{ratio:.2f}" if ratio else "-",
            f"{timing.mebibytes:.0f}" if timing.mebibytes is not None else "-",
            timing.note,
        )
        rows.append({**asdict(timing), "ratio": ratio})
    console = Console()
    console.print(table)
    content = json.loads(output.read_text()) if output.is_file() else {}
    content[title] = {"baseline": baseline, "shapes": dict(shapes), "machine": machine(), "cases": rows}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(content, indent=2) + "\n")


def machine() -> dict[str, Any]:
    """Hardware and software that the numbers depend on."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "commit": git_revision(),
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def arguments(description: str, output: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=7, help="timed calls of each case")
    parser.add_argument("--threads", type=int, default=0, help="threads of PyTorch on the CPU; 0 = all cores")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--output", type=Path, default=Path("exp/benchmarks") / output, help="JSON file")
    return parser


def _nothing() -> None:
    pass
