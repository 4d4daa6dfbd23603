"""``fangyan COMMAND SETTING=VALUE ...``, also as ``python -m fangyan``."""

import difflib
import sys

from fangyan.command_line import run
from fangyan.commands import COMMANDS, CONF_DIR


def main() -> None:
    """Run the command that the command line names, or list all commands."""
    name, arguments = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    if name in ("--help", "-h"):
        print(overview())
    elif name in COMMANDS:
        run(name, arguments, call=f"fangyan {name}", conf_dir=CONF_DIR)
    else:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        guess = f"did you mean {near[0]}? " if near else ""
        sys.exit(f"error: there is no command {name}; {guess}fangyan --help lists all commands")


def overview() -> str:
    """All commands, one a line."""
    widest = max(map(len, COMMANDS))
    lines = [f"  {name:{widest}}  {command.about}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "Train a Zipformer speech encoder on Chinese dialects and measure it.",
            "",
            "usage: fangyan COMMAND SETTING=VALUE ...",
            "",
            *lines,
            "",
            "fangyan COMMAND --help explains the settings of a command.",
        ]
    )


if __name__ == "__main__":
    main()
