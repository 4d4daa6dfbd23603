"""The files that a scored test set leaves, and the table of error rates for the terminal."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean

from rich import box
from rich.table import Table

from zipformer.files import column_names, replacing_folder, write_csv, write_text
from zipformer.scoring.conventions import PLAIN, Convention
from zipformer.scoring.sclite import write_sclite
from zipformer.scoring.tables import (
    KIND_LEVEL,
    PART_LEVEL,
    Confusion,
    ScoredUtterance,
    ScoreRow,
    confusions,
    empty_references,
)

CER_FILE, CONFUSIONS_FILE = "cer.json", "confusions.csv"
RATES = {"CER": "character", "MER": "mixed", "SER": "syllable"}
UNITS = {"CER": "characters", "MER": "units", "SER": "syllables"}  # short enough for a column


def write_results(
    directory: Path,
    scored: Sequence[ScoredUtterance],
    rows: Sequence[ScoreRow],
    *,
    header: Mapping[str, object],
    convention: Convention = PLAIN,
    top_confusions: int = 50,
) -> None:
    """Write ``cer.json``, ``cer.csv``, ``alignments.txt`` and ``confusions.csv`` together into a directory.

    Beside them go the two sides of the alignments for sclite (:mod:`zipformer.scoring.sclite`).

    Args:
        directory: an existing directory; files of these names in it are replaced.
        scored: the aligned utterances.
        rows: their error rates, from `score`.
        header: what was scored (method, split, data set, model directory); stands before the rows in
            ``cer.json``.
        convention: the convention that the utterances were aligned by; ``cer.json`` names it.
        top_confusions: errors listed for each dialect and kind of error.
    """
    document = {
        **header,
        "scoring": convention.name,
        "empty_references": empty_references(scored),
        "rows": [vars(row) for row in rows],
    }
    text = json.dumps(document, ensure_ascii=False, indent=1)
    alignments = "\n".join(alignment_text(utterance, convention.unit) for utterance in scored)
    with replacing_folder(directory) as folder:
        write_text(folder / CER_FILE, text + "\n")
        write_csv(folder / "cer.csv", column_names(ScoreRow), map(asdict, rows))
        write_text(folder / "alignments.txt", alignments)
        errors = confusions(scored, top_confusions)
        write_csv(folder / CONFUSIONS_FILE, column_names(Confusion), map(asdict, errors))
        write_sclite(folder, scored)


def alignment_text(utterance: ScoredUtterance, unit: str = PLAIN.unit) -> str:
    """One utterance for reading: its name, its errors, and reference over hypothesis over marks (S, D, I)."""
    transcript, counts = utterance.transcript, utterance.counts
    where = " / ".join(
        name for name in (transcript.dialect, transcript.subdialect, transcript.site) if name is not None
    )
    reference, hypothesis, marks = utterance.alignment.lines()
    return (
        f"{transcript.id}  {where}  {counts.errors} errors in {counts.reference_characters} {unit}"
        f" (S {counts.substitutions}, D {counts.deletions}, I {counts.insertions})\n"
        f"REF {reference}\n"
        f"HYP {hypothesis}\n"
        f"    {marks}".rstrip()
        + "\n"
    )


def rate_table(
    rows: Sequence[ScoreRow],
    *,
    title: str,
    trained: Collection[str] | None,
    convention: Convention = PLAIN,
) -> Table:
    """Error rates overall, by dialect, by part and by kind of unit as a table for a terminal of 80 columns.

    Args:
        rows: rows of all levels, from `score`; subdialects and sites are not shown.
        title: heading of the table.
        trained: dialects in the training set, so that the others are marked as held out; None where unknown.
        convention: the convention of the rows; the title names it where it is not ``plain``.
    """
    overall = [row for row in rows if row.level == "overall"]
    dialects = [row for row in rows if row.level == "dialect"]
    parts = [row for row in rows if row.level == PART_LEVEL]
    kinds = [row for row in rows if row.level == KIND_LEVEL]
    sections = [section for section in (overall, dialects, parts, kinds) if section]
    last = [section[-1] for section in sections[:-1]]  # a line follows
    held_out = {row.name for row in dialects if trained is not None and row.name not in trained}
    title = f"{RATES[convention.rate]} error rate: {title}{scored_as(convention)}"
    table = Table(title=title, box=box.SIMPLE_HEAD, collapse_padding=True)
    table.add_column("dialect", overflow="fold")  # names of parts may be long
    missing = any(row.no_token for row in overall)
    columns = [
        "utterances",
        UNITS[convention.rate],
        f"{convention.rate} %",
        "95 % interval",
        "sub",
        "del",
        "ins",
    ]
    for name in [*columns, "no token"] if missing else columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row in overall + dialects + parts + kinds:
        table.add_row(
            row.name + "*" * (row.name in held_out),
            str(row.utterances),
            str(row.reference_characters),
            "-" if row.cer is None else f"{row.cer:.2f}",
            "-" if row.low is None else f"{row.low:.1f} to {row.high:.1f}",
            str(row.substitutions),
            str(row.deletions),
            str(row.insertions),
            *([_share(row)] if missing else []),
            end_section=any(row is one for one in last),
        )
    rates = [row.cer for row in dialects if row.cer is not None and row.name not in held_out]
    notes = [f"intervals: over {row.resampled}" for row in overall]
    if held_out and rates:
        notes.append(f"* held out of training; mean of the trained dialects {mean(rates):.2f} %")
    if missing:
        notes.append(
            f"no token: reference {convention.unit} that the model cannot write; {convention.rate} is at"
            " least their share"
        )
    table.caption = "\n".join(notes) or None
    return table


def scored_as(convention: Convention) -> str:
    """For the end of a title: the convention where it is not ``plain``."""
    return "" if convention is PLAIN else f", scored as {convention.name}"


def _share(row: ScoreRow) -> str:
    """Share of the reference units that no token writes."""
    if row.no_token is None or not row.reference_characters:
        return "-"
    return f"{100 * row.no_token / row.reference_characters:.1f} %"
