"""``corpus=tat``: TAT-Vol1 and TAT-Vol2, Taiwanese Southern Min, read into six microphones at a time.

Layout: ``TAT-Vol{1,2}-{train,eval,test}[-master]`` with
``{condenser,lavalier,XYH-6-X,XYH-6-Y,ios,android}/wav/<speaker>/<utterance>-<nn>.wav`` and
``json/<speaker>/<utterance>.json``. The JSON files of eval and test may lie in a folder of their own,
``TAT-Vol1-eval-key[-master]``. Keys: ``漢羅台文`` (Han characters, Latin for words without one), ``台羅``,
``台羅數字調`` (syllables with the number of the tone), ``性別``. The six files of an utterance are the same
speech: they are in one split, and one microphone is read unless more are asked for. Lhotse has no recipe.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import corpus_root, read_json_object
from data_prep.corpora.utterances import Utterance, manifests_of, sentence_id_of
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import variety_of_id
from zipformer.errors import UserError

MICROPHONES = ("condenser", "lavalier", "XYH-6-X", "XYH-6-Y", "ios", "android")
TEXTS = {"han": "漢羅台文", "tailo": "台羅數字調"}
SPLITS_OF_PARTS = {"train": "train", "eval": "valid", "test": "test"}
_PART = re.compile(r"(TAT-Vol\d+)-(train|eval|test)(-master)?")


@dataclass
class TatConfig:
    """Which microphones and which writing are read.

    Attributes:
        root: folder with TAT-Vol1-train and the other parts.
        microphones: microphones of the training split. Each adds the same speech once more, so hours are
            counted once for each.
        test_microphone: microphone of valid and test.
        text: ``han`` for 漢羅台文, scored by characters; ``tailo`` for 台羅數字調, scored by syllables.
    """

    root: str = MISSING
    microphones: list[str] = field(default_factory=lambda: ["condenser"])
    test_microphone: str = "condenser"
    text: str = "han"

    def __post_init__(self) -> None:
        if unknown := [name for name in (*self.microphones, self.test_microphone) if name not in MICROPHONES]:
            raise UserError(
                f"corpus.microphones and corpus.test_microphone: no {', '.join(unknown)} in TAT; the "
                f"microphones are {', '.join(MICROPHONES)}"
            )
        if not self.microphones:
            raise UserError(f"corpus.microphones is empty; name at least one of {', '.join(MICROPHONES)}")
        if self.text not in TEXTS:
            raise UserError(f"corpus.text is {self.text!r}; it must be one of {', '.join(TEXTS)}")


def _parts(root: Path) -> Iterator[tuple[str, str, Path, Path]]:
    """Name, split, folder and folder of the JSON files of each part.

    Raises:
        UserError: there is none, or one has no JSON files.
    """
    found = False
    for folder in sorted(root.glob("TAT-Vol*")):
        if not (match := _PART.fullmatch(folder.name)):
            continue
        found = True
        name = f"{match[1]}-{match[2]}"
        places = [folder, *(root / f"{name}-key{ending}" for ending in (match[3] or "", "-master", ""))]
        texts = next((place / "json" for place in places if (place / "json").is_dir()), None)
        if texts is None:
            raise UserError(
                f"{folder / 'json'} does not exist; unpack the transcripts of {name} there or to "
                f"{root / f'{name}-key'} (corpus.root={root})"
            )
        yield name, SPLITS_OF_PARTS[match[2]], folder, texts
    if not found:
        raise UserError(
            f"{root} has no folder TAT-Vol1-train, TAT-Vol1-eval, ...; set corpus.root to the "
            "folder that holds them"
        )


def _inputs(config: TatConfig) -> list[Path]:
    root = Path(config.root)
    return [texts for *_, texts in _parts(root)] if root.is_dir() else []


@register_corpus(
    "tat",
    TatConfig,
    inputs=_inputs,
    scoring="syllables",
    licence="signed, no commercial use, as stated by the Formosa Speech project",
    origin="Formosa Speech in the Wild (FSW)",
)
def prepare_tat(config: TatConfig, directory: Path) -> CorpusManifests:
    """Manifests of all parts that are there."""
    return manifests_of(_utterances(corpus_root(config.root), config), directory)


def _utterances(root: Path, config: TatConfig) -> Iterator[Utterance]:
    variety = variety_of_id("nan-taiwan")
    for part, split, folder, texts in _parts(root):
        microphones = config.microphones if split == "train" else [config.test_microphone]
        for speaker in sorted(path for path in texts.iterdir() if path.is_dir()):
            # The name of a recording is that of its JSON file with a number added.
            files = {
                microphone: {
                    path.stem.rpartition("-")[0]: path
                    for path in sorted((folder / microphone / "wav" / speaker.name).glob("*.wav"))
                }
                for microphone in microphones
            }
            for file in sorted(speaker.glob("*.json")):
                about = read_json_object(file)
                text = about[TEXTS[config.text]]
                for microphone in microphones:
                    missing = folder / microphone / "wav" / speaker.name / f"{file.stem}-01.wav"
                    yield Utterance(
                        id=f"tat-{part.removeprefix('TAT-')}-{speaker.name}-{file.stem}-{microphone}",
                        audio=files[microphone].get(file.stem, missing),
                        text=text,
                        dialect=variety,
                        split=split,
                        part=part,
                        origin=f"{part}/{speaker.name}/{about.origin}",
                        speaker=f"tat-{speaker.name}",
                        gender=about["性別"],
                        sentence_id=sentence_id_of(about[TEXTS["han"]]),
                        romanisation=about[TEXTS["tailo"]] or None,
                    )
