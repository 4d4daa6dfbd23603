"""The speech synthesiser espeak-ng, called in process through ctypes.

The library keeps state between calls (the phase of its noise, of flutter, of echo), so the samples of an
utterance depend on every call before it: the same sequence of calls in a fresh process gives the same bytes,
a repeated call does not. Callers that need reproducible audio run a fixed sequence in a process of its own.
"""

import ctypes
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

AUDIO_OUTPUT_SYNCHRONOUS = 2
CHARACTERS_UTF8 = 0x01
PHONEMES_IN_BRACKETS = 0x100
POSITION_CHARACTER = 1


class Event(ctypes.Structure):
    """What the library says of a sample; of the fields only kind and sample are read here."""

    _fields_ = (
        ("kind", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("value", ctypes.c_char * 8),
    )


LAST_EVENT = 0
WORD_EVENT = 1

SampleCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event)
)


class Parameter(IntEnum):
    """Settings of the synthesiser, with espeak-ng's own numbers."""

    RATE = 1  # words per minute, 80 to 450; 175 is about 4.5 syllables a second here
    PITCH = 3  # 0 to 100, 50 is the voice's own
    RANGE = 4  # 0 to 100, 50 is the voice's own; 0 is monotone


class Espeak:
    """The initialised synthesiser: one a process, because the library does not bear to be initialised again.

    Attributes:
        sampling_rate: sampling rate of what ``speak`` returns, Hz.
        syllable_starts: sample at which each syllable of the last utterance begins.
    """

    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
        self._library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        self._library.espeak_SetParameter.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int]
        self._library.espeak_Synth.argtypes = [
            ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint,
            ctypes.c_void_p, ctypes.c_void_p,
        ]  # fmt: skip
        data: str = espeakng_loader.get_data_path()
        self._variants = Path(data) / "voices" / "!v"
        rate = self._library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, data.encode(), 0)
        self.sampling_rate: int = rate
        if self.sampling_rate <= 0:
            raise RuntimeError(f"espeak-ng cannot read its data in {data}; reinstall espeakng-loader")
        self.syllable_starts: list[int] = []
        self._chunks: list[NDArray[np.int16]] = []
        # The library holds only a pointer: the callback must live as long as it.
        self._callback = SampleCallback(self._collect)
        self._library.espeak_SetSynthCallback(self._callback)
        self._voice = ""
        # The breath of a voice is random numbers, which the library seeds with the time.
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))

    def _collect(
        self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, events: "ctypes._Pointer[Event]"
    ) -> int:
        if count > 0 and samples:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        number = 0
        while (event := events[number]).kind != LAST_EVENT:
            if event.kind == WORD_EVENT:  # a syllable, as spaces stand between them
                self.syllable_starts.append(event.sample)
            number += 1
        return 0

    def set_voice(self, table: str, variant: str) -> None:
        """Speak with the phoneme table of a language in the timbre of a voice variant.

        Raises:
            ValueError: espeak-ng has no such voice.
        """
        voice = f"{table}+{variant}"
        if voice == self._voice:
            return
        # The library itself takes an unknown variant for none.
        known = (self._variants / variant).is_file()
        if not known or self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        self._voice = voice

    def set_parameter(self, parameter: Parameter, value: int) -> None:
        """Set rate, pitch or pitch range; see ``Parameter`` for the units."""
        if self._library.espeak_SetParameter(int(parameter), value, 0) != 0:
            raise ValueError(f"espeak-ng refused {parameter.name} = {value}")

    def speak(self, phonemes: str) -> NDArray[np.int16]:
        """Synthesise phoneme mnemonics of the current table, syllables separated by spaces.

        Returns:
            Samples ``(T,)`` at ``sampling_rate``.

        Raises:
            RuntimeError: espeak-ng failed or gave no samples.
        """
        self._chunks.clear()
        self.syllable_starts.clear()
        text = f"[[{phonemes}]]".encode()
        flags = CHARACTERS_UTF8 | PHONEMES_IN_BRACKETS
        status = self._library.espeak_Synth(text, len(text) + 1, 0, POSITION_CHARACTER, 0, flags, None, None)
        if status != 0 or not self._chunks:
            raise RuntimeError(f"espeak-ng gave no sound for [[{phonemes}]] (status {status})")
        return np.concatenate(self._chunks)
