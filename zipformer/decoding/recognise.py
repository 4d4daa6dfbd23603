"""Recognise a prepared test set with a trained model, in a way that survives being killed."""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

import torch
from lhotse import CutSet, SupervisionSegment
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from zipformer.data.batches import Batch, evaluation_batches
from zipformer.data.cuts import find_manifest, read_test_cuts
from zipformer.data.dataset import DataSet, name_of, plain_name, read_dataset
from zipformer.data.tokenizer import Tokenizer
from zipformer.decoding import (
    attention_greedy_search,
    ctc_greedy_search,
    greedy_search,
    modified_beam_search,
)
from zipformer.device import choose_device, keep_freed_memory
from zipformer.errors import UserError
from zipformer.files import file_sha256
from zipformer.model import AsrModel
from zipformer.model_dir import MODEL_FILES, check_model_files, trained_translation_field
from zipformer.scoring import Transcript

logger = logging.getLogger(__name__)

# The setting of the model that gives it the head of each method.
HEADS = {
    "greedy": "model.transducer=true",
    "beam": "model.transducer=true",
    "ctc": "model.ctc=true",
    "attention": "model.attention_decoder.num_layers above 0",
}
METHODS = tuple(HEADS)
REFERENCES = ("text", "translation")
DATA_KEY = "data"  # in decode.json: digest of the data set

Search = Callable[[Tensor, Tensor], list[list[int]]]  # frames (N, T', D), lengths (N,) -> token ids


@dataclass
class DecodeConfig:
    """What to recognise, with what.

    Attributes:
        model_dir: self-contained model directory, as fangyan average writes it.
        data_dir: prepared corpus that holds ``cuts_{split}.jsonl.gz``.
        split: which cuts.
        dataset: name of the corpus, which the results lie under; null = as preparation recorded it.
        method: ``greedy`` or ``beam`` (transducer), ``ctc`` (greedy on the CTC head), or ``attention``
            (greedy with the attention decoder).
        reference: what the hypotheses are scored against: ``text``, the transcript, or ``translation``, for
            which the attention decoder writes the translation. The other methods still write the transcript,
            so that their errors say how far an utterance is from its translation when nobody translates.
        translation_field: the field in ``custom`` of the supervisions that is the translation; null = the one
            that the model was trained with.
        beam: hypotheses kept by ``beam``; a greater one is slower and a little more accurate.
        max_duration: seconds of padded audio in a batch; a greater one is faster and needs more memory.
        device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for CUDA where there is one.
        results_dir: for the results of a model directory that cannot be written, see
            :func:`zipformer.results_place.results_place`; null = ``results`` in ``model_dir``.
    """

    model_dir: str
    data_dir: str
    split: str = "test"
    dataset: str | None = None
    method: str = "greedy"
    reference: str = "text"
    translation_field: str | None = None
    beam: int = 4
    max_duration: float = 200.0
    device: str = "auto"
    results_dir: str | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f"method={self.method} is not known; choose one of {', '.join(METHODS)}")
        if self.reference not in REFERENCES:
            raise UserError(f"reference={self.reference} is not known; choose one of {', '.join(REFERENCES)}")
        if self.beam < 1:
            raise UserError(f"beam={self.beam} keeps no hypothesis; give 1 or more")

    @property
    def reference_field(self) -> str:
        """``text``, or the field of ``custom`` that is scored against.

        Raises:
            UserError: the model's ``provenance.json`` cannot be read.
        """
        if self.reference == "text":
            return "text"
        return self.translation_field or trained_translation_field(Path(self.model_dir))

    @property
    def folder(self) -> Path:
        """Of the results. Errors against translations lie apart: they are not those of recognition."""
        kind = "decode" if self.reference == "text" else plain_name(self.reference_field)
        name = name_of(Path(self.data_dir), self.dataset)
        return Path(self.model_dir) / "results" / name / f"{kind}-{self.split}-{self.method}"


class HypothesisFile:
    """Hypotheses on disk, one JSON object a line, appended batch by batch.

    Beside the file lies ``decode.json`` with the settings that made it. Opening it with the same settings
    continues it; with other ones (another model, other cuts, another beam) it starts again, because a test
    set recognised in part by one model and in part by another has no error rate.

    Args:
        directory: folder of the results; created where needed.
        settings: everything that the hypotheses depend on, as text.
    """

    def __init__(self, directory: Path, settings: dict[str, str]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "hypotheses.jsonl"
        self.done: dict[str, Transcript] = {}
        settings_path, text = directory / "decode.json", json.dumps(settings, indent=1) + "\n"
        if settings_path.is_file() and settings_path.read_text(encoding="utf-8") == text:
            self.done = self._read()
        else:
            # First away with the old: a kill in between must not leave them with the new settings. The error
            # rates go too, which would not belong to the new hypotheses.
            for path in (self.path, directory / "cer.json"):
                path.unlink(missing_ok=True)
            settings_path.write_text(text, encoding="utf-8")

    def _read(self) -> dict[str, Transcript]:
        """Whole lines of the file; a last line that a kill has cut short is removed from it."""
        if not self.path.is_file():
            return {}
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self.path.write_bytes(whole)
        transcripts = (Transcript(**json.loads(line)) for line in whole.decode("utf-8").split("\n") if line)
        return {transcript.id: transcript for transcript in transcripts}

    def append(self, transcripts: Iterable[Transcript]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            for transcript in transcripts:
                file.write(json.dumps(asdict(transcript), ensure_ascii=False) + "\n")
                self.done[transcript.id] = transcript


def decode(config: DecodeConfig) -> tuple[Path, list[Transcript]]:
    """Recognise a split, or the rest of it where an earlier run was stopped.

    Returns:
        The directory of the results, ``model_dir/results/{dataset}/decode-{split}-{method}``, or
        ``translation-`` with that reference, and the transcripts of all utterances in the order of the
        manifest.

    Raises:
        UserError: model directory, one of its files, or the split is missing.
        UserError: the split is empty or holds utterances that cannot be recognised or have no translation
            to be scored against, the model lacks the head that the method needs, or there are results of
            other data of the same name.
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
    search = choose_search(model, config)
    tokenizer = Tokenizer.load(model_dir)

    directory = config.folder
    dataset.claim(model_dir)
    hypotheses = HypothesisFile(directory, hypothesis_settings(config, model_dir, dataset))
    remaining = [cut for cut in cuts if cut.id not in hypotheses.done]
    if hypotheses.done:
        logger.info(
            "%d of %d utterances are recognised already, in %s",
            len(cuts) - len(remaining),
            len(cuts),
            directory,
        )
    if remaining:
        batches = evaluation_batches(
            CutSet.from_cuts(remaining), data_dir, margin=model.margin, max_duration=config.max_duration
        )
        with decoding_progress() as progress:
            task = progress.add_task(
                "decode", total=len(cuts), completed=len(cuts) - len(remaining), speed=0.0
            )
            start, seconds = monotonic(), 0.0
            for batch in batches:
                hypotheses.append(transcribe(batch, model, tokenizer, search, device, reference))
                seconds += batch.seconds
                progress.update(task, advance=len(batch.ids), speed=seconds / (monotonic() - start))
    return directory, [hypotheses.done[cut.id] for cut in cuts]


@torch.inference_mode()
def transcribe(
    batch: Batch, model: AsrModel, tokenizer: Tokenizer, search: Search, device: torch.device, reference: str
) -> list[Transcript]:
    """Recognise the utterances of one batch."""
    frames, frame_lengths = model.encode(batch.features.to(device), batch.lengths.to(device))
    return [
        transcript_of(cut_id, supervision, tokenizer.decode(tokens), reference)
        for cut_id, supervision, tokens in zip(
            batch.ids, batch.supervisions, search(frames, frame_lengths), strict=True
        )
    ]


def transcript_of(
    cut_id: str, supervision: SupervisionSegment, hypothesis: str, reference: str
) -> Transcript:
    """A hypothesis with the labels of its utterance and what it is scored against: a field's text."""
    custom = supervision.custom or {}
    return Transcript(
        id=cut_id,
        dialect=supervision.language,
        subdialect=custom.get("subdialect"),
        site=custom.get("site"),
        sentence_id=custom.get("sentence_id"),
        reference=(supervision.text or "") if reference == "text" else str(custom[reference]),
        hypothesis=hypothesis,
        speaker=supervision.speaker,
    )


def methods_of(model: AsrModel) -> list[str]:
    """Those of ``METHODS`` for which a model has the head."""
    there = {
        "greedy": model.config.transducer,
        "beam": model.config.transducer,
        "ctc": model.config.ctc,
        "attention": model.config.attention_decoder.num_layers > 0,
    }
    return [method for method in METHODS if there[method]]


def choose_search(model: AsrModel, config: DecodeConfig) -> Search:
    """The search of a method on a model.

    Raises:
        UserError: the model has no head for the method, or one that has not learnt what is wanted.
    """
    usable = methods_of(model)
    if config.method not in usable:
        raise UserError(
            f"method={config.method} needs a model with {HEADS[config.method]}; use method="
            + " or ".join(usable)
        )
    if config.method == "greedy":
        return lambda frames, lengths: greedy_search(model, frames, lengths)
    if config.method == "beam":
        return lambda frames, lengths: modified_beam_search(model, frames, lengths, beam=config.beam)
    if config.method == "ctc":
        return lambda frames, lengths: ctc_greedy_search(model, frames, lengths)
    translate = config.reference == "translation"
    if translate and not model.config.attention_decoder.translation:
        raise UserError(
            "method=attention with reference=translation needs a model with "
            "model.attention_decoder.translation=true; use reference=text"
        )
    return lambda frames, lengths: attention_greedy_search(model, frames, lengths, translate=translate)


def hypothesis_settings(config: DecodeConfig, model_dir: Path, dataset: DataSet) -> dict[str, str]:
    """Everything that the hypotheses of a run depend on, for :class:`HypothesisFile`."""
    settings = {"method": config.method, DATA_KEY: dataset.digest}
    if config.method == "beam":
        settings["beam"] = str(config.beam)
    if config.reference != "text":
        settings["reference"] = config.reference_field
    return settings | {name: file_sha256(model_dir / name) for name in MODEL_FILES}


def decoding_progress() -> Progress:
    """A progress bar whose tasks have a field ``speed``, seconds of audio a second."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]:.0f} utterance-seconds/s"),
        TimeRemainingColumn(),
    )
