"""``corpus=aishell`` and ``corpus=aishell3``: the read Mandarin of AISHELL-1 and AISHELL-3.

AISHELL-1: ``wav/{train,dev,test}/S0002/BAC009S0002W0122.wav`` and
``transcript/aishell_transcript_v0.8.txt`` (``id word word ...``). 325 of the 141,925 files have no
transcript.

AISHELL-3, made for synthesis, 44.1 kHz: ``{train,test}/wav/SSB0005/SSB00050001.wav``,
``{train,test}/content.txt`` (``file.wav<TAB>character pinyin character pinyin ...``) and
``spk-info.txt``. Lhotse's recipe returns recordings and supervisions swapped, loses the pinyin and makes
unknown gender female.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import corpus_root, read_lines, read_pairs
from data_prep.corpora.utterances import (
    Published,
    Utterance,
    compare_sizes,
    manifests_of,
    read_speaker_folders,
    split_of_speaker,
)
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import variety_of_id

TRANSCRIPTS = Path("transcript") / "aishell_transcript_v0.8.txt"
_SPEAKER = slice(6, 11)


@dataclass
class AishellConfig:
    """Where AISHELL-1 lies.

    Attributes:
        root: the folder data_aishell, with wav (the archive of each speaker unpacked) and transcript.
    """

    root: str = MISSING


@register_corpus(
    "aishell",
    AishellConfig,
    inputs=lambda config: [Path(config.root) / TRANSCRIPTS],
    finish=compare_sizes(
        Published("train", utterances=120_098),
        Published("valid", utterances=14_326),
        Published("test", utterances=7_176, characters=104_765),
    ),
    licence="Apache-2.0, as stated by OpenSLR",
    origin="https://www.openslr.org/33",
)
def prepare_aishell(config: AishellConfig, directory: Path) -> CorpusManifests:
    """Manifests of the three official splits."""
    root = corpus_root(config.root, "wav", str(TRANSCRIPTS))
    return manifests_of(_aishell_utterances(root), directory)


def _aishell_utterances(root: Path) -> Iterator[Utterance]:
    return read_speaker_folders("aishell", root / "wav", root / TRANSCRIPTS, _SPEAKER)


@dataclass
class Aishell3Config:
    """Where AISHELL-3 lies.

    Attributes:
        root: folder with train, test and spk-info.txt.
        valid_speakers: share of the speakers of train who are held out for validation.
    """

    root: str = MISSING
    valid_speakers: float = 0.03


def _aishell3_lists(config: Aishell3Config) -> list[Path]:
    return [Path(config.root) / name for name in ("train/content.txt", "test/content.txt", "spk-info.txt")]


@register_corpus(
    "aishell3",
    Aishell3Config,
    inputs=_aishell3_lists,
    licence="Apache-2.0, as stated by OpenSLR",
    origin="https://www.openslr.org/93",
)
def prepare_aishell3(config: Aishell3Config, directory: Path) -> CorpusManifests:
    """Manifests of the official test set and of train without its validation speakers."""
    root = corpus_root(config.root, "train/content.txt", "test/content.txt", "spk-info.txt")
    return manifests_of(_aishell3_utterances(root, config.valid_speakers), directory)


def _aishell3_utterances(root: Path, valid_speakers: float) -> Iterator[Utterance]:
    speakers = {}
    for line in read_lines(root / "spk-info.txt"):
        if not line.text.startswith("#"):
            speaker, _age, gender, accent = [*(value.strip() for value in line.text.split("\t")), "", "", ""][
                :4
            ]
            speakers[speaker] = (gender, accent)
    for part in ("train", "test"):
        for origin, file, content in read_pairs(root / part / "content.txt"):
            name, speaker = file.removesuffix(".wav"), file[:7]
            words = content.split()
            gender, accent = speakers.get(speaker, ("", ""))
            yield Utterance(
                id=f"aishell3-{name}",
                audio=root / part / "wav" / speaker / file,
                text="".join(words[::2]),
                dialect=variety_of_id("cmn"),
                split=split_of_speaker(speaker, valid_speakers, 0) if part == "train" else "test",
                origin=f"{part}/{origin}",
                speaker=f"aishell3-{speaker}",
                gender=gender,
                site=accent or None,
                romanisation=" ".join(words[1::2]) or None,
            )
