"""Distortion of the sound: levels of noise, rooms, volume; features as stored where nothing is distorted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, LilcomChunkyWriter, Recording, SupervisionSegment
from lhotse.cut import MonoCut
from numpy.typing import NDArray

from data_prep.tokens import train_token_model
from zipformer.data.batches import TrainingData
from zipformer.data.cuts import read_cuts
from zipformer.data.distortion import Distortion, DistortionConfig, add_noise, reverberate
from zipformer.data.features import fbank_extractor
from zipformer.data.selection import DataConfig
from zipformer.data.tokenizer import Tokenizer
from zipformer.errors import UserError

RATE = 16000


def sound(seed: int, seconds: float = 1.0) -> NDArray[np.float32]:
    """A tone that comes and goes, with a little noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * (200 + 100 * seed) * time) * (1 + np.sin(2 * np.pi * 3 * time))
    return (0.1 * tone + 0.001 * rng.normal(size=len(time))).astype(np.float32)


def room(delay: int = 50) -> NDArray[np.float32]:
    """An impulse response: nothing, the direct sound, an echo that dies away."""
    tail = np.exp(-np.arange(4000) / 800) * np.random.default_rng(0).normal(size=4000) * 0.1
    return np.concatenate([np.zeros(delay), [1.0], tail]).astype(np.float32)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A dozen recordings with stored features; a noise and a room beside them."""
    data_dir = tmp_path / "data"
    (data_dir / "audio").mkdir(parents=True)
    cuts = []
    with LilcomChunkyWriter(str(data_dir / "fbank")) as storage:
        for number in range(12):
            name = f"utt-{number:02}"
            path = data_dir / "audio" / f"{name}.wav"
            soundfile.write(path, sound(number, 1 + 0.1 * number), RATE)
            recording = Recording.from_file(path, recording_id=name)
            text = "天地人"[: 1 + number % 3]
            spoken = SupervisionSegment(name, name, 0.0, recording.duration, text=text, language="cmn")
            cut = MonoCut(name, 0.0, recording.duration, 0, supervisions=[spoken], recording=recording)
            cuts.append(cut.compute_and_store_features(fbank_extractor(RATE), storage))
    CutSet.from_cuts(cuts).to_file(data_dir / "cuts_train.jsonl.gz")
    Tokenizer(train_token_model(["天地人"])).save(data_dir / "tokens")
    for folder, samples in {"noise/music": 0.5 * sound(40, 0.7), "room": room()}.items():
        (tmp_path / folder).mkdir(parents=True)
        soundfile.write(tmp_path / folder / "one.wav", samples, RATE, subtype="FLOAT")
    return data_dir


def batches(
    corpus: Path, distortion: DistortionConfig, workers: int = 0
) -> list[tuple[list[str], NDArray[np.float32]]]:
    config = DataConfig(max_duration=6.0, max_utterance_seconds=5.0, num_buckets=1, num_workers=workers)
    config.distortion = distortion
    config.spec_augment = replace(config.spec_augment, probability=0.0)
    data = TrainingData(corpus / "cuts_train.jsonl.gz", Tokenizer.load(corpus / "tokens"), config)
    return [(batch.ids, batch.features.numpy()) for batch in data.epoch(1)]


def test_computed_features_are_those_that_were_stored(corpus: Path) -> None:
    stored, computed = batches(corpus, DistortionConfig()), batches(corpus, DistortionConfig(compute=True))
    assert [ids for ids, _ in stored] == [ids for ids, _ in computed]
    for (_, one), (_, two) in zip(stored, computed, strict=True):
        assert one.shape == two.shape
        np.testing.assert_allclose(one, two, atol=0.05)  # lilcom stores with so much error


def test_noise_has_the_level_asked_for() -> None:
    speech, noise = sound(1), sound(2, 0.3)
    for snr in (-5.0, 0.0, 20.0):
        added = add_noise(speech, noise, snr=snr, start=1234) - speech
        ratio = np.mean(speech**2) / np.mean(added**2)
        assert 10 * np.log10(ratio) == pytest.approx(snr, abs=0.01)
    # The noise has 4,800 samples: after its end it begins again.
    added = add_noise(speech, noise, snr=0.0, start=1234) - speech
    scale = np.abs(added).max() / np.abs(noise).max()
    np.testing.assert_allclose(added[: 4800 - 1234], scale * noise[1234:], atol=1e-4)
    np.testing.assert_allclose(added[4800 - 1234 :][:4800], scale * noise, atol=1e-4)
    assert np.array_equal(add_noise(np.zeros_like(speech), noise, snr=0.0), np.zeros_like(speech))
    assert np.array_equal(add_noise(speech, np.zeros(10, np.float32), snr=0.0), speech)


def test_a_room_delays_nothing_and_keeps_the_level() -> None:
    speech = sound(1)
    impulse = np.zeros(300, np.float32)
    impulse[120] = -0.5
    np.testing.assert_allclose(reverberate(speech, impulse), -speech, atol=1e-5)
    heard = reverberate(speech, room())
    assert len(heard) == len(speech)
    assert np.mean(heard**2) == pytest.approx(np.mean(speech**2), rel=1e-3)
    response = room()[50:]
    expected = np.array([response[: t + 1] @ speech[t::-1][: len(response)] for t in (9, 500, 3000)])
    np.testing.assert_allclose(heard[[9, 500, 3000]] / expected, heard[3000] / expected[-1], rtol=1e-3)


def test_louder_is_a_constant_in_the_logarithm(corpus: Path) -> None:
    plain = batches(corpus, DistortionConfig(compute=True))
    louder = batches(corpus, DistortionConfig(volume_probability=1.0, volume=[2.0, 2.0]))
    for (ids, one), (_, two) in zip(plain, louder, strict=True):
        assert ids
        speech = one > -12  # above the floor of the logarithm
        assert speech.mean() > 0.5
        np.testing.assert_allclose((two - one)[speech], 2 * np.log(2), atol=0.01)


def test_all_together_is_the_same_whenever_it_is_made(corpus: Path) -> None:
    everything = DistortionConfig(
        noise_dir=str(corpus.parent / "noise"),
        reverb_dir=str(corpus.parent / "room"),
        volume_probability=0.2,
    )
    first = batches(corpus, everything)
    for workers in (0, 2):
        for (ids, one), (same_ids, two) in zip(first, batches(corpus, everything, workers), strict=True):
            assert ids == same_ids
            assert np.array_equal(one, two)
    plain = batches(corpus, DistortionConfig(compute=True))
    changed = [
        not np.allclose(one, two, atol=1e-3)
        for (_, some), (_, others) in zip(first, plain, strict=True)
        for one, two in zip(some, others, strict=True)
    ]
    assert 4 <= sum(changed) < 12  # some are left as they are


def test_the_share_that_is_distorted(corpus: Path) -> None:
    cut = next(iter(read_cuts(corpus / "cuts_train.jsonl.gz")))
    distortion = Distortion(DistortionConfig(noise_dir=str(corpus.parent / "noise"), noise_probability=0.25))
    plain = Distortion(DistortionConfig(compute=True))(cut, np.random.default_rng(0))
    changed = sum(
        not np.array_equal(distortion(cut, np.random.default_rng(seed)), plain) for seed in range(200)
    )
    assert 30 <= changed <= 70


def test_what_is_missing_is_named(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.distortion\.noise_dir=.*none holds no recording"):
        Distortion(DistortionConfig(noise_dir=str(tmp_path / "none")))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.wav").write_bytes(b"RIFF")
    cut = next(iter(read_cuts(corpus / "cuts_train.jsonl.gz")))
    broken = Distortion(DistortionConfig(noise_dir=str(tmp_path / "broken"), noise_probability=1.0))
    with pytest.raises(UserError, match=r"broken/a\.wav cannot be read as audio (?s:.*)take it out"):
        broken(cut, np.random.default_rng(0))
    without = MonoCut("x", 0.0, 1.0, 0, features=cut.features)
    with pytest.raises(UserError, match="utterance x has features and no recording"):
        Distortion(DistortionConfig(compute=True))(without, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_probability": 1.5}, "noise_probability=1.5 is not in"),
        ({"noise_snr": [20.0, 10.0]}, "two values, the lower first"),
        ({"volume": [0.0, 1.0]}, "factors above 0"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DistortionConfig(**settings)  # type: ignore[arg-type]
