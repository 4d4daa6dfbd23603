"""Masked spans: their lengths, their share, their places, and what stands in them."""

import numpy as np
import torch

from zipformer.tasks.masking import draw_masks, generator_of, hide
from zipformer.tasks.quantiser import Statistics, stack_frames


def rngs(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [generator_of(seed, 0, str(number)) for number in range(count)]


def runs_of(mask: np.ndarray) -> list[int]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return list(edges[1::2] - edges[::2])


def test_share_of_masked_frames_is_that_of_overlapping_spans() -> None:
    masks = draw_masks([400] * 500, rngs(500), start_probability=0.04, span=10)
    assert abs(masks[:, 10:].mean() - (1 - 0.96**10)) < 0.01
    inner = [length for mask in masks for length in runs_of(mask[:390])[:-1]]
    assert min(inner) == 10  # spans are whole, and overlapping ones are longer
    assert max(inner) > 10


def test_every_utterance_has_a_span_and_padding_never() -> None:
    lengths = [1, 2, 3, 7, 19, 20, 60]
    for seed in range(50):
        masks = draw_masks(lengths, rngs(7, seed), start_probability=0.0, span=10)
        assert masks.shape == (7, 60)
        # One span, whole; of short utterances half.
        assert [runs_of(mask) for mask in masks] == [[1], [1], [1], [3], [9], [10], [10]]
        assert not any(mask[length:].any() for mask, length in zip(masks, lengths, strict=True))
    everything = draw_masks(lengths, rngs(7), start_probability=1.0, span=10)
    assert everything.sum(axis=1).tolist() == lengths


def test_a_generator_depends_on_seed_step_and_utterance() -> None:
    keys = [(1, 3, "a"), (1, 3, "a"), (2, 3, "a"), (1, 4, "a"), (1, 3, "b")]
    first, again, *others = (
        draw_masks([80], [generator_of(*key)], start_probability=0.04, span=5) for key in keys
    )
    assert (first == again).all()
    assert all((first != other).any() for other in others)


def test_noise_stands_in_the_masked_stacks_and_nowhere_else() -> None:
    torch.manual_seed(0)
    deviation = torch.linspace(0.5, 4.0, 6)
    features = torch.randn(2, 4000, 6) * deviation - 7.0
    statistics = Statistics.of(features, torch.tensor([4000, 4000]))
    masks = torch.rand(2, 998) < 0.3
    hidden = hide(features, [4000, 4000], masks, statistics, [1, 2], noise=0.1)
    assert (hidden == features).all(dim=2).sum() == 2 * 4000 - 4 * masks.sum()
    before, after = stack_frames(features, 998), stack_frames(hidden, 998)
    assert torch.equal(before[~masks], after[~masks])
    filled = statistics.normalise(hidden)
    noise = stack_frames(filled, 998)[masks].unflatten(1, (4, 6)).flatten(0, 1)
    assert abs(float(noise.mean())) < 0.01
    torch.testing.assert_close(noise.std(dim=0), torch.full((6,), 0.1), rtol=0.1, atol=0.0)
    again = hide(features, [4000, 4000], masks, statistics, [1, 2], noise=0.1)
    assert torch.equal(hidden, again)
