"""The kinds of problems that a corpus can have, and the log that collects problems."""

import csv
from collections import Counter
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import TextIO

from rich.markup import escape
from rich.table import Table

from zipformer.files import replacing

_LONGEST_DETAIL = 1000  # characters

COLUMNS = ("utterance_id", "split", "problem", "detail", "remedy", "severity")


class Severity(Enum):
    """``error``: the utterance is not used. ``warning``: it is reported and used. ``ignore``: only used."""

    error = "error"
    warning = "warning"
    ignore = "ignore"


@dataclass
class Severities:
    """Severity of each kind of problem.

    Attributes:
        missing_audio: the audio file does not exist.
        unreadable_audio: the audio file cannot be decoded, or has samples that are NaN or infinite.
        truncated_audio: the audio file is cut off; the rest can be decoded.
        damaged_audio: bytes inside the audio file are damaged; decoders leave out or invent the sound there.
        unread_audio: the audio file holds more sound than the header promises and a decoder reads.
        silent_audio: the level (root mean square) is below -80 dBFS.
        faint_audio: the level is below -60 dBFS.
        not_full_scale: samples far beyond -1 to 1, such as integers written as floating-point numbers.
        clipped_audio: more than one sample in a hundred stays at full scale.
        frozen_audio: the samples do not change in one stretch of more than half of the recording.
        lost_audio: the audio could be read when it was checked, but not when its features were computed.
        audio_mismatch: number of samples or sampling rate of the file differ from those in the manifest.
        zero_duration: the utterance is empty or shorter than ``min_duration``.
        overlong: the utterance is longer than ``max_duration``.
        sampling_rate: the recording does not have the sampling rate of the features; it is resampled.
        several_channels: the recording has more than one channel; ``audio.channel`` says which are used.
        missing_channel: the recording has several channels, but not the channel of ``audio.channel``.
        beyond_audio: the segment of the transcript begins before or ends after the recording.
        no_transcript: a recording without any transcript (never used).
        empty_text: the transcript is empty.
        empty_after_normalisation: the transcript is empty after normalisation.
        unknown_composition: a bracketed composition without a known character; its components are kept.
        unmatched_bracket: a bracket without its partner, so that it is unclear which words are a remark. A
            known label beside it is removed, other words are kept.
        unknown_label: Latin letters or numbers in square or angle brackets, removed as a label.
        dropped_remark: Han characters in parentheses, removed.
        dropped_symbol: a symbol that may be spoken (%, +, ½, the dash of 3-5), removed.
        unusual_letter: a letter that is neither Han, Latin nor Bopomofo, or is of private use, or a component
            of Han characters such as 亻; kept.
        untranscribed_speech: a mark for speech that could not be written down (□, *, <unk>), removed.
        text_too_long: more characters a second than anyone speaks (``max_characters_per_second``).
        text_too_short: far fewer characters a second than people speak (``min_characters_per_second``).
        unknown_dialect: the dialect is not a group of the taxonomy, or its label is ambiguous.
        duplicate_id: an earlier utterance has the same id.
        duplicate_audio: another recording has exactly the same samples.
        sentence_overlap: the sentence (id or text) of a training utterance is in the valid or test split.
        speaker_overlap: the speaker of a training utterance is in the valid or test split.
        held_out_sentence_overlap: the sentence of a validation utterance is in the test split, so that the
            model is chosen by a sentence it is tested on.
        held_out_speaker_overlap: the speaker of a validation utterance is in the test split.
    """

    missing_audio: Severity = Severity.error
    unreadable_audio: Severity = Severity.error
    truncated_audio: Severity = Severity.error
    damaged_audio: Severity = Severity.error
    unread_audio: Severity = Severity.error
    silent_audio: Severity = Severity.error
    faint_audio: Severity = Severity.warning
    not_full_scale: Severity = Severity.error
    clipped_audio: Severity = Severity.warning
    frozen_audio: Severity = Severity.warning
    lost_audio: Severity = Severity.error
    audio_mismatch: Severity = Severity.error
    zero_duration: Severity = Severity.error
    overlong: Severity = Severity.error
    sampling_rate: Severity = Severity.warning
    several_channels: Severity = Severity.warning
    missing_channel: Severity = Severity.error
    beyond_audio: Severity = Severity.error
    no_transcript: Severity = Severity.warning
    empty_text: Severity = Severity.error
    empty_after_normalisation: Severity = Severity.error
    unknown_composition: Severity = Severity.warning
    unmatched_bracket: Severity = Severity.warning
    unknown_label: Severity = Severity.warning
    dropped_remark: Severity = Severity.warning
    dropped_symbol: Severity = Severity.warning
    unusual_letter: Severity = Severity.warning
    untranscribed_speech: Severity = Severity.warning
    text_too_long: Severity = Severity.error
    text_too_short: Severity = Severity.warning
    unknown_dialect: Severity = Severity.error
    duplicate_id: Severity = Severity.error
    duplicate_audio: Severity = Severity.error
    sentence_overlap: Severity = Severity.error
    speaker_overlap: Severity = Severity.error
    held_out_sentence_overlap: Severity = Severity.warning
    held_out_speaker_overlap: Severity = Severity.ignore


REMEDIES: dict[str, str] = {
    "missing_audio": "put the file there or correct its path in the table",
    "unreadable_audio": "copy or convert the file again (16 kHz mono WAV or FLAC). WAV, FLAC, Ogg, Opus, MP3,"
    " AIFF, AU, CAF, W64 and NIST SPHERE can be read; pip install 'fangyan[audio]' adds MP4, M4A, AAC, AMR,"
    " WMA and WebM",
    "truncated_audio": "copy the file again, or use what is left: checks.severities.truncated_audio=warning",
    "damaged_audio": "copy the file again, or use it as it is: checks.severities.damaged_audio=warning",
    "unread_audio": "divide files that were joined byte by byte, or join their samples; for a WAV file whose"
    " header was not finished, ffmpeg -ignore_length 1 -i BAD.wav GOOD.wav; MP3 and Ogg files can be read"
    " whole after pip install 'fangyan[audio]'",
    "silent_audio": "remove the utterance, or choose the channel with the speech: audio.channel=1",
    "faint_audio": "listen to it; amplify it if it is speech",
    "not_full_scale": "divide the samples by their full scale, e.g. 32768, and write the file again",
    "clipped_audio": "listen to it; record or copy it again at a lower level if the speech is distorted",
    "frozen_audio": "listen to it; copy it again if speech is missing there, or cut the pause off",
    "lost_audio": "put the file back, delete the data directory and prepare it again",
    "audio_mismatch": "make the manifest from the file that is there now",
    "zero_duration": "remove the utterance, or lower checks.min_duration",
    "overlong": "cut the recording into utterances, or raise checks.max_duration",
    "sampling_rate": "nothing: it is resampled; check the file if its rate is a surprise",
    "several_channels": "nothing if the speech is there; otherwise audio.channel=0, 1, ... chooses a channel",
    "missing_channel": "choose a channel that all recordings have, or audio.channel=mean",
    "beyond_audio": "correct the start and end times, or check that the audio is complete",
    "no_transcript": "add a transcript, or remove the recording",
    "empty_text": "write the transcript, or remove the utterance",
    "empty_after_normalisation": "check the transcript, or choose other text.* options",
    "unknown_composition": "map it to a character: in a file conf/corpus/NAME.yaml write"
    " text: {composed: {components: character}}, and choose it with corpus=NAME",
    "unmatched_bracket": "correct the transcript, or exclude such utterances:"
    " checks.severities.unmatched_bracket=error",
    "unknown_label": "nothing if it is no speech; else map it to what is spoken: in a file"
    " conf/corpus/NAME.yaml write text: {replace: {'[label]': words}}, and choose it with corpus=NAME",
    "dropped_remark": "nothing if it is a remark or an alternative, else text.keep_parentheses=true",
    "dropped_symbol": "write it in the transcript as it is spoken, or for the whole corpus: in a file"
    " conf/corpus/NAME.yaml write text: {replace: {'symbol': words}}, and choose it with corpus=NAME",
    "unusual_letter": "if it stands for another character, map it: in a file conf/corpus/NAME.yaml write"
    " text: {replace: {'letter': character}}, and choose it with corpus=NAME",
    "untranscribed_speech": "complete the transcript, or exclude such utterances:"
    " checks.severities.untranscribed_speech=error",
    "text_too_long": "correct the transcript or the audio, or raise checks.max_characters_per_second",
    "text_too_short": "check that the transcript is complete; or lower checks.min_characters_per_second",
    "unknown_dialect": "map the label to an id of data_prep/taxonomy.tsv: a line label<TAB>id in a file given"
    " with corpus.dialect_map_file=FILE",
    "duplicate_id": "give every utterance an id (or an audio path) of its own",
    "duplicate_audio": "remove one of the two, or correct the path of one",
    "sentence_overlap": "keep all recordings of a sentence in one split",
    "speaker_overlap": "keep a speaker in one split, or accept it: checks.severities.speaker_overlap=warning",
    "held_out_sentence_overlap": "keep all recordings of a sentence in one split",
    "held_out_speaker_overlap": "keep a speaker in one split",
}

# Remedies for problems that already have the severity which the remedy above advises to set.
_REMEDIES_OF_SEVERITIES = {
    ("truncated_audio", Severity.warning): "copy the file again; what is left of it is used",
    ("damaged_audio", Severity.warning): "copy the file again; what was decoded is used",
    ("unmatched_bracket", Severity.error): "correct the transcript, or use such utterances:"
    " checks.severities.unmatched_bracket=warning",
    ("untranscribed_speech", Severity.error): "complete the transcript, or use such utterances:"
    " checks.severities.untranscribed_speech=warning",
    ("speaker_overlap", Severity.warning): "keep a speaker in one split; hide it:"
    " checks.severities.speaker_overlap=ignore",
}


def remedy_of(kind: str, severity: Severity) -> str:
    """Advice to the user for a problem with its present severity."""
    return _REMEDIES_OF_SEVERITIES.get((kind, severity), REMEDIES[kind])


@dataclass(frozen=True)
class Problem:
    """One problem of one utterance (or of a recording, if no utterance is known)."""

    utterance_id: str
    split: str
    kind: str
    detail: str


class ProblemLog:
    """Writes problems to a TSV file as they are found, and counts them.

    Attributes:
        counts: number of problems by (kind, split).
        dropped: number of utterances with an error, by split.
    """

    def __init__(self, stream: TextIO, severities: Severities) -> None:
        self._writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        self._writer.writerow(COLUMNS)
        self._severities: dict[str, Severity] = asdict(severities)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.dropped: Counter[str] = Counter()

    def report(self, problems: list[Problem]) -> bool:
        """Log the problems of one utterance; returns whether it may be used."""
        usable = True
        for problem in problems:
            severity = self._severities[problem.kind]
            if severity is Severity.ignore:
                continue
            remedy = remedy_of(problem.kind, severity)
            detail = " ".join(problem.detail.split())  # one line, without tabs
            if len(detail) > _LONGEST_DETAIL:
                detail = f"{detail[:_LONGEST_DETAIL]}... ({len(detail)} characters)"
            self._writer.writerow(
                [problem.utterance_id, problem.split, problem.kind, detail, remedy, severity.value]
            )
            self.counts[problem.kind, problem.split] += 1
            usable = usable and severity is not Severity.error
        if not usable:
            self.dropped[problems[0].split] += 1
        return usable

    def table(self) -> Table:
        """Counts by kind and split, for the terminal."""
        splits = sorted({split for _, split in self.counts})
        table = Table("problem", "severity", *splits, title="Problems of the corpus")
        table.add_column("remedy", overflow="fold")
        for kind, severity in self._severities.items():
            counts = [self.counts[kind, split] for split in splits]
            if any(counts):
                table.add_row(kind, severity.value, *map(str, counts), escape(remedy_of(kind, severity)))
        return table


def append_problems(path: Path, problems: list[Problem], severities: Severities) -> None:
    """Add problems that were found after the checks to the problems file.

    Entries of the same kinds are removed first, so that a stage that is started again adds no duplicates.
    """
    kinds = {problem.kind for problem in problems}
    with (
        replacing(path) as temporary,
        path.open(encoding="utf-8", newline="") as old,
        temporary.open("w", encoding="utf-8", newline="") as new,
    ):
        log = ProblemLog(new, severities)
        writer = csv.writer(new, delimiter="\t", lineterminator="\n")
        rows = csv.reader(old, delimiter="\t")
        next(rows)
        writer.writerows(row for row in rows if row[COLUMNS.index("problem")] not in kinds)
        for problem in problems:
            log.report([problem])
