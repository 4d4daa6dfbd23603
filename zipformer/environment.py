"""What a run ran on, for logs and checkpoints."""

import logging
import os
import platform
import subprocess
from collections import Counter
from pathlib import Path

import torch
from torch import nn

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

    Gradients that have decayed to denormals make CPU kernels several times slower. Threads inherit the setting from
    the one that starts them, so this comes before any other computation.
    """
    if num_threads:
        torch.set_num_threads(num_threads)
    torch.set_flush_denormal(True)


def describe_environment(device: torch.device, precision: str) -> dict[str, str | int | None]:
    """Versions and hardware, for the log and for checkpoints."""
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    return {
        "git_revision": git_revision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "host": platform.node(),
        "device": f"{device} ({name})",
        "precision": precision,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
    }


def parameters_by_part(model: nn.Module) -> dict[str, int]:
    """Number of parameters of the top-level modules, largest first, and of all together under "total"."""
    sizes: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        sizes[name.partition(".")[0]] += parameter.numel()
    return {"total": sizes.total(), **dict(sizes.most_common())}
