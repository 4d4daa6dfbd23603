"""The command ``fangyan card``, run from a checkout."""

from fangyan.command_line import run_script

if __name__ == "__main__":
    run_script(__file__)
