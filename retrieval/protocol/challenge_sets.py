"""A challenge set: the sentences that are queries at each pair of sites, and the rivals of the right answers.

It is stored in two files. Retrieval reads ``{name}.json``: settings, thresholds, a fingerprint of the inputs,
the sites with their utterances, and for every pair of sites the kept and the dropped sentences with reasons.
``{name}.tsv`` is for people: one line for each sentence of a pair, with all measurements.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.protocol.sites import Site
from zipformer.errors import UserError
from zipformer.files import write_text

FORMAT = 1
SitePair = tuple[int, int]
TSV_COLUMNS = (
    "source",
    "target",
    "sentence_id",
    "source_utterance",
    "target_utterance",
    "kept",
    "dropped_by",
    "distance",
    "names",
)


@dataclass(frozen=True)
class Judgement:
    """Measurements and verdict about one sentence of a pair of sites.

    Attributes:
        distance: distance of the two pronunciations; None if not measured.
        names: proper nouns and numbers at either site, as ``word/tag``; None if not tagged.
        dropped_by: removals that dropped the sentence; empty if it is kept. ``few``: it would have been the
            only sentence of its pair. ``random``: the draw of a random counterpart left it out.
    """

    distance: float | None = None
    names: tuple[str, ...] | None = None
    dropped_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChallengeSet:
    """The queries of every pair of sites, and their rivals.

    Attributes:
        name: name of the set; also the end of the name of its result folders.
        split: split of the cuts that the set was made from.
        sites: sites with their utterances.
        kept_of: kept sentences, sorted, by pair of sites (numbers of the sites, the smaller first).
        durations: seconds by utterance id if rivals are chosen by duration, else empty. In a random
            counterpart, the durations of a site are permuted to make the rivals random.
        candidates: number of utterances that a query is compared with, including the right answer; 0 = the
            whole pool.
        about: settings, thresholds and counts, for the record; in a random counterpart also ``drawn_for``,
            the fingerprint of the set that it was drawn for.
        fingerprint: SHA-256 of everything that determines the set.
    """

    name: str
    split: str
    sites: list[Site]
    kept_of: dict[SitePair, list[str]]
    durations: dict[str, float]
    candidates: int
    about: dict[str, Any]
    fingerprint: str

    @cached_property
    def _site_of(self) -> dict[str, int]:
        return {name: n for n, site in enumerate(self.sites) for name in site.utterances.values()}

    @cached_property
    def _members(self) -> dict[SitePair, frozenset[str]]:
        return {pair: frozenset(sentences) for pair, sentences in self.kept_of.items()}

    def kept(self, source: Site, target: Site, common: Sequence[str]) -> list[str]:
        """Common sentences that are kept, sorted; empty if fewer than two would remain.

        The order of source and target does not matter. Sites are identified by their utterances, so groups
        may be dialects or varieties.

        Raises:
            UserError: an utterance is not in the set.
        """
        left = []
        for sentence in common:
            a, b = sorted(self._site(site.utterances[sentence]) for site in (source, target))
            if sentence in self._members.get((a, b), ()):
                left.append(sentence)
        return sorted(left) if len(left) > 1 else []

    def allowed(self, source: Site, target: Site, kept: Sequence[str]) -> NDArray[np.bool_] | None:
        """Utterances of the target (columns) that each query (rows) is compared with.

        They are the right answer and the ``candidates - 1`` utterances nearest to it in duration; of equally
        near utterances, the first in the order of sentences.

        Returns:
            Mask (N,N) for N kept sentences, with True on the diagonal; None if all are allowed.
        """
        N = len(kept)
        if not 0 < self.candidates < N:
            return None
        seconds = np.array([self.durations[target.utterances[sentence]] for sentence in kept])
        distance = np.abs(seconds[:, None] - seconds)  # (N,N): right answer, rival
        np.fill_diagonal(distance, -1.0)
        nearest = np.argsort(distance, axis=1, kind="stable")[:, : self.candidates]
        result = np.zeros((N, N), dtype=bool)
        np.put_along_axis(result, nearest, True, axis=1)
        return result

    def _site(self, utterance: str) -> int:
        if utterance not in self._site_of:
            raise UserError(
                f"challenge set {self.name!r} does not know utterance {utterance}: it was made from other"
                " cuts; make it again with fangyan challenge"
            )
        return self._site_of[utterance]


def write_challenge(
    folder: Path, challenge: ChallengeSet, judgements: Mapping[SitePair, Mapping[str, Judgement]]
) -> Path:
    """Write ``{name}.json`` and ``{name}.tsv``; the same set gives the same bytes.

    Args:
        folder: folder to write into; created if missing.
        challenge: challenge set.
        judgements: judgement of every common sentence of every pair of sites.

    Returns:
        The JSON file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{challenge.name}.json"
    write_text(path.with_suffix(".tsv"), _as_tsv(challenge, judgements))
    write_text(path, _as_json(challenge, judgements))
    return path


def _as_json(challenge: ChallengeSet, judgements: Mapping[SitePair, Mapping[str, Judgement]]) -> str:
    header = {
        "format": FORMAT,
        "name": challenge.name,
        "split": challenge.split,
        "fingerprint": challenge.fingerprint,
        "candidates": challenge.candidates,
        **challenge.about,
    }
    sites = [
        {"group": site.group, "name": site.name, "utterances": dict(sorted(site.utterances.items()))}
        for site in challenge.sites
    ]
    pairs = [
        {
            "sites": list(pair),
            "kept": challenge.kept_of.get(pair, []),
            "dropped": {
                sentence: _reason(judgement)
                for sentence, judgement in sorted(of_sentences.items())
                if judgement.dropped_by
            },
        }
        for pair, of_sentences in sorted(judgements.items())
    ]
    # Long lists have one entry on each line, so that people can find a pair and a diff shows changes.
    lists: dict[str, list[Any]] = {
        "sites": sites,
        "pairs": pairs,
        "durations": [dict(sorted(challenge.durations.items()))],
    }
    parts = [json.dumps(header, indent=2, ensure_ascii=False)[:-2]]
    for key, entries in lists.items():
        lines = [json.dumps(entry, ensure_ascii=False) for entry in entries]
        parts.append(f'  "{key}": [\n    ' + ",\n    ".join(lines) + "\n  ]")
    return ",\n".join(parts) + "\n}\n"


def _reason(judgement: Judgement) -> dict[str, object]:
    """Reason why a sentence was dropped, with the measurement."""
    reason: dict[str, object] = {"by": list(judgement.dropped_by)}
    if judgement.distance is not None:
        reason["distance"] = judgement.distance
    if judgement.names:
        reason["names"] = list(judgement.names)
    return reason


def _as_tsv(challenge: ChallengeSet, judgements: Mapping[SitePair, Mapping[str, Judgement]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(TSV_COLUMNS)
    for (a, b), of_sentences in sorted(judgements.items()):
        source, target = challenge.sites[a], challenge.sites[b]
        for sentence, found in sorted(of_sentences.items()):
            writer.writerow(
                [
                    source,
                    target,
                    sentence,
                    source.utterances[sentence],
                    target.utterances[sentence],
                    "no" if found.dropped_by else "yes",
                    " ".join(found.dropped_by),
                    "" if found.distance is None else f"{found.distance:.6f}",
                    " ".join(found.names or ()),
                ]
            )
    return text.getvalue()


def read_challenge(path: Path | str) -> ChallengeSet:
    """Read a set from :func:`write_challenge`.

    Raises:
        UserError: there is no such file, or it is not a challenge set of this version.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no challenge set at {path}: make it with fangyan challenge")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise UserError(f"format {content['format']} is not {FORMAT}")
        known = ("format", "name", "split", "fingerprint", "candidates", "sites", "pairs", "durations")
        return ChallengeSet(
            name=str(content["name"]),
            split=str(content["split"]),
            sites=[Site(site["group"], site["name"], dict(site["utterances"])) for site in content["sites"]],
            kept_of={_pair(pair["sites"]): list(pair["kept"]) for pair in content["pairs"] if pair["kept"]},
            durations={name: float(value) for name, value in content["durations"][0].items()},
            candidates=int(content["candidates"]),
            about={key: value for key, value in content.items() if key not in known},
            fingerprint=str(content["fingerprint"]),
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            f"{path} is not a challenge set ({type(error).__name__}: {error}): make it again with"
            " fangyan challenge"
        ) from error


def _pair(numbers: Sequence[int]) -> SitePair:
    a, b = numbers
    return int(a), int(b)
