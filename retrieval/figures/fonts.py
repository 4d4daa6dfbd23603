"""Finds a font for Chinese characters in figures: a given file, an installed font, or one from a package.

Matplotlib has no such font. On a machine without one, the package notojp-matplotlib (extra ``figures``)
provides Noto Sans CJK under the SIL Open Font License: its one file covers Chinese too, despite the name.
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
    """A font: family name in Matplotlib, file, and code points of its characters."""

    name: str
    file: str
    characters: frozenset[int]


def chinese_font() -> str | None:
    """Family name of the font for Chinese characters in Matplotlib; None if there is none.

    Raises:
        UserError: the file in ``FANGYAN_FONT`` does not exist.
    """
    font = _font()
    return None if font is None else font.name


def label(text: str) -> str:
    """A text that the fonts can draw: characters that neither this font nor Matplotlib's has become "?"."""
    font = _font()
    drawable = _own_characters() | (frozenset() if font is None else font.characters)
    return "".join(
        character if character.isascii() or ord(character) in drawable else "?" for character in text
    )


def web_font(text: str) -> str | None:
    """A font with the non-ASCII characters of a text, as a ``data:`` address of a WOFF file for a page.

    With it, browsers on machines without a Chinese font show them too. None if there is no font here.
    """
    font = _font()
    if font is None:
        return None
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it logs every omitted table
    # Without a time stamp, equal input gives equal bytes.
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
