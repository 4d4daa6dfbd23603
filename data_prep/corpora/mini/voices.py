"""Who speaks: voice variants of espeak-ng, kept apart by split, and how a speaker talks.

A variant is a vocal tract and a manner of speaking (formants, voicing, breath, a default pitch). Variants
whose files differ only in pitch or in one number are one family, and a family belongs to one split. Left out
are those that whisper, croak, ring like a robot, or whose syllables are not nearest to the same syllables of
other voices.
"""

import random
from dataclasses import dataclass
from typing import Final

TRAIN_VOICES: Final = (
    "m1", "m3", "m4", "m5", "m7", "m8", "f1", "f3", "klatt", "klatt2", "klatt6", "Andrea", "Diogo", "Hugo",
    "Mario", "Michael", "Nguyen", "Reed", "adam", "anika", "antonio", "aunty", "belinda", "benjamin", "boris",
    "edward2", "grandma", "iven3", "linda", "max", "miguel", "pedro", "quincy", "robert", "steph", "travis",
)  # fmt: skip
VALID_VOICES: Final = ("m2", "f5", "Denis", "klatt3")
TEST_VOICES: Final = ("m6", "f2", "Gene", "klatt5", "Andy", "f4", "paul", "victor", "Alex", "Jacky")

# Lower pitches together with a wide range let the deepest voices fall under the pitch at which espeak-ng
# overruns its table of harmonics and ends the process.
PITCHES: Final = (40, 70)


@dataclass(frozen=True)
class Speaker:
    """A voice variant and how it talks; the fields are espeak-ng's parameters.

    Attributes:
        voice: name of the variant.
        rate: speed in words per minute; 150 is about 3.7 syllables a second.
        pitch: 0 to 100, 50 is the variant's own.
        pitch_range: 0 to 100; 50 is the variant's own and gives tones a span of five semitones, 90 about an
            octave, as people have.
    """

    voice: str
    rate: int
    pitch: int
    pitch_range: int


def draw_speaker(voices: tuple[str, ...], draw: random.Random) -> Speaker:
    """A random speaker for one training or validation utterance."""
    return Speaker(draw.choice(voices), draw.randint(130, 200), draw.randint(*PITCHES), draw.randint(65, 95))


def site_speakers(index: int, draw: random.Random) -> tuple[Speaker, ...]:
    """The two speakers of a test site, each with a rate, a pitch and a range of its own.

    Args:
        index: number of the site among all test sites; it picks the voices, so that neighbours differ.
        draw: source of the rest.
    """
    return tuple(
        Speaker(voice, draw.randint(140, 190), draw.randint(*PITCHES), draw.randint(70, 90))
        for voice in (TEST_VOICES[(2 * index + i) % len(TEST_VOICES)] for i in range(2))
    )
