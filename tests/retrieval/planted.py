"""Stores of embeddings whose retrieval results are known beforehand."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from dataset_files import DATA

from retrieval.embedding.store import EmbeddingStore, EmbeddingWriter

SiteFrames = Mapping[str, np.ndarray]  # sentence id -> frames (T,D)


def write_store(
    directory: Path,
    sites: Mapping[tuple[str, str], SiteFrames],
    *,
    subdialects: Mapping[str, str] | None = None,
) -> EmbeddingStore:
    """A store with the utterances of some (group, site)."""
    dimension = next(frames.shape[1] for site in sites.values() for frames in site.values())
    writer = EmbeddingWriter(
        directory,
        dimension=dimension,
        dtype="float32",
        embedder="planted",
        fingerprint="planted",
        dataset=DATA.record(),
    )
    with writer:
        for (group, site), sentences in sites.items():
            for sentence, frames in sentences.items():
                writer.add(
                    f"{group}-{site}-{sentence}",
                    frames,
                    dialect=group,
                    subdialect=(subdialects or {}).get(site, ""),
                    site=site,
                    sentence_id=sentence,
                )
    return EmbeddingStore(directory)


def directions(words: Sequence[int], dimension: int, *, repeat: int = 1) -> np.ndarray:
    """Frames along axes of the space: utterances with the same words are alike, whatever their length."""
    return np.repeat(np.eye(dimension, dtype=np.float32)[list(words)], repeat, axis=0)
