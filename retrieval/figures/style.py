"""The style of all figures, and functions that save them.

Figures use no global state, so they can be drawn on a machine without a display and saved in any format.
Colours are be told apart with colour blindness (Okabe and Ito's palette for lines, cividis for maps).
"""

import base64
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from retrieval.figures.fonts import chinese_font
from zipformer.files import replacing

PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8C6D31",
    "#5F5F5F",
    "#B2182B",
)


@contextmanager
def style() -> Iterator[None]:
    """Context in which figures have the style of this package."""
    chinese = chinese_font()
    settings: dict[Any, Any] = {
        "font.family": ["DejaVu Sans", chinese] if chinese else ["DejaVu Sans"],
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.titlesize": 11,
        "legend.frameon": False,
        "svg.hashsalt": "fangyan",  # equal input gives equal bytes
    }
    if "text.language" in matplotlib.rcParams:
        settings["text.language"] = "zh-Hans"  # makes East Asian fonts draw the forms of mainland China
    with matplotlib.rc_context(settings):
        yield


def save_png(figure: Figure, path: Path, *, dots_per_inch: int = 160) -> None:
    """Write a figure as PNG, complete or not at all."""
    with style(), replacing(path) as temporary:
        figure.savefig(temporary, dpi=dots_per_inch)


def svg_data_uri(figure: Figure) -> str:
    """A figure as a ``data:`` address for an ``<img>``, which needs no other file and has no clashing ids."""
    buffer = io.BytesIO()
    metadata: Mapping[str, str | None] = {"Date": None}
    with style():
        figure.savefig(buffer, format="svg", metadata=dict(metadata))
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
