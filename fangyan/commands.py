"""The table of commands: for each command, a description and its function.

The function of a command takes one argument, a dataclass with the settings of the command; the annotation of
the parameter names the dataclass. The function is imported only when the command runs, so that the commands
can be listed fast.
"""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from hydra.core.config_store import ConfigStore

CONF_DIR = Path(__file__).parent / "conf"


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        about: description of the command in one sentence.
        body: function of the command, as ``module:function``.
        config: name of the configuration file in ``conf``; none = the name of the command.
        groups: function, as ``module:function``, that returns the choices of config groups that are defined
            in code: for each group, the name and the dataclass of each choice.
        global_groups: groups among these whose choices are settings of the command itself, not of one part.
        runs: other commands that this one runs and whose settings it includes.
    """

    about: str
    body: str
    config: str | None = None
    groups: str | None = None
    global_groups: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()

    def load(self) -> Callable[[Any], object]:
        """The function of the command."""
        return _imported(self.body)

    @property
    def config_class(self) -> type:
        """Dataclass of the command's settings."""
        function = self.load()
        (parameter,) = inspect.signature(function).parameters
        found: type = get_type_hints(function)[parameter]
        return found


COMMANDS = {
    "prepare": Command(
        "Prepare a corpus for training: normalised transcripts, checks, splits, features, tokens.",
        "data_prep.run:main",
        groups="data_prep.run:config_groups",
    ),
    "transcripts": Command(
        "Copy a prepared corpus with rewritten transcripts, for instance in other Chinese scripts.",
        "data_prep.transcripts:rewrite_transcripts",
    ),
    "mixture": Command(
        "Make one training set of prepared corpora: common tokens, common validation, checks.",
        "data_prep.mixture:write_mixture",
    ),
    "card": Command(
        "Describe prepared corpora on a page: hours, speakers, overlap, problems, licences.",
        "data_prep.card.page:main",
    ),
    "train": Command(
        "Train a model; the same command resumes, and torchrun starts it in several processes.",
        "zipformer.run_training:main",
        groups="zipformer.run_training:config_groups",
        global_groups=("task",),
    ),
    "average": Command(
        "Average the weights of a training run and write a model directory.",
        "zipformer.run_averaging:main",
    ),
    "decode": Command(
        "Recognise a split with a model and print the character error rate of each dialect.",
        "zipformer.decoding.run:main",
    ),
    "score": Command(
        "Score the hypotheses of a finished decoding again, by another scoring convention.",
        "zipformer.decoding.run:score_again",
    ),
    "embed": Command(
        "Embed the utterances of a split with the encoder of a model, or with another embedder.",
        "retrieval.embedding.build:main",
    ),
    "retrieve": Command(
        "Retrieve the same sentence in other dialects: recall between all pairs of dialects, with intervals.",
        "retrieval.protocol.run:main",
    ),
    "controls": Command(
        "Compare the recall of a model with that of its controls, such as MFCCs and random weights.",
        "retrieval.comparison.run_controls:main",
    ),
    "compare": Command(
        "Compare finished retrievals side by side, with intervals and paired tests of their differences.",
        "retrieval.comparison.run_compare:main",
    ),
    "scores": Command(
        "Compare retrieval scores, such as SeqSim and pooling, on the same embeddings.",
        "retrieval.comparison.run_scores:main",
    ),
    "challenge": Command(
        "Build challenge sets: queries without what is easy by sound, by name or by duration.",
        "retrieval.challenge.run:main",
    ),
    "layers": Command(
        "Measure what each layer of an encoder knows: retrieval, recognition by early exit, linear probes.",
        "retrieval.depth.run:main",
    ),
    "interpret": Command(
        "Show which words of parallel utterances the encoder matches, and whether they mean the same.",
        "retrieval.interpretation.run_interpret:main",
    ),
    "sweep": Command(
        "Train variants of a model with several seeds, measure them, and tabulate them with intervals.",
        "retrieval.comparison.run_sweep:main",
        runs=("train",),
    ),
    "paper_table": Command(
        "Print the 8 x 8 table of the YuBao paper from the results in a model directory.",
        "retrieval.comparison.run_paper_table:main",
    ),
    "report": Command(
        "Write one self-contained HTML page from the results in a model directory.",
        "retrieval.report.run:report",
    ),
    "summary": Command(
        "Print the results in a model directory: error rates, recall between dialects, place of the report.",
        "retrieval.report.run:summary",
        config="report",
    ),
}


def register(name: str, conf_dir: Path = CONF_DIR) -> None:
    """Register the settings of a command with Hydra, so that a wrong key or type is an error that names it.

    The schema is stored as ``NAME_schema``. Choices of a group that are defined in code are stored as
    ``GROUP/CHOICE_schema``, and also as ``GROUP/CHOICE`` where no file of that name is in ``conf``.

    Args:
        name: key of :data:`COMMANDS`.
        conf_dir: folder of the configuration files.
    """
    command, store = COMMANDS[name], ConfigStore.instance()
    store.store(name=f"{command.config or name}_schema", node=command.config_class)
    for group, choices in (_imported(command.groups)() if command.groups else {}).items():
        package = "_global_" if group in command.global_groups else None
        for choice, config_class in choices.items():
            store.store(group=group, name=f"{choice}_schema", node=config_class, package=package)
            if not (conf_dir / group / f"{choice}.yaml").is_file():
                store.store(group=group, name=choice, node=config_class, package=package)
    for other in command.runs:
        register(other, conf_dir)


def _imported(name: str) -> Callable[..., Any]:
    """A function, from ``module:function``."""
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found
