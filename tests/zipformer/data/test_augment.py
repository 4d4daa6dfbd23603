import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from zipformer.data.augment import SpecAugment, SpecAugmentConfig, time_warp


def masked_frames(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (after == before.mean()).all(axis=1)


def test_masks_stay_within_their_bounds_and_take_the_mean() -> None:
    config = SpecAugmentConfig(probability=1.0, time_warp_frames=0)
    augment = SpecAugment(config)
    rng = np.random.default_rng(0)
    masked_shares, masked_bins = [], []
    for _ in range(300):
        features = rng.normal(size=(400, 80)).astype(np.float32)
        result = augment(features.copy(), rng)
        changed = result != features
        assert np.all(result[changed] == features.mean())
        frames = masked_frames(features, result)
        masked_shares.append(frames.mean())
        masked_bins.append(changed[~frames].all(axis=0).sum())
    assert max(masked_shares) <= config.max_masked_fraction
    assert max(masked_bins) <= 2 * (config.max_feature_mask - 1)
    # One mask of width 0 .. 59 in 400 frames; two of width 0 .. 26 bins, which may overlap.
    assert abs(np.mean(masked_shares) - 29.5 / 400) < 0.01
    assert 20 < np.mean(masked_bins) < 26


def test_number_of_time_masks_grows_with_the_utterance() -> None:
    config = SpecAugmentConfig(probability=1.0, time_warp_frames=0, num_feature_masks=0)
    rng = np.random.default_rng(0)
    runs = []
    for _ in range(50):
        features = rng.normal(size=(2000, 80)).astype(np.float32)
        frames = masked_frames(features, SpecAugment(config)(features.copy(), rng))
        runs.append(np.sum(np.diff(frames.astype(int), prepend=0) == 1))
        assert frames.mean() <= 0.15
    assert max(runs) == 3  # ceil(0.15 * 2000 / 100)


def test_probability_zero_changes_nothing() -> None:
    features = np.random.default_rng(0).normal(size=(300, 80)).astype(np.float32)
    assert SpecAugment(SpecAugmentConfig(probability=0.0))(features, np.random.default_rng(1)) is features


def test_same_generator_state_gives_the_same_result_and_leaves_the_input_alone() -> None:
    features = np.random.default_rng(0).normal(size=(300, 80)).astype(np.float32)
    original = features.copy()
    augment = SpecAugment(SpecAugmentConfig(probability=1.0))
    first, second = (augment(features, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, features)
    assert np.array_equal(features, original)


@settings(max_examples=50, deadline=None)
@given(num_frames=st.integers(1, 300), max_shift=st.integers(0, 100), seed=st.integers(0, 1000))
def test_time_warp_moves_one_frame_and_keeps_order(num_frames: int, max_shift: int, seed: int) -> None:
    ramp = np.arange(num_frames, dtype=np.float32)[:, None].repeat(2, axis=1)
    warped = time_warp(ramp, max_shift, np.random.default_rng(seed))
    assert warped.shape == ramp.shape
    assert warped is not ramp
    assert np.all(np.diff(warped[:, 0]) >= 0)
    assert warped.min() >= 0
    assert warped.max() <= num_frames - 1
    # A frame that moves by s moves the others by less.
    assert np.abs(warped - ramp).max() <= max_shift + 1
    if num_frames <= 2 * max_shift + 1:
        assert np.array_equal(warped, ramp)


def test_time_warp_by_hand() -> None:
    class Fixed:
        """Draws 3 for the centre and 5 for where it goes."""

        def __init__(self) -> None:
            self.draws = [3, 5]

        def integers(self, low: int, high: int) -> int:
            value = self.draws.pop(0)
            assert low <= value < high
            return value

    features = np.array([0, 10, 20, 30, 40, 50, 60], dtype=np.float32)[:, None]
    warped = time_warp(features, 2, Fixed())  # type: ignore[arg-type]
    # Frames 0..2 stretched to 5, frames 3..6 squeezed to 2: centres at (t + .5) * 3/5 - .5 and 3 + (t + .5) *
    # 2 - .5.
    assert np.allclose(warped[:, 0], [0, 4, 10, 16, 20, 35, 55])
