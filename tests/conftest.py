"""Fixtures that several test modules share.

Golden numbers and human recordings are not part of the repository. They are looked for in the folder that
the environment variable ``FANGYAN_SHARED`` names, or else in ``shared`` beside the checkout; tests that need
them skip with a reason where they are absent.
"""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# What a test says must not depend on how busy the machine is.
settings.register_profile("fangyan", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fangyan")

SHARED = Path(os.environ.get("FANGYAN_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def _folder(name: str) -> Path:
    path = SHARED / name
    if not path.is_dir():
        pytest.skip(f"{name} data is not at {path}; set FANGYAN_SHARED to the folder that holds it")
    return path


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Folder of numbers computed with icefall and k2."""
    return _folder("golden")


@pytest.fixture(scope="session")
def human_data_dir() -> Path:
    """Folder of human recordings in many Sinitic varieties."""
    return _folder("data")
