"""Reads the cuts of a prepared corpus, and the sentence of an utterance."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from lhotse import CutSet
from lhotse.cut import Cut

from zipformer.data.manifest import check_feature_files, with_present_paths
from zipformer.errors import UserError


def encoder_frames(num_frames: int) -> int:
    """Number of encoder frames (25/s) from ``num_frames`` feature frames (100/s)."""
    return ((num_frames - 7) // 2 + 1) // 2


class Supervision(Protocol):
    """The fields of a Lhotse supervision that are used here."""

    @property
    def id(self) -> str: ...

    @property
    def text(self) -> str | None: ...

    @property
    def custom(self) -> Mapping[str, Any] | None: ...


def read_cuts(manifest: Path) -> CutSet:
    """Open a manifest of cuts lazily.

    Returns:
        Cuts with the present paths of their features and recordings.

    Raises:
        UserError: there is no such file.
    """
    check_manifest(manifest)
    return CutSet.from_jsonl_lazy(manifest).map(partial(with_present_paths, directory=manifest.parent))


def check_manifest(manifest: Path) -> None:
    if not manifest.is_file():
        raise UserError(f"no manifest of cuts at {manifest}: prepare the data first (fangyan prepare)")


def find_manifest(data_dir: Path, split: str) -> Path:
    """Path of the cuts of a split.

    Raises:
        UserError: there is no such split; the message lists all splits.
    """
    manifest = data_dir / f"cuts_{split}.jsonl.gz"
    if not manifest.is_file():
        names = sorted(
            path.name[len("cuts_") : -len(".jsonl.gz")] for path in data_dir.glob("cuts_*.jsonl.gz")
        )
        there = f"the splits there are {', '.join(names)}" if names else "no split is prepared there"
        raise UserError(f"{manifest} does not exist; {there} (fangyan prepare makes them)")
    return manifest


def read_test_cuts(manifest: Path, reference: str = "text") -> list[Cut]:
    """Read the cuts of a split, and check that all can be recognised and have the reference.

    Raises:
        UserError: there are no cuts, files of features are missing, or some cuts cannot be recognised or
            scored, or have the same id; the message names up to ten.
    """
    cuts = list(read_cuts(manifest))
    if not cuts:
        raise UserError(f"{manifest} holds no utterance; prepare the data again or choose another split")
    problems = []
    seen: set[str] = set()
    for cut in cuts:
        if cut.id in seen:
            problems.append(f"{cut.id}: the id occurs twice")
        elif len(cut.supervisions) != 1:
            problems.append(f"{cut.id}: {len(cut.supervisions)} transcripts instead of one")
        elif not cut.has_features:
            problems.append(f"{cut.id}: no features")
        elif encoder_frames(cut.num_frames) < 1:
            problems.append(f"{cut.id}: {cut.duration:g} s is too short for one encoder frame")
        elif reference != "text" and not (cut.supervisions[0].custom or {}).get(reference):
            problems.append(f"{cut.id}: no {reference}; with reference=text it needs none")
        seen.add(cut.id)
    if problems:
        more = "" if len(problems) <= 10 else f"\n  and {len(problems) - 10} more"
        raise UserError(
            f"{len(problems)} utterances of {manifest} cannot be recognised; correct them and prepare the"
            " data again:\n  " + "\n  ".join(problems[:10]) + more
        )
    check_feature_files((cut.features.storage_path for cut in cuts), manifest.parent)
    return cuts


def sentence_of(supervision: Supervision, field: str) -> str:
    """The sentence of an utterance: its transcript for ``text``, else a field of ``custom``.

    Raises:
        UserError: the utterance has no sentence.
    """
    sentence = supervision.text if field == "text" else (supervision.custom or {}).get(field)
    if not sentence:
        raise UserError(
            f"utterance {supervision.id} has no {field!r}: train on a corpus in which every utterance has "
            "it, or name another field"
        )
    return str(sentence)
