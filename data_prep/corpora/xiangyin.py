"""``corpus=xiangyin``: XiangYin v1, 81 hours from 7,719 people who read the same prompts in their dialects.

Layout: ``Metadata.CSV`` with ``id``, ``sound_length`` (seconds), ``same_text`` (whether the speech has the
words of the prompt, as the speaker says), ``uploader_id``, ``uploader.gender``, ``dialect.province``,
``dialect.city``, ``sentence.text``, ``sentence.id`` and others; the recordings are ``<id>.ogg`` in any
folder. Prompts are standard Chinese or poems. A sentence has one id in all places, so that retrieval can pair
them. In one release the lengths did not fit the recordings: the checks compare them (``audio_mismatch``).

The place decides the group, by the cities of the taxonomy. A province alone is enough where one group is
spoken in it. Other places have an ``unknown_dialect`` in the reports; ``corpus.dialect_map`` maps them.
All recordings of a sentence are in one split, so that speakers are in several. Lhotse has no recipe.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import Fields, corpus_root, read_fields
from data_prep.corpora.utterances import Utterance, manifests_of, split_of_speaker, variety_or_label
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import Variety

logger = logging.getLogger(__name__)

TABLE = "Metadata.CSV"
COLUMNS = (
    *("id", "sound_length", "same_text", "uploader_id", "uploader.gender"),
    *("dialect.province", "dialect.city", "sentence.text", "sentence.id"),
)
_ENDING = re.compile("(?<=..)(特别行政区|[壮回]族自治区|维吾尔自治区|自治区|[市省盟]|地区)$")


@dataclass
class XiangYinConfig:
    """Which recordings are read.

    Attributes:
        root: folder with Metadata.CSV and the recordings.
        other_words: values of same_text that say that other words than those of the prompt are spoken.
            Without the words, such a recording is of no use; it is left out and counted.
        dialect_map: id of the taxonomy for places that it does not know, such as ``赣州``.
        valid_sentences, test_sentences: share of the sentences that are held out for validation and for
            the test, with all their recordings.
    """

    root: str = MISSING
    other_words: list[str] = field(default_factory=lambda: ["no", "false", "否", "不一致", "不相同"])
    dialect_map: dict[str, str] = field(default_factory=dict)
    valid_sentences: float = 0.02
    test_sentences: float = 0.05


@register_corpus(
    "xiangyin",
    XiangYinConfig,
    inputs=lambda config: [Path(config.root) / TABLE],
    licence="CC BY-NC-SA 4.0, as stated by its authors",
    origin="cxcxcxcx/xiangyin_dataset at Hugging Face (a form)",
)
def prepare_xiangyin(config: XiangYinConfig, directory: Path) -> CorpusManifests:
    """Manifests with all recordings of a sentence in one split."""
    return manifests_of(_utterances(corpus_root(config.root, TABLE), config), directory)


def _utterances(root: Path, config: XiangYinConfig) -> Iterator[Utterance]:
    files = {path.stem: path for path in sorted(root.rglob("*.ogg"))}
    others = {word.casefold() for word in config.other_words}
    answers: Counter[str] = Counter()
    for row in read_fields(root / TABLE, COLUMNS, ",", quoted=True):
        answers[row["same_text"]] += 1
        if row["same_text"].casefold() in others:
            continue
        name, sentence = row["id"], row["sentence.id"].removesuffix(".0")
        held_out = (config.valid_sentences, config.test_sentences)
        yield Utterance(
            id=f"xiangyin-{name}",
            audio=files.get(name, root / f"{name}.ogg"),
            text=row["sentence.text"],
            dialect=place_variety(row["dialect.province"], row["dialect.city"], config.dialect_map),
            split=split_of_speaker(f"xiangyin-sentence-{sentence}", *held_out),
            origin=row.origin,
            speaker=f"xiangyin-{row['uploader_id']}" if row["uploader_id"] else None,
            gender=row["uploader.gender"],
            duration=row.number("sound_length"),
            site=_site(row),
            sentence_id=f"xiangyin-{sentence}" if sentence else None,
        )
    if left_out := sum(count for answer, count in answers.items() if answer.casefold() in others):
        logger.warning("%d recordings have other words than their prompts and are left out", left_out)
    # Spellings that corpus.other_words lacks would be used without a word.
    logger.info(
        "values of same_text: %s", ", ".join(f"{one!r} {count}" for one, count in answers.most_common())
    )


def _site(row: Fields) -> str | None:
    return without_ending(row["dialect.city"]) or without_ending(row["dialect.province"]) or None


def without_ending(place: str) -> str:
    """``长沙`` for ``长沙市``, ``广西`` for ``广西壮族自治区``."""
    return _ENDING.sub("", place.strip())


def place_variety(province: str, city: str, dialect_map: dict[str, str]) -> Variety | str:
    """What is spoken in a city, or else in its province where that is clear; else the name of the place."""
    places = [name for place in (city, province) if (name := without_ending(place))]
    for place in places:
        if isinstance(variety := variety_or_label(place, dialect_map), Variety):
            return variety
    return places[0] if places else ""
