import numpy as np
import pytest
import torch

from retrieval.similarity.candidates import mean_frames, nearest, rerank
from retrieval.similarity.seqsim import Packed, pack, seqsim_packed

pytest.importorskip("faiss")


def draw(random: np.random.Generator, utterances: int, *, offset: float = 0.0) -> Packed:
    shape = (utterances, 6)
    frames = random.standard_normal((*shape, 5)) + random.standard_normal((utterances, 1, 5)) + offset
    return pack([torch.from_numpy(f[: random.integers(1, 7)].astype(np.float32)) for f in frames])


def means(packed: Packed) -> np.ndarray:
    return np.stack([f.mean(dim=0).numpy() for f in packed.frames.split(packed.lengths.tolist())])


@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_nearest_are_those_with_the_most_similar_means(offset):
    random = np.random.default_rng(0)
    queries, pool = draw(random, 4, offset=offset), draw(random, 9, offset=offset)
    centre = means(pool).mean(axis=0)
    q, p = means(queries) - centre, means(pool) - centre
    cosines = q @ p.T / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(p, axis=1)
    expected = np.argsort(-cosines, axis=1)[:, :3]
    np.testing.assert_array_equal(nearest(queries, pool, 3).numpy(), expected)


def test_candidates_are_scored_by_seqsim():
    random = np.random.default_rng(1)
    queries, pool = draw(random, 5), draw(random, 8)
    candidates = torch.from_numpy(np.stack([random.permutation(8)[:3] for _ in range(5)]))
    expected = seqsim_packed(queries, pool).gather(1, candidates)
    torch.testing.assert_close(rerank(queries, pool, candidates), expected)


def test_all_utterances_as_candidates_are_all_pairs():
    random = np.random.default_rng(2)
    queries, pool = draw(random, 5), draw(random, 8)
    candidates = nearest(queries, pool, 8)
    assert all(sorted(row) == list(range(8)) for row in candidates.tolist())
    scores = torch.empty(5, 8).scatter_(1, candidates, rerank(queries, pool, candidates))
    torch.testing.assert_close(scores, seqsim_packed(queries, pool))


def test_means_of_frames_in_half_precision_are_not_rounded_to_it():
    packed = draw(np.random.default_rng(3), 9, offset=20.0)
    half = Packed(packed.frames.half(), packed.offsets)
    expected = np.stack([f.double().mean(dim=0) for f in half.frames.split(half.lengths.tolist())])
    np.testing.assert_allclose(mean_frames(half).numpy(), expected, atol=1e-6)
