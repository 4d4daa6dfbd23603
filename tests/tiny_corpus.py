"""A prepared corpus of a few utterances of random features, for tests of training."""

from pathlib import Path

import numpy as np
from lhotse import CutSet, LilcomChunkyWriter, MonoCut, SupervisionSegment
from lhotse.features import Features

from data_prep.tokens import train_token_model
from zipformer.data.tokenizer import Tokenizer
from zipformer.encoder.zipformer import EncoderConfig
from zipformer.heads.attention_decoder import AttentionDecoderConfig
from zipformer.model_config import AsrModelConfig

CHARACTERS = "一二三四五六七八九十"
DIALECTS = ("cmn", "yue", "nan")


def write_tiny_corpus(directory: Path, *, utterances: int = 24, seed: int = 0) -> Path:
    """Write tokens and the splits train and valid; returns the data directory.

    Features are smooth noise plus a pattern per character, of 0.8 to 2 seconds, so that a small model can
    learn.
    """
    rng = np.random.default_rng(seed)
    patterns = rng.normal(size=(len(CHARACTERS), 80)) * 3
    texts = []
    for split, count in (("train", utterances), ("valid", 6)):
        cuts = []
        with LilcomChunkyWriter(str(directory / f"fbank-{split}")) as storage:
            for index in range(count):
                characters = rng.integers(len(CHARACTERS), size=rng.integers(2, 6))
                text = "".join(CHARACTERS[c] for c in characters)
                frames = int(rng.integers(80, 200))
                features = rng.normal(size=(frames, 80)) - 5
                for position, character in enumerate(characters):
                    start = position * frames // len(characters)
                    features[start : start + 15] += patterns[character]
                name, dialect = f"{split}-{index:03d}", DIALECTS[index % len(DIALECTS)]
                cuts.append(make_cut(name, features.astype(np.float32), text, dialect, storage))
                texts.append(text)
        CutSet.from_cuts(cuts).to_file(directory / f"cuts_{split}.jsonl.gz")
    Tokenizer(train_token_model([*texts, CHARACTERS])).save(directory / "tokens")
    return directory


def make_cut(
    name: str, features: np.ndarray, text: str, dialect: str, storage: LilcomChunkyWriter
) -> MonoCut:
    """A cut with stored features (T, 80) at 100 frames a second."""
    duration = len(features) / 100
    stored = Features(
        type="fbank",
        num_frames=len(features),
        num_features=features.shape[1],
        frame_shift=0.01,
        sampling_rate=16000,
        start=0,
        duration=duration,
        storage_type=storage.name,
        storage_path=str(storage.storage_path),
        storage_key=storage.write(name, features),
        recording_id=name,
        channels=0,
    )
    supervision = SupervisionSegment(
        id=name, recording_id=name, start=0, duration=duration, text=text, language=dialect
    )
    return MonoCut(
        id=name, start=0, duration=duration, channel=0, features=stored, supervisions=[supervision]
    )


def tiny_model_config(vocab_size: int = 0) -> AsrModelConfig:
    """A model of about 100,000 parameters with every head."""
    encoder = EncoderConfig(
        num_encoder_layers=[1, 1],
        downsampling_factor=[1, 2],
        encoder_dim=[32, 48],
        encoder_unmasked_dim=[32, 32],
        feedforward_dim=[32, 48],
        num_heads=[2],
        query_head_dim=[8],
        value_head_dim=[8],
        cnn_module_kernel=[7],
        frontend_channels=[4, 4, 8],
    )
    decoder = AttentionDecoderConfig(num_layers=1, dim=32, attention_dim=32, num_heads=2, feedforward_dim=32)
    return AsrModelConfig(
        vocab_size=vocab_size, encoder=encoder, predictor_dim=32, joiner_dim=32, attention_decoder=decoder
    )
