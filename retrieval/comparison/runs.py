"""Makes runs for a comparison (:mod:`retrieval.comparison.variants`) from embeddings on disk."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval.comparison.variants import Run
from retrieval.embedding.corrections import Correction
from retrieval.protocol.recall import retrieve
from retrieval.protocol.run import open_store
from retrieval.protocol.sites import (
    MIN_COMMON,
    Duplicates,
    Level,
    Site,
    check_common_sentences,
    labels_of_dialects,
    site_pairs,
    sites_of,
)
from retrieval.results.naming import result_folder
from retrieval.similarity.scores import ScoreKind
from zipformer.data.dataset import choose_dataset, dataset_behind
from zipformer.errors import UserError
from zipformer.files import replacing
from zipformer.model_dir import trained_groups

logger = logging.getLogger(__name__)


@dataclass
class ScoresConfig:
    """Settings of a comparison of scores and corrections on the same embeddings.

    Attributes:
        model_dirs: model directories with embeddings of the split; several directories are runs that differ
            only in the seed.
        out_dir: folder for the tables.
        split: name of the split.
        dataset: name of the data set; null = the only data set with results.
        level: rows of the matrix: dialect groups, or varieties (subdialects).
        groups: groups to compare, in this order; empty = all.
        duplicates: ``error`` or ``first``, for a sentence that a site has more than once.
        scores: names of scores (:class:`retrieval.similarity.scores.ScoreKind`); the first, uncorrected, is
            the baseline.
        corrections: names of corrections (:class:`retrieval.embedding.corrections.Correction`); each score is
            computed with each correction.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for CUDA where there is one.
        resamples: number of bootstrap resamples.
        confidence: confidence level of the intervals.
        seed: random seed of the bootstrap.
    """

    model_dirs: list[str]
    out_dir: str
    split: str = "test"
    dataset: str | None = None
    level: Level = Level.group
    groups: list[str] = field(default_factory=list)
    duplicates: Duplicates = Duplicates.error
    scores: list[ScoreKind] = field(default_factory=lambda: [ScoreKind.seqsim, ScoreKind.pooled])
    corrections: list[Correction] = field(default_factory=lambda: [Correction.none, Correction.center])
    device: str = "auto"
    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("model_dirs", "scores", "corrections"):
            if not getattr(self, name):
                raise UserError(f"{name} is empty: there is nothing to compare")
        resolved = [Path(directory).resolve() for directory in self.model_dirs]
        if twice := [str(path) for path in dict.fromkeys(resolved) if resolved.count(path) > 1]:
            # One model counted as two runs would hide the variation between seeds.
            raise UserError(f"model_dirs names {', '.join(twice)} twice: name every run once")


def retrieve_run(
    model_dir: Path,
    split: str,
    *,
    dataset: str | None = None,
    score: ScoreKind = ScoreKind.seqsim,
    correction: Correction = Correction.none,
    level: Level = Level.group,
    groups: Sequence[str] = (),
    duplicates: Duplicates = Duplicates.error,
    device: torch.device | str = "cpu",
) -> Run:
    """Retrieve every sentence of every site at all other sites, with the embeddings of a model directory.

    The hits are stored in ``results/{dataset}/hits-{split}...npz`` and reused while the embeddings and the
    choice of sites (``level``, ``groups``, ``duplicates``) stay the same. If the sites of a group share too
    few sentences, there is no retrieval within groups.

    Raises:
        UserError: there are no embeddings, they were made with other weights than the model has now, there
            are several data sets to choose from, the directory does not say what the model was trained on,
            sites of different groups share too few sentences, or see ``sites_of``.
    """
    name = choose_dataset(model_dir, dataset)
    store = open_store(model_dir, split, name)
    trained = trained_groups(model_dir)
    if trained is None:
        raise UserError(
            f"{model_dir} has no provenance.json with trained_dialects, so held-out dialects cannot be told "
            "from trained ones: write the directory with fangyan average"
        )
    sites = sites_of(store, level=level, duplicates=duplicates, groups=groups)
    check_common_sentences(sites, site_pairs(sites))
    within = _within_groups(sites)
    sentences = sorted({sentence for site in sites for sentence in site.utterances})
    file = result_folder(
        model_dir, "hits", split, dataset=name, score=score.value, correction=correction.value
    )
    file = file.with_name(f"{file.name}.npz")
    fingerprint = str(store.description["fingerprint"])
    if level is not Level.group or groups or duplicates is not Duplicates.error:
        fingerprint += json.dumps([level.value, list(groups), duplicates.value], ensure_ascii=False)
    if not within:
        fingerprint += ", between groups"
    hits = _read_hits(file, fingerprint)
    if hits is None:
        outcome = retrieve(
            store, sites, within_groups=within, score=score, correction=correction, device=device
        )
        assert outcome.sentences == sentences
        hits = outcome.hits
        with replacing(file) as temporary:
            np.savez_compressed(temporary, hits=hits, fingerprint=fingerprint)
    trained_groups_of_level = labels_of_dialects(store, trained, level)
    data = dataset_behind(store.description.get("dataset"))
    return Run(str(model_dir), sites, sentences, hits, trained_groups_of_level, dataset=data)


def _within_groups(sites: Sequence[Site]) -> bool:
    """Whether the sites of every group share enough sentences for retrieval; warns if they do not."""
    different = set(site_pairs(sites))
    for a, b in site_pairs(sites, within_groups=True):
        if (a, b) not in different:
            shared = len(sites[a].utterances.keys() & sites[b].utterances.keys())
            if shared < MIN_COMMON:
                logger.warning(
                    "%s and %s share %d sentences: no recall within groups is measured",
                    *(sites[a], sites[b], shared),
                )
                return False
    return True


def _read_hits(file: Path, fingerprint: str) -> NDArray[np.float64] | None:
    """Stored hits with this fingerprint of embeddings and sites; None if there are none."""
    if not file.is_file():
        return None
    with np.load(file) as content:
        return content["hits"] if str(content["fingerprint"]) == fingerprint else None


def variants_of_scores(config: ScoresConfig, device: torch.device | str) -> dict[str, list[Run]]:
    """One variant for every score with every correction, named ``seqsim`` or ``seqsim, center``."""
    return {
        score_name(score, correction): [
            retrieve_run(
                Path(directory),
                config.split,
                dataset=config.dataset,
                score=score,
                correction=correction,
                level=config.level,
                groups=config.groups,
                duplicates=config.duplicates,
                device=device,
            )
            for directory in config.model_dirs
        ]
        for score in config.scores
        for correction in config.corrections
    }


def score_name(score: ScoreKind, correction: Correction) -> str:
    """``seqsim``, or ``seqsim, center`` with a correction."""
    return score.value if correction is Correction.none else f"{score.value}, {correction.value}"


def baseline_of(config: ScoresConfig) -> str:
    """The variant that the others are compared with: the first score, uncorrected if that is among them."""
    uncorrected = Correction.none in config.corrections
    return score_name(config.scores[0], Correction.none if uncorrected else config.corrections[0])
