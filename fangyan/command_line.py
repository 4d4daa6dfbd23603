"""Runs a command: reads its settings with Hydra, prints its help, and reports user errors in one message."""

import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fangyan.commands import COMMANDS, register
from fangyan.help import CommandHelp
from zipformer.errors import UserError

HYDRA_FLAGS = (
    "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun",
    "--shell-completion", "--config-path", "--config-name", "--config-dir", "--experimental-rerun", "--info",
)  # fmt: skip
# Remedy by error number, for errors of a folder or disk that the user named.
PLACES = {
    errno.EACCES: "allow reading and writing there, or give another place",
    errno.EPERM: "allow reading and writing there, or give another place",
    errno.EROFS: "it cannot be written to: give another place",
    errno.EEXIST: "a file is where a folder is needed: move it, or give another place",
    errno.ENOTDIR: "a file is where a folder is needed: move it, or give another place",
    errno.EISDIR: "a folder is where a file is needed: give a file",
    errno.ENOSPC: "make room, and start the same command again",
    errno.EDQUOT: "make room, and start the same command again",
}


def run_script(file: str) -> None:
    """Run the command that a file in ``scripts`` is named after, with the ``conf`` beside that folder.

    Args:
        file: path of the script.
    """
    script = Path(file).resolve()
    run(script.stem, sys.argv[1:], call=f"python scripts/{script.name}", conf_dir=script.parents[1] / "conf")


def run(name: str, arguments: Sequence[str], *, call: str, conf_dir: Path) -> None:
    """Run a command with the settings of ``conf`` and of the command line.

    ``--help`` lists the settings with their values and meanings. An error that the user can correct ends the
    program with one message that says how; any other exception keeps its traceback. With
    ``HYDRA_FULL_ERROR=1`` an invalid command line raises the exception of Hydra as well.

    Args:
        name: key of :data:`fangyan.commands.COMMANDS`.
        arguments: command line after the name of the command.
        call: command as the user typed it, shown in the help and in messages.
        conf_dir: folder of the configuration files.
    """
    register(name, conf_dir)
    command_help = CommandHelp(name, call, conf_dir)
    if "--help" in arguments or "-h" in arguments:
        print(_or_error(command_help, lambda: command_help.text(arguments)))
        return
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag.startswith("--") and flag not in HYDRA_FLAGS:
            setting = flag.lstrip("-").replace("-", "_")
            sys.exit(f"error: {flag} is no option; settings have no dashes: {setting}=VALUE")

    def body(settings: DictConfig) -> None:
        if missing := sorted(OmegaConf.missing_keys(settings)):
            sys.exit(f"error: {command_help.ask_for(missing, settings)}")
        try:
            COMMANDS[name].load()(OmegaConf.to_object(settings))
        except (UserError, OmegaConfBaseException) as error:
            sys.exit(f"error: {error}")
        except OSError as error:
            if error.errno not in PLACES or error.filename is None:
                raise
            sys.exit(f"error: {error.filename}: {error.strerror}; {PLACES[error.errno]}")

    sys.argv = [call, *arguments]  # hydra.main reads its arguments there
    start = hydra.main(version_base="1.3", config_path=str(conf_dir.resolve()), config_name=command_help.name)
    _or_error(command_help, start(body))


def _or_error(command_help: CommandHelp, work: Callable[[], Any]) -> Any:
    """Run ``work``, which reads the command line; a wrong command line ends the program with one line."""
    if os.environ.get("HYDRA_FULL_ERROR"):
        return work()
    with _raised_by_hydra():
        try:
            return work()
        except (HydraException, OmegaConfBaseException) as error:
            sys.exit(f"error: {command_help.explain(error)}")


@contextmanager
def _raised_by_hydra() -> Iterator[None]:
    """Let ``hydra.main`` raise its errors; otherwise it prints several lines and ends the program."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        del os.environ["HYDRA_FULL_ERROR"]
