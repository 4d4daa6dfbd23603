"""Durations, texts and phones of the utterances of a split, as challenge sets need them."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lhotse.cut import Cut

from retrieval.challenge.settings import TaggedText
from retrieval.embedding.cuts import labels_of
from retrieval.embedding.store import Utterance
from retrieval.protocol.sites import Duplicates, Level, Site, sites_of
from zipformer.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Spoken:
    """One utterance.

    Attributes:
        utterance: labels of the utterance, as in the index of embeddings.
        duration: seconds.
        text: text for the tagger; "" if there is none.
        written_phones: phones in the notation of the corpus; "" if there are none.
    """

    utterance: Utterance
    duration: float
    text: str = ""
    written_phones: str = ""


def read_spoken(cuts: Iterable[Cut], *, text: TaggedText, phones_fields: Sequence[str]) -> dict[str, Spoken]:
    """Utterances of the cuts by id.

    Args:
        cuts: cuts with one supervision each.
        text: text to read: the translation or the transcript.
        phones_fields: fields of ``supervision.custom`` that may hold phones. Only the field that most
            utterances have is read, because two notations cannot be compared.

    Raises:
        UserError: two cuts have the same id, or see :func:`retrieval.embedding.cuts.labels_of`.
    """
    result: dict[str, Spoken] = {}
    written: dict[str, dict[str, str]] = {field: {} for field in phones_fields}
    for cut in cuts:
        if cut.id in result:
            raise UserError(f"cut {cut.id} is there twice: prepare the corpus again with unique ids")
        labels = labels_of(cut)
        supervision = cut.supervisions[0]
        custom = supervision.custom or {}
        # Taggers expect the punctuation of a translation, which preparation removes.
        translation = custom.get("raw_translation") or custom.get("translation")
        read = supervision.text if text is TaggedText.transcript else translation
        result[cut.id] = Spoken(
            Utterance(
                cut.id,
                offset=0,
                frames=0,
                dialect=labels.dialect,
                subdialect=labels.subdialect,
                site=labels.site,
                sentence_id=labels.sentence_id,
            ),
            duration=float(cut.duration),
            text=str(read or ""),
        )
        for field, phones in written.items():
            if custom.get(field):
                phones[cut.id] = str(custom[field])
    field = max(written, key=lambda name: len(written[name]))
    if written[field]:
        logger.info("phones are those of the field %s", field)
    return {name: replace(item, written_phones=written[field].get(name, "")) for name, item in result.items()}


def sites_and_pairs(
    spoken: Mapping[str, Spoken], level: Level, duplicates: Duplicates
) -> tuple[list[Site], dict[tuple[int, int], list[str]]]:
    """Sites, and the sorted common sentences of every pair of sites, also within a group.

    Raises:
        UserError: see :func:`retrieval.protocol.recall.sites_of`.
    """
    sites = sites_of((item.utterance for item in spoken.values()), level=level, duplicates=duplicates)
    return sites, {
        (a, b): sorted(sites[a].utterances.keys() & sites[b].utterances.keys())
        for a in range(len(sites))
        for b in range(a + 1, len(sites))
    }


def texts_of(spoken: Mapping[str, Spoken], sites: Sequence[Site], text: TaggedText) -> dict[str, str]:
    """Text of every utterance that takes part in retrieval.

    Raises:
        UserError: an utterance has no text.
    """
    texts = {name: spoken[name].text for site in sites for name in site.utterances.values()}
    missing = [name for name, value in texts.items() if not value.strip()]
    if missing:
        other = next(kind for kind in TaggedText if kind is not text)
        raise UserError(
            f"{len(missing)} of {len(texts)} utterances have no {text.value}, the first is {missing[0]}: tag"
            f" their {other.value} (names.text={other.value}), or leave names out of removals"
        )
    return texts
