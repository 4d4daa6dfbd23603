"""The compiled sums over the lattice against those of plain PyTorch."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zipformer.losses import lattice, lattice_native
from zipformer.losses.lattice import Occupation

sizes = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 9)), min_size=1, max_size=4)
# Spread of the scores: alike; as of a trained model; far out of the range of floats.
spreads = st.sampled_from([0.01, 5.0, 2000.0])


class Lattice(NamedTuple):
    label: Tensor
    blank: Tensor
    frame_lengths: Tensor
    symbol_lengths: Tensor


def full_lattice(
    utterances: list[tuple[int, int]], spread: float, seed: int, impossible: float = 0.0
) -> Lattice:
    """Random scores for utterances of (frames, symbols); a share of the arcs is impossible."""
    random = torch.Generator().manual_seed(seed)
    frame_lengths, symbol_lengths = (torch.tensor(column) for column in zip(*utterances, strict=True))
    N, T, U = len(utterances), int(frame_lengths.max()), int(symbol_lengths.max())
    scores = []
    for shape in ((N, U, T), (N, U + 1, T)):
        score = spread * torch.randn(shape, generator=random, dtype=torch.float64)
        scores.append(score.masked_fill(torch.rand(shape, generator=random) < impossible, -math.inf))
    return Lattice(*scores, frame_lengths, symbol_lengths)


def assert_same(actual: Occupation, expected: Occupation, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(
        actual.log_probability, expected.log_probability, rtol=tolerance, atol=tolerance, equal_nan=True
    )
    for name in ("label", "blank"):
        value = getattr(actual, name).double()
        torch.testing.assert_close(value, getattr(expected, name), rtol=tolerance, atol=tolerance)


@settings(max_examples=150, deadline=None)
@given(sizes, spreads, st.sampled_from([0.0, 0.2]), st.integers(0, 999))
def test_full_lattice(utterances: list[tuple[int, int]], spread: float, impossible: float, seed: int) -> None:
    problem = full_lattice(utterances, spread, seed, impossible)
    assert_same(lattice_native.full_occupation(*problem), lattice.full_occupation(*problem))


@settings(max_examples=150, deadline=None)
@given(sizes, st.integers(1, 4), spreads, st.sampled_from([0.0, 0.2]), st.integers(0, 999))
def test_band(
    utterances: list[tuple[int, int]], width: int, spread: float, impossible: float, seed: int
) -> None:
    """Any band that does not go back: most end in the last symbol, some hold no path."""
    problem = full_lattice(utterances, spread, seed, impossible)
    N, U1, T = problem.blank.shape
    R = min(width, U1)
    random = torch.Generator().manual_seed(seed)
    starts = torch.randint(0, U1 - R + 1, (N, T), generator=random).sort(dim=1).values
    starts[:, 0] = 0
    for n, (frames, symbols) in enumerate(utterances):
        if seed % 4:
            starts[n, frames - 1 :] = max(0, symbols - R + 1)
            starts[n] = starts[n].clamp(max=int(starts[n, frames - 1]))
    scores = [torch.randn(N, T, R, generator=random, dtype=torch.float64) * spread for _ in range(2)]
    band = (*scores, starts, problem.frame_lengths, problem.symbol_lengths, U1 - 1)
    assert_same(lattice_native.band_occupation(*band), lattice.band_occupation(*band))


def test_float32_scores_are_summed_in_float64() -> None:
    problem = full_lattice([(1000, 60), (700, 60), (3, 1)], 4.0, 0)
    rough = Lattice(problem.label.float(), problem.blank.float(), *problem[2:])
    actual = lattice_native.full_occupation(*rough)
    expected = lattice.full_occupation(*rough)
    assert actual.label.dtype == actual.blank.dtype == torch.float32
    torch.testing.assert_close(actual.log_probability, expected.log_probability, rtol=1e-12, atol=0)
    torch.testing.assert_close(actual.blank.double(), expected.blank, rtol=1e-6, atol=1e-7)


def test_half_precision_and_scores_in_any_layout() -> None:
    problem = full_lattice([(30, 8), (20, 5)], 2.0, 0)
    label, blank = (scores.bfloat16().transpose(1, 2).contiguous().transpose(1, 2) for scores in problem[:2])
    actual = lattice_native.full_occupation(label, blank, *problem[2:])
    assert actual.label.dtype == torch.float32
    assert_same(actual, lattice.full_occupation(label, blank, *problem[2:]), 1e-6)


def test_not_a_number_stays_in_its_utterance() -> None:
    problem = full_lattice([(5, 3), (5, 3), (4, 2)], 1.0, 0)
    expected = lattice_native.full_occupation(*problem)
    problem.label[1, 2, 3] = math.nan
    problem.blank[2, 3, 0] = math.nan  # beyond the two symbols of the utterance
    actual = lattice_native.full_occupation(*problem)
    assert actual.log_probability[1].isnan()
    assert actual.blank[1].isnan().all()
    for n in (0, 2):
        assert actual.log_probability[n] == expected.log_probability[n]
        assert torch.equal(actual.blank[n], expected.blank[n])


def test_no_frames_and_no_symbols() -> None:
    problem = full_lattice([(5, 0), (3, 0)], 1.0, 0)
    no_frames = problem._replace(frame_lengths=torch.tensor([5, 0]))
    actual = lattice_native.full_occupation(*no_frames)
    assert actual.log_probability[0] == pytest.approx(float(problem.blank[0].sum()))
    assert actual.log_probability[1] == -math.inf
    assert not actual.blank[1].any()
    starts = torch.zeros(2, 5, dtype=torch.int64)
    band = lattice_native.band_occupation(
        problem.blank.transpose(1, 2), problem.blank.transpose(1, 2), starts, *no_frames[2:], 0
    )
    torch.testing.assert_close(band.log_probability, actual.log_probability)


def test_any_number_of_threads_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lattice_native, "_NODES_OF_A_THREAD", 1)
    problem = full_lattice([(200, 40)] * 7, 3.0, 0)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(lattice_native.full_occupation(*problem))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        for values, expected in zip(result, results[0], strict=True):
            assert torch.equal(values, expected)


def test_calls_from_many_threads_do_not_disturb_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lattice_native, "_NODES_OF_A_THREAD", 1)
    problems = [full_lattice([(100, 30)] * 6, 3.0, seed) for seed in range(8)]
    expected = [lattice_native.full_occupation(*problem) for problem in problems]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for actual, value in zip(
                pool.map(lambda problem: lattice_native.full_occupation(*problem), problems),
                expected,
                strict=True,
            ):
                assert torch.equal(actual.log_probability, value.log_probability)
                assert torch.equal(actual.label, value.label)


def test_lengths_and_bands_that_would_be_read_from_beyond_the_scores_are_refused() -> None:
    problem = full_lattice([(5, 3)], 1.0, 0)
    for frames, symbols, message in [
        (6, 3, r"frame lengths \[6\] are not all between 0 and 5"),
        (5, 4, r"symbol lengths \[4\] are not all between 0 and 3"),
        (5, -1, r"symbol lengths \[-1\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            lattice_native.full_occupation(*problem[:2], torch.tensor([frames]), torch.tensor([symbols]))
    band = torch.zeros(1, 3, 2)
    with pytest.raises(ValueError, match="the band goes back"):
        lattice_native.band_occupation(
            band, band, torch.tensor([[0, 1, 0]]), torch.tensor([3]), torch.tensor([1]), 2
        )


def test_code_is_compiled_where_no_cache_can_be_kept() -> None:
    namespace: dict[str, object] = {}
    exec("def double(x):\n    return 2 * x", namespace)  # has no file that a cache could stand beside
    double = lattice_native._compiled(namespace["double"])  # type: ignore[type-var]
    assert double(21) == 42  # type: ignore[operator]
