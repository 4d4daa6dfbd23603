import numpy as np
import pytest
import torch

from retrieval.embedding.acoustic import (
    DurationEmbedder,
    FbankConfig,
    FbankEmbedder,
    MfccConfig,
    MfccEmbedder,
    slopes,
)
from retrieval.embedding.embedder import EncoderEmbedder
from retrieval.similarity.seqsim import pack, seqsim_packed


def test_cepstra_equal_the_cosine_sum():
    random = np.random.default_rng(0)
    log_mel = random.standard_normal((1, 30, 20))
    embedder = MfccEmbedder(MfccConfig(coefficients=5, stride=1))
    (embedding,) = embedder.embed(torch.from_numpy(log_mel), torch.tensor([30]))
    bins = np.arange(20)
    for k in range(5):
        cepstrum = (log_mel[0] * np.cos(np.pi * k * (bins + 0.5) / 20)).sum(axis=1)
        expected = (cepstrum - cepstrum.mean()) / cepstrum.std()
        np.testing.assert_allclose(embedding[:, k], expected, atol=1e-5)


def test_every_coefficient_has_mean_zero_and_variance_one():
    features = torch.randn(3, 40, 80, generator=torch.Generator().manual_seed(0)) * 7 + 3
    arrays = MfccEmbedder(MfccConfig(stride=1)).embed(features, torch.tensor([40, 25, 11]))
    assert [array.shape for array in arrays] == [(40, 39), (25, 39), (11, 39)]
    for array in arrays:
        assert array.dtype == np.float32
        np.testing.assert_allclose(array.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(array.std(axis=0), 1, atol=1e-4)


def test_padding_and_loudness_do_not_matter():
    embedder = MfccEmbedder()
    features = torch.randn(1, 30, 80, generator=torch.Generator().manual_seed(0))
    (alone,) = embedder.embed(features, torch.tensor([30]))
    padded = torch.cat(
        [features + 2.5, torch.full((1, 9, 80), -23.0)], dim=1
    )  # louder by a constant in the log
    (other,) = embedder.embed(padded, torch.tensor([30]))
    np.testing.assert_allclose(other, alone, atol=1e-4)


def test_stride_keeps_every_nth_frame():
    features = torch.randn(1, 31, 80, generator=torch.Generator().manual_seed(0))
    (every,) = MfccEmbedder(MfccConfig(stride=1)).embed(features, torch.tensor([31]))
    (third,) = MfccEmbedder(MfccConfig(stride=3)).embed(features, torch.tensor([31]))
    np.testing.assert_array_equal(third, every[::3])


def test_one_frame_and_constant_features_become_zeros():
    features = torch.full((2, 7, 80), float(np.log(1e-10)))
    for embedder in (MfccEmbedder(), FbankEmbedder()):
        for array in embedder.embed(features, torch.tensor([1, 7])):
            assert len(array)
            assert not array.any(), embedder.name


def test_slopes_of_a_straight_line():
    line = np.arange(10.0)[:, None] * 3
    inner = slopes(line, 2)[2:-2]
    np.testing.assert_allclose(inner, 3)
    # first frame, ends repeated: (1*(3-0) + 2*(6-0)) / (2*(1+4))
    assert slopes(line, 2)[0, 0] == pytest.approx(15 / 10)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"mfcc\.stride must be at least 1, found 0"):
        MfccConfig(stride=0)
    with pytest.raises(ValueError, match="10 mel bins give no 13 cepstral coefficients"):
        MfccEmbedder().embed(torch.ones(1, 5, 10), torch.tensor([5]))


def test_encoder_frames_without_padding_and_gradients():
    def encode(features, lengths):
        assert not torch.is_grad_enabled()
        return (2 * features[:, ::4]).half(), (lengths + 3) // 4

    features = torch.arange(2 * 8 * 3, dtype=torch.float32).view(2, 8, 3)
    embedder = EncoderEmbedder(encode, dimension=3)
    first, second = embedder.embed(features, torch.tensor([8, 4]))
    np.testing.assert_array_equal(first, 2 * features[0, ::4].numpy())
    np.testing.assert_array_equal(second, 2 * features[1, :1].numpy())
    assert first.dtype == np.float32


def test_fbank_is_normalised_over_the_utterance_or_left_alone():
    features = torch.randn(2, 40, 80, generator=torch.Generator().manual_seed(0)) * 4 - 8
    lengths = torch.tensor([40, 17])
    arrays = FbankEmbedder(FbankConfig(stride=3)).embed(features, lengths)
    raw = FbankEmbedder(FbankConfig(normalise=False, stride=3)).embed(features, lengths)
    for row, length, found, untouched in zip(features.double().numpy(), (40, 17), arrays, raw, strict=True):
        inside = row[:length]
        expected = (inside - inside.mean(axis=0)) / inside.std(axis=0)
        np.testing.assert_allclose(found, expected[::3], atol=1e-5)
        np.testing.assert_allclose(untouched, inside[::3], rtol=1e-6)


def test_the_cosine_of_durations_is_that_of_their_log_ratio():
    lengths = torch.tensor([50, 100, 101, 400, 3000])
    frames = DurationEmbedder().embed(torch.zeros(5, 3000, 80), lengths)
    assert [array.shape for array in frames] == [(1, 2)] * 5
    packed = pack([torch.from_numpy(array) for array in frames])
    ratios = np.log(lengths.numpy()[:, None] / lengths.numpy())
    expected = np.cos(np.pi * ratios / np.log(100))
    np.testing.assert_allclose(seqsim_packed(packed).numpy(), expected, atol=1e-6)


def test_the_nearest_duration_has_the_highest_score():
    random = np.random.default_rng(0)
    asked, pool = random.integers(30, 2000, 30), np.unique(random.integers(30, 2000, 40))
    embedder = DurationEmbedder()
    x, y = (
        pack([torch.from_numpy(a) for a in embedder.embed(torch.zeros(len(n), 1, 80), torch.from_numpy(n))])
        for n in (asked, pool)
    )
    expected = np.abs(np.log(asked[:, None]) - np.log(pool)).argmin(axis=1)
    np.testing.assert_array_equal(seqsim_packed(x, y).argmax(dim=1).numpy(), expected)
