"""``corpus=wenetspeech``: 10,000 hours of Mandarin videos and podcasts with labels of OCR and recognisers.

Layout: ``WenetSpeech.json`` (several GB) and the Opus files that it names, each long and with many
segments. A segment is in some of the subsets L, M, S, W, DEV, TEST_NET and TEST_MEETING (S is a part of
M, M of L). Lhotse's recipe holds the whole JSON in memory, has no W and leaves the segments in the long
files, so the file is streamed here and the segments are cut out once.

``corpus.text_fix`` replaces labels of the training split by revised ones, lines ``sid text``. DEV and the
test sets keep theirs, with which the published results were scored.
"""

import logging
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.clips import Clip, CutJob, cut
from data_prep.corpora.lists import Fields, corpus_root, number, read_json_array, read_pairs
from data_prep.corpora.utterances import Published, Utterance, compare_sizes, manifests_of
from data_prep.executors import Workers
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import variety_of_id
from zipformer.errors import UserError

logger = logging.getLogger(__name__)

METADATA = "WenetSpeech.json"
TRAIN_SETS = ("L", "M", "S", "W")
TEST_SETS = ("TEST_NET", "TEST_MEETING")


@dataclass
class WenetSpeechConfig:
    """Which subsets are read.

    Attributes:
        root: folder with WenetSpeech.json and audio.
        train: subset to train on, L, M, S or W; null for none.
        valid: whether DEV is the validation split.
        test: test sets: TEST_NET, TEST_MEETING or both.
        text_fix: file with revised labels, lines ``sid text``, for the training split.
        cut: write the segments to the data directory as FLAC, about 60 MB an hour; else they are read from
            the long files, which is slow.
        workers: processes that cut.
    """

    root: str = MISSING
    train: str | None = "M"
    valid: bool = True
    test: list[str] = field(default_factory=lambda: list(TEST_SETS))
    text_fix: str | None = None
    cut: bool = True
    workers: int = 2

    def __post_init__(self) -> None:
        if self.train not in (None, *TRAIN_SETS):
            raise UserError(
                f"corpus.train is {self.train!r}; it must be null or one of {', '.join(TRAIN_SETS)}"
            )
        if unknown := set(self.test) - set(TEST_SETS):
            raise UserError(f"corpus.test has {sorted(unknown)}; the test sets are {', '.join(TEST_SETS)}")

    @property
    def splits(self) -> dict[str, str]:
        """Split of each subset that is read."""
        train = {self.train: "train"} if self.train else {}
        return {**train, **({"DEV": "valid"} if self.valid else {}), **dict.fromkeys(self.test, "test")}


def _lists(config: WenetSpeechConfig) -> list[Path]:
    return [Path(config.root) / METADATA, *([Path(config.text_fix)] if config.text_fix else [])]


@register_corpus(
    "wenetspeech",
    WenetSpeechConfig,
    inputs=_lists,
    finish=compare_sizes(
        Published("valid", "DEV", characters=328_207),
        Published("test", "TEST_NET", utterances=24_774, characters=414_285),
        Published("test", "TEST_MEETING", utterances=8_370, characters=220_358),
    ),
    scoring="wenetspeech",
    licence="CC BY 4.0, rights of the audio stay with its owners, as stated by its authors",
    origin="https://github.com/wenet-e2e/WenetSpeech",
)
def prepare_wenetspeech(config: WenetSpeechConfig, directory: Path) -> CorpusManifests:
    """Manifests of the chosen subsets; their segments are cut first."""
    root = corpus_root(config.root, METADATA)
    clips = directory / "audio"
    if config.cut:
        with Workers(config.workers) as workers:
            jobs = (
                CutJob(root / audio["path"], [_clip(one, audio, clips) for one, _ in segments])
                for audio, segments in _audios(root, config)
            )
            count = sum(workers.map(cut, jobs))
        logger.info("%d segments cut out of their recordings", count)
    with _Labels(directory, config.text_fix) as labels:
        return manifests_of(_utterances(root, config, clips, labels), directory)


def _audios(root: Path, config: WenetSpeechConfig) -> Iterator[tuple[Fields, list[tuple[Fields, str]]]]:
    """Each recording with its segments that are wanted, and the subset of each."""
    splits = config.splits
    for audio in read_json_array(root / METADATA, "audios"):
        segments = [
            (Fields(audio.origin, segment), wanted)
            for segment in audio.values.get("segments") or []
            if (wanted := next((name for name in segment.get("subsets", ()) if name in splits), None))
        ]
        if segments:
            yield audio, segments


def _times(segment: Fields) -> tuple[float, float]:
    what = f"{segment.origin}: {segment['sid']}"
    return number(segment["begin_time"], what), number(segment["end_time"], what)


def _clip(segment: Fields, audio: Fields, folder: Path) -> Clip:
    return Clip(folder / audio["aid"] / f"{segment['sid']}.flac", *_times(segment))


def _utterances(root: Path, config: WenetSpeechConfig, clips: Path, labels: "_Labels") -> Iterator[Utterance]:
    variety, splits = variety_of_id("cmn"), config.splits
    for audio, segments in _audios(root, config):
        uncut = []
        for segment, subset in segments:
            (start, end), file = _times(segment), _clip(segment, audio, clips).file
            split = splits[subset]
            own = config.cut and file.is_file()
            utterance = Utterance(
                id=f"wenetspeech-{segment['sid']}",
                audio=file if own else root / audio["path"],
                text=labels.revised(segment["sid"], segment["text"]) if split == "train" else segment["text"],
                dialect=variety,
                split=split,
                part=subset,
                origin=f"{segment.origin} {segment['sid']}",
                duration=end - start,
                start=0.0 if own else start,
                recording=None if own else f"wenetspeech-{audio['aid']}",
            )
            if own:
                yield utterance
            else:
                uncut.append(utterance)
        yield from uncut  # one after the other, because they share a recording


class _Labels:
    """Revised labels, on disk: those of L alone would be gigabytes in memory."""

    def __init__(self, directory: Path, text_fix: str | None) -> None:
        self._file = directory / "text_fix.sqlite"
        self._source = Path(text_fix) if text_fix else None
        self._table: sqlite3.Connection | None = None
        self._without = 0

    def __enter__(self) -> "_Labels":
        if self._source:
            self._file.unlink(missing_ok=True)
            self._table = sqlite3.connect(self._file)
            self._table.execute("create table labels (sid text primary key, label text) without rowid")
            rows = ((sid, label) for _, sid, label in read_pairs(self._source))
            self._table.executemany("insert or replace into labels values (?, ?)", rows)
        return self

    def __exit__(self, *_: object) -> None:
        if self._table:
            self._table.close()
            self._file.unlink()
            if self._without:
                logger.warning("%d segments are not in %s and keep their labels", self._without, self._source)

    def revised(self, sid: str, label: str) -> str:
        if not self._table:
            return label
        found = self._table.execute("select label from labels where sid = ?", (sid,)).fetchone()
        self._without += found is None
        return str(found[0]) if found else label
