"""Meanings of settings, read from the docstring of their dataclass or from the comments at its fields."""

import ast
import inspect
import io
import re
import textwrap
import tokenize
from functools import cache

ATTRIBUTES = "Attributes:"


def meaning_of(settings_class: type, name: str) -> str:
    """Meaning of a field in one line; empty where it has none.

    It is read from the ``Attributes`` section of the class's Google docstring, or else from the comments in
    the lines of the field and right above them. An inherited field has the meaning of the base class.

    Example::

        @dataclass
        class Training:
            seed: int = 42  # random seed of the weights
            # Audio file,
            # 16 kHz.
            path: str = "a"

        meaning_of(Training, "path")  # "Audio file, 16 kHz."
    """
    for base in settings_class.__mro__:
        if base is not object and (meaning := _meanings(base).get(name)):
            return meaning
    return ""


@cache
def _meanings(settings_class: type) -> dict[str, str]:
    return _commented(settings_class) | _documented(settings_class)


def _documented(settings_class: type) -> dict[str, str]:
    """Meanings in the section ``Attributes``; a meaning continues in lines that are indented further."""
    _, _, section = inspect.cleandoc(settings_class.__doc__ or "").partition(f"{ATTRIBUTES}\n")
    found: dict[str, list[str]] = {}
    names: list[str] = []
    for line in section.split("\n"):
        if line and not line.startswith(" "):  # the next section
            break
        field = re.match(r" {4}(\w+(?:, \w+)*):\s*(.*)", line)
        if field:
            names = field[1].split(", ")
        for name in names:
            found.setdefault(name, []).append(field[2] if field else line.strip())
    return {name: plain(" ".join(lines)) for name, lines in found.items()}


def _commented(settings_class: type) -> dict[str, str]:
    """Meanings in comments: in the lines of the field and right above it."""
    source = textwrap.dedent(inspect.getsource(settings_class))
    comments, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.lstrip("# ")
            if token.line.lstrip().startswith("#"):
                alone.add(token.start[0])
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            first = statement.lineno
            while first - 1 in alone:
                first -= 1
            last = statement.end_lineno or statement.lineno
            found[statement.target.id] = plain(
                " ".join(comments[number] for number in range(first, last + 1) if number in comments)
            )
    return found


def plain(text: str) -> str:
    """A docstring or comment as one line, without the marks of reStructuredText."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text)
    return " ".join(text.replace("``", "").split())
