"""``corpus=seame``: SEAME, 192 hours of Mandarin mixed with English from Singapore and Malaysia.

Layout: ``{conversation,interview}/audio/<recording>.flac`` and
``{conversation,interview}/transcript/{phaseI,phaseII}/*.txt``: ``recording<TAB>start<TAB>end<TAB>text``, in
milliseconds; phaseII has the language before the text, and is read where both phases have a file. Lines with
fewer values have no text and are counted. ``(ppl)``, ``<v-noise>`` and others are sounds.

The test sets of published results are lists of their own, ``{devman,devsge}/text`` of SEAME-dev-set, whose
lines begin with ``speaker-recording-start-end`` in hundredths of a second; times differ by up to 0.02 s.
Other utterances of their speakers are not trained on: the checks drop them. Lhotse has no recipe.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.lists import corpus_root, number, read_lines
from data_prep.corpora.utterances import Utterance, manifests_of, split_of_speaker
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import variety_of_id
from zipformer.errors import UserError

logger = logging.getLogger(__name__)

KINDS = ("conversation", "interview")
TEST_SETS = ("devman", "devsge")
_COLUMNS = {"phaseI": 4, "phaseII": 5}
_TOLERANCE = 3  # hundredths of a second, exclusive


@dataclass
class SeameConfig:
    """Where SEAME and its test sets lie.

    Attributes:
        root: folder with conversation and interview.
        test_lists: folder with devman and devsge; null for no test split.
        valid_speakers: share of the speakers who are held out for validation.
    """

    root: str = MISSING
    test_lists: str | None = None
    valid_speakers: float = 0.05


def _transcripts(root: Path) -> list[Path]:
    """Transcripts of both kinds, of the second phase where there is one."""
    found = []
    for kind in KINDS:
        by_name = {
            path.name.casefold(): path
            for phase in _COLUMNS
            for path in sorted((root / kind / "transcript" / phase).glob("*.txt"))
        }
        found += [by_name[name] for name in sorted(by_name)]
    return found


def _test_lists(config: SeameConfig) -> list[Path]:
    return [Path(config.test_lists) / name / "text" for name in TEST_SETS] if config.test_lists else []


@register_corpus(
    "seame",
    SeameConfig,
    inputs=lambda config: [*_transcripts(Path(config.root)), *_test_lists(config)],
    scoring="mer",
    licence="licence of the Linguistic Data Consortium, as stated in its catalogue",
    origin="LDC2015S04",
)
def prepare_seame(config: SeameConfig, directory: Path) -> CorpusManifests:
    """Manifests of all transcripts."""
    root = corpus_root(
        config.root, *(f"{kind}/{folder}" for kind in KINDS for folder in ("audio", "transcript"))
    )
    if not (transcripts := _transcripts(root)):
        raise UserError(
            f"{root / KINDS[0] / 'transcript'} has neither phaseI/*.txt nor phaseII/*.txt; unpack the corpus "
            "completely, or correct corpus.root"
        )
    return manifests_of(_utterances(root, transcripts, config), directory)


class _TestSets:
    """Which utterance belongs to which test set."""

    def __init__(self, config: SeameConfig) -> None:
        # By recording: start and end in hundredths of a second, and the set.
        self._times: dict[str, list[tuple[int, int, str]]] = {}
        for name, path in zip(TEST_SETS, _test_lists(config), strict=False):
            for line in read_lines(path):
                key = line.text.split(maxsplit=1)[0].casefold()
                values = key.split("-")
                if len(values) != 4 or not (values[2].isdecimal() and values[3].isdecimal()):
                    raise UserError(
                        f"{path}:{line.origin.rpartition(':')[2]}: {key!r} is not "
                        "speaker-recording-start-end; copy the list again"
                    )
                self._times.setdefault(values[1], []).append((int(values[2]), int(values[3]), name))

    def take(self, recording: str, start: float, end: float) -> str | None:
        """The set of an utterance, which is then found; times in milliseconds."""
        times = self._times.get(recording.casefold(), [])
        for one in times:
            if abs(start / 10 - one[0]) < _TOLERANCE and abs(end / 10 - one[1]) < _TOLERANCE:
                times.remove(one)
                return one[2]
        return None

    def left(self) -> int:
        """How many utterances of the lists were not found."""
        return sum(len(times) for times in self._times.values())


@dataclass(frozen=True)
class _Row:
    """One line of a transcript; times in milliseconds."""

    origin: str
    recording: str
    start: float
    end: float
    text: str


def _rows(transcript: Path) -> tuple[list[_Row], int]:
    """Lines with a text, by recording and start, and the number of lines without."""
    columns = _COLUMNS[transcript.parent.name]
    rows, without = [], 0
    for line in read_lines(transcript):
        values = line.text.split("\t")
        if len(values) < columns:
            without += 1
            continue
        where = f"{transcript}:{line.origin.rpartition(':')[2]}: time"
        start, end = number(values[1], where), number(values[2], where)
        rows.append(
            _Row(line.origin, values[0].strip(), start, end, "\t".join(values[columns - 1 :]).strip())
        )
    return sorted(rows, key=lambda row: (row.recording, row.start)), without


def _utterances(root: Path, transcripts: list[Path], config: SeameConfig) -> Iterator[Utterance]:
    variety, tests = variety_of_id("cmn"), _TestSets(config)
    seen: dict[str, Path] = {}
    without = 0
    for transcript in transcripts:
        folder = transcript.parents[2] / "audio"
        audio = {path.stem.casefold(): path for path in sorted(folder.glob("*.flac"))}
        rows, without_text = _rows(transcript)
        without += without_text
        for row in rows:
            if (other := seen.setdefault(row.recording, transcript)) != transcript:
                raise UserError(
                    f"{transcript}:{row.origin.rpartition(':')[2]}: recording {row.recording} is in "
                    f"{other} too; remove one of the two transcripts"
                )
            speaker = speaker_of(row.recording)
            test = tests.take(row.recording, row.start, row.end)
            yield Utterance(
                id=f"seame-{row.recording}-{round(row.start):07d}-{round(row.end):07d}",
                audio=audio.get(row.recording.casefold(), folder / f"{row.recording}.flac"),
                text=row.text,
                dialect=variety,
                split="test" if test else split_of_speaker(f"seame-{speaker}", config.valid_speakers, 0.0),
                part=test,
                origin=f"{transcript.parents[2].name}/{row.origin}",
                speaker=f"seame-{speaker}",
                gender=_gender(row.recording, speaker),
                duration=(row.end - row.start) / 1000,
                start=row.start / 1000,
                recording=f"seame-{row.recording}",
            )
    if without:
        logger.warning("%d lines of the transcripts have no text and are not used", without)
    if missing := tests.left():
        logger.warning("%d utterances of the test lists are in no transcript", missing)


def speaker_of(recording: str) -> str:
    """``NC01F`` of ``01NC01FBX_0101``, ``NI01M`` of ``NI01MAX_0101``."""
    name = recording.partition("_")[0].upper()
    return name[2:-2] if name[:1].isdigit() else name[:5]


def _gender(recording: str, speaker: str) -> str:
    """The letter at the end of the speaker's name; in some recordings it stands elsewhere."""
    if speaker[-1:] in ("F", "M"):
        return speaker[-1]
    letters = [letter for letter in recording.partition("_")[0].upper() if letter in "FM"]
    return letters[-1] if letters else ""
