"""The font for Chinese characters."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest
from fontTools.ttLib import TTFont
from matplotlib.figure import Figure

from retrieval.figures import fonts
from retrieval.figures.style import save_png, style
from zipformer.errors import UserError


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(fonts.FONT_VARIABLE, raising=False)
    fonts._find.cache_clear()
    yield
    fonts._find.cache_clear()


def test_labels_without_a_chinese_font(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "INSTALLED", ())
    monkeypatch.setattr(fonts, "_PACKAGE", "no_such_package")
    assert fonts.chinese_font() is None
    assert fonts.label("粵 yue") == "? yue"
    assert fonts.label("jū – Zürich") == "jū – Zürich"  # Matplotlib has these itself


def test_the_package_draws_what_the_corpus_says(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("notojp_matplotlib")
    before = list(matplotlib.rcParams["font.family"])
    monkeypatch.setattr(fonts, "INSTALLED", ())
    assert fonts.chinese_font() == "Noto Sans CJK JP"
    assert fonts.label("佢哋 啥物 𠊎等 嫑") == "佢哋 啥物 𠊎等 嫑"
    assert fonts.label("\U0002a736") == "?"  # a character that the font lacks
    assert list(matplotlib.rcParams["font.family"]) == before


def test_a_font_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSerif.ttf"
    monkeypatch.setenv(fonts.FONT_VARIABLE, str(file))
    assert fonts.chinese_font() == "DejaVu Serif"
    assert fonts.label("é 粵") == "é ?"


def test_a_missing_font_file_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fonts.FONT_VARIABLE, "/no/such.otf")
    with pytest.raises(UserError, match=r"FANGYAN_FONT=/no/such\.otf"):
        fonts.label("粵")


def test_a_page_gets_only_the_characters_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("notojp_matplotlib")
    monkeypatch.setattr(fonts, "INSTALLED", ())
    address = fonts.web_font("佢哋 yue \U0002a736")
    assert address is not None
    kind, _, body = address.partition(",")
    assert kind == "data:font/woff;base64"
    content = base64.b64decode(body)
    assert len(content) < 20_000
    assert TTFont(io.BytesIO(content))["head"].modified == TTFont(fonts._find(None).file)["head"].modified
    assert set(TTFont(io.BytesIO(content)).getBestCmap()) == {ord("佢"), ord("哋")}
    monkeypatch.setattr(fonts, "_PACKAGE", "no_such_package")
    fonts._find.cache_clear()
    assert fonts.web_font("佢哋") is None


def test_figures_have_glyphs(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    if fonts.chinese_font() is None:
        pytest.skip("no Chinese font here")
    with style():
        figure = Figure()
        figure.text(0.5, 0.5, fonts.label("佢哋去邊度"))
    save_png(figure, tmp_path / "text.png")
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
