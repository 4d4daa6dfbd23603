"""Where a page comes from: the training of its model, and the machine that made it."""

import os
import platform
from collections.abc import Mapping
from typing import Any

import torch


def machine() -> dict[str, str]:
    """Description of the machine that makes the page."""
    return {
        "system": platform.platform(),
        "processors": str(os.cpu_count()),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def training_facts(provenance: Mapping[str, Any] | None) -> str:
    """One line about the training: averaged steps, hours of speech, revision of the code."""
    if provenance is None:
        return ""
    training = provenance.get("training") or {}
    facts = []
    if steps := provenance.get("steps"):
        facts.append(f"steps {' to '.join(str(step) for step in steps)}")
    if hours := training.get("trained_hours"):
        facts.append(f"{sum(hours.values()):.1f} hours of speech")
    revision = provenance.get("git_revision") or (training.get("environment") or {}).get("git_revision")
    if revision:
        facts.append(f"code {str(revision)[:12]}")
    return ", ".join(facts)
