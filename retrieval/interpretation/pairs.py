"""Pairs of utterances to compare: the same sentence at two sites of different groups."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from retrieval.protocol.sites import Site, common_sentences, site_pairs
from zipformer.errors import UserError


@dataclass(frozen=True, slots=True)
class UtterancePair:
    """One sentence at two sites."""

    source: Site
    target: Site
    sentence: str

    @property
    def groups(self) -> tuple[str, str]:
        return self.source.group, self.target.group

    @property
    def source_id(self) -> str:
        return self.source.utterances[self.sentence]

    @property
    def target_id(self) -> str:
        return self.target.utterances[self.sentence]


def utterance_pairs(sites: Sequence[Site], names: Sequence[str] = ()) -> list[UtterancePair]:
    """All pairs of utterances of one sentence at two sites of different groups.

    Args:
        sites: sites, from :func:`retrieval.protocol.sites.sites_of`.
        names: ``A:B`` for pairs of groups or sites (these may be of one group); empty takes all.

    Raises:
        UserError: a name does not have this form or matches no pair, or two sites have no common sentence.
    """
    chosen = site_pairs(sites)
    if names:
        every = site_pairs(sites, within_groups=True)
        chosen = sorted({pair for name in names for pair in _named(name, sites, every)})
    return [
        UtterancePair(sites[a], sites[b], sentence)
        for a, b in chosen
        for sentence in common_sentences(sites[a], sites[b])
    ]


def _named(name: str, sites: Sequence[Site], every: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    first, _, second = name.partition(":")
    found = [
        (a, b)
        for a, b in every
        if (_is(sites[a], first) and _is(sites[b], second))
        or (_is(sites[a], second) and _is(sites[b], first))
    ]
    if not found:
        groups = ", ".join(dict.fromkeys(site.group for site in sites))
        raise UserError(f"pairs: {name!r} fits no two sites; write A:B with groups ({groups}) or sites")
    return found


def _is(site: Site, name: str) -> bool:
    return name in (site.group, site.name)


def choose_shown(
    pairs: Sequence[UtterancePair], available: Collection[str], count: int
) -> list[UtterancePair]:
    """Choose pairs for the page: equally many from every pair of groups, with different sentences.

    Args:
        pairs: all compared pairs.
        available: ids of the utterances with words.
        count: largest number of pairs.
    """
    by_groups: dict[tuple[str, str], list[UtterancePair]] = defaultdict(list)
    for pair in pairs:
        if pair.source_id in available and pair.target_id in available:
            by_groups[pair.groups].append(pair)
    shown: list[UtterancePair] = []
    for turn in range(count):
        for number, candidates in enumerate(by_groups.values()):
            # Large steps reach different sentences and sites; a pair that is already taken is replaced by the
            # next.
            place = turn * 37 + number * 11
            if turn < len(candidates) and len(shown) < count:
                following = (candidates[(place + n) % len(candidates)] for n in range(len(candidates)))
                shown.append(next(pair for pair in following if pair not in shown))
        if len(shown) >= count:
            break
    return sorted(shown, key=lambda pair: (pair.groups, pair.source_id, pair.target_id))
