from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import MonoCut, Recording, SupervisionSegment, load_manifest

from data_prep.fbank import FeatureConfig, FeatureShard, cuts_file, extract_shard, features_file, read_lost
from zipformer.errors import UserError

LILCOM_STEP = 2.0**-5  # features are stored as multiples of this


def kaldi_fbank(samples: torch.Tensor) -> torch.Tensor:
    """The reference: torchaudio's own port of Kaldi's features. (1, samples) -> (frames, 80)."""
    torchaudio = pytest.importorskip("torchaudio")
    return torchaudio.compliance.kaldi.fbank(
        samples,
        sample_frequency=16000.0,
        num_mel_bins=80,
        dither=0.0,
        snip_edges=False,
        frame_length=25.0,
        frame_shift=10.0,
        window_type="povey",
        preemphasis_coefficient=0.97,
        remove_dc_offset=True,
        low_freq=20.0,
        high_freq=-400.0,
        use_power=True,
        use_log_fbank=True,
        use_energy=False,
    )


def tone(seconds: float, rate: int) -> np.ndarray:
    """A glide from 200 to 2000 Hz with noise."""
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(0).normal(0, 0.01, time.shape)
    return (0.3 * np.sin(2 * np.pi * (200 * time + 900 * time**2 / seconds)) + noise).astype(np.float32)


def make_cut(folder: Path, name: str = "a", seconds: float = 1.237, rate: int = 16000) -> MonoCut:
    soundfile.write(folder / f"{name}.wav", tone(seconds, rate), rate, subtype="FLOAT")
    recording = Recording.from_file(folder / f"{name}.wav")
    if rate != 16000:
        recording = recording.resample(16000)
    supervision = SupervisionSegment(name, recording.id, 0, recording.duration, text="好", language="wuu")
    return MonoCut(name, 0, recording.duration, 0, [supervision], recording=recording)


def extract(folder: Path, cuts: list[MonoCut], factors: tuple[float, ...] = ()) -> list[MonoCut]:
    extract_shard(FeatureShard(folder / "fbank", 0, cuts, factors, 16000))
    return list(load_manifest(cuts_file(folder / "fbank", 0)))


def test_values_are_those_of_kaldi(tmp_path: Path) -> None:
    (cut,) = extract(tmp_path, [make_cut(tmp_path)])
    expected = kaldi_fbank(torch.from_numpy(tone(1.237, 16000))[None])
    found = cut.load_features()
    assert found.shape == (124, 80)
    np.testing.assert_allclose(found, expected[: len(found)].numpy(), atol=LILCOM_STEP)


def test_frames_are_a_hundredth_of_a_second(tmp_path: Path) -> None:
    cuts = [make_cut(tmp_path, f"c{i}", seconds) for i, seconds in enumerate((0.1, 0.5, 0.744, 2.0))]
    assert [cut.num_frames for cut in extract(tmp_path, cuts)] == [10, 50, 74, 200]


@pytest.mark.parametrize("installed", [True, False])
def test_other_rates_are_resampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    """With torchaudio's filter, also where torchaudio is not installed."""
    torchaudio = pytest.importorskip("torchaudio")
    monkeypatch.setattr("lhotse.augmentation.torchaudio.is_torchaudio_available", lambda: installed)
    (low,) = extract(tmp_path, [make_cut(tmp_path, "low", 1.0, rate=8000)])
    expected = kaldi_fbank(
        torchaudio.functional.resample(torch.from_numpy(tone(1.0, 8000))[None], 8000, 16000)
    )
    found = low.load_features()
    assert found.shape == (100, 80)
    # Above 4 kHz there is nothing but the edge of the resampling filter.
    np.testing.assert_allclose(found[:, :50], expected[:, :50].numpy(), atol=0.1)


def test_speed_perturbation_is_what_the_manifest_says(tmp_path: Path) -> None:
    copies = extract(tmp_path, [make_cut(tmp_path)], factors=(0.9, 1.0, 1.1))
    assert [cut.id for cut in copies] == ["a_sp0.9", "a", "a_sp1.1"]
    assert [cut.num_frames for cut in copies] == [137, 124, 112]
    for cut in copies:
        assert cut.supervisions[0].text == "好"
        assert cut.supervisions[0].duration == pytest.approx(cut.duration, abs=1e-4)
        expected = kaldi_fbank(
            torch.from_numpy(cut.load_audio())
        )  # Lhotse's own way from file to perturbed audio
        np.testing.assert_allclose(
            cut.load_features()[:-2], expected[: cut.num_frames - 2].numpy(), atol=0.05
        )


def test_a_shard_is_renamed_when_complete(tmp_path: Path) -> None:
    folder = tmp_path / "fbank"
    bad = make_cut(tmp_path, "bad")
    (tmp_path / "bad.wav").unlink()
    with pytest.raises(UserError, match=r"utterance bad: .*bad\.wav could be read when it was checked"):
        extract(tmp_path, [make_cut(tmp_path), bad])
    assert not cuts_file(folder, 0).exists()
    assert not features_file(folder, 0).exists()
    make_cut(tmp_path, "bad")
    assert len(extract(tmp_path, [make_cut(tmp_path), bad])) == 2
    assert sorted(path.name for path in folder.iterdir()) == ["cuts-00000.jsonl.gz", "feats-00000.lca"]


@pytest.mark.parametrize("may_lose", [True, False])
def test_an_utterance_that_is_lost_after_its_check(may_lose: bool, tmp_path: Path) -> None:
    cuts = [make_cut(tmp_path, name) for name in "abcd"]
    (tmp_path / "b.wav").write_text("no sound any more")
    shard = FeatureShard(tmp_path / "fbank", 0, cuts, (), 16000, may_lose)
    if not may_lose:
        with pytest.raises(UserError, match=r"utterance b: .*b\.wav.*start again"):
            extract_shard(shard)
        return
    extract_shard(shard)
    assert [cut.id for cut in load_manifest(cuts_file(tmp_path / "fbank", 0))] == ["a", "c", "d"]
    ((utterance_id, detail),) = read_lost(tmp_path / "fbank")
    assert utterance_id == "b"
    assert str(tmp_path / "b.wav") in detail
    (tmp_path / "c.wav").unlink()  # half of the shard: rather the disk than the files
    with pytest.raises(UserError, match="Put the file back"):
        extract_shard(shard)


@pytest.mark.parametrize("factors", [[1.0, 1.0], [0.1], [0.9, 3.0]])
def test_senseless_speed_factors(factors: list[float]) -> None:
    with pytest.raises(UserError, match=r"fbank\.speed_factors"):
        FeatureConfig(speed_factors=factors)
