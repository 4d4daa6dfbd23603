import numpy as np
import pytest
from planted import write_store

from retrieval.embedding.corrections import Correction, fit_correction, principal_directions
from retrieval.protocol.recall import retrieve
from retrieval.protocol.sites import sites_of


def skewed_store(directory, *, utterances=12, dimension=6, mean=50.0):
    """Frames with a large mean and variances from 100 to 1, turned by a random rotation."""
    random = np.random.default_rng(0)
    rotation = np.linalg.qr(random.standard_normal((dimension, dimension)))[0]
    scales = np.sqrt(np.linspace(100, 1, dimension))
    sentences = {
        f"{n:02}": ((random.standard_normal((30 + n, dimension)) * scales) @ rotation + mean).astype(
            np.float32
        )
        for n in range(utterances)
    }
    return write_store(directory, {("yue", "here"): sentences})


def all_frames(store):
    return np.array(store.frames, dtype=np.float64)


def test_moments_equal_numpy_whatever_the_block(tmp_path):
    store = skewed_store(tmp_path)
    frames = all_frames(store)
    for block in (7, 1 << 14):
        found = principal_directions(store, block=block)
        np.testing.assert_allclose(found.mean, frames.mean(axis=0), rtol=1e-12)
        covariance = np.cov(frames, rowvar=False, bias=True)
        rebuilt = found.directions @ np.diag(found.variances) @ found.directions.T
        np.testing.assert_allclose(rebuilt, covariance, rtol=1e-9, atol=1e-9)
        assert (np.diff(found.variances) <= 0).all()
        assert found.rank == 6


def test_whitened_frames_have_the_covariance_of_white_noise(tmp_path):
    store = skewed_store(tmp_path)
    white = fit_correction(Correction.whiten, store)(all_frames(store))
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(np.cov(white, rowvar=False, bias=True), np.eye(6), atol=1e-9)


def test_inner_products_of_whitened_frames_are_mahalanobis(tmp_path):
    store = skewed_store(tmp_path)
    frames = all_frames(store)
    centred = frames - frames.mean(axis=0)
    expected = centred[:5] @ np.linalg.inv(np.cov(frames, rowvar=False, bias=True)) @ centred[5:9].T
    white = fit_correction(Correction.whiten, store)(frames)
    np.testing.assert_allclose(white[:5] @ white[5:9].T, expected, atol=1e-9)


def test_directions_without_variance_are_left_out_by_whitening(tmp_path):
    random = np.random.default_rng(0)
    plane = random.standard_normal((200, 2)) @ random.standard_normal((2, 5)) + 3
    store = write_store(tmp_path, {("yue", "here"): {"1": plane}})
    white = fit_correction(Correction.whiten, store)(all_frames(store))
    assert white.shape == (200, 2)
    np.testing.assert_allclose(np.cov(white, rowvar=False, bias=True), np.eye(2), atol=1e-4)


def test_the_strongest_direction_is_removed_and_the_others_stay(tmp_path):
    store = skewed_store(tmp_path)
    frames = all_frames(store)
    centred = frames - frames.mean(axis=0)
    top = np.linalg.svd(centred, full_matrices=False)[2][0]
    found = fit_correction(Correction.all_but_the_top, store)(frames)
    np.testing.assert_allclose(found, centred - np.outer(centred @ top, top), atol=1e-6)
    np.testing.assert_allclose(found @ top, 0, atol=1e-6)


def test_one_direction_in_a_hundred_is_removed(tmp_path):
    random = np.random.default_rng(0)
    store = write_store(tmp_path, {("yue", "here"): {"1": random.standard_normal((600, 300))}})
    found = fit_correction(Correction.all_but_the_top, store)(all_frames(store))
    assert np.linalg.matrix_rank(found, tol=1e-3) == 300 - 3


def test_center_and_none(tmp_path):
    store = skewed_store(tmp_path)
    frames = store["yue-here-03"]
    assert fit_correction(Correction.none, store)(frames) is frames
    centred = fit_correction(Correction.center, store)(frames)
    assert centred.dtype == np.float32
    np.testing.assert_allclose(centred, frames - all_frames(store).mean(axis=0), atol=1e-4)


def test_equal_frames_are_an_error(tmp_path):
    store = write_store(tmp_path, {("yue", "here"): {"1": np.full((4, 3), 2.5)}})
    for kind in (Correction.whiten, Correction.all_but_the_top):
        with pytest.raises(ValueError, match=f"frames of .* are the same: {kind.value} leaves nothing"):
            fit_correction(kind, store)


def test_too_few_directions_to_remove_one_are_an_error(tmp_path):
    line = np.outer(np.arange(5.0), [1, 2, 3])
    store = write_store(tmp_path, {("yue", "here"): {"1": line}})
    with pytest.raises(ValueError, match="vary in 1 directions; all_but_the_top would remove 1"):
        fit_correction(Correction.all_but_the_top, store)


@pytest.mark.parametrize("kind", [Correction.center, Correction.whiten, Correction.all_but_the_top])
def test_a_common_direction_hides_the_words_until_it_is_removed(tmp_path, kind):
    random = np.random.default_rng(1)
    words = random.standard_normal((8, 12))
    common = np.zeros(12)
    common[0] = 200.0
    sites = {}
    for site, group in (("a", "yue"), ("b", "hak")):
        noise = 0.3 * random.standard_normal((8, 5, 12))
        loud = random.standard_normal((8, 5, 1)) * np.eye(12)[0] * (0 if kind is Correction.center else 20)
        sites[group, site] = {f"{n}": words[n] + common + noise[n] + loud[n] for n in range(8)}
    store = write_store(tmp_path, sites)
    assert retrieve(store, sites_of(store), correction=kind).recall(0, 1) == 1.0
