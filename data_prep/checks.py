"""Checks of a corpus: reports every problem of every utterance, and makes cuts of all sound utterances.

The checks stream over the manifests. They keep in memory only the ids and audio digests of all utterances,
and the speakers and sentences of the valid and test splits.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment
from lhotse.utils import fastcopy

from data_prep.audio.levels import level_findings
from data_prep.audio.probe import AudioProbe
from data_prep.problems import Problem, ProblemLog, Severities, Severity
from data_prep.taxonomy import groups, label_fault
from data_prep.text.normaliser import Examined, TextNormaliser
from data_prep.text.translations import with_normalised_translation
from zipformer.errors import UserError

# Held-out splits first, so that of two utterances that clash the training utterance is dropped.
CHECK_ORDER = ("test", "valid", "train")

# A supervision this close to the whole recording in length was made from the header of the recording.
_WHOLE_TOLERANCE_SECONDS = 0.001
# Lists round durations, and coders of MP3 add up to 0.1 s of padding.
_LIST_TOLERANCE_SECONDS = 0.15
# A segment may end this much after the recording, because times are often rounded to frames.
_END_TOLERANCE_SECONDS = 0.011

_PACE_FROM_SECONDS = 5.0  # shorter recordings may be silence for the most part
_CHARACTERS_SHOWN = 30


class OnProblem(Enum):
    """``drop`` leaves out the bad utterances and continues; ``stop`` reports all of them and ends the run."""

    drop = "drop"
    stop = "stop"


@dataclass
class CheckConfig:
    """Limits of the checks, and what a problem leads to.

    Attributes:
        on_problem: ``drop`` the utterances that have an error and continue, or ``stop``.
        min_duration: seconds; a shorter utterance has the problem ``zero_duration``.
        max_duration: seconds; a longer utterance is ``overlong``. A larger value costs memory in training.
        max_characters_per_second: above it, a transcript is ``text_too_long``. Fast speech has about 10 Han
            characters a second; three letters of an alphabet count as one. The encoder has 25 frames a
            second.
        min_characters_per_second: below it, a transcript is ``text_too_short``, in utterances of more than 5
            seconds.
        max_unknown_dialects: largest share of utterances with an unknown or ambiguous dialect label. A larger
            share ends the run, because mapping the labels makes these utterances usable.
        severities: severity of each kind of problem.
    """

    on_problem: OnProblem = OnProblem.drop
    min_duration: float = 0.1
    max_duration: float = 30.0
    max_characters_per_second: float = 20.0
    min_characters_per_second: float = 0.5
    max_unknown_dialects: float = 0.1
    severities: Severities = field(default_factory=Severities)


class CorpusChecker:
    """Checks the splits of a corpus, one after the other in ``CHECK_ORDER``.

    Args:
        config: limits and severities.
        normaliser: normalises the transcripts of the cuts.
        sampling_rate: sampling rate of the features, Hz; other recordings are resampled.
        log: receives the problems.

    Attributes:
        unknown_labels: number of utterances for each unknown or ambiguous dialect label.
    """

    def __init__(
        self, config: CheckConfig, normaliser: TextNormaliser, sampling_rate: int, log: ProblemLog
    ) -> None:
        self._config = config
        self._normaliser = normaliser
        self._sampling_rate = sampling_rate
        self._log = log
        self._groups = frozenset(groups())
        self._ids: dict[str, str] = {}  # utterance id -> split
        self._audio: dict[str, str] = {}  # digest -> recording id
        # For each speaker, and each sentence ("id" or "text", value): split and id of the first utterance
        # with it.
        self._held_out_speakers: dict[str, tuple[str, str]] = {}
        self._held_out_sentences: dict[tuple[str, str], tuple[str, str]] = {}
        self.unknown_labels: Counter[str] = Counter()

    def check_split(
        self,
        split: str,
        recordings: Iterable[tuple[Recording, AudioProbe]],
        supervisions: Iterable[SupervisionSegment],
    ) -> Iterator[MonoCut]:
        """Yield one cut for each usable utterance.

        Args:
            split: ``train``, ``valid`` or ``test``.
            recordings: each with the findings about its audio.
            supervisions: utterances in the order of their recordings.

        Raises:
            UserError: a supervision has no recording, or the supervisions are not in the order of the
                recordings.
        """
        remaining = iter(supervisions)
        supervision = next(remaining, None)
        for recording, probe in recordings:
            described, recording = recording, _as_decoded(recording, probe)
            audio_problems = self._audio_problems(described, recording, probe)
            if supervision is None or supervision.recording_id != recording.id:
                detail = f"no transcript belongs to recording {recording.id}"
                self._log.report([Problem(recording.id, split, "no_transcript", detail)])
            while supervision is not None and supervision.recording_id == recording.id:
                whole = _of_whole_recording(supervision, described)
                if whole and described.duration != recording.duration:
                    supervision = fastcopy(supervision, duration=recording.duration)
                channel = _channel(supervision, recording, probe)
                level = level_findings(_level(channel, recording, probe))
                problems = [*audio_problems, *level]
                yield from self._check_utterance(split, recording, channel, problems, supervision)
                supervision = next(remaining, None)
        if supervision is not None:
            raise UserError(
                f"split {split}: supervision {supervision.id} belongs to recording "
                f"{supervision.recording_id}, which is not in the recordings or stands before its place: the "
                "corpus must deliver supervisions in the order of their recordings"
            )

    def _check_utterance(
        self,
        split: str,
        recording: Recording,
        channel: int,
        audio: list[tuple[str, str]],
        supervision: SupervisionSegment,
    ) -> Iterator[MonoCut]:
        examined = self._normaliser.examine(supervision.text or "")
        text = examined.text
        found = [
            *audio,
            *self._time_problems(recording, supervision, decodable=not _undecodable(audio)),
            *self._text_problems(supervision, examined),
            *self._pace_problems(recording, supervision, text, whole=self._whole(audio)),
            *self._label_problems(supervision),
            *self._clashes(split, supervision, text),
        ]
        origin = (supervision.custom or {}).get("origin")
        suffix = f" ({origin})" if origin else ""
        problems = [Problem(supervision.id, split, kind, detail + suffix) for kind, detail in found]
        if self._log.report(problems):
            self._remember(split, supervision, text)
            yield self._cut(recording, channel, supervision, text)

    def _audio_problems(
        self, described: Recording, recording: Recording, probe: AudioProbe
    ) -> list[tuple[str, str]]:
        """Problems of a recording; all utterances in it share them.

        Args:
            described: the recording as the manifest of the corpus describes it.
            recording: the recording as its file was decoded.
            probe: findings about the file.
        """
        found = [(kind, detail) for kind, detail in probe.findings]
        if not probe.decodable:
            return found
        length, rate = described.num_samples, described.sampling_rate
        # A manifest equal to the header was made from it; faults of the header are among the findings. A
        # manifest without samples was made from a list, which may give a rounded duration or none.
        if not length and not described.transforms:
            decoded = probe.num_samples / probe.sampling_rate
            if described.duration and abs(decoded - described.duration) > _LIST_TOLERANCE_SECONDS:
                detail = f"the list says {described.duration:.2f} s, the file has {decoded:.2f} s"
                found.append(("audio_mismatch", detail))
        elif not described.transforms and (length, rate) not in (
            (probe.num_samples, probe.sampling_rate),
            (probe.promised_samples, probe.sampling_rate),
        ):
            found.append(
                (
                    "audio_mismatch",
                    f"the manifest says {length} samples at {rate} Hz, the file has "
                    f"{probe.num_samples} at {probe.sampling_rate} Hz",
                )
            )
        if recording.sampling_rate != self._sampling_rate:
            rates = f"{recording.sampling_rate} Hz instead of {self._sampling_rate} Hz"
            found.append(("sampling_rate", rates))
        if probe.num_channels > 1:
            used = f": {probe.used}" if probe.used else ""
            found.append(("several_channels", f"{probe.num_channels} channels{used}"))
        twin = self._audio.setdefault(probe.digest, recording.id)
        if twin != recording.id and probe.num_samples:
            found.append(("duplicate_audio", f"same samples as recording {twin}"))
        return found

    def _time_problems(
        self, recording: Recording, supervision: SupervisionSegment, decodable: bool
    ) -> list[tuple[str, str]]:
        if not decodable:
            return []  # the times of a recording that cannot be read mean nothing
        found = []
        start, end, duration = supervision.start, supervision.end, supervision.duration
        if start < 0 or end > recording.duration + _END_TOLERANCE_SECONDS:
            times = f"{start:.3f} to {end:.3f} s in a recording of {recording.duration:.3f} s"
            found.append(("beyond_audio", times))
        if duration < self._config.min_duration:
            found.append(
                ("zero_duration", f"{duration:.3f} s, at least {self._config.min_duration} s are needed")
            )
        if duration > self._config.max_duration:
            found.append(("overlong", f"{duration:.1f} s, at most {self._config.max_duration} s are allowed"))
        return found

    def _text_problems(self, supervision: SupervisionSegment, examined: Examined) -> list[tuple[str, str]]:
        raw = supervision.text or ""
        if not raw.strip():
            return [("empty_text", "no transcript")]
        if not examined.text:
            return [("empty_after_normalisation", f"nothing is left of {raw!r}")]
        return [(kind, ", ".join(details)) for kind, details in examined.findings.items()]

    def _pace_problems(
        self, recording: Recording, supervision: SupervisionSegment, text: str, whole: bool
    ) -> list[tuple[str, str]]:
        """Problems of a transcript that is too long or too short for the duration."""
        duration = min(supervision.duration, recording.duration - supervision.start)
        if not whole or not text or duration < self._config.min_duration:
            return []
        pace = weighted_length(text) / duration
        said = f"{len(text)} characters in {duration:.2f} s"
        if pace > self._config.max_characters_per_second:
            limit = f"at most {self._config.max_characters_per_second:g} a second are possible"
            return [("text_too_long", f"{said}, {limit}: {text[:_CHARACTERS_SHOWN]!r}")]
        if (
            _PACE_FROM_SECONDS < duration <= self._config.max_duration
            and pace < self._config.min_characters_per_second
        ):
            limit = f"at least {self._config.min_characters_per_second:g} a second are usual"
            return [("text_too_short", f"{said}, {limit}: {text[:_CHARACTERS_SHOWN]!r}")]
        return []

    def _whole(self, audio_problems: list[tuple[str, str]]) -> bool:
        """Whether the length of the transcript can be checked against the length of the audio.

        It cannot if a part of the audio is missing and the utterance is left out for that reason. If the rest
        is to be used nevertheless, it must be long enough for the text.
        """
        return not _undecodable(audio_problems) and not any(
            kind in ("truncated_audio", "damaged_audio", "unread_audio")
            and getattr(self._config.severities, kind) is Severity.error
            for kind, _ in audio_problems
        )

    def _label_problems(self, supervision: SupervisionSegment) -> list[tuple[str, str]]:
        if supervision.language in self._groups:
            return []
        label = supervision.language or ""
        self.unknown_labels[label] += 1
        return [("unknown_dialect", label_fault(label))]

    def _clashes(self, split: str, supervision: SupervisionSegment, text: str) -> list[tuple[str, str]]:
        found = []
        if supervision.id in self._ids:
            found.append(
                ("duplicate_id", f"the id is taken by an utterance of split {self._ids[supervision.id]}")
            )
        prefix = "" if split == "train" else "held_out_"
        for key in _sentence_keys(supervision, text):
            there, other = self._held_out_sentences.get(key, (split, ""))
            if there != split:
                overlap = f"sentence {key[1]!r} is that of {there} utterance {other}"
                found.append((f"{prefix}sentence_overlap", overlap))
                break
        there, other = self._held_out_speakers.get(supervision.speaker or "", (split, ""))
        if there != split:
            overlap = f"speaker {supervision.speaker!r} also speaks {there} utterance {other}"
            found.append((f"{prefix}speaker_overlap", overlap))
        return found

    def _remember(self, split: str, supervision: SupervisionSegment, text: str) -> None:
        self._ids[supervision.id] = split
        if split == "train":
            return
        for key in _sentence_keys(supervision, text):
            self._held_out_sentences.setdefault(key, (split, supervision.id))
        if supervision.speaker:
            self._held_out_speakers.setdefault(supervision.speaker, (split, supervision.id))

    def _cut(self, recording: Recording, channel: int, supervision: SupervisionSegment, text: str) -> MonoCut:
        known = with_normalised_translation(supervision.custom or {}, self._normaliser)
        custom = {
            key: value
            for key, value in {**known, "raw_text": supervision.text}.items()
            if value is not None and key != "origin"
        }
        if recording.sampling_rate != self._sampling_rate:
            recording = recording.resample(self._sampling_rate)
        duration = min(supervision.duration, recording.duration - supervision.start)
        return MonoCut(
            id=supervision.id,
            start=supervision.start,
            duration=duration,
            channel=channel,
            recording=recording,
            supervisions=[
                SupervisionSegment(
                    id=supervision.id,
                    recording_id=recording.id,
                    start=0.0,
                    duration=duration,
                    channel=channel,
                    text=text,
                    language=supervision.language,
                    speaker=supervision.speaker,
                    gender=supervision.gender,
                    custom=custom,
                )
            ],
        )


def _as_decoded(recording: Recording, probe: AudioProbe) -> Recording:
    """The recording with the length, rate and file that decoding has found."""
    if not probe.decodable or recording.transforms:
        return recording
    source = probe.converted or recording.sources[0].source
    same = (recording.num_samples, recording.sampling_rate) == (probe.num_samples, probe.sampling_rate)
    if same and not probe.converted:
        return recording
    channels = [0] if probe.converted and probe.mixed else list(range(probe.num_channels))
    if len(channels) == len(recording.channel_ids):
        channels = recording.channel_ids  # a corpus may number them in its own way
    return Recording(
        id=recording.id,
        sources=[AudioSource(type="file", channels=channels, source=source)],
        sampling_rate=probe.sampling_rate,
        num_samples=probe.num_samples,
        duration=probe.num_samples / probe.sampling_rate,
    )


def _of_whole_recording(supervision: SupervisionSegment, recording: Recording) -> bool:
    difference = abs(supervision.duration - recording.duration)
    return supervision.start == 0 and difference < _WHOLE_TOLERANCE_SECONDS


def _channel(supervision: SupervisionSegment, recording: Recording, probe: AudioProbe) -> int:
    """Number of the channel that an utterance is read from."""
    if probe.mixed and probe.decodable and recording.num_channels > 1:
        return recording.channel_ids[probe.channels[0]]
    if recording.num_channels == 1:
        return recording.channel_ids[0]
    return supervision.channel if isinstance(supervision.channel, int) else supervision.channel[0]


def _level(channel: int, recording: Recording, probe: AudioProbe) -> float:
    """Level in dBFS of the channel or mix that is used; 0 if not known."""
    if not probe.decodable or not probe.num_samples:
        return 0.0
    if probe.mixed or channel not in recording.channel_ids[: len(probe.channel_levels)]:
        return probe.level
    return probe.channel_levels[recording.channel_ids.index(channel)]


def weighted_length(text: str) -> float:
    """Approximate number of syllables: one for a Han character or digit, a third for any other letter."""
    categories = Counter(unicodedata.category(c) for c in text)
    letters = categories["Lu"] + categories["Ll"] + categories["Lm"]
    return categories["Lo"] + categories["Nd"] + categories["Nl"] + letters / 3


def _undecodable(audio_problems: list[tuple[str, str]]) -> bool:
    return any(kind in ("missing_audio", "unreadable_audio") for kind, _ in audio_problems)


def _sentence_keys(supervision: SupervisionSegment, text: str) -> list[tuple[str, str]]:
    """Keys of a sentence, its number and its words; either one in two splits is an overlap."""
    sentence_id = (supervision.custom or {}).get("sentence_id")
    keys = [("id", str(sentence_id))] if sentence_id not in (None, "") else []
    return [*keys, ("text", text)] if text else keys
