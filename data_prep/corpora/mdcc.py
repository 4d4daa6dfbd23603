"""``corpus=mdcc``: the Multi-Domain Cantonese Corpus, 73.6 hours of a Hong Kong radio podcast.

Layout: ``cnt_asr_{train,valid,test}_metadata.csv`` with ``audio_path,text_path,sex,duration``, ``audio/``
and ``transcription/`` with one text file a clip. Transcripts are Traditional and colloquial; ``(music)``,
also without its end, marks music, and ``{...}`` uncertain words. There are no speaker ids. Lhotse's
recipe divides the lines at commas and opens every clip.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import corpus_root, read_fields, read_lines
from data_prep.corpora.utterances import Published, Utterance, compare_sizes, manifests_of
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import variety_of_id


@dataclass
class MdccConfig:
    """Where MDCC lies.

    Attributes:
        root: the folder dataset, with audio, transcription and the CSV files.
    """

    root: str = MISSING


def _table(root: Path, split: str) -> Path:
    return root / f"cnt_asr_{split}_metadata.csv"


def _lists(config: MdccConfig) -> list[Path]:
    return [_table(Path(config.root), split) for split in ("train", "valid", "test")]


@register_corpus(
    "mdcc",
    MdccConfig,
    inputs=_lists,
    finish=compare_sizes(Published("valid", utterances=5_663), Published("test", utterances=12_492)),
    licence="signed research licence, as stated by its authors",
    origin="Google Drive, by its authors",
)
def prepare_mdcc(config: MdccConfig, directory: Path) -> CorpusManifests:
    """Manifests of the three official splits."""
    root = corpus_root(config.root, "cnt_asr_train_metadata.csv", "audio", "transcription")
    return manifests_of(_utterances(root), directory)


def _utterances(root: Path) -> Iterator[Utterance]:
    variety = variety_of_id("yue-hongkong")
    for split in ("train", "valid", "test"):
        columns = ("audio_path", "text_path", "sex", "duration")
        for row in read_fields(_table(root, split), columns, ",", quoted=True):
            audio, transcript = PurePosixPath(row["audio_path"]), root / row["text_path"]
            # A clip without its transcript is reported as one with an empty transcript.
            text = " ".join(line.text for line in read_lines(transcript)) if transcript.is_file() else ""
            yield Utterance(
                id=f"mdcc-{audio.name.removesuffix(audio.suffix)}",  # times in the name have dots
                audio=root / audio,
                text=text,
                dialect=variety,
                split=split,
                origin=row.origin,
                gender=row["sex"],
                duration=row.number("duration"),
            )
