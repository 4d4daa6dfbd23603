"""Printing of tables by commands."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table


def print_tables(tables: Iterable[Table]) -> None:
    """Print tables at full width, even if the terminal is narrower or the output is a file."""
    console = Console()
    for table in tables:
        natural = console.measure(table, options=console.options.update(max_width=10_000)).maximum
        Console(width=max(console.width, natural)).print(table)
