"""Tables of a comparison of variants: every measure with its interval, and transfer to left-out dialects."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from retrieval.comparison.variants import Difference, Measure, VariantMeasures
from zipformer.files import column_names, write_csv, write_json, write_text


@dataclass(frozen=True)
class VariantRow:
    """One measure of one variant, in per cent; difference from the baseline in percentage points.

    ``low`` and ``high`` bound the mean over runs, ``lowest_run`` and ``highest_run`` are single runs.
    """

    variant: str
    measure: str
    runs: int
    value: float
    low: float
    high: float
    lowest_run: float
    highest_run: float
    difference: float | None
    difference_low: float | None
    difference_high: float | None


@dataclass(frozen=True)
class TransferRow:
    """Recall@1 in per cent of an ordered pair of groups, with one of them left out of training or trained on.

    Attributes:
        left_out: group that was left out of training.
        source, target: source and target group; one of them is ``left_out``.
        runs: number of runs of the variant.
        value, low, high: recall and interval where the group was left out.
        trained, trained_low, trained_high: recall and interval of the baseline, which was trained on it.
        difference, difference_low, difference_high: value - trained.
    """

    left_out: str
    source: str
    target: str
    runs: int
    value: float
    low: float
    high: float
    trained: float
    trained_low: float
    trained_high: float
    difference: float
    difference_low: float
    difference_high: float


MEASURES = {
    "recall_trained": "recall@1, trained dialects",
    "recall_held_out": "recall@1, with a held-out dialect",
    "recall_within": "recall@1, within a dialect",
    "cer_trained": "CER, trained dialects",
    "cer_held_out": "CER, held-out dialects",
}


def measure(comparison: VariantMeasures, variant: str, name: str) -> Measure | None:
    """One of ``MEASURES`` of a variant; None if the test set or the runs do not have it."""
    what, _, which = name.partition("_")
    if what == "recall":
        return comparison.recall(variant, comparison.pairs(variant, which))
    trained = comparison.trained(variant)
    return comparison.error_rate(
        variant, [group for group in comparison.groups if (group in trained) == (which == "trained")]
    )


def variant_rows(comparison: VariantMeasures, baseline: str) -> list[VariantRow]:
    """All measures of all variants."""
    rows = []
    for name in MEASURES:
        of_baseline = measure(comparison, baseline, name)
        for variant in comparison.variants:
            estimate = measure(comparison, variant, name)
            if estimate is None:
                continue
            # For variants that were trained on other groups, the measure is over other pairs.
            same = comparison.trained(variant) == comparison.trained(baseline)
            if name.startswith("cer"):
                same = same and comparison.same_transcripts(variant, baseline)
            difference = (
                comparison.difference(estimate, of_baseline)
                if of_baseline is not None and same and variant != baseline
                else None
            )
            rows.append(_variant_row(variant, name, estimate, difference))
    return rows


def _variant_row(variant: str, name: str, estimate: Measure, difference: Difference | None) -> VariantRow:
    return VariantRow(
        variant,
        name,
        len(estimate.runs),
        estimate.value,
        estimate.low,
        estimate.high,
        min(estimate.runs),
        max(estimate.runs),
        *((None, None, None) if difference is None else difference.as_tuple()),
    )


def transfer_rows(
    comparison: VariantMeasures, baseline: str, left_out: Mapping[str, Sequence[str]]
) -> list[TransferRow]:
    """Transfer to and from every group that a variant leaves out and the baseline was trained on.

    Args:
        comparison: measures of the variants.
        baseline: variant that leaves nothing out.
        left_out: groups that each variant leaves out.
    """
    rows = []
    for variant, groups in left_out.items():
        if variant not in comparison.variants:
            continue
        for group in (group for group in groups if group in comparison.trained(baseline)):
            for partner in comparison.trained(variant):
                for source, target in ((group, partner), (partner, group)):
                    without = comparison.recall(variant, [(source, target)])
                    trained = comparison.recall(baseline, [(source, target)])
                    assert without is not None
                    assert trained is not None
                    difference = comparison.difference(without, trained)
                    rows.append(
                        TransferRow(
                            group,
                            source,
                            target,
                            len(without.runs),
                            without.value,
                            without.low,
                            without.high,
                            trained.value,
                            trained.low,
                            trained.high,
                            difference.value,
                            difference.low,
                            difference.high,
                        )
                    )
    return rows


def write_tables(
    directory: Path,
    rows: Sequence[VariantRow],
    transfer: Sequence[TransferRow],
    *,
    baseline: str,
    header: Mapping[str, object],
) -> None:
    """Write ``variants.{csv,json,md}``, and ``transfer.csv`` if dialects were left out; each file whole."""
    markdown = variants_markdown(rows, baseline)
    if transfer:
        markdown += "\n" + transfer_markdown(transfer)
        write_csv(directory / "transfer.csv", column_names(TransferRow), map(asdict, transfer))
    content = {
        **header,
        "baseline": baseline,
        "rows": [asdict(row) for row in rows],
        "transfer": [asdict(row) for row in transfer],
    }
    write_csv(directory / "variants.csv", column_names(VariantRow), map(asdict, rows))
    write_text(directory / "variants.md", markdown)
    write_json(directory / "variants.json", content)


def variants_markdown(rows: Sequence[VariantRow], baseline: str) -> str:
    """Variants in rows, measures in columns, ``value (low to high)`` in per cent; then the differences."""
    names = [name for name in MEASURES if any(row.measure == name for row in rows)]
    variants = list(dict.fromkeys(row.variant for row in rows))
    found = {(row.variant, row.measure): row for row in rows}
    lines = _markdown_head(["variant", "runs", *(MEASURES[name] for name in names)])
    for variant in variants:
        of_variant = [found.get((variant, name)) for name in names]
        runs = max(row.runs for row in of_variant if row)
        lines.append(_markdown_line([variant, str(runs), *(_cell(row) for row in of_variant)]))
    if any(row.difference is not None for row in rows):
        lines += ["", f"Difference to {baseline}, in points:", ""]
        lines += _markdown_head(["variant", *(MEASURES[name] for name in names)])
        for variant in variants:
            cells = [_difference(found.get((variant, name))) for name in names]
            if any(cell != "-" for cell in cells):
                lines.append(_markdown_line([variant, *cells]))
    return "\n".join(lines) + "\n"


def transfer_markdown(rows: Sequence[TransferRow]) -> str:
    """Left-out groups in rows, partners in columns: recall@1 in per cent, ``to / from the partner``."""
    left_out = list(dict.fromkeys(row.left_out for row in rows))
    partners = list(dict.fromkeys(row.target for row in rows) | dict.fromkeys(row.source for row in rows))
    found = {(row.left_out, row.source, row.target): row for row in rows}
    lines = []
    for title, value in (
        ("Recall@1 % to / from each dialect, left out of training:", lambda row: f"{row.value:.1f}"),
        ("The same when it is trained on:", lambda row: f"{row.trained:.1f}"),
        (
            "Difference, with its interval:",
            lambda row: f"{row.difference:+.1f} ({row.difference_low:+.1f} to {row.difference_high:+.1f})",
        ),
    ):
        lines += [title, "", *_markdown_head(["left out", *partners])]
        for group in left_out:
            cells = []
            for partner in partners:
                there, back = found.get((group, group, partner)), found.get((group, partner, group))
                cells.append(f"{value(there)} / {value(back)}" if there and back else "-")
            lines.append(_markdown_line([group, *cells]))
        lines.append("")
    return "\n".join(lines)


def variants_view(rows: Sequence[VariantRow], title: str, resampled: str) -> Table:
    """The measures for the terminal; ``resampled`` names the resampled units beside the runs."""
    runs = "runs, " if any(row.runs > 1 for row in rows) else ""
    view = Table(title=title, caption=f"intervals: over {runs}{resampled}", box=box.SIMPLE_HEAD)
    view.add_column("measure, %")
    view.add_column("variant")
    for name in ("runs", "mean", "interval", "lowest to highest run", "difference to baseline"):
        view.add_column(name, justify="right", no_wrap=True)
    for number, row in enumerate(rows):
        first = number == 0 or rows[number - 1].measure != row.measure
        last = number + 1 == len(rows) or rows[number + 1].measure != row.measure
        view.add_row(
            MEASURES[row.measure] if first else "",
            row.variant,
            str(row.runs),
            f"{row.value:.1f}",
            f"{row.low:.1f} to {row.high:.1f}",
            f"{row.lowest_run:.1f} to {row.highest_run:.1f}",
            _difference(row),
            end_section=last,
        )
    return view


def _cell(row: VariantRow | None) -> str:
    return "-" if row is None else f"{row.value:.1f} ({row.low:.1f} to {row.high:.1f})"


def _difference(row: VariantRow | None) -> str:
    if row is None or row.difference is None:
        return "-"
    return f"{row.difference:+.1f} ({row.difference_low:+.1f} to {row.difference_high:+.1f})"


def _markdown_head(names: Sequence[str]) -> list[str]:
    return [_markdown_line(names), "|" + "---|" * len(names)]


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
