"""Scores averages of the weights of a recogniser by CER on the validation utterances of its training."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from zipformer.data.tokenizer import Tokenizer
from zipformer.distributed import World
from zipformer.files import file_sha256
from zipformer.model import AsrModel
from zipformer.model_config import read_config
from zipformer.tasks.validation import ValidationConfig, Validator
from zipformer.training.checkpoint import Checkpoint, CheckpointError

REMEDY = "or choose the window yourself, for example with last_fraction=0.25"


class CerScorer:
    """Scores weights by decoding the validation utterances of trained dialects.

    Args:
        end: checkpoint with the model and the settings.
        data_dir: prepared corpus; None = that of the training, from the checkpoint.
        world: this process and its device.

    Raises:
        CheckpointError: the training was validated on the test split, or its validation data is missing.
    """

    def __init__(self, end: Checkpoint, data_dir: Path | None, world: World) -> None:
        settings = _validation_settings(end)
        self.split = settings.split
        self.dialects = sorted({*end.record["trained_hours"], *end.record["known_dialects"]})
        directory = data_dir if data_dir is not None else Path(end.record["config"]["data_dir"])
        self.manifest = directory / f"cuts_{settings.split}.jsonl.gz"
        if not self.manifest.is_file():
            raise CheckpointError(
                f"the window of the average is chosen on validation data, and {self.manifest} is not there: "
                f"give data_dir=DIR, {REMEDY}"
            )
        tokenizer = Tokenizer.load(end.directory)
        self.validator = Validator(directory, tokenizer, settings, world, dialects=self.dialects)
        self.utterances = len(self.validator.cuts)
        if not self.utterances:
            raise CheckpointError(
                f"the window of the average is chosen on validation data, and {self.manifest} has no "
                f"utterance of a trained dialect ({', '.join(self.dialects)}): give another data_dir=DIR, "
                f"{REMEDY}"
            )
        # Before this step the other heads have learnt nothing.
        self.ctc_only = end.step <= end.record["config"]["loss"]["ctc_first_steps"]
        self.model = AsrModel(read_config(end.directory)).to(world.device).eval()
        self.key: Mapping[str, Any] = {
            "manifest": file_sha256(self.manifest),
            "dialects": self.dialects,
            "validation": asdict(settings),
        }

    def __call__(self, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """CER in per cent over all utterances, by ``greedy`` (transducer) and ``ctc``.

        Raises:
            CheckpointError: the utterances have no text.
        """
        self.model.load_state_dict(dict(weights))
        tables = self.validator(self.model, ctc_only=self.ctc_only)
        assert tables is not None  # the validation is never stopped
        if any("overall" not in table for table in tables.values()):
            raise CheckpointError(
                f"the utterances of {self.manifest} have no text to score: prepare them, {REMEDY}"
            )
        names = {"cer": "greedy" if self.model.config.transducer else "ctc", "cer_ctc": "ctc"}
        return {names[name]: table["overall"] for name, table in tables.items()}


def _validation_settings(end: Checkpoint) -> ValidationConfig:
    """Validation settings of the training, but with both heads if the model has both.

    Raises:
        CheckpointError: the training was validated on the test split.
    """
    settings = ValidationConfig(**end.record["config"]["validation"])
    settings.ctc = read_config(end.directory).ctc
    if settings.split == "test":
        raise CheckpointError(
            "the training was validated on the split test, on which no window may be chosen: give "
            "last_fraction, for example last_fraction=0.25"
        )
    return settings
