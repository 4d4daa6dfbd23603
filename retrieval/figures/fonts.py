"""A font for Chinese characters in figures: one that is named, one that is installed, or one from a package.

Matplotlib brings none. On a bare machine, the package notojp-matplotlib (extra ``figures``) ships Noto Sans
CJK under the SIL Open Font License: its one file has the characters of all of East Asia, whatever its name
says.
"""

import base64
import importlib.util
import io
import logging
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fontTools.subset import Subsetter
from fontTools.ttLib import TTFont
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from zipformer.errors import UserError

FONT_VARIABLE = "FANGYAN_FONT"  # environment variable with the path of a font file
INSTALLED = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "PingFang SC",
    "Heiti SC",
    "Microsoft YaHei",
    "SimHei",
)
_PACKAGE, _FILE = "notojp_matplotlib", "fonts/NotoSansCJKjp-Regular.otf"


@dataclass(frozen=True)
class Font:
    """A font: its family name in Matplotlib, its file, the characters (code points) that it has."""

    name: str
    file: str
    characters: frozenset[int]


def chinese_font() -> str | None:
    """Family name of the font for Chinese characters, known to Matplotlib; None where there is none.

    Raises:
        UserError: the file that ``FANGYAN_FONT`` names is not there.
    """
    font = _font()
    return None if font is None else font.name


def label(text: str) -> str:
    """A text that the fonts can draw: what neither this one nor Matplotlib's own has becomes "?"."""
    font = _font()
    drawable = _own_characters() | (frozenset() if font is None else font.characters)
    return "".join(
        character if character.isascii() or ord(character) in drawable else "?" for character in text
    )


def web_font(text: str) -> str | None:
    """A font with the characters of a text other than ASCII, as ``data:`` address of a WOFF file for a page.

    A browser on a machine without a Chinese font then shows them too. None where there is no font here.
    """
    font = _font()
    if font is None:
        return None
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it logs every table that it leaves out
    # Without the time of saving, equal input gives equal bytes.
    whole = TTFont(font.file, fontNumber=0, lazy=True, recalcTimestamp=False)
    choice = Subsetter()
    choice.populate(unicodes=sorted({ord(c) for c in text if not c.isascii()} & font.characters))
    choice.subset(whole)
    whole.flavor = "woff"
    buffer = io.BytesIO()
    whole.save(buffer)
    return "data:font/woff;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


@lru_cache(maxsize=1)
def _own_characters() -> frozenset[int]:
    """Characters of DejaVu Sans, which comes with Matplotlib and is the first font of all figures."""
    return frozenset(FT2Font(font_manager.findfont("DejaVu Sans")).get_charmap())


def _font() -> Font | None:
    return _find(os.environ.get(FONT_VARIABLE))


@lru_cache(maxsize=4)
def _find(file: str | None) -> Font | None:
    if file:
        if not Path(file).is_file():
            raise UserError(f"{FONT_VARIABLE}={file}: no such font file; correct or unset it")
        return _add(file)
    installed = {font.name: font.fname for font in font_manager.fontManager.ttflist}
    for name in INSTALLED:
        if name in installed:
            return Font(name, installed[name], frozenset(FT2Font(installed[name]).get_charmap()))
    spec = importlib.util.find_spec(_PACKAGE)  # the package itself would change Matplotlib's settings
    if spec is None or not spec.submodule_search_locations:
        return None
    return _add(str(Path(spec.submodule_search_locations[0]) / _FILE))


def _add(file: str) -> Font:
    font_manager.fontManager.addfont(file)
    font = FT2Font(file)
    return Font(font.family_name, file, frozenset(font.get_charmap()))
