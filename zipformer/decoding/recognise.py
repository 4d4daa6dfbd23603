"""Recognises a prepared split with a trained model; a killed run can be resumed.

Hypotheses are decoded from the output of the encoder or from an early exit, where the encoder ends at an
earlier layer. All exits of a batch come from one pass of the encoder
(:meth:`zipformer.encoder.taps.LayerOutputs.exit`).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

import torch
from lhotse import CutSet
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from zipformer.data.batches import Batch, evaluation_batches
from zipformer.data.cuts import find_manifest, read_test_cuts
from zipformer.data.dataset import DataSet, read_dataset
from zipformer.data.tokenizer import Tokenizer
from zipformer.decoding.hypothesis_file import HypothesisFile, transcript_of
from zipformer.decoding.methods import DecodeConfig, choose_search
from zipformer.device import choose_device, keep_freed_memory
from zipformer.encoder.taps import layer_places
from zipformer.files import file_sha256
from zipformer.model import AsrModel
from zipformer.model_config import read_config
from zipformer.model_dir import MODEL_FILES, check_model_files
from zipformer.scoring import Transcript

logger = logging.getLogger(__name__)

DATA_KEY = "data"  # key of the digest of the data set in decode.json


@dataclass(frozen=True)
class Exit:
    """A layer at which frames leave the encoder, and a decoding method.

    Attributes:
        method: name of a decoding method.
        layer: number of the last layer that is used, counted over the whole encoder (0 = front end only);
            None = the whole encoder.
    """

    method: str
    layer: int | None = None


def decode(config: DecodeConfig) -> tuple[Path, list[Transcript]]:
    """Recognise a split, resuming a stopped run.

    Returns:
        The folder of the results, ``model_dir/results/{dataset}/decode-{split}-{method}`` (or
        ``translation-`` for translations), and the transcripts of all utterances in the order of the
        manifest.

    Raises:
        UserError: as :func:`recognise`.
    """
    exit_ = Exit(config.method)
    return config.folder, recognise(config, {exit_: config.folder})[exit_]


def decode_exits(
    config: DecodeConfig, methods: Sequence[str], directory: Path
) -> dict[tuple[str, int], list[Transcript]]:
    """Recognise a split at every layer, to find the depth at which the frames contain the text.

    Args:
        config: settings; ``method`` is not used.
        methods: names of decoding methods.
        directory: folder for ``{method}/layerNN/hypotheses.jsonl``.

    Returns:
        The transcripts of all utterances, in the order of the manifest, by method and layer (0 = front end
        only).

    Raises:
        UserError: as :func:`recognise`.
    """
    model_dir = Path(config.model_dir)
    check_model_files(model_dir)
    layers = range(len(layer_places(read_config(model_dir).encoder)))
    exits = {(method, layer): Exit(method, layer) for method in methods for layer in layers}
    folders = {exit_: directory / method / f"layer{layer:02}" for (method, layer), exit_ in exits.items()}
    found = recognise(config, folders)
    return {place: found[exit_] for place, exit_ in exits.items()}


def recognise(config: DecodeConfig, exits: Mapping[Exit, Path]) -> dict[Exit, list[Transcript]]:
    """Recognise a split from the frames of several exits, resuming a stopped run.

    Args:
        config: settings; ``method`` is not used but those of the exits.
        exits: folder for the hypotheses of each exit.

    Returns:
        The transcripts of all utterances, in the order of the manifest, by exit.

    Raises:
        UserError: the model directory, one of its files, or the split is missing; the split is empty or has
            utterances that cannot be recognised or have no translation for the reference; the model lacks the
            head of a method; or there are results on other data with the same name.
    """
    model_dir, data_dir = Path(config.model_dir), Path(config.data_dir)
    check_model_files(model_dir)
    manifest = find_manifest(data_dir, config.split)
    reference = config.reference_field
    cuts = read_test_cuts(manifest, reference)
    dataset = read_dataset(data_dir, config.split, config.dataset)
    device = choose_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    model = AsrModel.from_pretrained(model_dir).to(device).eval()
    configs = {exit_.method: replace(config, method=exit_.method) for exit_ in exits}
    searches = {method: choose_search(model, configs[method]) for method in configs}
    tokenizer = Tokenizer.load(model_dir)

    dataset.claim(model_dir)
    files = {
        exit_: HypothesisFile(folder, _settings(configs[exit_.method], exit_, model_dir, dataset))
        for exit_, folder in exits.items()
    }
    remaining = [cut for cut in cuts if any(cut.id not in file.done for file in files.values())]
    done = len(cuts) - len(remaining)
    if done:
        places = ", ".join(sorted({str(folder) for folder in exits.values()})[:2])
        logger.info("%d of %d utterances are recognised already, in %s", done, len(cuts), places)
    if remaining:
        batches = evaluation_batches(
            CutSet.from_cuts(remaining), margin=model.margin, max_duration=config.max_duration
        )
        with _progress() as progress:
            task = progress.add_task("decode", total=len(cuts), completed=done, speed=0.0)
            start, seconds = monotonic(), 0.0
            for batch in batches:
                for exit_, (frames, lengths) in _frames(model, batch, list(exits), config, device).items():
                    file = files[exit_]
                    with torch.inference_mode():
                        hypotheses = searches[exit_.method](frames, lengths)
                    file.append(
                        transcript_of(cut_id, supervision, tokenizer.decode(tokens), reference)
                        for cut_id, supervision, tokens in zip(
                            batch.ids, batch.supervisions, hypotheses, strict=True
                        )
                        if cut_id not in file.done
                    )
                seconds += batch.seconds
                progress.update(task, advance=len(batch.ids), speed=seconds / (monotonic() - start))
    return {exit_: [file.done[cut.id] for cut in cuts] for exit_, file in files.items()}


@torch.inference_mode()
def _frames(
    model: AsrModel, batch: Batch, exits: Sequence[Exit], config: DecodeConfig, device: torch.device
) -> dict[Exit, tuple[Tensor, Tensor]]:
    """Frames (N, T', D) and lengths (N,) of each exit; early exits share one pass of the encoder."""
    features, lengths = batch.features.to(device), batch.lengths.to(device)
    size, left = config.chunk_size, config.left_context_frames
    found = {}
    if any(exit_.layer is None for exit_ in exits):
        whole = model.encode(features, lengths, chunk_size=size, left_context_frames=left)
        found = {exit_: whole for exit_ in exits if exit_.layer is None}
    if len(found) < len(exits):
        layers = model.encode_layers(features, lengths, chunk_size=size, left_context_frames=left)
        found |= {exit_: layers.exit(exit_.layer) for exit_ in exits if exit_.layer is not None}
    return found


def _settings(config: DecodeConfig, exit_: Exit, model_dir: Path, dataset: DataSet) -> dict[str, str]:
    """Everything that the hypotheses of an exit depend on, for :class:`HypothesisFile`."""
    settings = {"method": config.method, DATA_KEY: dataset.digest}
    if config.method == "beam":
        settings["beam"] = str(config.beam)
    if config.reference != "text":
        settings["reference"] = config.reference_field
    for name, usual in (
        ("blank_penalty", 0.0),
        ("skip_unknown", False),
        ("chunk_size", None),
        ("left_context_frames", None),
    ):
        if getattr(config, name) != usual:
            settings[name] = str(getattr(config, name))
    settings |= {name: file_sha256(model_dir / name) for name in MODEL_FILES}
    return settings if exit_.layer is None else settings | {"layer": str(exit_.layer)}


def _progress() -> Progress:
    """A progress bar whose tasks have a field ``speed``, seconds of audio a second."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]:.0f} utterance-seconds/s"),
        TimeRemainingColumn(),
    )
