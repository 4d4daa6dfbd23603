"""Runs Python programs in forks of a process that has imported the libraries already.

    python fork_server.py FOLDER

A program starts in tenths of a second instead of many seconds, so a test can run a whole recipe. The
stand-in for Python that :func:`write_stand_in` writes sends its arguments to ``FOLDER/requests`` and
prints the output.
"""

import gc
import os
import runpy
import sys
import traceback
from pathlib import Path

STAND_IN = """#!/usr/bin/env bash
call=$(mktemp -d "{folder}/call-XXXXXX")
mkfifo "$call/code"
printf '%s\\0' "$PWD" "$@" >"$call/arguments"
echo "$call" >"{folder}/requests"
read -r code <"$call/code"
cat "$call/output"
cat "$call/errors" >&2
exit "$code"
"""


def write_stand_in(program: Path, folder: Path) -> None:
    """Write a program that is called like Python and has the server in ``folder`` do the work."""
    folder.mkdir()
    os.mkfifo(folder / "requests")
    program.parent.mkdir(parents=True)
    program.write_text(STAND_IN.format(folder=folder))
    program.chmod(0o755)


def _run(call: Path) -> int:
    """In a fork: run the program that the call names; returns the exit status."""
    directory, *arguments = (call / "arguments").read_text(encoding="utf-8").split("\0")[:-1]
    for number, name in ((1, "output"), (2, "errors")):
        os.dup2(os.open(call / name, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(directory)
    sys.argv = arguments
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:  # as Python itself would
        traceback.print_exc()
        return 1
    return 0


def serve(folder: Path) -> None:
    """Answer calls until the process is killed."""
    # Also open for writing, so that the pipe does not end with the first call.
    with os.fdopen(os.open(folder / "requests", os.O_RDWR)) as requests:
        for line in requests:
            call = Path(line.strip())
            child = os.fork()
            if child == 0:
                code = _run(call)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
            _, status = os.waitpid(child, 0)
            for name in ("output", "errors"):
                (call / name).touch()
            (call / "code").write_text(f"{os.waitstatus_to_exitcode(status)}\n")


if __name__ == "__main__":
    import hydra.main  # noqa: F401

    import data_prep.card.page
    import data_prep.mixture
    import data_prep.run
    import fangyan.command_line  # noqa: F401
    import zipformer.decoding.run
    import zipformer.run_averaging
    import zipformer.run_training
    from data_prep.taxonomy import variety_of

    # Besides modules, what a program reads once.
    data_prep.run.config_groups()
    zipformer.run_training.config_groups()
    variety_of("Cantonese")
    gc.freeze()  # collections in the forks then look at new objects only, which halves their time
    serve(Path(sys.argv[1]))
