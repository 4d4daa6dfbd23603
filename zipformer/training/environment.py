"""Hardware, versions and data of a run, for logs and checkpoints."""

import logging
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from zipformer.data.selection import Selection
from zipformer.distributed import World
from zipformer.files import write_text

logger = logging.getLogger(__name__)


def git_revision() -> str | None:
    """Commit of this checkout, with ``-dirty`` where files differ from it; None outside a git checkout."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def prepare_cpu(num_threads: int) -> None:
    """Set the number of threads (0 = leave it) and treat denormal numbers as zero.

    Gradients that have decayed to denormals make CPU kernels several times slower. Threads inherit the
    setting from the thread that starts them, so call this before any other computation.
    """
    if num_threads:
        torch.set_num_threads(num_threads)
    torch.set_flush_denormal(True)


def describe_environment(world: World, precision: str) -> dict[str, str | int | None]:
    """Versions and hardware, for the log and for checkpoints."""
    if world.device.type == "cuda":
        name = torch.cuda.get_device_name(world.device)
    else:
        name = platform.processor() or platform.machine()
    return {
        "git_revision": git_revision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "host": platform.node(),
        "processes": world.size,
        "device": f"{world.device} ({name})",
        "precision": precision,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
    }


def log_environment(environment: Mapping[str, str | int | None]) -> None:
    logger.info("Environment: %s", ", ".join(f"{name} {value}" for name, value in environment.items()))


def log_parameters(task: nn.Module) -> None:
    """Log the number of parameters in all and of each part of the model and the task, largest first."""
    sizes: Counter[str] = Counter()
    for name, parameter in task.named_parameters():
        sizes[name.removeprefix("model.").partition(".")[0]] += parameter.numel()
    parts = ", ".join(f"{name} {size:,}" for name, size in sizes.most_common())
    logger.info("Parameters: %s (%s)", f"{sizes.total():,}", parts)


def log_data(selection: Selection, dropped_file: Path) -> None:
    """Log the amount of data by dialect, and a few ids of dropped utterances; all are in ``dropped_file``."""
    hours = ", ".join(
        f"{dialect} {seconds / 3600:.2f}" for dialect, seconds in selection.seconds_by_dialect.most_common()
    )
    total = selection.seconds / 3600
    logger.info("Training data: %d utterances, %.2f hours (%s)", selection.utterances, total, hours)
    for reason, ids in selection.dropped.items():
        shown = ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")
        logger.warning("Left out %d utterances, %s: %s", len(ids), reason, shown)
    if selection.dropped:
        lines = [f"{name}\t{reason}\n" for reason, ids in selection.dropped.items() for name in ids]
        write_text(dropped_file, "".join(lines))
        logger.warning("All of them: %s", dropped_file)
