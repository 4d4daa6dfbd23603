"""The command ``embed``: embeds a split with the encoder of a model directory or with another embedder."""

import logging
from functools import partial
from pathlib import Path

import torch

from retrieval.embedding import huggingface, speech_embedding
from retrieval.embedding.acoustic import DurationEmbedder, FbankEmbedder, MfccEmbedder
from retrieval.embedding.cuts import EmbedConfig, embed_cuts
from retrieval.embedding.embedder import Embedder, EmbedderKind, EncoderEmbedder
from retrieval.embedding.store import EmbeddingWriter, fingerprint, is_complete
from retrieval.results.weights import architecture_of, weights_of
from zipformer.data.cuts import find_manifest, read_cuts
from zipformer.data.dataset import read_dataset
from zipformer.device import choose_device, keep_freed_memory
from zipformer.encoder.taps import layer_places
from zipformer.errors import UserError
from zipformer.files import place_errors
from zipformer.model import MIN_FRAMES, AsrModel
from zipformer.model_dir import CONFIG_FILE, WEIGHTS_FILE
from zipformer.results_place import REMEDY, results_place

logger = logging.getLogger(__name__)


def main(config: EmbedConfig) -> None:
    """Embed a split."""
    config.model_dir = str(results_place(Path(config.model_dir), config.results_dir))
    with place_errors(config.folder, REMEDY):
        embed(config)


def embed(config: EmbedConfig) -> Path:
    """Make the embeddings, resuming a stopped run; returns their folder."""
    cuts = read_cuts(find_manifest(Path(config.data_dir), config.split))
    dataset = read_dataset(Path(config.data_dir), config.split, config.dataset)
    embedder, sources = build_embedder(config)
    options = config.options | ({"commit": embedder.commit} if embedder.commit else {})
    identity = fingerprint(sources, options | {"data": dataset.digest})
    weights = None
    if config.embedder is EmbedderKind.zipformer:
        weights = weights_of(Path(config.model_dir))
    elif config.embedder is EmbedderKind.random:
        weights = architecture_of(Path(config.model_dir))
    dataset.claim(Path(config.model_dir))
    directory = config.folder
    if is_complete(directory, identity):
        logger.info("%s is complete already", directory)
        return directory
    writer = EmbeddingWriter(
        directory,
        dimension=embedder.dimension,
        dtype=config.storage,
        embedder=embedder.name,
        fingerprint=identity,
        weights=weights,
        dataset=dataset.record(),
    )
    with writer:
        count = embed_cuts(cuts, embedder, writer, batch_seconds=config.batch_seconds)
    logger.info("%d utterances embedded, %d frames in %s", count, writer.total_frames, directory)
    return directory


def build_embedder(config: EmbedConfig) -> tuple[Embedder, list[Path]]:
    """The embedder and the files that its embeddings depend on."""
    if config.embedder is EmbedderKind.fbank:
        return FbankEmbedder(config.fbank), []
    if config.embedder is EmbedderKind.mfcc:
        return MfccEmbedder(config.mfcc), []
    if config.embedder is EmbedderKind.duration:
        return DurationEmbedder(), []
    if config.embedder is EmbedderKind.speech_embedding:
        return speech_embedding.load()
    device = choose_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    if config.embedder is EmbedderKind.huggingface:
        return huggingface.load(config.huggingface, layer=config.layer, device=device)
    model_dir = Path(config.model_dir)
    model, sources = AsrModel.from_pretrained(model_dir), [model_dir / CONFIG_FILE]
    if config.embedder is EmbedderKind.random:
        torch.manual_seed(config.seed)
        model = AsrModel(model.config)
    else:
        sources.append(model_dir / WEIGHTS_FILE)
    model = model.to(device).eval()
    encode, dimension = model.encode, model.config.encoder.output_dim
    if config.layer is not None:
        places = layer_places(model.config.encoder)
        if not 0 <= config.layer < len(places):
            raise UserError(
                f"layer={config.layer} is not there; the encoder of {model_dir} has layers 0 (front end) to "
                f"{len(places) - 1}"
            )
        encode, dimension = partial(model.encode, layer=config.layer), places[config.layer].dim
    embedder = EncoderEmbedder(
        encode,
        dimension=dimension,
        minimum_frames=MIN_FRAMES,
        margin=model.margin,
        device=device,
        name=config.name,
    )
    return embedder, sources
