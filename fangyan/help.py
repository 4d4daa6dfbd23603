"""The help of a command, and the one-line error message for an invalid command line."""

import difflib
import re
import shlex
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import OverrideParseException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fangyan.commands import COMMANDS
from fangyan.meanings import meaning_of, plain

QUOTES = "A value with commas, brackets or letters other than ASCII is put in quotes twice: 'NAME=\"VALUE\"'."
FURTHER = (
    "hydra.searchpath=[DIR] adds your own configurations; experiment=mine is then DIR/experiment/mine.yaml.\n"
    "Further options: --cfg job prints the settings as YAML; --hydra-help."
)
WIDEST = 110  # columns of the help on a wide terminal


class CommandHelp:
    """Explains the settings of a command, which must be registered.

    Args:
        command: key of :data:`fangyan.commands.COMMANDS`.
        call: command as the user typed it: ``fangyan train`` or ``python scripts/train.py``.
        conf_dir: folder of the configuration files.
    """

    def __init__(self, command: str, call: str, conf_dir: Path) -> None:
        self.command, self.call, self.conf_dir = command, call, conf_dir
        self.name = COMMANDS[command].config or command  # of its configuration file

    @property
    def groups(self) -> dict[str, Any]:
        """Default choice of each group of configurations that the command has."""
        content = OmegaConf.load(self.conf_dir / f"{self.name}.yaml")
        assert isinstance(content, DictConfig)
        chosen: dict[str, Any] = {}
        for entry in OmegaConf.to_container(content.defaults):  # type: ignore[union-attr]
            if isinstance(entry, dict):
                chosen |= {str(k): v for k, v in entry.items() if not str(k).startswith("override ")}
        return chosen

    def choices(self, group: str) -> dict[str, str]:
        """Configurations of a group, each with the comment at the head of its file."""
        found = {}
        for path in sorted((self.conf_dir / group).glob("*.yaml"), key=lambda path: path.stem):
            lines = []
            for line in path.read_text(encoding="utf-8").splitlines():
                if not line.startswith("#"):
                    break
                if "@package" not in line:
                    lines.append(line.lstrip("# "))
            found[path.stem] = " ".join(lines)
        store = ConfigStore.instance()
        if group in store.repo:
            stored = (name.removesuffix(".yaml") for name in store.list(group))
            found |= {name: "" for name in stored if not name.endswith("_schema") and name not in found}
        return found

    @property
    def examples(self) -> list[str]:
        """Example command lines, from the comment at the head of the configuration."""
        text = (self.conf_dir / f"{self.name}.yaml").read_text(encoding="utf-8").replace("\\\n#", "")
        lines = re.findall(rf"^# (.*\bfangyan {self.command} .*)$", text, flags=re.MULTILINE)
        program = self.call.removeprefix("python ")
        if program == self.call:
            return [" ".join(line.split()) for line in lines]
        started = (re.sub(r"(^|-m )fangyan \w+", lambda at: ("" if at[1] else "python ") + program, line)
                   for line in lines)  # fmt: skip
        return [" ".join(line.split()) for line in started]

    def compose(self, arguments: Sequence[str]) -> DictConfig:
        """All settings with the values of the command line; groups without a choice are left out."""
        settings = [argument for argument in arguments if not argument.startswith("-")]
        given = {setting.partition("=")[0] for setting in settings}
        open_groups = [group for group, choice in self.groups.items() if choice == MISSING]
        left_out = [f"~{group}" for group in open_groups if group not in given]
        with initialize_config_dir(version_base="1.3", config_dir=str(self.conf_dir)):
            return compose(self.name, overrides=[*settings, *left_out])

    def text(self, arguments: Sequence[str]) -> str:
        """The help, with the values of this command line: ``--help experiment=mini`` shows those of mini."""
        width = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)
        composed = self.compose(arguments)
        lines = [*textwrap.wrap(COMMANDS[self.command].about, width), ""]
        lines += [f"usage: {self.call} SETTING=VALUE ...", ""]
        lines += [f"  {example}" for example in self.examples] + [""] * bool(self.examples)
        for group, choice in self.groups.items():
            asked = "must be given" if choice == MISSING else f"default {_shown(choice)}"
            lines.append(f"{group}=NAME, one of these configurations ({asked}):")
            for name, about in self.choices(group).items():
                lines += textwrap.wrap(f"{name}: {about}" if about else name, width, initial_indent="  ",
                                       subsequent_indent="      ")  # fmt: skip
            lines.append("")
        lines.append("settings, with their values here (??? must be given):")
        for key, value, meaning in _rows(composed):
            lines.append(f"  {key}={value}" if value is not None else f"\n  {key}:")
            lines += textwrap.wrap(meaning, width, initial_indent="      ", subsequent_indent="      ")
        lines += ["", QUOTES, FURTHER]
        return "\n".join(lines)

    def ask_for(self, missing: Sequence[str], settings: DictConfig) -> str:
        """Message that asks for the missing settings and says what they mean."""
        parts = []
        for key in missing:
            meaning = _meaning(settings, key)
            parts.append(f"{key}=VALUE" + (f" ({meaning.rstrip('.')})" if meaning else ""))
        return f"give {' and '.join(parts)}; {self.call} --help lists all settings"

    def explain(self, error: Exception) -> str:
        """One line that says what is wrong with the command line and how to correct it."""
        message = str(error)
        remedy = f"{self.call} --help lists all settings"
        if unknown := re.match(
            r"Could not (?:override|append to config|delete from config).*?'\+*([^'=]+)", message
        ):
            key = unknown[1]
            known = [row[0] for row in _rows(self.compose([]))] + list(self.groups)
            if key in known and error.__cause__ is not None:  # the item of a list, say
                return f"{key} cannot be set so: {str(error.__cause__).splitlines()[0]}; {remedy}"
            last = {name.rpartition(".")[2]: name for name in reversed(known)}
            near = difflib.get_close_matches(key, known, 1)
            near = near or [last[name] for name in difflib.get_close_matches(key.rpartition(".")[2], last, 1)]
            guess = f"did you mean {near[0]}? " if near and near[0] != key else ""
            return f"{key} cannot be set: {self.call} has no such setting; {guess}{remedy}"
        if unchosen := re.match(r"You must specify '(\w+)'", message):
            group = unchosen[1]
            return f"choose {group}=NAME, one of {', '.join(self.choices(group))}; {remedy}"
        if unfound := re.match(r"In .*?: Could not find '([^']+)/([^'/]+)'", message):
            group, name = unfound[1], unfound[2]
            choices = self.choices(group)
            near = difflib.get_close_matches(name, choices, 1)
            guess = f"did you mean {near[0]}? " if near else ""
            return f"{group}={name} is not there: choose one of {', '.join(choices)}; {guess}{remedy}"
        if isinstance(error, OverrideParseException):
            return f"{error.override} is not understood: {_in_quotes(error.override)}; {remedy}"
        if isinstance(error.__cause__, OmegaConfBaseException):
            message = f"{message.removeprefix('Error merging override ')}: {error.__cause__}"
        lines = [line.strip() for line in message.splitlines() if line.strip()]
        kept = [line for line in lines if not line.startswith(("full_key:", "object_type=", "See https"))]
        return f"{'; '.join(kept)}; {remedy}"


def _in_quotes(override: str) -> str:
    """How to write a setting that Hydra cannot read."""
    name, equals, value = override.partition("=")
    if not equals:
        return "settings are NAME=VALUE"
    if value.startswith("{"):
        return (
            "settings are NAME=VALUE, and names in braces can have ASCII letters only; dialect labels of any "
            "kind can be in a file: corpus.dialect_map_file=FILE"
        )
    if value.startswith("["):
        return "settings are NAME=VALUE; put each item of the list in quotes"
    escaped = value.replace('"', '\\"')
    quoted = shlex.quote(f'{name}="{escaped}"')
    return f"settings are NAME=VALUE; put it in quotes: {quoted}"


def _rows(settings: DictConfig, prefix: str = "") -> Iterator[tuple[str, str | None, str]]:
    """Name, value as text and meaning of every setting; the value of a group of settings is None."""
    nested = []
    for key in map(str, settings):
        name = f"{prefix}{key}"
        node = settings._get_node(key)
        if isinstance(node, DictConfig) and not node._is_missing() and _type(node) is not None:
            nested.append((name, node))
            continue
        value = MISSING if OmegaConf.is_missing(settings, key) else _shown(OmegaConf.select(settings, key))
        kind = getattr(node, "enum_type", None)
        meaning = _meaning(settings, key)
        if isinstance(kind, type) and issubclass(kind, Enum):
            meaning = f"{meaning} One of {', '.join(member.name for member in kind)}.".strip()
        yield name, value, meaning
    for name, node in nested:
        yield name, None, _meaning(settings, name.removeprefix(prefix)) or _first_sentence(_type(node))
        yield from _rows(node, f"{name}.")


def _meaning(settings: DictConfig, key: str) -> str:
    """Meaning of a setting, which may be nested (``data.max_duration``)."""
    first, _, rest = key.partition(".")
    if rest:
        return _meaning(settings[first], rest)
    kind = _type(settings)
    return "" if kind is None else meaning_of(kind, first)


def _type(node: DictConfig) -> type | None:
    """Dataclass of a group of settings; None for a plain mapping."""
    kind = OmegaConf.get_type(node)
    return kind if kind is not None and hasattr(kind, "__dataclass_fields__") else None


def _first_sentence(kind: type | None) -> str:
    if kind is None or not kind.__doc__:
        return ""
    return re.split(r"(?<=\.)\s", plain(kind.__doc__), maxsplit=1)[0]


def _shown(value: object) -> str:
    """A value as it is written on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return value.name
    if OmegaConf.is_list(value):
        return f"[{','.join(_shown(item) for item in value)}]"  # type: ignore[attr-defined]
    if OmegaConf.is_dict(value):
        return f"{{{','.join(f'{key}:{_shown(item)}' for key, item in value.items())}}}"  # type: ignore[attr-defined]
    return str(value)
