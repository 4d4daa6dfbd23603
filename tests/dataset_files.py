"""The folder of a made-up data set among the results of a model directory."""

from pathlib import Path

from zipformer.data.dataset import DataSet

DATA = DataSet("data", "test", digest="d" * 64, recordings="e" * 64)


def results_of(model_dir: Path) -> Path:
    """``results/data``, as the scripts that compute results make it."""
    return DATA.claim(model_dir)
