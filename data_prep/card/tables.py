"""The tables of a data card, which the page in HTML and that in Markdown both show."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from data_prep.card.contents import Amount, Contents, total, union
from data_prep.card.overlap import HeldOut, Shared
from data_prep.taxonomy import groups as taxonomy_groups

ALL = "all"
_NO_NUMBER = "–"
_AMOUNT_HEAD = (
    "split", "utterances", "hours", "with copies", "speakers", "characters", "characters a second"
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        head: names of the columns.
        rows: cells.
        texts: number of columns at the left that hold words, not numbers.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int


def ordered_groups(corpora: Iterable[Contents]) -> list[str]:
    """The dialect groups that occur, in the order of the taxonomy; others at the end."""
    order = {group: place for place, group in enumerate(taxonomy_groups())}
    there = {group for corpus in corpora for _, group in corpus.amounts}
    return sorted(there, key=lambda group: (order.get(group, len(order)), group))


def amounts_by_corpus(corpora: Sequence[Contents]) -> Table:
    """Amounts of each corpus, split and dialect group."""
    rows = []
    for corpus in corpora:
        for group in ordered_groups([corpus]):
            rows += [
                (corpus.name, group, *_amount_cells([corpus], split, [group]))
                for split in corpus.splits
                if (split, group) in corpus.amounts
            ]
    return Table(("corpus", "group", *_AMOUNT_HEAD), rows, texts=3)


def amounts_by_group(corpora: Sequence[Contents]) -> Table:
    """Amounts of each dialect group and split over all corpora, and of all groups."""
    groups = ordered_groups(corpora)
    splits = [split for split in ("train", "valid", "test") if any(split in one.splits for one in corpora)]
    rows = [
        (name, *_amount_cells(corpora, split, chosen))
        for name, chosen in (*((group, [group]) for group in groups), (ALL, groups))
        for split in splits
        if any((split, group) in corpus.amounts for corpus in corpora for group in chosen)
    ]
    return Table(("group", *_AMOUNT_HEAD), rows, texts=2)


def _amount_cells(corpora: Sequence[Contents], split: str, groups: Sequence[str]) -> tuple[str, ...]:
    keys = [(split, group) for group in groups]
    amount = total(corpus.amounts[key] for corpus in corpora for key in keys if key in corpus.amounts)
    speakers = union(corpus.speakers[key] for corpus in corpora for key in keys if key in corpus.speakers)
    unnamed = not len(speakers) and amount.utterances
    return (
        split,
        f"{amount.utterances:,}",
        hours(amount.seconds),
        hours(amount.seconds + amount.seconds_of_copies),
        "unknown" if unnamed else f"{len(speakers):,}",
        f"{amount.characters:,}",
        f"{amount.characters / amount.seconds:.2f}" if amount.seconds else _NO_NUMBER,
    )


def durations(corpora: Sequence[Contents]) -> Table:
    """Quantiles of the durations of each dialect group, in seconds."""
    rows = [
        (
            group,
            f"{amount.shortest:.1f}",
            *(f"{amount.quantile(share):.1f}" for share in (0.05, 0.5, 0.95)),
            f"{amount.longest:.1f}",
        )
        for group, amount in by_group(corpora).items()
        if amount.utterances
    ]
    return Table(("group", "shortest", "5 %", "median", "95 %", "longest"), rows, texts=1)


def by_group(corpora: Sequence[Contents]) -> dict[str, Amount]:
    """Amounts of each dialect group, over all corpora and splits."""
    return {
        group: total(
            amount for corpus in corpora for (_, there), amount in corpus.amounts.items() if there == group
        )
        for group in ordered_groups(corpora)
    }


def sentence_overlap(rows: Sequence[HeldOut]) -> Table:
    """How many sentences of each held-out split occur in training."""
    head = (
        "corpus", "split", "different sentences", "in own training", "in any training", "share",
        "utterances", "in any training", "in the other held-out split",
    )  # fmt: skip
    cells = [
        (
            row.corpus,
            row.split,
            f"{row.sentences:,}",
            f"{row.own_training:,}",
            f"{row.all_training:,}",
            _NO_NUMBER if row.share is None else f"{100 * row.share:.1f} %",
            f"{row.utterances:,}",
            f"{row.utterances_in_training:,}",
            f"{row.other_held_out:,}",
        )
        for row in rows
    ]
    return Table(head, cells, texts=2)


def speaker_overlap(rows: Sequence[HeldOut]) -> Table:
    """How many speakers of each held-out split speak in training."""
    head = (
        "corpus", "split", "speakers", "in own training", "in any training", "in the other held-out split",
        "utterances without speaker",
    )  # fmt: skip
    cells = [
        (
            row.corpus,
            row.split,
            *(
                f"{number:,}" if row.speakers else "unknown"
                for number in (
                    row.speakers,
                    row.speakers_own_training,
                    row.speakers_all_training,
                    row.speakers_other_held_out,
                )
            ),
            f"{row.without_speaker:,}",
        )
        for row in rows
    ]
    return Table(head, cells, texts=2)


def shared(rows: Sequence[Shared]) -> Table:
    """What two corpora have in common."""
    cells = [(*row.corpora, f"{row.sentences:,}", f"{row.speakers:,}") for row in rows]
    return Table(("corpus", "and", "sentences in both", "speakers in both"), cells, texts=2)


def dropped(corpora: Sequence[Contents]) -> Table:
    """How many utterances preparation did not use, by corpus and split."""
    rows = []
    for corpus in corpora:
        if corpus.dropped is None:
            rows.append((corpus.name, ALL, "unknown", "unknown"))
        for split, count in (corpus.dropped or {}).items():
            used = sum(one.utterances for (there, _), one in corpus.amounts.items() if there == split)
            rows.append((corpus.name, split, f"{count:,}", f"{used:,}"))
    return Table(("corpus", "split", "not used", "used"), rows, texts=2)


def problems(corpora: Sequence[Contents]) -> Table:
    """How often preparation found each problem; ``error`` means that the utterance is not used."""
    rows = []
    for corpus in corpora:
        counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for (kind, severity, split), count in (corpus.problems or {}).items():
            counts[severity, kind][split] += count
        rows += [
            (
                corpus.name,
                kind,
                severity,
                *(f"{counts[severity, kind][s]:,}" for s in ("train", "valid", "test")),
            )
            for severity, kind in sorted(counts)
        ]
    return Table(("corpus", "problem", "severity", "train", "valid", "test"), rows, texts=3)


def sources(corpora: Sequence[Contents]) -> Table:
    """Licence and origin of each corpus."""
    rows = [(corpus.name, corpus.licence, corpus.origin, corpus.place) for corpus in corpora]
    return Table(("corpus", "licence", "origin", "prepared in"), rows, texts=4)


def hours(seconds: float) -> str:
    """Hours with as many digits as are of use."""
    amount = seconds / 3600
    return f"{amount:,.1f}" if amount >= 100 else f"{amount:.2f}" if amount >= 1 else f"{amount:.4f}"
