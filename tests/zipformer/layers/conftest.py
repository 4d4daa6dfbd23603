from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def modules(golden_dir: Path) -> dict[str, Any]:
    """Inputs, outputs and gradients of icefall's leaf modules."""
    return torch.load(golden_dir / "modules.pt", weights_only=True)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(20240607)
