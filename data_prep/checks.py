"""Checks of a corpus: every problem of every utterance is found and named, and sound utterances become cuts.

The checks stream over the manifests. What they keep in memory is the ids and audio digests of all utterances,
and the speakers and sentences of the valid and test splits.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from lhotse import MonoCut, Recording, SupervisionSegment

from data_prep.audio import AudioProbe
from data_prep.errors import PreparationError
from data_prep.problems import Problem, ProblemLog, Severities
from data_prep.taxonomy import groups
from data_prep.text import TextNormaliser
from data_prep.translations import with_normalised_translation

# Held-out splits first: a training utterance that clashes with them is the one to be dropped.
CHECK_ORDER = ("test", "valid", "train")

# A segment may end this much after its recording, because times are often rounded to frames.
_END_TOLERANCE_SECONDS = 0.011


class OnProblem(Enum):
    """``drop`` goes on without the bad utterances, ``stop`` ends the run after all of them are reported."""

    drop = "drop"
    stop = "stop"


@dataclass
class CheckConfig:
    """What is checked, and what happens then.

    Attributes:
        on_problem: go on without the utterances that have an error, or stop.
        min_duration: seconds; shorter utterances are a ``zero_duration``.
        max_duration: seconds; longer utterances are ``overlong``. Raising it costs memory in training.
        severities: gravity of each kind of problem.
    """

    on_problem: OnProblem = OnProblem.drop
    min_duration: float = 0.1
    max_duration: float = 30.0
    severities: Severities = field(default_factory=Severities)


class CorpusChecker:
    """Checks the splits of one corpus one after the other, in ``CHECK_ORDER``.

    Args:
        config: limits and severities.
        normaliser: makes the transcript of the cuts.
        sampling_rate: of the features; other recordings are resampled.
        log: receives the problems.
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
        self._held_out_speakers: dict[str, str] = {}  # speaker -> utterance
        self._held_out_sentences: dict[tuple[str, str], str] = {}  # ("id" or "text", value) -> utterance

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
            supervisions: in the order of their recordings.

        Raises:
            PreparationError: a supervision has no recording, or not in this order.
        """
        remaining = iter(supervisions)
        supervision = next(remaining, None)
        for recording, probe in recordings:
            audio_problems = self._audio_problems(recording, probe)
            if supervision is None or supervision.recording_id != recording.id:
                detail = f"no transcript belongs to recording {recording.id}"
                self._log.report([Problem(recording.id, split, "no_transcript", detail)])
            while supervision is not None and supervision.recording_id == recording.id:
                yield from self._check_utterance(split, recording, audio_problems, supervision)
                supervision = next(remaining, None)
        if supervision is not None:
            raise PreparationError(
                f"split {split}: supervision {supervision.id} belongs to recording "
                f"{supervision.recording_id}, which is not in the recordings or stands before its place: the "
                "corpus must deliver supervisions in the order of their recordings"
            )

    def _check_utterance(
        self, split: str, recording: Recording, audio: list[tuple[str, str]], supervision: SupervisionSegment
    ) -> Iterator[MonoCut]:
        text = self._normaliser(supervision.text or "")
        found = [
            *audio,
            *self._time_problems(recording, supervision, decodable=not _undecodable(audio)),
            *self._text_problems(supervision, text),
            *self._label_problems(supervision),
            *self._clashes(split, supervision, text),
        ]
        origin = (supervision.custom or {}).get("origin")
        suffix = f" ({origin})" if origin else ""
        problems = [Problem(supervision.id, split, kind, detail + suffix) for kind, detail in found]
        if self._log.report(problems):
            self._remember(split, supervision, text)
            yield self._cut(recording, supervision, text)

    def _audio_problems(self, recording: Recording, probe: AudioProbe) -> list[tuple[str, str]]:
        """Problems of a recording, which all its utterances share."""
        if probe.fault:
            return [(probe.fault, probe.detail)]
        found = []
        described = (recording.num_samples, recording.sampling_rate)
        if not recording.transforms and described != (probe.num_samples, probe.sampling_rate):
            found.append(
                (
                    "audio_mismatch",
                    f"the manifest says {described[0]} samples at {described[1]} Hz, the file has "
                    f"{probe.num_samples} at {probe.sampling_rate} Hz",
                )
            )
        if recording.sampling_rate != self._sampling_rate:
            rates = f"{recording.sampling_rate} Hz instead of {self._sampling_rate} Hz"
            found.append(("sampling_rate", rates))
        if recording.num_channels > 1:
            found.append(("several_channels", f"{recording.num_channels} channels"))
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

    def _text_problems(self, supervision: SupervisionSegment, text: str) -> list[tuple[str, str]]:
        raw = supervision.text or ""
        if not raw.strip():
            return [("empty_text", "no transcript")]
        if not text:
            return [("empty_after_normalisation", f"nothing is left of {raw!r}")]
        unknown = self._normaliser.unknown_compositions(raw)
        return [("unknown_composition", ", ".join(f"[{content}]" for content in unknown))] if unknown else []

    def _label_problems(self, supervision: SupervisionSegment) -> list[tuple[str, str]]:
        if supervision.language in self._groups:
            return []
        return [("unknown_dialect", f"dialect {supervision.language!r} is not in the taxonomy")]

    def _clashes(self, split: str, supervision: SupervisionSegment, text: str) -> list[tuple[str, str]]:
        found = []
        if supervision.id in self._ids:
            found.append(
                ("duplicate_id", f"the id is taken by an utterance of split {self._ids[supervision.id]}")
            )
        if split != "train":
            return found
        for key in _sentence_keys(supervision, text):
            if key in self._held_out_sentences:
                found.append(
                    ("sentence_overlap", f"sentence {key[1]!r} is that of {self._held_out_sentences[key]}")
                )
                break
        if supervision.speaker in self._held_out_speakers:
            other = self._held_out_speakers[supervision.speaker]
            found.append(("speaker_overlap", f"speaker {supervision.speaker!r} also speaks {other}"))
        return found

    def _remember(self, split: str, supervision: SupervisionSegment, text: str) -> None:
        self._ids[supervision.id] = split
        if split == "train":
            return
        utterance = f"{split} utterance {supervision.id}"
        for key in _sentence_keys(supervision, text):
            self._held_out_sentences.setdefault(key, utterance)
        if supervision.speaker:
            self._held_out_speakers.setdefault(supervision.speaker, utterance)

    def _cut(self, recording: Recording, supervision: SupervisionSegment, text: str) -> MonoCut:
        known = with_normalised_translation(supervision.custom or {}, self._normaliser)
        custom = {
            key: value
            for key, value in {**known, "raw_text": supervision.text}.items()
            if value is not None and key != "origin"
        }
        if recording.sampling_rate != self._sampling_rate:
            recording = recording.resample(self._sampling_rate)
        duration = min(supervision.duration, recording.duration - supervision.start)
        channel = supervision.channel
        channel = channel if isinstance(channel, int) else channel[0]
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


def _undecodable(audio_problems: list[tuple[str, str]]) -> bool:
    return any(kind in ("missing_audio", "unreadable_audio") for kind, _ in audio_problems)


def _sentence_keys(supervision: SupervisionSegment, text: str) -> list[tuple[str, str]]:
    """A sentence is known by its number and by its words; either one in two splits is an overlap."""
    sentence_id = (supervision.custom or {}).get("sentence_id")
    keys = [("id", str(sentence_id))] if sentence_id not in (None, "") else []
    return [*keys, ("text", text)] if text else keys
