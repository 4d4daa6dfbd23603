"""What challenge sets need to know of the utterances of a split."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lhotse.cut import Cut

from retrieval.challenge.settings import TaggedText
from retrieval.embedding.cuts import labels_of
from retrieval.embedding.store import Utterance
from retrieval.sites import Duplicates, Level, Site, sites_of


@dataclass(frozen=True, slots=True)
class Spoken:
    """One utterance.

    Attributes:
        utterance: its labels, as in the index of embeddings.
        duration: seconds.
        text: what a tagger reads; "" if there is none.
        written_phones: as the corpus has them; "" if it has none.
    """

    utterance: Utterance
    duration: float
    text: str = ""
    written_phones: str = ""


def read_spoken(cuts: Iterable[Cut], *, text: TaggedText, phones_field: str) -> dict[str, Spoken]:
    """Utterances of the cuts by id.

    Args:
        cuts: with one supervision each.
        text: which text to take.
        phones_field: field of ``supervision.custom`` with phones; it may be absent.

    Raises:
        ValueError: two cuts of one id, or what :func:`retrieval.embedding.cuts.labels_of` finds wrong.
    """
    result: dict[str, Spoken] = {}
    for cut in cuts:
        if cut.id in result:
            raise ValueError(f"cut {cut.id} is there twice: prepare the corpus again with unique ids")
        labels = labels_of(cut)
        supervision = cut.supervisions[0]
        custom = supervision.custom or {}
        read = supervision.text if text is TaggedText.transcript else custom.get("translation")
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
            written_phones=str(custom.get(phones_field) or ""),
        )
    return result


def sites_and_pairs(
    spoken: Mapping[str, Spoken], level: Level, duplicates: Duplicates
) -> tuple[list[Site], dict[tuple[int, int], list[str]]]:
    """The sites, and the sorted common sentences of every two of them, also of one group.

    Raises:
        ValueError: what :func:`retrieval.recall.sites_of` finds wrong.
    """
    sites = sites_of((item.utterance for item in spoken.values()), level=level, duplicates=duplicates)
    return sites, {
        (a, b): sorted(sites[a].utterances.keys() & sites[b].utterances.keys())
        for a in range(len(sites))
        for b in range(a + 1, len(sites))
    }


def texts_of(spoken: Mapping[str, Spoken], sites: Sequence[Site], text: TaggedText) -> dict[str, str]:
    """Text of every utterance that retrieval asks for.

    Raises:
        ValueError: some have none.
    """
    texts = {name: spoken[name].text for site in sites for name in site.utterances.values()}
    missing = [name for name, value in texts.items() if not value.strip()]
    if missing:
        other = next(kind for kind in TaggedText if kind is not text)
        raise ValueError(
            f"{len(missing)} of {len(texts)} utterances have no {text.value}, the first is {missing[0]}: tag"
            f" their {other.value} (names.text={other.value}), or leave names out of removals"
        )
    return texts
