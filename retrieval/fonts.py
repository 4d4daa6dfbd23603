"""A font for Chinese characters in figures: one that is named, one that is installed, or one from a package.

Matplotlib brings none. On a bare machine, the package notojp-matplotlib (extra ``figures``) ships Noto Sans
CJK under the SIL Open Font License: its one file has the characters of all of
East Asia, whatever its name says.
"""

import importlib.util
import os
from functools import lru_cache
from pathlib import Path

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

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


def chinese_font() -> str | None:
    """Family name of the font for Chinese characters, known to Matplotlib; None where there is none.

    Raises:
        FileNotFoundError: the file that ``FANGYAN_FONT`` names is not there.
    """
    found = _find(os.environ.get(FONT_VARIABLE))
    return None if found is None else found[0]


def label(text: str) -> str:
    """A text that the fonts can draw: other characters than ASCII that the font lacks become "?"."""
    found = _find(os.environ.get(FONT_VARIABLE))
    drawable = frozenset() if found is None else found[1]
    return "".join(
        character if character.isascii() or ord(character) in drawable else "?" for character in text
    )


@lru_cache(maxsize=4)
def _find(file: str | None) -> tuple[str, frozenset[int]] | None:
    """Family name and characters of the font."""
    if file:
        if not Path(file).is_file():
            raise FileNotFoundError(f"{FONT_VARIABLE}={file}: no such font file; correct or unset it")
        return _add(file)
    installed = {font.name: font.fname for font in font_manager.fontManager.ttflist}
    for name in INSTALLED:
        if name in installed:
            return name, frozenset(FT2Font(installed[name]).get_charmap())
    spec = importlib.util.find_spec(_PACKAGE)  # the package itself would change Matplotlib's settings
    if spec is None or not spec.submodule_search_locations:
        return None
    return _add(str(Path(spec.submodule_search_locations[0]) / _FILE))


def _add(file: str) -> tuple[str, frozenset[int]]:
    font_manager.fontManager.addfont(file)
    font = FT2Font(file)
    return font.family_name, frozenset(font.get_charmap())
