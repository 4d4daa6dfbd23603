import sys

import numpy as np
import pytest
import torch
from reference.dtw import all_paths, cosine_distances, dtw_distance
from scipy.optimize import linear_sum_assignment, linprog

from retrieval.similarity.dtw import LANES, dtw_similarity
from retrieval.similarity.scores import ScoreKind, pooled_cosine, score_matrix, transport_similarity
from retrieval.similarity.seqsim import Packed, pack, seqsim_packed


def draw(seed: int, lengths: list[int], dimension: int = 6) -> tuple[list[np.ndarray], Packed]:
    random = np.random.default_rng(seed)
    arrays = [random.standard_normal((length, dimension)) for length in lengths]
    return arrays, pack([torch.from_numpy(array) for array in arrays])


def packed(*utterances: list[list[float]]) -> Packed:
    return pack([torch.tensor(frames, dtype=torch.float64) for frames in utterances])


def needs_pot(kind: ScoreKind) -> None:
    if kind is ScoreKind.transport:
        pytest.importorskip("ot")


def test_every_path_has_the_same_length():
    lengths = {sum(weight for _, _, weight in path) for path in all_paths(4, 6)}
    assert lengths == {4 + 6}


def test_the_recursion_finds_the_best_of_all_paths():
    for seed, (S, T) in enumerate([(1, 1), (1, 4), (3, 1), (4, 4), (3, 5)]):
        distances = np.random.default_rng(seed).random((S, T))
        best = min(sum(weight * distances[i, j] for i, j, weight in path) for path in all_paths(S, T))
        assert dtw_distance(distances) == pytest.approx(best / (S + T), abs=1e-12)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_dtw_equals_the_recursion(threads, dtype, tolerance):
    x, _ = draw(0, [1, 7, 12])
    y, _ = draw(1, [5, 1, 9, 20])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = score_matrix(
            ScoreKind.dtw,
            pack([torch.from_numpy(a).to(dtype) for a in x]),
            pack([torch.from_numpy(a).to(dtype) for a in y]),
        )
    finally:
        torch.set_num_threads(before)
    expected = [[1 - dtw_distance(cosine_distances(a, b)) for b in y] for a in x]
    assert found.dtype == dtype
    np.testing.assert_allclose(found.numpy(), expected, atol=tolerance)


@pytest.mark.parametrize("tile", [1, 60, 150, 1 << 20])
def test_dtw_does_not_depend_on_the_tile(tile):
    _, x = draw(0, [3, 7, 1, 12, 2])
    _, y = draw(1, [5, 1, 9])
    torch.testing.assert_close(dtw_similarity(x, y, tile=tile), dtw_similarity(x, y))


@pytest.mark.parametrize("count", [LANES - 1, LANES, 2 * LANES + 3])
def test_dtw_side_by_side_equals_the_recursion(count):
    lengths = np.random.default_rng(3).integers(1, 15, size=count).tolist()
    x, packed_x = draw(0, [6, 1])
    y, packed_y = draw(1, lengths)
    expected = [[1 - dtw_distance(cosine_distances(a, b)) for b in y] for a in x]
    np.testing.assert_allclose(dtw_similarity(packed_x, packed_y).numpy(), expected, atol=1e-12)


def test_dtw_by_hand():
    x = packed([[1, 0], [0, 1]], [[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]])
    y = packed([[1, 0]], [[1, 0], [0, 1]], [[0, 1], [1, 0]])
    # With itself, and slowed down, the distance is 0. Backwards, [[1,0],[0,1]] has the distances
    # [[1,0],[0,1]]: over a corner 2 + 0 + 1 of 4. Backwards and slowed down, the first column: 2 + 1 + 0 +
    # 0 + 0, then 1, of 7.
    expected = [[1 - 1 / 3, 1, 1 - 3 / 4], [1 - 3 / 6, 1, 1 - 4 / 7]]
    np.testing.assert_allclose(score_matrix(ScoreKind.dtw, x, y).numpy(), expected, atol=1e-12)


def test_the_order_counts_for_dtw_only():
    pytest.importorskip("ot")
    (frames,), x = draw(2, [8])
    y = pack([torch.from_numpy(frames[::-1].copy())])
    for kind in ScoreKind:
        score = score_matrix(kind, x, y).item()
        assert (score < 0.9) if kind is ScoreKind.dtw else (score == pytest.approx(1, abs=1e-9))


def test_transport_equals_the_linear_programme():
    pytest.importorskip("ot")
    x, packed_x = draw(3, [1, 4, 6])
    y, packed_y = draw(4, [3, 5, 1])
    found = transport_similarity(packed_x, packed_y).numpy()
    for n, a in enumerate(x):
        for m, b in enumerate(y):
            S, T = len(a), len(b)
            rows = np.kron(np.eye(S), np.ones(T))  # row sums of the plan, in row-major order
            columns = np.kron(np.ones(S), np.eye(T))
            sums = np.concatenate([np.full(S, 1 / S), np.full(T, 1 / T)])
            result = linprog(cosine_distances(a, b).ravel(), A_eq=np.vstack([rows, columns]), b_eq=sums)
            assert found[n, m] == pytest.approx(1 - result.fun, abs=1e-9)


def test_transport_between_equal_lengths_is_the_best_assignment():
    pytest.importorskip("ot")
    (a,), x = draw(5, [9])
    (b,), y = draw(6, [9])
    cosines = 1 - cosine_distances(a, b)
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    assert transport_similarity(x, y).item() == pytest.approx(cosines[rows, columns].mean(), abs=1e-9)


def test_transport_uses_every_frame_where_seqsim_repeats_one():
    pytest.importorskip("ot")
    x, y = packed([[1, 0], [1, 0], [1, 0], [0, 1]]), packed([[1, 0], [0, 1]])
    assert seqsim_packed(x, y).item() == pytest.approx(1)
    # A quarter of x, (1,0), must go to (0,1): the plan has 1/2 + 1/4 on equal frames.
    assert transport_similarity(x, y).item() == pytest.approx(0.75)


def test_pooled_cosine_of_mean_frames():
    x, y = packed([[3, 0], [0, 1]], [[2, 0]]), packed([[0, 5]], [[1, 0], [1, 0], [0, 1]])
    # Frames have length 1 before the mean: (1,1)/2 and (1,0) with (0,1) and (2,1)/3.
    expected = [[1 / np.sqrt(2), 3 / np.sqrt(10)], [0, 2 / np.sqrt(5)]]
    np.testing.assert_allclose(pooled_cosine(x, y).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("kind", list(ScoreKind))
def test_scores_are_symmetric_bounded_and_one_for_equal_utterances(kind):
    needs_pot(kind)
    _, x = draw(7, [1, 5, 8])
    _, y = draw(8, [4, 1])
    found = score_matrix(kind, x, y)
    assert found.shape == (3, 2)
    torch.testing.assert_close(found, score_matrix(kind, y, x).T)
    assert bool((found.abs() <= 1).all())
    itself = score_matrix(kind, x, x)
    torch.testing.assert_close(itself.diagonal(), torch.ones(3, dtype=torch.float64))
    assert bool((itself <= 1 + 1e-12).all())


@pytest.mark.parametrize("kind", list(ScoreKind))
def test_single_frames_have_their_cosine_as_score(kind):
    needs_pot(kind)
    (a, b), x = draw(9, [1, 1])
    cosine = 1 - cosine_distances(a, b).item()
    assert score_matrix(kind, x, x)[0, 1].item() == pytest.approx(cosine, abs=1e-12)


def test_other_dimensions_are_an_error():
    with pytest.raises(ValueError, match="embeddings of 6 and 5 dimensions cannot be compared"):
        score_matrix(ScoreKind.dtw, draw(0, [3])[1], draw(0, [3], dimension=5)[1])


def test_transport_without_its_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ValueError, match=r"score=transport needs POT.*fangyan\[transport\]"):
        score_matrix(ScoreKind.transport, draw(0, [3])[1], draw(1, [3])[1])
