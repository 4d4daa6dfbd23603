"""Builds the challenge sets of a split from its cuts."""

import hashlib
import json
import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retrieval.challenge.distances import (
    Distances,
    SitePair,
    measure_distances,
    weighted_quantile,
)
from retrieval.challenge.settings import (
    COMBINED,
    RANDOM_ENDING,
    ChallengeConfig,
    Removal,
    SoundConfig,
    SoundMeasure,
)
from retrieval.challenge.taggers import named_words, tagger_version
from retrieval.challenge.utterances import Spoken, read_spoken, sites_and_pairs, texts_of
from retrieval.embedding.embedder import EmbedderKind
from retrieval.protocol.challenge_sets import FORMAT, ChallengeSet, Judgement, write_challenge
from retrieval.protocol.sites import Site
from retrieval.results.naming import result_folder
from zipformer.data.cuts import find_manifest, read_cuts
from zipformer.data.dataset import name_of, read_dataset
from zipformer.errors import UserError

logger = logging.getLogger(__name__)

RANDOM = "random"  # reason: dropped by the draw of a random counterpart
FEW = "few"  # reason: the only sentence left of a pair of sites, a pool of one


@dataclass(frozen=True)
class Measured:
    """Measurements behind the removals, before any removal is applied.

    Attributes:
        distances: distances by sound; None if not measured.
        threshold: largest distance at which a sentence is dropped.
        names: proper nouns and numbers by utterance id; None if not tagged.
        about: settings and thresholds of each removal, for the record.
        inputs: inputs of the fingerprint of each removal.
    """

    distances: Distances | None
    threshold: float
    names: Mapping[str, Sequence[str]] | None
    about: dict[str, dict[str, object]]
    inputs: dict[str, object]


@dataclass(frozen=True)
class Built:
    """A challenge set with the judgements behind it."""

    challenge: ChallengeSet
    judgements: dict[SitePair, dict[str, Judgement]]

    def with_dataset(self, record: Mapping[str, str]) -> "Built":
        """The same set with the record of the data set that it was built from."""
        about = self.challenge.about | {"dataset": dict(record)}
        return replace(self, challenge=replace(self.challenge, about=about))


def build_challenges(config: ChallengeConfig) -> list[Path]:
    """Build all sets, then write them; returns their JSON files.

    Raises:
        UserError: prepared cuts, phones, embeddings or texts are missing, a tagger is not installed, or a set
            would be empty.
    """
    cuts = read_cuts(find_manifest(Path(config.data_dir), config.split))
    spoken = read_spoken(cuts, text=config.names.text, phones_fields=config.sound.fields)
    record = read_dataset(Path(config.data_dir), config.split, config.dataset).record()
    built = [one.with_dataset(record) for one in build(spoken, config)]
    folder = Path(config.out_dir or Path(config.data_dir) / f"challenge-{config.split}")
    return [write_challenge(folder, one.challenge, one.judgements) for one in built]


def build(spoken: Mapping[str, Spoken], config: ChallengeConfig) -> list[Built]:
    """A set for each removal, one with all removals if there are several, and the random counterparts.

    Raises:
        UserError: see :func:`build_challenges`.
    """
    sites, common = sites_and_pairs(spoken, config.level, config.duplicates)
    measured = measure(spoken, sites, common, config)
    wanted = {removal.set_name: [removal] for removal in config.removals}
    if len(config.removals) > 1:
        wanted[COMBINED] = list(config.removals)
    built = []
    for name, removals in wanted.items():
        judgements = {
            pair: _judge(pair, sentences, sites, measured, removals) for pair, sentences in common.items()
        }
        one = _one_set(name, removals, judgements, spoken, sites, measured, config)
        _check_not_empty(one.challenge, measured, removals)
        _warn_of_small_pools(one.challenge)
        built.append(one)
        if config.random:
            drawn = {
                pair: draw_as_many(of_sentences, f"{config.seed}/{pair}")
                for pair, of_sentences in judgements.items()
            }
            arguments = (name + RANDOM_ENDING, removals, drawn, spoken, sites, measured, config)
            built.append(_one_set(*arguments, seed=config.seed, drawn_for=one.challenge.fingerprint))
    return built


def draw_as_many(judged: Mapping[str, Judgement], seed: str) -> dict[str, Judgement]:
    """Draw as many sentences as were kept, at random; the same seed draws the same sentences."""
    count = sum(not found.dropped_by for found in judged.values())
    chosen = set(random.Random(seed).sample(sorted(judged), count))
    return {
        sentence: replace(found, dropped_by=() if sentence in chosen else (RANDOM,))
        for sentence, found in judged.items()
    }


def measure(
    spoken: Mapping[str, Spoken],
    sites: Sequence[Site],
    common: Mapping[SitePair, Sequence[str]],
    config: ChallengeConfig,
) -> Measured:
    """Measure the distances, threshold and names for the removals; raises the errors of :func:`build`."""
    distances, threshold, names = None, 0.0, None
    about: dict[str, dict[str, object]] = {}
    inputs: dict[str, object] = {}
    if Removal.sound in config.removals:
        enough = {pair: sentences for pair, sentences in common.items() if len(sentences) > 1}
        distances = measure_distances(spoken, sites, enough, config.sound, control=_control(config))
        threshold = sound_threshold(distances, sites, config.sound)
        about["sound"] = {
            "measure": distances.measure.value,
            "drop_at_distance_up_to": threshold,
            "chosen_by": "quantile" if config.sound.threshold is None else "threshold",
            "quantile": config.sound.quantile if config.sound.threshold is None else None,
        }
        if distances.measure is SoundMeasure.phones:
            about["sound"] |= {"notation": config.sound.notation.value, "tones": config.sound.tones}
        inputs["sound"] = distances.inputs
    if Removal.names in config.removals:
        texts = texts_of(spoken, sites, config.names.text)
        words = named_words(texts.values(), config.names)
        names = {name: words[text] for name, text in texts.items()}
        about["names"] = {
            "tagger": tagger_version(config.names),
            "text": config.names.text.value,
            "tags": config.names.chosen_tags,
        }
        # The fingerprint includes the tags: a pipeline may change without changing its name.
        inputs["names"] = sorted((name, text, names[name]) for name, text in texts.items())
    if Removal.duration in config.removals:
        about["duration"] = {"candidates": config.duration.candidates}
        inputs["duration"] = sorted((name, item.duration) for name, item in spoken.items())
    return Measured(distances, threshold, names, about, inputs)


def sound_threshold(distances: Distances, sites: Sequence[Site], config: SoundConfig) -> float:
    """Threshold from the settings, or as a quantile over pairs of different groups.

    Every pair of groups has the same total weight, divided among its site pairs, so that groups with many
    sites do not determine the threshold.

    Raises:
        UserError: there are no distances between groups.
    """
    if config.threshold is not None:
        return config.threshold
    by_groups: dict[tuple[str, ...], list[float]] = {}
    for (a, b), of_sentences in distances.of_pair.items():
        groups = tuple(sorted((sites[a].group, sites[b].group)))
        if groups[0] != groups[1]:
            by_groups.setdefault(groups, []).extend(of_sentences.values())
    if not by_groups:
        raise UserError(
            "no two sites of different groups share two sentences: parallel utterances need equal"
            " sentence ids"
        )
    values = [value for found in by_groups.values() for value in found]
    weights = [1 / len(found) for found in by_groups.values() for _ in found]
    return weighted_quantile(values, weights, config.quantile)


def _control(config: ChallengeConfig) -> Path | None:
    if config.sound.control is not None:
        return Path(config.sound.control)
    if config.model_dir is None:
        return None
    return result_folder(
        Path(config.model_dir),
        "embeddings",
        config.split,
        dataset=name_of(Path(config.data_dir), config.dataset),
        embedder=EmbedderKind.mfcc.value,
    )


def _one_set(
    name: str,
    removals: Sequence[Removal],
    judgements: dict[SitePair, dict[str, Judgement]],
    spoken: Mapping[str, Spoken],
    sites: Sequence[Site],
    measured: Measured,
    config: ChallengeConfig,
    *,
    seed: int | None = None,
    drawn_for: str | None = None,
) -> Built:
    """Challenge set from judgements; a random set also needs a seed and its counterpart's fingerprint."""
    kept = {
        pair: sorted(sentence for sentence, found in of_sentences.items() if not found.dropped_by)
        for pair, of_sentences in judgements.items()
    }
    by_duration = Removal.duration in removals
    candidates = config.duration.candidates if by_duration else 0
    durations = _durations(spoken, sites, seed) if by_duration else {}
    about: dict[str, Any] = {
        "removals": {removal.value: measured.about[removal.value] for removal in removals},
        "random_seed": seed,
        "drawn_for": drawn_for,
        "between_groups": _counts(judgements, sites, candidates, within=False),
        "within_groups": _counts(judgements, sites, candidates, within=True),
    }
    fingerprint = _fingerprint(
        [FORMAT, name, config.split, about["removals"], seed],
        {removal.value: measured.inputs[removal.value] for removal in removals},
        [[str(site), sorted(site.utterances.items())] for site in sites],
    )
    challenge = ChallengeSet(name, config.split, list(sites), kept, durations, candidates, about, fingerprint)
    return Built(challenge, judgements)


def _durations(spoken: Mapping[str, Spoken], sites: Sequence[Site], seed: int | None) -> dict[str, float]:
    """Seconds of each utterance; a seed permutes them within each site, to make the rivals random."""
    result: dict[str, float] = {}
    for site in sites:
        names = [name for _, name in sorted(site.utterances.items())]
        seconds = [spoken[name].duration for name in names]
        if seed is not None:
            random.Random(f"{seed}/{site}").shuffle(seconds)
        result.update(zip(names, seconds, strict=True))
    return result


def _judge(
    pair: SitePair,
    sentences: Sequence[str],
    sites: Sequence[Site],
    measured: Measured,
    removals: Sequence[Removal],
) -> dict[str, Judgement]:
    """Judgements of the common sentences of two sites."""
    result: dict[str, Judgement] = {}
    for sentence in sentences:
        distance, names, dropped_by = None, None, []
        if Removal.sound in removals and measured.distances is not None:
            distance = measured.distances.of_pair.get(pair, {}).get(sentence)
            if distance is not None and distance <= measured.threshold:
                dropped_by.append(Removal.sound.value)
        if Removal.names in removals and measured.names is not None:
            of_both = (measured.names[sites[site].utterances[sentence]] for site in pair)
            names = tuple(dict.fromkeys(word for words in of_both for word in words))
            if names:
                dropped_by.append(Removal.names.value)
        result[sentence] = Judgement(distance, names, tuple(dropped_by))
    left = [sentence for sentence, found in result.items() if not found.dropped_by]
    if len(left) == 1:
        result[left[0]] = replace(result[left[0]], dropped_by=(FEW,))
    return result


def _counts(
    judgements: Mapping[SitePair, Mapping[str, Judgement]],
    sites: Sequence[Site],
    candidates: int,
    *,
    within: bool,
) -> dict[str, Any]:
    """Number of site pairs, number of their sentences, and mean chance level over pairs in %."""
    dropped: Counter[str] = Counter()
    pairs = excluded = sentences = kept = 0
    chances = []
    for (a, b), of_sentences in judgements.items():
        if (sites[a].group == sites[b].group) is not within:
            continue
        left = sum(not found.dropped_by for found in of_sentences.values())
        pairs, sentences, kept = pairs + 1, sentences + len(of_sentences), kept + left
        dropped.update(reason for found in of_sentences.values() for reason in found.dropped_by)
        if left:
            chances.append(100 / min(left, candidates or left))
        else:
            excluded += 1
    return {
        "site_pairs": pairs,
        "excluded_site_pairs": excluded,
        "sentences": sentences,
        "kept": kept,
        "dropped_by": dict(sorted(dropped.items())),
        "chance": sum(chances) / len(chances) if chances else None,
    }


def _check_not_empty(challenge: ChallengeSet, measured: Measured, removals: Sequence[Removal]) -> None:
    name, counts = challenge.name, challenge.about["between_groups"]
    reasons = ", ".join(f"{count} by {reason}" for reason, count in counts["dropped_by"].items())
    if not counts["kept"]:
        remedies = []
        if Removal.sound in removals:
            remedies.append(
                f"lower the threshold (it is {measured.threshold:g}) with sound.threshold or sound.quantile"
            )
        if Removal.names in removals:
            remedies.append("ask for fewer names.tags")
        remedies.append("or leave a removal out of removals")
        raise UserError(
            f"challenge set {name!r} is empty: of {counts['sentences']} sentences in {counts['site_pairs']}"
            f" site pairs between groups, {reasons or 'none was common to two sites'}; {', '.join(remedies)}"
        )
    if counts["excluded_site_pairs"]:
        logger.warning(
            "%s: %d of %d site pairs between groups keep fewer than 2 sentences and are left out (%s)",
            name,
            counts["excluded_site_pairs"],
            counts["site_pairs"],
            reasons,
        )


def _warn_of_small_pools(challenge: ChallengeSet) -> None:
    """Warn about pools that are too small to choose rivals by duration."""
    pools = [len(kept) for kept in challenge.kept_of.values() if kept]
    if small := sum(size <= challenge.candidates for size in pools):
        logger.warning(
            "%s: %d of %d site pairs keep at most duration.candidates=%d sentences: there all are rivals,"
            " whatever their duration; take fewer candidates",
            challenge.name,
            small,
            len(pools),
            challenge.candidates,
        )


def _fingerprint(*parts: object) -> str:
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
