"""A copy of a prepared corpus with its transcripts rewritten: same audio, features and splits.

With it, the effect of orthography on a model can be measured without extracting features again. Two things
can
change: the script that a dialect group is written in, and the normalisation of the transcripts
(:mod:`data_prep.text.normaliser`). New tokens are made from the new training text.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from lhotse import CutSet, MonoCut, load_manifest_lazy
from lhotse.utils import fastcopy
from omegaconf import MISSING
from opencc import OpenCC
from rich.progress import track

from data_prep.manifests import SPLITS, final_cuts_file, write_jsonl
from data_prep.pipeline import PROBLEMS_FILE
from data_prep.problems import Problem, ProblemLog, Severities
from data_prep.state import file_digest, fingerprint
from data_prep.text.normaliser import Examined, TextConfig, TextNormaliser
from data_prep.text.translations import with_normalised_translation
from data_prep.tokens import (
    TokenConfig,
    further_manifests,
    further_texts,
    read_token_model,
    train_token_model,
    write_tokens,
)
from zipformer.data.dataset import record_name
from zipformer.data.manifest import with_present_paths
from zipformer.errors import UserError
from zipformer.files import replacing, write_json
from zipformer.typed_json import read_json

logger = logging.getLogger(__name__)

STATE_FILE = "transcripts.json"


@dataclass
class TranscriptsConfig:
    """Settings of the rewriting.

    Attributes:
        source: prepared data directory. The copy uses its features in place.
        data_dir: new data directory.
        dataset: name of the new corpus, for the folder of its results; null = name of ``data_dir``.
        scripts: OpenCC conversion for the raw transcripts of each dialect group: ``s2hk``, ``s2tw`` or
            ``s2t`` converts simplified text to the script of Hong Kong, of Taiwan, or to plain traditional
            characters. Groups that are not named are not converted.
        text: normalisation of the transcripts, after the conversion.
        tokens: choice of the tokens.
    """

    source: str = MISSING
    data_dir: str = MISSING
    dataset: str | None = None
    scripts: dict[str, str] = field(default_factory=dict)
    text: TextConfig = field(default_factory=TextConfig)
    tokens: TokenConfig = field(default_factory=TokenConfig)


def rewrite_transcripts(config: TranscriptsConfig) -> None:
    """Write ``cuts_{split}.jsonl.gz``, the tokens, and ``problems.tsv`` into ``data_dir``.

    A ``data_dir`` that is already complete is kept. ``problems.tsv`` lists the problems of the transcripts,
    each with utterance and remedy.

    Raises:
        UserError: the source is not prepared, a conversion is not known, or a transcript is empty
            afterwards.
    """
    source, directory = Path(config.source).resolve(), Path(config.data_dir).resolve()
    if source == directory:
        raise UserError(f"data_dir={directory} is the source itself; choose another directory")
    manifests = {split: final_cuts_file(source, split) for split in SPLITS}
    manifests = {split: file for split, file in manifests.items() if file.is_file()}
    if "train" not in manifests:
        raise UserError(f"source={source} has no cuts_train.jsonl.gz; prepare it with fangyan prepare")
    settings = _settings(config, manifests)
    state = directory / STATE_FILE
    if read_json(state, "transcripts") == settings:
        logger.info("%s is complete already", directory)
        return
    state.unlink(missing_ok=True)
    directory.mkdir(parents=True, exist_ok=True)
    problems = directory / PROBLEMS_FILE
    with replacing(problems) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        log = ProblemLog(stream, Severities())
        rewriting = Rewriting(config, log)
        for split, manifest in manifests.items():
            target = final_cuts_file(directory, split)
            count = write_jsonl(CutSet, rewriting.cuts(split, manifest), target)
            logger.info("%s: %d utterances, %d transcripts changed", target, count, rewriting.changed)
    if log.counts:
        logger.warning("%d problems of transcripts, all in %s", log.counts.total(), problems)
    reused = config.tokens.reuse
    if unused := sorted(config.scripts.keys() - rewriting.groups):
        raise UserError(
            f"scripts.{unused[0]}: {source} has no utterance of that dialect group; there are"
            f" {', '.join(sorted(rewriting.groups))}"
        )
    own = (cut.supervisions[0].text for cut in load_manifest_lazy(final_cuts_file(directory, "train")))
    texts = chain(own, further_texts(config.tokens.further_data_dirs))
    model = read_token_model(reused) if reused else train_token_model(texts, config.tokens.min_count)
    size = write_tokens(model, directory / "tokens")
    logger.info("%d tokens in %s", size, directory / "tokens")
    record_name(directory, config.dataset)
    write_json(state, settings)


class Rewriting:
    """Cuts with rewritten transcripts; problems of a transcript go to the log of problems.

    Attributes:
        changed: number of transcripts in the last split that have changed.
        groups: dialect groups of all utterances.

    Raises:
        UserError: OpenCC does not know a conversion.
    """

    def __init__(self, config: TranscriptsConfig, log: ProblemLog) -> None:
        self.changed = 0
        self.groups: set[str] = set()
        self._log = log
        self._normaliser = TextNormaliser(config.text)
        self._converters = {group: _converter(group, name) for group, name in config.scripts.items()}

    def cuts(self, split: str, manifest: Path) -> Iterator[MonoCut]:
        self.changed = 0
        for cut in track(load_manifest_lazy(manifest), description=f"transcripts of {split}"):
            supervision = cut.supervisions[0]
            self.groups.add(supervision.language or "")
            raw = (supervision.custom or {}).get("raw_text", supervision.text)
            examined = self._examined(supervision.language, raw)
            text = examined.text
            if not text:
                raise UserError(f"{manifest}: nothing is left of the transcript of {cut.id}")
            self._log.report(
                [Problem(cut.id, split, kind, ", ".join(found)) for kind, found in examined.findings.items()]
            )
            self.changed += text != supervision.text
            custom = with_normalised_translation(supervision.custom or {}, self._normaliser)
            written = fastcopy(supervision, text=text, custom=custom)
            absolute = with_present_paths(cut, manifest.parent)
            yield fastcopy(absolute, supervisions=[written])

    def _examined(self, group: str | None, raw: str) -> Examined:
        """The rewritten transcript of an utterance of a dialect group."""
        converter = self._converters.get(group or "")
        return self._normaliser.examine(converter.convert(raw) if converter else raw)


def _converter(group: str, name: str) -> OpenCC:
    try:
        return OpenCC(name)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"scripts.{group}={name}: OpenCC has no such conversion ({error}); there are s2t, s2tw, s2hk, t2s"
        ) from error


def _settings(config: TranscriptsConfig, manifests: dict[str, Path]) -> dict[str, Any]:
    settings = {
        name: value for name, value in fingerprint(config).items() if name not in ("data_dir", "dataset")
    }
    inputs = [*manifests.values(), *further_manifests(config.tokens.further_data_dirs)]
    inputs += [Path(config.tokens.reuse)] if config.tokens.reuse else []
    return settings | {f"content of {file}": file_digest(file) for file in inputs}
