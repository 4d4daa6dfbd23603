"""Synthesis in fixed units of work: a unit is one fresh process that speaks a list of utterances.

The synthesiser gives the same bytes only for the same sequence of calls in a fresh process, so a unit is
described completely by a file, ``unit.json``, and run by ``python -m data_prep.corpora.mini.unit
unit.json``. It
writes its WAV files beside the description, and when their syllables are spoken; the number of processes that
run side by side changes nothing.
"""

import json
import os
import random
import sys
import threading
import time
import wave
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data_prep.corpora.mini.acoustics import Room, add_room, impulse_response, pad, resample, set_level
from data_prep.corpora.mini.espeak import Espeak, Parameter
from data_prep.corpora.mini.voices import Speaker

SAMPLING_RATE: Final = 16000
DESCRIPTION: Final = "unit.json"
SYLLABLES: Final = "syllables.json"
DONE: Final = "samples.json"


@dataclass(frozen=True)
class Line:
    """One utterance to speak: its id (and file name), its syllables in phonemes, and its speaker."""

    id: str
    phonemes: str
    speaker: Speaker


@dataclass(frozen=True)
class Unit:
    """One fixed sequence of utterances.

    Attributes:
        table: phoneme table of espeak-ng.
        room: the acoustics they share.
        seed: random seed of pauses, level and noise.
        lines: the utterances.
    """

    table: str
    room: Room
    seed: int
    lines: tuple[Line, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Unit":
        """Read a unit back.

        Raises:
            KeyError, TypeError: the text is not the description of a unit.
        """
        data = json.loads(text)
        lines = tuple(
            Line(item["id"], item["phonemes"], Speaker(**item["speaker"])) for item in data["lines"]
        )
        return cls(data["table"], Room(**data["room"]), data["seed"], lines)


@dataclass(frozen=True)
class Spoken:
    """The sound of a line.

    Attributes:
        id: name of the line.
        samples: (T,) at ``SAMPLING_RATE``.
        boundaries: samples at which its syllables begin, and at which the last of them ends.
    """

    id: str
    samples: NDArray[np.int16]
    boundaries: list[int]


def speak(unit: Unit) -> Iterator[Spoken]:
    """Speak all lines of a unit; must be the first use of the synthesiser in its process."""
    espeak = Espeak()
    response = impulse_response(unit.room, SAMPLING_RATE)
    for number, line in enumerate(unit.lines):
        draw = random.Random(f"{unit.seed}/{number}")
        noise = np.random.default_rng([unit.room.seed, unit.seed, number])
        espeak.set_voice(unit.table, line.speaker.voice)
        espeak.set_parameter(Parameter.RATE, line.speaker.rate)
        espeak.set_parameter(Parameter.PITCH, line.speaker.pitch)
        espeak.set_parameter(Parameter.RANGE, line.speaker.pitch_range)
        speech = resample(espeak.speak(line.phonemes), espeak.sampling_rate, SAMPLING_RATE)
        before, after = (int(draw.uniform(0.05, 0.2) * SAMPLING_RATE) for _ in range(2))
        padded = pad(speech, before, after)
        samples = set_level(add_room(padded, unit.room, response, noise), draw.uniform(-30, -18))
        starts = (start * SAMPLING_RATE // espeak.sampling_rate for start in espeak.syllable_starts)
        yield Spoken(line.id, samples, [before + position for position in (*starts, len(speech))])


def run_unit(unit: Unit, directory: Path) -> dict[str, int]:
    """Speak all lines of a unit into ``directory/<id>.wav``, their boundaries into ``syllables.json``.

    Must be the first use of the synthesiser in its process. Returns the number of samples by id.
    """
    counts, boundaries = {}, {}
    for spoken in speak(unit):
        with wave.open(str(directory / f"{spoken.id}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLING_RATE)
            file.writeframes(spoken.samples.astype("<i2").tobytes())
        counts[spoken.id] = len(spoken.samples)
        boundaries[spoken.id] = spoken.boundaries
    (directory / SYLLABLES).write_text(json.dumps(boundaries), encoding="utf-8")
    return counts


def main(arguments: Sequence[str]) -> None:
    """Run the unit described by a file; its last act is to write the number of samples of every utterance."""
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    description = Path(arguments[0])
    counts = run_unit(Unit.from_json(description.read_text(encoding="utf-8")), description.parent)
    (description.parent / DONE).write_text(json.dumps(counts), encoding="utf-8")


def _end_with(parent: int) -> None:
    """A run that was killed must not leave units that still write when it is started again."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
