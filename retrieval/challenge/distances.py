"""Distance by sound between query and right answer, for every sentence of every pair of sites.

Distances are rounded to six digits, so that the order of summation does not decide which sentence is dropped.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from retrieval.challenge.phones import phone_distance, read_phones, split_phones
from retrieval.challenge.settings import SoundConfig, SoundMeasure
from retrieval.challenge.utterances import Spoken
from retrieval.embedding.store import EmbeddingStore
from retrieval.protocol.sites import Site
from retrieval.similarity.scores import ScoreKind, score_matrix
from retrieval.similarity.seqsim import Packed, pack
from zipformer.errors import UserError

logger = logging.getLogger(__name__)

DIGITS = 6
SITES_IN_MEMORY = 64

SitePair = tuple[int, int]  # numbers of two sites, the smaller first


@dataclass(frozen=True)
class Distances:
    """Distance by sound of the same sentence at two sites.

    Attributes:
        measure: ``phones`` or ``acoustic``.
        of_pair: distance of each common sentence, by pair of sites.
        inputs: digests of the inputs of the distances, for the fingerprint.
    """

    measure: SoundMeasure
    of_pair: dict[SitePair, dict[str, float]]
    inputs: object


def measure_distances(
    spoken: Mapping[str, Spoken],
    sites: Sequence[Site],
    common: Mapping[SitePair, Sequence[str]],
    config: SoundConfig,
    *,
    control: Path | None,
) -> Distances:
    """Measure the distances as the settings say.

    Args:
        spoken: utterances by id.
        sites: sites with their utterances.
        common: common sentences of each pair of sites, at least two.
        config: measure and its settings.
        control: folder of the embeddings for the acoustic distance.

    Raises:
        UserError: the table of phones, phones of some utterances, or embeddings are missing, or the
            embeddings do not fit the cuts.
    """
    asked = [name for site in sites for name in site.utterances.values()]
    if config.measure is not SoundMeasure.acoustic:
        phones = phones_of(spoken, asked, config)
        if phones:
            logger.info("distance by sound: edit distance of phones")
            return _between_phones(phones, sites, common)
    if control is None:
        raise UserError(
            "the utterances have no phones (sound.field, sound.phones_file), so likeness by sound needs an"
            " acoustic control: give model_dir or sound.control with embeddings of fangyan embed"
            " embedder=mfcc, or leave sound out of removals"
        )
    logger.info("distance by sound: dynamic time warping of the frames of %s", control)
    store = EmbeddingStore(control)
    missing = [name for name in asked if name not in store.utterances]
    if missing:
        raise UserError(
            f"{control} lacks {len(missing)} of {len(asked)} utterances, the first is {missing[0]}: embed the"
            " split again with fangyan embed"
        )
    return _between_frames(store, sites, common)


def phones_of(
    spoken: Mapping[str, Spoken], asked: Sequence[str], config: SoundConfig
) -> dict[str, tuple[str, ...]]:
    """Phones of the given utterances; empty if no utterance has phones and the measure is ``auto``.

    Raises:
        UserError: there is no such table, or only some utterances have phones.
    """
    if config.phones_file is not None:
        written = read_phones(Path(config.phones_file))
        source, remedy = config.phones_file, "complete it"
    else:
        written = {name: spoken[name].written_phones for name in asked if spoken[name].written_phones}
        source = f"field {' or '.join(config.fields)} of the cuts"
        remedy = "give sound.phones_file or another sound.field"
        if not written and config.measure is SoundMeasure.auto:
            return {}
    split = {
        name: split_phones(written[name], config.notation, tones=config.tones)
        for name in asked
        if name in written
    }
    missing = [name for name in asked if not split.get(name)]
    if missing:
        raise UserError(
            f"{source}: {len(missing)} of {len(asked)} utterances have no phones, the first is {missing[0]}:"
            f" {remedy}, or compare sounds with sound.measure=acoustic"
        )
    return split


def _between_phones(
    phones: Mapping[str, tuple[str, ...]],
    sites: Sequence[Site],
    common: Mapping[SitePair, Sequence[str]],
) -> Distances:
    distance = lru_cache(maxsize=1 << 20)(phone_distance)  # varieties share words, and sites a variety
    of_pair = {
        (a, b): {
            sentence: round(
                distance(phones[sites[a].utterances[sentence]], phones[sites[b].utterances[sentence]]),
                DIGITS,
            )
            for sentence in sentences
        }
        for (a, b), sentences in track(common.items(), description="distances of phones")
    }
    used = {name: phones[name] for site in sites for name in site.utterances.values()}
    return Distances(SoundMeasure.phones, of_pair, sorted(used.items()))


def _between_frames(
    store: EmbeddingStore, sites: Sequence[Site], common: Mapping[SitePair, Sequence[str]]
) -> Distances:
    @lru_cache(maxsize=SITES_IN_MEMORY)
    def packed(site: int) -> Packed:
        arrays = []
        for _, name in sorted(sites[site].utterances.items()):
            frames = np.array(store[name], dtype=np.float32)  # (T,D), from disk
            if not np.isfinite(frames).all():
                raise UserError(
                    f"utterance {name} has frames that are not finite in {store.directory}: embed the split"
                    " again with fangyan embed"
                )
            arrays.append(torch.from_numpy(frames))
        return pack(arrays)

    place = [{sentence: n for n, sentence in enumerate(sorted(site.utterances))} for site in sites]
    of_pair: dict[SitePair, dict[str, float]] = {}
    for (a, b), sentences in track(common.items(), description="acoustic distances"):
        x, y = (packed(site).select([place[site][s] for s in sentences]) for site in (a, b))
        relative = relative_distances(1.0 - score_matrix(ScoreKind.dtw, x, y).double().cpu().numpy())
        of_pair[a, b] = dict(zip(sentences, relative.tolist(), strict=True))
    return Distances(SoundMeasure.acoustic, of_pair, store.description)


def relative_distances(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances on the diagonal, divided by the median of all other distances.

    Rooms and voices change all distances between two sites alike, so they cancel in the ratio. A ratio of 1
    means that the same sentence is no closer than different sentences.

    Args:
        distances: distances (N,N) of N >= 2 sentences at two sites, with equal sentences on the diagonal.

    Returns:
        Relative distances (N,), rounded; 0 for equal frames.
    """
    others = float(np.median(distances[~np.eye(len(distances), dtype=bool)]))
    if others <= 0:  # all utterances are equal: sentences cannot be told apart by sound
        return np.ones(len(distances))
    return np.round(np.maximum(np.diagonal(distances), 0) / others, DIGITS)


def weighted_quantile(values: Sequence[float], weights: Sequence[float], share: float) -> float:
    """Smallest value such that the values up to it have at least ``share`` of the total weight."""
    order = np.argsort(np.asarray(values), kind="stable")
    cumulated = np.cumsum(np.asarray(weights, dtype=np.float64)[order])
    place = int(np.searchsorted(cumulated, share * cumulated[-1] * (1 - 1e-12)))
    return float(np.asarray(values)[order][place])
