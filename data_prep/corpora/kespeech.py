"""``corpus=kespeech``: KeSpeech, 1,542 hours of read Mandarin and eight Mandarin dialects from 34 cities.

Layout: ``Audio/<speaker>/<phase1|phase2>/<utterance>.wav``, ``Metadata/`` and
``Tasks/ASR/{train_phase1,train_phase2,dev_phase1,dev_phase2,test}/{wav.scp,text,utt2spk,utt2subdialect}``.
A line of ``text`` may have no transcript. Lhotse's recipe stops at such a line, opens a million headers,
deletes ``<SPOKEN_NOISE>`` from the raw text and leaves out gender and city, so the lists are read here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import corpus_root, joined, read_pairs
from data_prep.corpora.utterances import (
    Published,
    Utterance,
    compare_sizes,
    manifests_of,
    sentence_id_of,
    variety_or_label,
)
from data_prep.manifests import CorpusManifests

PARTS = {
    "train_phase1": "train",
    "train_phase2": "train",
    "dev_phase1": "valid",
    "dev_phase2": "valid",
    "test": "test",
}
# The label Mandarin is the standard language here, spoken by people of all the cities.
LABELS = {"Mandarin": "cmn"}


@dataclass
class KeSpeechConfig:
    """Where KeSpeech lies.

    Attributes:
        root: folder with Audio, Metadata and Tasks.
    """

    root: str = MISSING


def _lists(config: KeSpeechConfig) -> list[Path]:
    asr = Path(config.root) / "Tasks" / "ASR"
    return [asr / part / name for part in PARTS for name in ("wav.scp", "text", "utt2spk", "utt2subdialect")]


@register_corpus(
    "kespeech",
    KeSpeechConfig,
    inputs=_lists,
    finish=compare_sizes(Published("test", utterances=19_723)),
    licence="own terms (no commercial use, no adaptation, no redistribution), as stated by its authors",
    origin="https://github.com/KeSpeech/KeSpeech",
)
def prepare_kespeech(config: KeSpeechConfig, directory: Path) -> CorpusManifests:
    """Manifests of all lists. A sentence has one id in all dialects, so that retrieval can pair them."""
    root = corpus_root(config.root, "Tasks/ASR", "Audio")
    return manifests_of(_utterances(root), directory)


def _utterances(root: Path) -> Iterator[Utterance]:
    cities, genders = (_by_speaker(root / "Metadata" / name) for name in ("spk2city", "spk2gender"))
    for part, split in PARTS.items():
        folder = root / "Tasks" / "ASR" / part
        others = [folder / name for name in ("text", "utt2spk", "utt2subdialect")]
        for origin, name, audio, (text, speaker, label) in joined(folder / "wav.scp", others):
            yield Utterance(
                id=f"kespeech-{name}",
                audio=root / audio,
                text=text,
                dialect=variety_or_label(label, LABELS),
                split=split,
                part=part,
                origin=f"{part}/{origin}",
                speaker=f"kespeech-{speaker}" if speaker else None,
                gender=genders.get(speaker, ""),
                site=cities.get(speaker),
                sentence_id=sentence_id_of(text),
            )


def _by_speaker(path: Path) -> dict[str, str]:
    return {speaker: value for _, speaker, value in read_pairs(path)} if path.is_file() else {}
