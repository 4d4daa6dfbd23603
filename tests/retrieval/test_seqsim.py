import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.seqsim import seqsim_pair

from retrieval.similarity import seqsim as module
from retrieval.similarity.seqsim import (
    pack,
    precision_and_recall,
    precision_and_recall_packed,
    seqsim,
    seqsim_packed,
)


def draw_batch(random: np.random.Generator, N: int, T: int, D: int) -> tuple[torch.Tensor, torch.Tensor]:
    frames = torch.from_numpy(random.standard_normal((N, T, D)))
    lengths = torch.from_numpy(random.integers(1, T + 1, N))
    return frames, lengths


def by_definition(x, x_lengths, y, y_lengths) -> torch.Tensor:
    return torch.tensor(
        [
            [seqsim_pair(a[:s].numpy(), b[:t].numpy())[2] for b, t in zip(y, y_lengths.tolist(), strict=True)]
            for a, s in zip(x, x_lengths.tolist(), strict=True)
        ],
        dtype=torch.float64,
    )


def full(frames: torch.Tensor) -> torch.Tensor:
    return torch.full((len(frames),), frames.shape[1])


def test_values_by_hand():
    # cosines [[1], [0]]: P = 1/2, R = 1, SeqSim = 2/3
    x, y = torch.tensor([[[2.0, 0.0], [0.0, 3.0]]]), torch.tensor([[[5.0, 0.0]]])
    precision, recall = precision_and_recall(x, full(x), y, full(y))
    assert precision.item() == pytest.approx(0.5)
    assert recall.item() == pytest.approx(1.0)
    assert seqsim(x, full(x), y, full(y)).item() == pytest.approx(2 / 3)
    # 45 degrees to both frames of x: P = R = 1/sqrt(2)
    y = torch.tensor([[[1.0, 1.0]]])
    assert seqsim(x, full(x), y, full(y)).item() == pytest.approx(2**-0.5)
    # opposite directions: P = R = -1
    x, y = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[-1.0, 0.0]]])
    assert seqsim(x, full(x), y, full(y)).item() == pytest.approx(-1.0)


def test_orthogonal_frames_score_zero_and_not_nan():
    x, y = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    assert seqsim(x, full(x), y, full(y)).item() == 0.0


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    N=st.integers(1, 5),
    M=st.integers(1, 5),
    S=st.integers(1, 9),
    T=st.integers(1, 9),
    D=st.integers(1, 6),
    tile_bytes=st.sampled_from([1, 100, 1000, 1 << 20]),
)
def test_equals_the_definition_for_every_tile_size(seed, N, M, S, T, D, tile_bytes):
    random = np.random.default_rng(seed)
    # Positive frames: a sum P + R near 0 would magnify rounding without saying anything of the code.
    (x, x_lengths), (y, y_lengths) = draw_batch(random, N, S, D), draw_batch(random, M, T, D)
    x, y = x.abs() + 0.1, y.abs() + 0.1
    expected = by_definition(x, x_lengths, y, y_lengths)
    torch.testing.assert_close(
        seqsim(x, x_lengths, y, y_lengths, tile_bytes=tile_bytes), expected, rtol=1e-10, atol=1e-10
    )
    single = seqsim(x.float(), x_lengths, y.float(), y_lengths, tile_bytes=tile_bytes)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=1e-5, atol=1e-5)


def test_frames_of_either_sign():
    random = np.random.default_rng(5)
    (x, x_lengths), (y, y_lengths) = draw_batch(random, 7, 12, 8), draw_batch(random, 6, 15, 8)
    expected = by_definition(x, x_lengths, y, y_lengths)
    torch.testing.assert_close(seqsim(x, x_lengths, y, y_lengths), expected, rtol=1e-8, atol=1e-8)


def test_signs_that_differ_do_not_beat_an_equal_utterance():
    # One frame with cosines 0.3 and -0.91 to two others: P = 0.3, R = -0.305; eq. 3 alone would give 36.6.
    angles = torch.tensor([0.3, -0.91]).double().acos()
    x = torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)
    y = torch.stack([angles.cos(), angles.sin()], dim=1)[None]
    precision, recall = precision_and_recall(x, full(x), y, full(y))
    assert precision.item() == pytest.approx(0.3)
    assert recall.item() == pytest.approx(-0.305)
    assert seqsim(x, full(x), y, full(y)).item() == 0.0


@given(seed=st.integers(0, 2**16), S=st.integers(1, 4), T=st.integers(1, 4), D=st.integers(1, 3))
def test_no_score_leaves_the_range_of_cosines(seed, S, T, D):
    random = np.random.default_rng(seed)
    (x, x_lengths), (y, y_lengths) = draw_batch(random, 2, S, D), draw_batch(random, 2, T, D)
    assert seqsim(x, x_lengths, y, y_lengths).abs().max().item() <= 1 + 1e-9


def test_symmetric_and_one_for_an_utterance_with_itself():
    random = np.random.default_rng(1)
    (x, x_lengths), (y, y_lengths) = draw_batch(random, 6, 11, 16), draw_batch(random, 4, 7, 16)
    torch.testing.assert_close(seqsim(x, x_lengths, y, y_lengths), seqsim(y, y_lengths, x, x_lengths).T)
    itself = seqsim(x, x_lengths, x, x_lengths).diagonal()
    torch.testing.assert_close(itself, torch.ones(6, dtype=torch.float64))


def draw_utterances(random: np.random.Generator, N: int, T: int, D: int) -> list[torch.Tensor]:
    return [torch.from_numpy(random.standard_normal((random.integers(1, T + 1), D))) for _ in range(N)]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    N=st.integers(1, 6),
    M=st.integers(1, 6),
    T=st.integers(1, 40),
    tile_bytes=st.sampled_from([1, 300, 3000, 1 << 20]),
    threads=st.integers(1, 3),
)
def test_compiled_maxima_equal_plain_ones(seed, N, M, T, tile_bytes, threads):
    random = np.random.default_rng(seed)
    x, y = pack(draw_utterances(random, N, T, 3)), pack(draw_utterances(random, M, T, 3))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for second in (y, None):
            plain = plain_maxima(x, second, tile_bytes=max(8, tile_bytes))
            fast = precision_and_recall_packed(x, second, tile_bytes=tile_bytes)
            torch.testing.assert_close(tuple(fast), tuple(plain))
    finally:
        torch.set_num_threads(before)


def test_an_utterance_with_all_of_its_own_batch():
    random = np.random.default_rng(9)
    x = pack([frames.float() for frames in draw_utterances(random, 23, 30, 8)])
    scores = seqsim_packed(x, tile_bytes=20_000)  # 70 columns to a tile
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, seqsim_packed(x, x))
    assert torch.equal(scores, scores.T)
    torch.testing.assert_close(scores.diagonal(), torch.ones(23))


def test_parts_of_packed_utterances():
    random = np.random.default_rng(10)
    utterances = draw_utterances(random, 7, 9, 4)
    x = pack(utterances)
    expected = seqsim_packed(x)
    assert len(x) == 7
    assert x.lengths.tolist() == [len(frames) for frames in utterances]
    torch.testing.assert_close(seqsim_packed(x.part(2, 5), x), expected[2:5])
    torch.testing.assert_close(seqsim_packed(x, x.select([6, 0, 3])), expected[:, [6, 0, 3]])


def test_packing_names_what_is_wrong():
    frames = torch.ones(3, 2)
    with pytest.raises(ValueError, match="utterance 1 has no frames"):
        pack([frames, torch.ones(0, 2)])
    bad = torch.ones(4, 2)
    bad[2, 1] = float("inf")
    with pytest.raises(ValueError, match="utterance 1 has a value that is not finite in frame 2"):
        pack([frames, bad, frames])


@pytest.mark.parametrize("filling", [0.0, 1e4, float("nan"), float("inf")])
def test_padding_is_never_read(filling):
    random = np.random.default_rng(2)
    (x, x_lengths), (y, y_lengths) = draw_batch(random, 5, 6, 4), draw_batch(random, 5, 9, 4)
    padded = torch.full((5, 10, 4), filling, dtype=torch.float64)
    for row, frames, length in zip(padded, x, x_lengths, strict=True):
        row[:length] = frames[:length]
    expected = seqsim(x, x_lengths, y, y_lengths)
    torch.testing.assert_close(seqsim(padded, x_lengths, y, y_lengths), expected)
    torch.testing.assert_close(seqsim(y, y_lengths, padded, x_lengths), expected.T)


def test_scale_of_a_frame_does_not_matter():
    random = np.random.default_rng(3)
    (x, x_lengths), (y, y_lengths) = draw_batch(random, 3, 6, 4), draw_batch(random, 3, 6, 4)
    scales = torch.from_numpy(random.uniform(0.01, 100, (3, 6, 1)))
    torch.testing.assert_close(
        seqsim(scales * x, x_lengths, y, y_lengths), seqsim(x, x_lengths, y, y_lengths)
    )


def test_half_precision_is_summed_in_single():
    random = np.random.default_rng(4)
    (x, x_lengths), (y, y_lengths) = draw_batch(random, 4, 50, 32), draw_batch(random, 4, 50, 32)
    x, y = x.half(), y.half()
    scores = seqsim(x, x_lengths, y, y_lengths)
    assert scores.dtype == torch.float32
    expected = by_definition(x, x_lengths, y, y_lengths)
    torch.testing.assert_close(scores.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("owner", "name"), [(torch, "mm"), (torch.Tensor, "__matmul__")])
def test_similarities_stay_within_the_tile(monkeypatch, owner, name):
    largest = 0
    product = getattr(owner, name)

    def watched(*operands, **options):
        nonlocal largest
        result = product(*operands, **options)
        largest = max(largest, result.nbytes)
        return result

    monkeypatch.setattr(owner, name, watched)
    random = np.random.default_rng(6)
    x, y = pack(draw_utterances(random, 9, 80, 4)), pack(draw_utterances(random, 8, 70, 4))
    compare = precision_and_recall_packed if owner is torch else plain_maxima
    compare(x, y, tile_bytes=10_000)  # one pair alone has up to 45 kB
    assert 5_000 < largest <= 10_000


def plain_maxima(x, y, *, tile_bytes):
    return module._compare_padded(x, y, tile_bytes // 8)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([3, 0], "y_lengths must be in 1..4; found 0 at index 1"),
        ([5, 1], "found 5 at index 0"),
        ([3], r"y_lengths must be \(2,\)"),
    ],
)
def test_wrong_lengths_are_named(lengths, message):
    x = torch.ones(1, 2, 3)
    with pytest.raises(ValueError, match=message):
        seqsim(x, torch.tensor([2]), torch.ones(2, 4, 3), torch.tensor(lengths))


def test_a_frame_that_is_not_finite_is_named():
    x = torch.ones(3, 4, 2)
    x[1, 2, 0] = float("nan")
    with pytest.raises(ValueError, match=r"x\[1\] has a value that is not finite in frame 2"):
        seqsim(x, full(x), torch.ones(1, 1, 2), torch.tensor([1]))


def test_dimensions_that_differ_are_named():
    with pytest.raises(ValueError, match=r"one D; found \(1, 2, 3\) and \(1, 2, 4\)"):
        seqsim(torch.ones(1, 2, 3), torch.tensor([2]), torch.ones(1, 2, 4), torch.tensor([2]))


def test_empty_batch_gives_an_empty_matrix():
    scores = seqsim(
        torch.ones(0, 2, 3), torch.zeros(0, dtype=torch.int64), torch.ones(4, 2, 3), torch.full((4,), 2)
    )
    assert scores.shape == (0, 4)
