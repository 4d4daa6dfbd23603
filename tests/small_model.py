"""A prepared corpus of random features and an untrained model, for tests of what reads a model directory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lhotse import CutSet, MonoCut, NumpyFilesWriter, SupervisionSegment
from lhotse.features.base import Features

from data_prep.tokens import train_token_model
from zipformer.data.tokenizer import Tokenizer
from zipformer.encoder.zipformer import EncoderConfig
from zipformer.heads.attention_decoder import (
    AttentionDecoder,
    AttentionDecoderConfig,
    AttentionDecoderLayer,
)
from zipformer.heads.ctc import CtcHead
from zipformer.heads.transducer import TransducerHead
from zipformer.model import AsrModel
from zipformer.model_config import AsrModelConfig

TEXTS = ("我係香港人", "佢係邊個", "侬好", "阿拉是上海人", "今朝天气老好额", "你食咗飯未呀")
TRANSLATIONS = ("我是香港人", "他是谁", "你好", "我们是上海人", "今天天气很好", "你吃饭了吗")
DIALECTS = ("yue", "yue", "wuu", "wuu", "wuu", "yue")
FRAMES = (110, 97, 80, 130, 120, 101)


def write_cuts(data_dir: Path, split: str, frames: Sequence[int] = FRAMES) -> CutSet:
    """Write ``cuts_{split}.jsonl.gz`` with one utterance for every number of frames (100/s)."""
    random = np.random.default_rng(0)
    cuts = []
    with NumpyFilesWriter(data_dir / "fbank" / split) as storage:
        utterances = zip(frames, TEXTS, TRANSLATIONS, DIALECTS, strict=False)
        for number, (count, text, translation, dialect) in enumerate(utterances):
            name, duration = f"{split}-{number}", count / 100
            matrix = random.normal(-8.0, 3.0, size=(count, 80)).astype(np.float32)
            features = Features(
                type="kaldi-fbank",
                num_frames=count,
                num_features=80,
                frame_shift=0.01,
                sampling_rate=16000,
                start=0.0,
                duration=duration,
                storage_type=storage.name,
                storage_path=str(storage.storage_path),
                storage_key=storage.write(name, matrix),
                recording_id=name,
                channels=0,
            )
            supervision = SupervisionSegment(
                name,
                name,
                0.0,
                duration,
                text=text,
                language=dialect,
                custom={
                    "subdialect": {"yue": "yue-guangzhou", "wuu": "wuu-shanghai"}[dialect],
                    "site": f"{dialect}-{number % 2}",
                    "sentence_id": str(number),
                    "translation": translation,
                },
            )
            cuts.append(
                MonoCut(name, 0.0, duration, 0, supervisions=[supervision], features=features, recording=None)
            )
    manifest = CutSet.from_cuts(cuts)
    manifest.to_file(data_dir / f"cuts_{split}.jsonl.gz")
    return manifest


def write_model(
    model_dir: Path,
    *,
    ctc: bool = True,
    decoder_layers: int = 0,
    translation: bool = False,
    causal: bool = False,
    seed: int = 0,
) -> AsrModel:
    """Write a model directory with random weights that emits characters and blanks in turn."""
    tokenizer = Tokenizer(train_token_model(TEXTS))
    tokenizer.save(model_dir)
    torch.manual_seed(seed)
    config = AsrModelConfig(
        vocab_size=tokenizer.size,
        encoder=EncoderConfig(
            num_encoder_layers=[1, 1],
            downsampling_factor=[1, 2],
            encoder_dim=[32, 32],
            encoder_unmasked_dim=[32, 32],
            feedforward_dim=[32, 32],
            num_heads=[4],
            cnn_module_kernel=[7, 7],
            frontend_channels=[4, 4, 8],
            causal=causal,
        ),
        predictor_dim=16,
        joiner_dim=16,
        ctc=ctc,
        attention_decoder=AttentionDecoderConfig(
            num_layers=decoder_layers,
            dim=16,
            attention_dim=16,
            num_heads=2,
            feedforward_dim=32,
            translation=translation,
        ),
    )
    model = AsrModel(config).eval()
    heads = [model.head(TransducerHead).joiner.output_linear]
    if (ctc := model.find(CtcHead)) is not None:
        heads.append(ctc.linear)
    with torch.no_grad():
        if (decoder := model.find(AttentionDecoder)) is not None:
            decoder.output_layer.bias[[0, *range(2, 3 + 256)]] -= 1e4  # characters and the end
            for layer in decoder.layers:
                assert isinstance(layer, AttentionDecoderLayer)
                look = layer.src_attn  # at single frames, so that it tells utterances apart
                scales = {look.linear_q: 20.0, look.linear_k: 20.0, look.linear_v: 3.0, look.out_proj: 3.0}
                for linear, scale in scales.items():
                    linear.weight.mul_(scale)
                    linear.bias.zero_()
        for head in heads:
            head.weight.mul_(20.0)  # so that the best token changes from frame to frame
            head.bias[0] += 5.0
            head.bias[1 : 3 + 256] -= (
                1e4  # no special tokens and no bytes, so that every hypothesis can be read
            )
    model.save_pretrained(model_dir)
    return model
