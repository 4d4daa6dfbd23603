"""Sites, at which the same sentences are spoken, and the pairs of sites to compare."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import combinations

from retrieval.embedding.store import Utterance
from zipformer.errors import UserError

logger = logging.getLogger(__name__)

MIN_COMMON = 2  # common sentences of two sites: with one, the right answer is the only candidate


class Level(str, Enum):
    """Rows of the matrix: dialect groups with all their sites, or varieties (subdialects)."""

    group = "group"
    subdialect = "subdialect"


class Duplicates(str, Enum):
    """Treatment of a sentence that a site has more than once; ``first`` takes the smallest id."""

    error = "error"
    first = "first"


@dataclass(frozen=True)
class Site:
    """One place: group (or variety) and the utterance id of each sentence."""

    group: str
    name: str
    utterances: dict[str, str]

    def __str__(self) -> str:
        return f"{self.group}/{self.name}"


def sites_of(
    utterances: Iterable[Utterance],
    *,
    level: Level = Level.group,
    duplicates: Duplicates = Duplicates.error,
    groups: Sequence[str] = (),
) -> list[Site]:
    """Sites of a store, with their sentences.

    Utterances without a sentence id cannot be paired; the log gives their number. A whole group may lack
    sentence ids, but not a single site of a group. An utterance without a site belongs to a site that has the
    name of its group.

    Args:
        utterances: utterances of a store.
        level: rows of the matrix: groups or varieties.
        duplicates: treatment of a sentence that a site has twice.
        groups: keep only these groups, in this order; empty keeps all, sorted.

    Raises:
        UserError: a site has a sentence twice, a group is unknown or named twice, there are no sentence ids,
            one site of a group has none, or there are fewer than two groups.
    """
    found: dict[tuple[str, str], dict[str, str]] = {}
    unpaired: dict[tuple[str, str], int] = {}
    for utterance in utterances:
        group = utterance.dialect if level is Level.group else utterance.subdialect
        if not group:
            raise UserError(
                f"utterance {utterance.utterance_id} has no subdialect: use level=group, or name its variety"
            )
        key = group, utterance.site or group
        if not utterance.sentence_id:
            unpaired[key] = unpaired.get(key, 0) + 1
            continue
        site = found.setdefault(key, {})
        first = site.setdefault(utterance.sentence_id, utterance.utterance_id)
        if first != utterance.utterance_id and duplicates is Duplicates.error:
            raise UserError(
                f"site {utterance.site or group} of {group} has sentence {utterance.sentence_id} twice, as"
                f" {first} and {utterance.utterance_id}: give each its own site, or set duplicates=first"
            )
        # The smallest id, not the first: the order of stores and manifests may differ.
        site[utterance.sentence_id] = min(first, utterance.utterance_id)
    if unpaired:
        logger.warning(
            "%d utterances have no sentence id and take no part in retrieval", sum(unpaired.values())
        )
    if not found:
        raise UserError("no utterance has a sentence id: retrieval needs the same sentences at several sites")
    names = sorted({group for group, _ in found})
    for group, name in unpaired:
        if (group, name) not in found and group in names and (not groups or group in groups):
            raise UserError(
                f"site {name} of {group} is empty: none of its {unpaired[group, name]} utterances has a"
                " sentence id. Give them those of the other sites, or leave the site out of the corpus"
            )
    unknown = [group for group in groups if group not in names]
    if unknown:
        raise UserError(f"no utterances of {', '.join(unknown)}; there are {', '.join(names)}")
    if twice := sorted({group for group in groups if groups.count(group) > 1}):
        # Its sites would occur twice, and each would be paired with itself.
        raise UserError(f"groups names {', '.join(twice)} more than once: name each group once")
    order = list(groups) or names
    if len(order) < 2:
        raise UserError(f"retrieval needs at least two groups, found only {', '.join(order)}")
    return [
        Site(group, name, found[group, name])
        for wanted in order
        for group, name in sorted(found)
        if group == wanted
    ]


def labels_of_dialects(utterances: Iterable[Utterance], dialects: Sequence[str], level: Level) -> list[str]:
    """The given dialect groups, or the varieties in them, according to the level."""
    if level is Level.group:
        return list(dialects)
    return sorted({utterance.subdialect for utterance in utterances if utterance.dialect in dialects})


def site_pairs(sites: Sequence[Site], *, within_groups: bool = False) -> list[tuple[int, int]]:
    """Unordered pairs of sites of different groups; ``within_groups`` adds pairs within a group."""
    return [
        (a, b)
        for a, b in combinations(range(len(sites)), 2)
        if within_groups or sites[a].group != sites[b].group
    ]


def common_sentences(a: Site, b: Site) -> list[str]:
    """Sorted sentence ids that two sites share.

    Raises:
        UserError: the sites share no sentence.
    """
    common = sorted(a.utterances.keys() & b.utterances.keys())
    if not common:
        raise UserError(
            f"sites {a} and {b} share no sentence id ({a} has {_some(a)}; {b} has {_some(b)}): parallel"
            " utterances need equal sentence ids. Leave out what is not parallel with groups=[...]"
        )
    return common


def check_common_sentences(
    sites: Sequence[Site], pairs: Sequence[tuple[int, int]], least: int = MIN_COMMON
) -> None:
    """Check that the sites of every pair share enough sentences.

    Args:
        sites: sites, from :func:`sites_of`.
        pairs: numbers of the two sites of each compared pair.
        least: smallest number of sentences that two sites must share.

    Raises:
        UserError: a pair shares fewer; the message names the pairs and the remedies.
    """
    few = [
        (sites[a], sites[b], shared)
        for a, b in pairs
        if (shared := len(sites[a].utterances.keys() & sites[b].utterances.keys())) < least
    ]
    if not few:
        return
    shown = "; ".join(
        f"{a} and {b} share {shared or 'no sentence id'}"
        + (f" ({a} has {_some(a)}; {b} has {_some(b)})" if not shared else "")
        for a, b, shared in few[:3]
    )
    remedies = []
    if any(a.group == b.group for a, b, _ in few):
        remedies.append("within=false, which leaves out pairs of sites within a group")
    remedies.append("groups=[...], which names the groups that stay")
    if min(shared for _, _, shared in few):
        remedies.append(f"min_common={min(shared for _, _, shared in few)}")
    raise UserError(
        f"{len(few)} of {len(pairs)} pairs of sites share fewer than {least} sentences: {shown}"
        + ("; ..." if len(few) > 3 else "")
        + ". Embed what these sites lack, under equal sentence ids, or leave one of them out of the corpus;"
        f" fangyan retrieve also has {'; '.join(remedies)}"
    )


def _some(site: Site) -> str:
    names = sorted(site.utterances)
    return ", ".join(names[:3]) + (f", ... {len(names)} in all" if len(names) > 3 else "")
