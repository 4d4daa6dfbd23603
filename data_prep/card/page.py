"""The command ``fangyan card``: what is in the data, as ``card.md`` and a self-contained ``card.html``."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import jinja2
from omegaconf import MISSING
from rich.console import Console

from data_prep.card import tables
from data_prep.card.contents import Contents, read_corpus
from data_prep.card.figures import durations_figure, hours_figure, svg_data_uri
from data_prep.card.overlap import held_out_rows, shared_rows
from zipformer.data.mixture_file import read_mixture
from zipformer.data.remote import CacheConfig, is_remote
from zipformer.errors import UserError
from zipformer.files import write_text

MARKDOWN_FILE = "card.md"
HTML_FILE = "card.html"

logger = logging.getLogger(__name__)


@dataclass
class CardConfig:
    """Which corpora a data card describes.

    Attributes:
        directory: where ``card.md`` and ``card.html`` go.
        data_dirs: prepared corpora, for instance test sets, besides those of the mixture.
        mixture: YAML file that lists prepared corpora, see zipformer/data/mixture_file.py; null = none.
        absent: ``error`` if a corpus of the mixture has no training cuts, ``skip`` to leave it out.
        cache: where files of corpora at a URL are kept.
    """

    directory: str = MISSING
    data_dirs: list[str] = field(default_factory=list)
    mixture: str | None = None
    absent: str = "error"
    cache: CacheConfig = field(default_factory=CacheConfig)


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: heading.
        text: a paragraph above the table.
        table: the numbers; None if there are none.
        figure: ``data:`` address of a figure, in HTML only; None if there is none.
        described: what the figure shows, for those who cannot see it.
    """

    title: str
    text: str
    table: tables.Table | None
    figure: str | None = None
    described: str = ""


def main(config: CardConfig) -> None:
    """Write ``card.md`` and ``card.html``."""
    write_card(config, Console())


def write_card(config: CardConfig, console: Console | None = None) -> list[Contents]:
    """Read all corpora and write both pages; returns what was read.

    Raises:
        UserError: no corpus is given, one is given twice or not prepared, or a file of one is damaged.
    """
    places = _places(config)
    corpora = [
        read_corpus(place, config.cache, trained=trained, console=console)
        for place, trained in places.items()
    ]
    _name_apart(corpora)
    sections = sections_of(corpora)
    made = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    directory = Path(config.directory)
    for name in (MARKDOWN_FILE, HTML_FILE):
        write_text(directory / name, _render(f"{name}.j2", sections, made))
        logger.info("%s", directory / name)
    return corpora


def _places(config: CardConfig) -> dict[str, bool]:
    """Folders and URLs of the corpora, and whether each is trained on."""
    places: dict[str, bool] = {}
    if config.mixture is not None:
        for share in read_mixture(Path(config.mixture), config.absent):
            places[_resolved(share.data_dir)] = share.weight > 0
    for place in config.data_dirs:
        places.setdefault(_resolved(place), True)
    if not places:
        raise UserError("no corpus is given: data_dirs=[DIR,...] or mixture=FILE")
    return places


def _resolved(place: str) -> str:
    return place if is_remote(place) else str(Path(place).resolve())


def _name_apart(corpora: Sequence[Contents]) -> None:
    """Put the number of the corpus behind a name that several corpora have."""
    names = [corpus.name for corpus in corpora]
    for number, corpus in enumerate(corpora, start=1):
        if names.count(corpus.name) > 1:
            corpus.name = f"{corpus.name} ({number})"


def sections_of(corpora: Sequence[Contents]) -> list[Section]:
    """All parts of the page, with their numbers."""
    groups = tables.ordered_groups(corpora)
    hours: dict[tuple[str, str], float] = {}
    for corpus in corpora:
        for (_, group), amount in corpus.amounts.items():
            hours[corpus.name, group] = hours.get((corpus.name, group), 0.0) + amount.seconds / 3600
    held_out = held_out_rows(corpora)
    shared = shared_rows(corpora)
    unknown = [corpus.name for corpus in corpora if corpus.problems is None]
    untrained = [corpus.name for corpus in corpora if not corpus.trained]
    return [
        Section(
            "By dialect group",
            "Hours are those of the recordings; 'with copies' adds the copies at other speeds that "
            "preparation made. Characters are those of the normalised transcripts without spaces; a Latin "
            "letter is a character, too. Speakers are different names; utterances without a name add none.",
            tables.amounts_by_group(corpora),
            svg_data_uri(hours_figure(hours, [corpus.name for corpus in corpora], groups)),
            "Hours of each corpus in each dialect group, all splits; the table by corpus has the numbers.",
        ),
        Section("By corpus", "", tables.amounts_by_corpus(corpora)),
        Section(
            "Durations",
            "Seconds of an utterance, in all splits, to a tenth of a second.",
            tables.durations(corpora),
            svg_data_uri(durations_figure(tables.by_group(corpora))),
            "Distribution of the durations of utterances of each dialect group.",
        ),
        Section(
            "Sentences of held-out splits in training",
            "Sentences are compared by normalised transcript, character for character; texts in another "
            "script do not agree. Counts are those of the prepared data, before training leaves out "
            "sentences of test sets (data.keep_out)."
            + (f" Not trained on: {', '.join(untrained)}." if untrained else ""),
            tables.sentence_overlap(held_out) if held_out else None,
        ),
        Section(
            "Speakers of held-out splits in training",
            "Speakers are compared by name. Readers of public corpora put the name of the corpus before it; "
            "corpus=folder keeps the names of its table. Speakers without a name are not compared.",
            tables.speaker_overlap(held_out) if held_out else None,
        ),
        Section(
            "Sentences and speakers in two corpora",
            "Over all splits of each corpus. Two corpora that are not listed have nothing in common.",
            tables.shared(shared) if shared else None,
        ),
        Section("Utterances that preparation did not use", "", tables.dropped(corpora)),
        Section(
            "Problems that preparation found",
            "An utterance may have several. Those with an error are not used; those with a warning are. "
            "problems.tsv in the folder of the corpus names every one with its remedy."
            + (f" Unknown, because there is no problems.tsv: {', '.join(unknown)}." if unknown else ""),
            tables.problems(corpora) if any(corpus.problems for corpus in corpora) else None,
        ),
        Section(
            "Licence and origin",
            "Licences are repeated from the source that is named; its own terms decide.",
            tables.sources(corpora),
        ),
    ]


def _render(template: str, sections: Sequence[Section], made: str) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("data_prep.card"),
        autoescape=template == f"{HTML_FILE}.j2",
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _markdown_cell
    return environment.get_template(template).render(sections=sections, made=made)


def _markdown_cell(text: str) -> str:
    """A text in a cell of a Markdown table: nothing in it has a meaning of its own."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(text.split()))
