"""Timing errors of each aligner on synthesised speech, where the synthesiser knows the time of each syllable.

python -m benchmarks.alignment --model-dir exp/mini/averaged --data-dir data/mini
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lhotse import CutSet
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from data_prep.corpora.mini.unit import SAMPLING_RATE, SYLLABLES
from zipformer.alignment import ALIGNERS, AlignedUtterance, align_cuts
from zipformer.data.cuts import find_manifest, read_cuts
from zipformer.data.tokenizer import Tokenizer
from zipformer.model import AsrModel

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Errors:
    """Timing errors of the characters of one utterance, in seconds.

    Attributes:
        inside: True where the centre of the character lies within the syllable.
        centres: centre of the character minus the centre of the syllable.
        boundaries: start of the character minus start of the syllable, for all characters; then the same for
            the ends.
    """

    inside: NDArray[np.bool_]
    centres: Seconds
    boundaries: Seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True, help="the embedded corpus, prepared")
    parser.add_argument("--dialects", nargs="*", help="only these (default: all of the test set)")
    options = parser.parse_args()
    cuts = read_cuts(find_manifest(options.data_dir, "test"))
    if options.dialects:
        cuts = cuts.filter(lambda cut: cut.supervisions[0].language in options.dialects)
    chosen = list(cuts)
    truth = spoken(options.data_dir)
    model, tokenizer = AsrModel.from_pretrained(options.model_dir).eval(), Tokenizer.load(options.model_dir)
    table = Table("aligner")
    for column in ("characters", "centre inside %", "centre off by ms", "boundaries off by ms", "late by ms"):
        table.add_column(column, justify="right")
    for aligner in ALIGNERS:
        aligned = align_cuts(model, tokenizer, CutSet.from_cuts(chosen), aligner=aligner)
        errors = [errors_of(utterance, truth[utterance.id]) for utterance in aligned]
        table.add_row(aligner, *summary(errors))
    Console().print(table)


def spoken(data_dir: Path) -> dict[str, Seconds]:
    """Start of every syllable and end of the last one, in seconds, by id of the test utterance."""
    files = sorted(data_dir.glob(f"audio/test/*/*/{SYLLABLES}"))
    if not files:
        raise SystemExit(
            f"error: no audio/test/*/*/{SYLLABLES} in {data_dir}; prepare the embedded corpus there with"
            " fangyan prepare corpus=mini"
        )
    return {
        name: np.array(samples) / SAMPLING_RATE
        for file in files
        for name, samples in json.loads(file.read_text(encoding="utf-8")).items()
    }


def errors_of(utterance: AlignedUtterance, boundaries: Seconds) -> Errors:
    """Compare the times of the characters with those of the spoken syllables.

    Args:
        utterance: aligned utterance, one word for each character.
        boundaries: boundaries of the spoken syllables (characters+1,), in seconds.
    """
    starts = np.array([word.start_seconds for word in utterance.words])
    ends = np.array([word.end_seconds for word in utterance.words])
    centres, true_centres = (starts + ends) / 2, (boundaries[:-1] + boundaries[1:]) / 2
    if len(centres) != len(true_centres):
        raise ValueError(
            f"{utterance.id} has {len(true_centres)} syllables for {len(centres)} characters; the corpus has"
            " one for each"
        )
    return Errors(
        (boundaries[:-1] <= centres) & (centres < boundaries[1:]),
        centres - true_centres,
        np.concatenate([starts - boundaries[:-1], ends - boundaries[1:]]),
    )


def summary(errors: list[Errors]) -> Iterator[str]:
    """Table cells: number of characters, share of centres inside, mean absolute errors, mean error."""
    inside = np.concatenate([error.inside for error in errors])
    centres = np.concatenate([error.centres for error in errors])
    boundaries = np.concatenate([error.boundaries for error in errors])
    yield f"{len(inside):,}"
    yield f"{100 * inside.mean():.1f}"
    for milliseconds in (1000 * np.abs(centres), 1000 * np.abs(boundaries), 1000 * centres):
        yield f"{statistics.fmean(milliseconds):.0f}"


if __name__ == "__main__":
    main()
