"""The corpora that ``fangyan prepare corpus=<name>`` can prepare: one module of this package each.

A corpus is a config dataclass and a function that turns it into Lhotse manifests::

    @dataclass
    class KeSpeechConfig:
        root: str = MISSING

    @register_corpus("kespeech", KeSpeechConfig)
    def prepare_kespeech(config: KeSpeechConfig, directory: Path) -> CorpusManifests:
        ...
        return {"train": (recordings, supervisions), "test": (recordings, supervisions)}

Saved as a file of this package, that is all: the module is found by itself and ``corpus=kespeech
corpus.root=...`` works; ``conf/corpus/kespeech.yaml`` may hold a set of values for it. Packages that only one
corpus needs are imported inside its function, so that the other corpora work without them.
``README.md`` shows a whole reader with its test; ``lists`` and ``utterances`` do what all readers of public
corpora share.

An option ``workers`` (processes) is taken not to change the outcome; any other option that is changed asks
for a data directory of its own.

What the function must deliver:

- splits named ``train``, ``valid`` or ``test``; audio of its own (converted, synthesised) goes to
  ``directory / "audio"``. It is called again when a run was killed before the manifests were complete, and
  should keep files it has already finished;
- supervisions with the raw transcript in ``text``, the dialect group in ``language``, ``speaker``, and in
  ``custom`` what is known of ``subdialect``, ``site``, ``sentence_id``, ``translation``, ``ipa`` and
  ``romanisation`` (``data_prep.taxonomy`` knows the names of groups and subdialects).
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from data_prep.manifests import CorpusManifests
from zipformer.errors import UserError

CorpusFunction = Callable[[Any, Path], CorpusManifests]
F = TypeVar("F", bound=CorpusFunction)
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Corpus:
    """A registered corpus.

    Attributes:
        name: its name on the command line.
        config_class: dataclass of its options.
        prepare: its function.
        inputs: gives the files that decide over what the manifests hold, such as the table of a folder. When
            one of them changes, a directory prepared before does not count as prepared from this corpus any
            more. Of a folder, the names and sizes of its files count.
        finish: called with the data directory when its final cuts are there, to write what only this corpus
            has beside them.
        scoring: convention by which error rates of its test sets are published, a name of
            ``zipformer.scoring.CONVENTIONS``.
        licence: licence and who states it; ``unknown`` where nobody does.
        origin: address or publisher that the corpus is obtained from; ``unknown`` for recordings of a user.
    """

    name: str
    config_class: type
    prepare: CorpusFunction
    inputs: Callable[[Any], Iterable[Path]]
    finish: Callable[[Any, Path], None]
    scoring: str
    licence: str
    origin: str


def _no_inputs(config: object) -> Iterable[Path]:
    return ()


def _nothing_more(config: object, directory: Path) -> None:
    return None


_registered: dict[str, Corpus] = {}


def register_corpus(
    name: str,
    config_class: type,
    inputs: Callable[[Any], Iterable[Path]] = _no_inputs,
    finish: Callable[[Any, Path], None] = _nothing_more,
    scoring: str = "plain",
    licence: str = UNKNOWN,
    origin: str = UNKNOWN,
) -> Callable[[F], F]:
    """Decorator that makes ``prepare(config, directory) -> manifests by split`` known under ``name``.

    Args:
        name: what a user writes after ``corpus=``.
        config_class: dataclass of the corpus's options. Each corpus has a class of its own.
        inputs, finish, scoring, licence, origin: see ``Corpus``.

    Raises:
        UserError: the name or the class is taken, or the class is not a dataclass.
    """
    if not is_dataclass(config_class):
        raise UserError(f"corpus {name!r}: {config_class!r} must be a dataclass")

    def register(function: F) -> F:
        for other in _registered.values():
            if other.name == name or other.config_class is config_class:
                raise UserError(
                    f"corpus {name!r} ({config_class.__name__}) clashes with the registered corpus "
                    f"{other.name!r} ({other.config_class.__name__}): name and config class must be its own"
                )
        _registered[name] = Corpus(name, config_class, function, inputs, finish, scoring, licence, origin)
        return function

    return register


@lru_cache(maxsize=1)
def corpora() -> Mapping[str, Corpus]:
    """All corpora by name; imports every module of this package on the first call."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}{'.corpus' if module.ispkg else ''}")
    return dict(sorted(_registered.items()))


def corpus_of(config: object) -> Corpus:
    """The corpus that a config object belongs to.

    Raises:
        KeyError: no corpus was registered with the object's class.
    """
    for corpus in corpora().values():
        if type(config) is corpus.config_class:
            return corpus
    raise KeyError(
        f"{type(config).__name__} is not the config of a corpus; known corpora: {', '.join(corpora())}"
    )
