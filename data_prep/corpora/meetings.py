"""``corpus=aishell4`` and ``corpus=alimeeting``: meetings in Mandarin, recorded by an array of microphones.

AISHELL-4, 120 hours: ``{train_L,train_M,train_S,test}/{wav/<session>.flac,TextGrid/<session>.TextGrid}``,
eight channels, a tier for each speaker. Names of speakers are those of one session. The TextGrids of two
sessions are broken and left out. There is no official validation set.

AliMeeting, 118.75 hours: ``Train_Ali_{far,near}``, ``Eval_Ali/Eval_Ali_{far,near}`` and
``Test_Ali/Test_Ali_{far,near}`` (or without the folder above), each with ``audio_dir`` and ``textgrid_dir``.
Far: ``R0015_M0151_MS002.wav``, eight channels, and ``R0015_M0151.TextGrid`` with a tier for each speaker.
Near: the headset of each speaker, ``R0003_M0046_F_SPK0093.{wav,TextGrid}``.

``audio.channel`` chooses the channel. The utterances stay in the long files. Each is of the part ``single``
or ``overlap``, by whether somebody else speaks at the same time, so that the table of error rates has both:
the error rate of overlapping speech, with one reference for the words of one person, says little.
Lhotse's recipes read all channels of an utterance and need the package textgrid.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import corpus_root
from data_prep.corpora.textgrid import Segment, overlapped, read_textgrid
from data_prep.corpora.utterances import Utterance, manifests_of, split_of_speaker
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import variety_of_id
from zipformer.errors import UserError

logger = logging.getLogger(__name__)

AISHELL4_PARTS = {"train_L": "train", "train_M": "train", "train_S": "train", "test": "test"}
BROKEN = ("20200622_M_R002S07C01", "20200710_M_R002S06C01")
ALIMEETING_PARTS = {"Train": "train", "Eval": "valid", "Test": "test"}
MICROPHONES = ("far", "near")


@dataclass
class Aishell4Config:
    """Which utterances of AISHELL-4 are read.

    Attributes:
        root: folder with train_L, train_M, train_S and test; of the training parts, one is enough.
        valid_sessions: share of the training sessions that are held out for validation.
        max_overlap: share of an utterance during which others may speak, from 0 to 1. Utterances with more
            are left out and counted.
    """

    root: str = MISSING
    valid_sessions: float = 0.05
    max_overlap: float = 1.0

    def __post_init__(self) -> None:
        _check_overlap(self.max_overlap)


@dataclass
class AliMeetingConfig:
    """Which utterances of AliMeeting are read.

    Attributes:
        root: folder with Train_Ali_far, Eval_Ali and Test_Ali; the parts that are there are read.
        microphone: ``far`` (the array) or ``near`` (the headsets).
        max_overlap: share of an utterance during which others may speak, from 0 to 1. Utterances with more
            are left out and counted. A headset has one speaker, so that nothing overlaps.
    """

    root: str = MISSING
    microphone: str = "far"
    max_overlap: float = 1.0

    def __post_init__(self) -> None:
        _check_overlap(self.max_overlap)
        if self.microphone not in MICROPHONES:
            raise UserError(
                f"corpus.microphone is {self.microphone!r}; it must be {' or '.join(MICROPHONES)}"
            )


def _check_overlap(value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"corpus.max_overlap is {value}; it must be a share from 0 to 1")


@dataclass(frozen=True)
class _Session:
    """One recording with its transcript.

    Attributes:
        name: name of the session.
        split: train, valid or test.
        audio: the recording.
        textgrid: its transcript.
        folder: where the transcript lies, for the reports.
    """

    name: str
    split: str
    audio: Path
    textgrid: Path
    folder: str


def _aishell4_sessions(config: Aishell4Config) -> Iterator[_Session]:
    root = Path(config.root).absolute()
    for part, split in AISHELL4_PARTS.items():
        for textgrid in sorted((root / part / "TextGrid").glob("*.TextGrid")):
            name = textgrid.stem
            if name in BROKEN:
                logger.warning("%s is known to be broken; the session is left out", textgrid)
                continue
            own = split_of_speaker(name, config.valid_sessions, 0.0) if split == "train" else split
            yield _Session(name, own, root / part / "wav" / f"{name}.flac", textgrid, part)


def _alimeeting_sessions(config: AliMeetingConfig) -> Iterator[_Session]:
    root = Path(config.root).absolute()
    for part, split in ALIMEETING_PARTS.items():
        name = f"{part}_Ali_{config.microphone}"
        folder = next(
            (one for one in (root / f"{part}_Ali" / name, root / name) if one.is_dir()), root / name
        )
        audio = {file.stem: file for file in sorted((folder / "audio_dir").rglob("*.wav"))}
        for textgrid in sorted((folder / "textgrid_dir").rglob("*.TextGrid")):
            stem = textgrid.stem
            # The name of an array recording goes on after that of the session.
            found = next(
                (file for key, file in audio.items() if key == stem or key.startswith(f"{stem}_")), None
            )
            yield _Session(stem, split, found or folder / "audio_dir" / f"{stem}.wav", textgrid, name)


@register_corpus(
    "aishell4",
    Aishell4Config,
    inputs=lambda config: [session.textgrid for session in _aishell4_sessions(config)],
    scoring="m2met",
    licence="CC BY-SA 4.0, as stated by OpenSLR",
    origin="https://www.openslr.org/111",
)
def prepare_aishell4(config: Aishell4Config, directory: Path) -> CorpusManifests:
    """Manifests of the parts that are there."""
    root = corpus_root(config.root)
    sessions = list(_aishell4_sessions(config))
    _check_sessions(sessions, root, "train_L, train_M, train_S or test, each with TextGrid and wav")
    return manifests_of(_utterances("aishell4", sessions, config.max_overlap), directory)


@register_corpus(
    "alimeeting",
    AliMeetingConfig,
    inputs=lambda config: [session.textgrid for session in _alimeeting_sessions(config)],
    scoring="m2met",
    licence="CC BY-SA 4.0, as stated by OpenSLR",
    origin="https://www.openslr.org/119",
)
def prepare_alimeeting(config: AliMeetingConfig, directory: Path) -> CorpusManifests:
    """Manifests of the parts that are there."""
    root = corpus_root(config.root)
    sessions = list(_alimeeting_sessions(config))
    _check_sessions(sessions, root, f"Train_Ali_{config.microphone}, Eval_Ali or Test_Ali")
    return manifests_of(_utterances("alimeeting", sessions, config.max_overlap), directory)


def _check_sessions(sessions: list[_Session], root: Path, wanted: str) -> None:
    if not sessions:
        raise UserError(f"{root} has no TextGrid files; set corpus.root to the folder with {wanted}")


def _utterances(corpus: str, sessions: list[_Session], max_overlap: float) -> Iterator[Utterance]:
    left_out = 0
    for session in sessions:
        segments = read_textgrid(session.textgrid)
        for segment, share in zip(segments, overlapped(segments), strict=True):
            if share > max_overlap:
                left_out += 1
            else:
                yield _utterance(corpus, session, segment, share)
    if left_out:
        logger.warning(
            "%d utterances overlap with others by more than corpus.max_overlap=%g and are left out",
            left_out,
            max_overlap,
        )


def _utterance(corpus: str, session: _Session, segment: Segment, share: float) -> Utterance:
    speaker, gender = _speaker(corpus, session.name, segment.tier)
    return Utterance(
        id=f"{corpus}-{session.name}-{segment.tier}-{segment.number:05d}",
        audio=session.audio,
        text=segment.text,
        dialect=variety_of_id("cmn"),
        split=session.split,
        part="overlap" if share > 0 else "single",
        origin=f"{session.folder}/{segment.origin}",
        speaker=speaker,
        gender=gender,
        duration=segment.end - segment.start,
        start=segment.start,
        recording=f"{corpus}-{session.name}",
    )


def _speaker(corpus: str, session: str, tier: str) -> tuple[str, str]:
    """Speaker and gender; the speakers of AliMeeting are ``..._F_SPK0093`` in a tier or a session's name."""
    if corpus == "aishell4":
        return f"{corpus}-{session}-{tier}", ""
    words = next((name for name in (tier, session) if "SPK" in name), tier).split("_")
    return f"{corpus}-{words[-1]}", words[-2] if len(words) > 1 else ""
