"""``corpus=ramc``: MagicData-RAMC, 180 hours of conversation in Mandarin, 351 dialogues of half an hour.

Layout: ``MDT2021S003/WAV/<id>.wav``, ``MDT2021S003/TXT/<id>.txt`` (``[start,end]<TAB>speaker<TAB>gender,
language<TAB>text``, seconds) and ``DataPartition/{train,dev,test}.tsv`` (``<id>.wav<TAB>bytes`` below a line
with a folder). The speaker G00000000 is noise. ``[*]`` marks what nobody understood and ``[+]`` two people
speaking at once; ``[LAUGHTER]``, ``[SONANT]`` and ``[MUSIC]`` are sounds. The turns stay in the long files.
Lhotse has no recipe.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import corpus_root, read_lines
from data_prep.corpora.turns import read_turns
from data_prep.corpora.utterances import Utterance, manifests_of
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import variety_of_id
from zipformer.errors import UserError

PARTS = {"train": "train", "dev": "valid", "test": "test"}
SET = "MDT2021S003"


@dataclass
class RamcConfig:
    """Where MagicData-RAMC lies.

    Attributes:
        root: folder with DataPartition and MDT2021S003.
    """

    root: str = MISSING


def _list(root: Path, part: str) -> Path:
    return root / "DataPartition" / f"{part}.tsv"


def _lists(config: RamcConfig) -> list[Path]:
    root = Path(config.root)
    return [*(_list(root, part) for part in PARTS), root / SET / "TXT"]


@register_corpus(
    "ramc",
    RamcConfig,
    inputs=_lists,
    scoring="wenetspeech",
    licence="CC BY-NC-ND 4.0, as stated by OpenSLR",
    origin="https://www.openslr.org/123",
)
def prepare_ramc(config: RamcConfig, directory: Path) -> CorpusManifests:
    """Manifests of the three official splits."""
    root = corpus_root(config.root, *(f"DataPartition/{part}.tsv" for part in PARTS), f"{SET}/TXT")
    return manifests_of(_utterances(root), directory)


def _utterances(root: Path) -> Iterator[Utterance]:
    seen: dict[str, str] = {}
    for part, split in PARTS.items():
        for line in read_lines(_list(root, part)):
            file = PurePosixPath(line.text.split("\t")[0].strip())
            if file.suffix != ".wav":
                continue  # the folder, above the files
            if (other := seen.setdefault(file.stem, line.origin)) != line.origin:
                raise UserError(
                    f"{_list(root, part)}:{line.origin.rpartition(':')[2]}: {file.name} is in {other} too; "
                    "remove one of the two lines"
                )
            yield from _dialogue(root, file.stem, split)


def _dialogue(root: Path, name: str, split: str) -> Iterator[Utterance]:
    variety = variety_of_id("cmn")
    for turn in read_turns(root / SET / "TXT" / f"{name}.txt"):
        yield Utterance(
            id=f"ramc-{name}-{turn.number:05d}",
            audio=root / SET / "WAV" / f"{name}.wav",
            text=turn.text,
            dialect=variety,
            split=split,
            origin=turn.origin,
            speaker=f"ramc-{turn.speaker}",
            gender=turn.gender,
            duration=turn.end - turn.start,
            start=turn.start,
            recording=f"ramc-{name}",
        )
