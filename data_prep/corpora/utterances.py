"""Makes manifests from the utterances that a reader finds in lists; compares with published sizes."""

import hashlib
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhotse import AudioSource, Recording, RecordingSet, SupervisionSegment, SupervisionSet

from data_prep.corpora.lists import read_pairs
from data_prep.manifests import (
    SPLITS,
    CorpusManifests,
    checked_file,
    read_checked_cuts,
    read_supervisions,
    recordings_file,
    supervisions_file,
)
from data_prep.taxonomy import UnknownDialectError, Variety, variety_of
from zipformer.errors import UserError

logger = logging.getLogger(__name__)

_NAMES_SHOWN = 5
_RATE = 16000  # Hz; the checks replace it by the rate of the file
_GENDERS = {"f": "female", "女": "female", "m": "male", "男": "male"}


@dataclass(frozen=True)
class Utterance:
    """One utterance as described by a corpus.

    Attributes:
        id: utterance id, unique over all corpora (it begins with the name of the corpus).
        audio: file of the audio.
        text: raw transcript.
        dialect: variety, or the label of the corpus if it is not in the taxonomy.
        split: train, valid or test.
        origin: file and line of the utterance.
        part: name that the corpus gives to the list of the utterance.
        speaker: speaker id, unique over all corpora; None if unknown.
        gender: gender in the words of the corpus.
        duration: seconds, from the lists; None if not given.
        start: seconds from the beginning of the file, for an utterance that is a part of it.
        recording: id of the recording that the utterance is a part of; None if it is the whole file.
            Utterances of one recording must follow each other.
        site: place of the speaker.
        sentence_id: id of the sentence, equal for parallel sentences.
        translation: translation into standard Mandarin.
        romanisation: syllables with their tones.
    """

    id: str
    audio: Path
    text: str
    dialect: Variety | str
    split: str
    origin: str
    part: str | None = None
    speaker: str | None = None
    gender: str = ""
    duration: float | None = None
    start: float = 0.0
    recording: str | None = None
    site: str | None = None
    sentence_id: str | None = None
    translation: str | None = None
    romanisation: str | None = None


def manifests_of(utterances: Iterable[Utterance], directory: Path) -> CorpusManifests:
    """Manifests of the utterances, written to the data directory one by one.

    No audio is opened. A recording is described without samples (``num_samples`` 0), with the duration from
    the lists if given: the checks decode the file and compare.

    Raises:
        UserError: there are no utterances.
    """
    last: dict[str, str] = {}
    with ExitStack() as stack:
        writers: dict[str, tuple[Any, Any]] = {}
        for utterance in utterances:
            split = utterance.split
            if split not in writers:
                assert split in SPLITS, split
                files = (recordings_file(directory, split), supervisions_file(directory, split))
                files[0].parent.mkdir(parents=True, exist_ok=True)
                recording_writer = RecordingSet.open_writer(files[0], overwrite=True)
                supervision_writer = SupervisionSet.open_writer(files[1], overwrite=True)
                writers[split] = (
                    stack.enter_context(recording_writer),
                    stack.enter_context(supervision_writer),
                )
            recordings, supervisions = writers[split]
            if utterance.recording is None or last.get(split) != utterance.recording:
                recordings.write(_recording(utterance))
            last[split] = utterance.recording or ""
            supervisions.write(_supervision(utterance))
    if not writers:
        raise UserError("the lists of the corpus name no utterance; check corpus.root and the other options")
    return {
        split: (
            RecordingSet.from_jsonl_lazy(recordings_file(directory, split)),
            SupervisionSet.from_jsonl_lazy(supervisions_file(directory, split)),
        )
        for split in writers
    }


def _recording(utterance: Utterance) -> Recording:
    whole = utterance.recording is None
    return Recording(
        id=utterance.recording or utterance.id,
        sources=[AudioSource(type="file", channels=[0], source=str(utterance.audio))],
        sampling_rate=_RATE,
        num_samples=0,
        duration=(utterance.duration or 0.0) if whole else 0.0,
    )


def _supervision(utterance: Utterance) -> SupervisionSegment:
    variety = utterance.dialect
    custom = {
        "subdialect": variety.subdialect if isinstance(variety, Variety) else None,
        "site": utterance.site,
        "sentence_id": utterance.sentence_id,
        "translation": utterance.translation,
        "romanisation": utterance.romanisation,
        "part": utterance.part,
        "origin": utterance.origin,
    }
    return SupervisionSegment(
        id=utterance.id,
        recording_id=utterance.recording or utterance.id,
        start=utterance.start,
        duration=utterance.duration or 0.0,
        channel=0,
        text=utterance.text,
        language=variety.group if isinstance(variety, Variety) else variety,
        speaker=utterance.speaker,
        gender=_GENDERS.get(utterance.gender.strip().casefold()[:1]),
        custom={name: value for name, value in custom.items() if value},
    )


def variety_or_label(label: str, mapping: dict[str, str] | None = None) -> Variety | str:
    """Variety of a label, or the label itself, which the checks then report."""
    try:
        return variety_of(label, mapping)
    except UnknownDialectError:
        return label


def sentence_id_of(text: str) -> str | None:
    """Id of a text, equal for texts that differ only in marks, punctuation, case and width; None if empty."""
    plain = re.sub(r"<[^<>]*>|\[[^\[\]]*\]", "", unicodedata.normalize("NFKC", text)).casefold()
    words = "".join(character for character in plain if character.isalnum())
    return hashlib.blake2b(words.encode(), digest_size=8).hexdigest() if words else None


def split_of_speaker(speaker: str, valid: float, test: float) -> str:
    """Split of all utterances of a speaker, for corpora without official splits.

    The draw depends only on the id of the speaker, so it does not change if the corpus grows.

    Args:
        speaker: speaker id.
        valid, test: share of the speakers who are held out for validation and for the test.
    """
    digest = hashlib.blake2b(speaker.encode(), digest_size=8).digest()
    draw = int.from_bytes(digest, "big") / 2**64
    return "test" if draw < test else "valid" if draw < test + valid else "train"


def read_speaker_folders(corpus: str, audio: Path, transcripts: Path, speaker: slice) -> Iterator[Utterance]:
    """Utterances of read Mandarin with one list of transcripts and a folder for each speaker.

    Args:
        corpus: name of the corpus, which ids begin with.
        audio: folder with ``{train,dev,test}/<speaker>/<id>.wav``.
        transcripts: list of ``id word word ...``. Files that are not in it are counted and not used.
        speaker: slice of an id with the name of the speaker.

    Raises:
        UserError: a speaker of the list has no folder.
    """
    files = {
        folder.name: (part, {path.stem for path in folder.glob("*.wav")})
        for part in ("train", "dev", "test")
        for folder in sorted((audio / part).glob("*"))
        if folder.is_dir()
    }
    for origin, name, text in read_pairs(transcripts):
        if name[speaker] not in files:
            raise UserError(
                f"{transcripts}:{origin.rpartition(':')[2]}: no folder {name[speaker]} in train, dev or test "
                f"of {audio}; unpack the archives of all speakers"
            )
        part, names = files[name[speaker]]
        names.discard(name)
        yield Utterance(
            id=f"{corpus}-{name}",
            audio=audio / part / name[speaker] / f"{name}.wav",
            text=text,
            dialect=variety_of("cmn"),
            split="valid" if part == "dev" else part,
            origin=origin,
            speaker=f"{corpus}-{name[speaker]}",
        )
    if without := sorted(name for _, names in files.values() for name in names):
        logger.warning(
            "%d audio files have no transcript in %s and are not used: %s%s",
            len(without),
            transcripts,
            ", ".join(without[:_NAMES_SHOWN]),
            ", ..." if len(without) > _NAMES_SHOWN else "",
        )


@dataclass(frozen=True)
class Published:
    """Published size of a split or of one list in it.

    Attributes:
        split: train, valid or test.
        part: name that the corpus gives to the list; None for the whole split.
        utterances: number of utterances in the lists; None if not published.
        characters: number of characters of the normalised transcripts; None if not published.
    """

    split: str
    part: str | None = None
    utterances: int | None = None
    characters: int | None = None


def compare_sizes(*published: Published) -> Callable[[Any, Path], None]:
    """A ``finish`` function for a corpus that logs differences between prepared and published sizes."""

    def finish(config: object, directory: Path) -> None:
        for message in deviations(published, directory):
            logger.warning("%s", message)

    return finish


def deviations(published: Sequence[Published], directory: Path) -> list[str]:
    """Differences between the sizes of a prepared corpus and the published ones, for the lists that exist."""
    read: Counter[tuple[str, str | None]] = Counter()
    used: Counter[tuple[str, str | None]] = Counter()
    characters: Counter[tuple[str, str | None]] = Counter()
    for split in {one.split for one in published}:
        if not checked_file(directory, split).is_file():
            continue
        for supervision in read_supervisions(directory, split):
            part = (supervision.custom or {}).get("part")
            read.update({(split, part), (split, None)})
        for cut in read_checked_cuts(directory, split):
            part = cut.supervisions[0].custom.get("part")
            for key in {(split, part), (split, None)}:
                used[key] += 1
                characters[key] += sum(not c.isspace() for c in cut.supervisions[0].text)
    messages = []
    for one in published:
        key = (one.split, one.part)
        name = f"split {one.split}" + (f", {one.part}" if one.part else "")
        if key not in read:
            continue
        if one.utterances is not None and one.utterances != read[key]:
            messages.append(
                f"{name}: {one.utterances} utterances are published, the lists name {read[key]}, and "
                f"{used[key]} are used"
            )
        if one.characters is not None and one.characters != characters[key]:
            messages.append(
                f"{name}: {one.characters} characters are published, the {used[key]} utterances in use have "
                f"{characters[key]}"
            )
    return messages
