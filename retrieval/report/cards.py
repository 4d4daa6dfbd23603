"""The headline numbers of the report."""

from collections.abc import Sequence
from dataclasses import dataclass

from retrieval.comparison.controls import Control, ControlRow
from retrieval.protocol.reading import RecallResult
from retrieval.protocol.tables import SUMMARY_NAMES, SummaryRow
from retrieval.report.controls import ControlsSection
from retrieval.report.headline import mean_rate, method_name
from retrieval.results.decodings import CerResult
from retrieval.similarity.scores import ScoreKind


@dataclass(frozen=True)
class Card:
    """A headline number: name, value, and values to compare with."""

    name: str
    value: str
    note: str


def cer_cards(results: Sequence[CerResult], trained: Sequence[str] | None) -> list[Card]:
    """Mean error rate over trained dialects by method; with a single method also each held-out dialect."""
    which = "dialects" if trained is None else "trained dialects"
    cards = []
    for result in results:
        rated = [row for row in result.level("dialect") if row.cer is not None]
        of_trained = [row for row in rated if trained is None or row.name in trained]
        mean = mean_rate(result, trained)
        if mean is not None:
            worst = max(of_trained, key=lambda row: row.cer or 0)
            note = f"{method_name(result.method)}; worst {worst.cer:.1f} % ({worst.name})"
            cards.append(Card(f"mean {result.scoring.rate} of {which}", f"{mean:.1f} %", note))
        if len(results) == 1:
            cards += [
                Card(
                    f"{result.scoring.rate} of {row.name}, held out",
                    f"{row.cer:.1f} %",
                    f"{row.low or 0:.1f} to {row.high or 0:.1f}; {method_name(result.method)}",
                )
                for row in rated
                if row not in of_trained
            ]
    return cards


def recall_cards(
    recall: RecallResult | None, mfcc: RecallResult | None, controls: ControlsSection | None
) -> list[Card]:
    """Recall of the model, and beside the first number the best recall of sound alone on the same pairs."""
    rows = [] if recall is None else recall.table.summary
    rows = [row for row in rows if row.name != "all" or len(rows) == 1]
    cards = [
        Card(f"recall@1 {SUMMARY_NAMES[row.name]}", f"{row.recall_at_1:.1f} %", _against(row)) for row in rows
    ]
    groups = None if recall is None else recall.table.groups
    sounds = _sounds(mfcc, controls, groups)
    for part in [*(row.name for row in rows[:1]), "all"]:
        if of_part := [(name, row) for name, pairs, row in sounds if pairs == part]:
            name, best = max(of_part, key=lambda sound: sound[1].recall_at_1)
            title = f"recall@1 {SUMMARY_NAMES[part]} by sound alone: {name}"
            cards.append(Card(title, f"{best.recall_at_1:.1f} %", _against(best)))
            break
    return cards


def _sounds(
    mfcc: RecallResult | None, controls: ControlsSection | None, groups: Sequence[str] | None
) -> list[tuple[str, str, SummaryRow | ControlRow]]:
    """Results of sound alone, from the controls and from fangyan retrieve: name, pairs of groups, row.

    Results on other groups than those of the model are left out: their means are over other pairs.
    """
    found: list[tuple[str, str, SummaryRow | ControlRow]] = []
    if controls is not None and (controls.groups == groups or None in (groups, controls.groups)):
        found += [(row.label, row.pairs, row) for row in controls.sounds]
    if mfcc is not None and groups in (None, mfcc.table.groups):
        label = Control("mfcc", "mfcc", ScoreKind.seqsim).label
        found += [(label, row.name, row) for row in mfcc.table.summary]
    return found


def _against(row: SummaryRow | ControlRow) -> str:
    return f"{row.low:.1f} to {row.high:.1f}; chance {row.chance:.1f} %"
