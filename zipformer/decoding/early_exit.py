"""Recognise with the encoder cut short at every layer: at which depth is there enough to write the text down?

All exits of a batch come from one pass of the encoder (:meth:`zipformer.encoder.taps.LayerOutputs.exit`);
the hypotheses of each exit have a file of their own, so that a stopped run resumes.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic

import torch
from lhotse import CutSet

from zipformer.data.batches import evaluation_batches
from zipformer.data.cuts import find_manifest, read_test_cuts
from zipformer.data.dataset import read_dataset
from zipformer.data.tokenizer import Tokenizer
from zipformer.decoding.recognise import (
    DecodeConfig,
    HypothesisFile,
    choose_search,
    decoding_progress,
    hypothesis_settings,
    transcript_of,
)
from zipformer.device import choose_device
from zipformer.encoder.taps import layer_places
from zipformer.model import AsrModel
from zipformer.model_dir import check_model_files
from zipformer.scoring import Transcript

logger = logging.getLogger(__name__)

Exit = tuple[str, int]  # method, layer


def decode_exits(
    config: DecodeConfig, methods: Sequence[str], directory: Path
) -> dict[Exit, list[Transcript]]:
    """Recognise a split at every exit, or what an earlier run left of it.

    Args:
        config: what to recognise, with what; its ``method`` is not looked at.
        methods: see :class:`~zipformer.decoding.recognise.DecodeConfig`.
        directory: receives ``{method}/layerNN/hypotheses.jsonl``.

    Returns:
        The transcripts of all utterances, in the order of the manifest, by method and layer (0 = the front
        end alone).

    Raises:
        FileNotFoundError, ValueError: as of :func:`zipformer.decoding.recognise.decode`.
    """
    model_dir, data_dir = Path(config.model_dir), Path(config.data_dir)
    check_model_files(model_dir)
    reference = config.reference_field
    cuts = read_test_cuts(find_manifest(data_dir, config.split), reference)
    dataset = read_dataset(data_dir, config.split, config.dataset)
    device = choose_device(config.device)
    model = AsrModel.from_pretrained(model_dir).to(device).eval()
    configs = {method: replace(config, method=method) for method in methods}
    searches = {method: choose_search(model, configs[method]) for method in methods}
    tokenizer = Tokenizer.load(model_dir)
    layers = range(len(layer_places(model.config.encoder)))
    files = {
        (method, layer): HypothesisFile(
            directory / method / f"layer{layer:02}",
            hypothesis_settings(configs[method], model_dir, dataset) | {"layer": str(layer)},
        )
        for method in methods
        for layer in layers
    }
    remaining = [cut for cut in cuts if any(cut.id not in file.done for file in files.values())]
    if len(remaining) < len(cuts):
        done = len(cuts) - len(remaining)
        logger.info("%d of %d utterances are recognised already, in %s", done, len(cuts), directory)
    if remaining:
        batches = evaluation_batches(
            CutSet.from_cuts(remaining), data_dir, margin=model.margin, max_duration=config.max_duration
        )
        with decoding_progress() as progress:
            task = progress.add_task(
                "early exits", total=len(cuts), completed=len(cuts) - len(remaining), speed=0.0
            )
            start, seconds = monotonic(), 0.0
            for batch in batches:
                with torch.inference_mode():
                    outputs = model.encode_layers(batch.features.to(device), batch.lengths.to(device))
                    for layer in layers:
                        frames, lengths = outputs.exit(layer)
                        for method, search in searches.items():
                            file = files[method, layer]
                            file.append(
                                transcript_of(cut_id, supervision, tokenizer.decode(tokens), reference)
                                for cut_id, supervision, tokens in zip(
                                    batch.ids, batch.supervisions, search(frames, lengths), strict=True
                                )
                                if cut_id not in file.done
                            )
                seconds += batch.seconds
                progress.update(task, advance=len(batch.ids), speed=seconds / (monotonic() - start))
    return {exit_: [file.done[cut.id] for cut in cuts] for exit_, file in files.items()}
