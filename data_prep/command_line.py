"""Mistakes on the command line of a script end in one line with the remedy, not in notes of a library."""

import difflib
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

_FULL_ERROR = "HYDRA_FULL_ERROR"
# What Hydra and OmegaConf add to a message, of use only to who writes configurations.
_NOTES = ("full_key:", "reference_type=", "object_type=", "provider=", "Config search path:", "To append to")


def run_main(main: Callable[[], None]) -> None:
    """Call the entry point of a script, which ``hydra.main`` has decorated.

    With ``HYDRA_FULL_ERROR=1`` in the environment, errors keep their traceback.
    """
    if os.environ.get(_FULL_ERROR) == "1":
        main()
        return
    os.environ[_FULL_ERROR] = "1"  # Hydra raises what it would print otherwise
    try:
        main()
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(f"error: {_message(error)}")
    except SystemExit as end:
        if isinstance(end.__context__, OmegaConfBaseException):  # a script has reported it
            sys.exit(f"error: {_message(end.__context__)}")
        raise
    finally:
        del os.environ[_FULL_ERROR]


def _message(error: BaseException) -> str:
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        options = ", ".join(option for option in error.options if not option.endswith("_schema"))
        return f"{group}={name} is unknown; choose one of {options}"
    message = _one_line(str(error))
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        if (detail := _one_line(str(cause))) not in message:
            message = f"{message}: {detail}"
        if "missing mandatory value" in message and cause.full_key:
            message += f"; give {cause.full_key}=VALUE"
        message += _alternatives(cause)
    return message


def _unreadable(override: str) -> str:
    name, equals, value = override.partition("=")
    if not equals:
        return f"{override!r} is not a setting; write NAME=VALUE"
    escaped = value.replace('"', '\\"')
    quoted = f'{name}="{escaped}"'
    try:
        OverridesParser.create().parse_overrides([quoted])
    except HydraException:
        return f"the setting {override!r} cannot be read; write NAME=VALUE"
    reason = f"the value of {name} holds characters that mean something to Hydra, or are not ASCII"
    if value.startswith("{"):
        maps = "; dialect labels of any kind can be in a file: corpus.dialect_map_file=FILE"
        return f"{reason}: {value}. Put values in quotes; names in braces cannot be quoted{maps}"
    if value.startswith("["):
        return f"{reason}: {value}. Put each of its items in quotes"
    return f"{reason}; put it in quotes: {shlex.quote(quoted)}"


def _one_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines()]
    kept = [line for line in lines if line and not line.startswith(_NOTES) and not line.endswith("_schema")]
    return " ".join(kept)


def _alternatives(error: OmegaConfBaseException) -> str:
    """The settings that there are instead of an unknown one."""
    kind, key = error.object_type, error.key
    if not is_dataclass(kind) or not isinstance(key, str):
        return ""
    names = [field.name for field in fields(kind)]
    if key in names:
        return ""
    close = difflib.get_close_matches(key, names, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(names)}"
