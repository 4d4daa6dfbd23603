"""Write the error rates of a model on all test sets, by test set and by dialect group, as error_rates.md.

    python recipes/multi_dialect/error_rates.py MODEL_DIR

Over several test sets of a group, nothing is averaged, because
the sets may be scored by different conventions.
"""

import json
import sys
from pathlib import Path
from typing import Any

from zipformer.errors import UserError
from zipformer.files import write_text

HEAD = (
    "| test set | decoding | scoring | group | utterances | reference units | error rate % | 95 % interval |"
)


def table(model_dir: Path) -> str:
    """A Markdown table of all ``cer.json`` of a model directory.

    Raises:
        UserError: there are none.
    """
    files = sorted(model_dir.glob("results/*/decode-test-*/cer.json"))
    if not files:
        raise UserError(f"{model_dir}/results has no decoded test set: run fangyan decode first")
    lines = [HEAD, "|---" * (HEAD.count("|") - 1) + "|"]
    for file in files:
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        for row in result["rows"]:
            if row["level"] in ("overall", "dialect"):
                lines.append(_line(file, result["scoring"], row))
    return "\n".join(lines) + "\n"


def _line(file: Path, scoring: str, row: dict[str, Any]) -> str:
    group = "all" if row["level"] == "overall" else row["name"]
    decoding = file.parent.name.removeprefix("decode-test-")
    return (
        f"| {file.parent.parent.name} | {decoding} | {scoring} | {group} | {row['utterances']} | "
        f"{row['reference_characters']} | {_percent(row['cer'])} | "
        f"{_percent(row['low'])} to {_percent(row['high'])} |"
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    try:
        text = table(Path(sys.argv[1]))
    except UserError as error:
        sys.exit(f"error: {error}")
    write_text(Path(sys.argv[1]) / "error_rates.md", text)
    print(text)
