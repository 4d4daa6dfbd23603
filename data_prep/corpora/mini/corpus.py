"""The embedded corpus: a small synthetic YuBao that anyone can regenerate.

It has the form of YuBao: dialect groups, several sites a group, the same numbered test sentences at every
site. A sentence is a sequence of concepts put into the words of each variety; readings come from offline
packages, the voice from espeak-ng, in process. Training and test share no voice and no sentence. The same
seed gives the same bytes.
"""

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path

from lhotse import AudioSource, Recording, RecordingSet, SupervisionSegment, SupervisionSet

from data_prep.corpora import register_corpus
from data_prep.corpora.mini.acoustics import draw_room
from data_prep.corpora.mini.lexicon import STANDARD, entries, text, words
from data_prep.corpora.mini.readings import reader_of
from data_prep.corpora.mini.sentences import Sentence, Sentences, write_sentences
from data_prep.corpora.mini.unit import SAMPLING_RATE, Line, Unit
from data_prep.corpora.mini.voices import TRAIN_VOICES, VALID_VOICES, Speaker, draw_speaker, site_speakers
from data_prep.corpora.mini.workers import run_units
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import variety_of
from zipformer.errors import UserError


@dataclass
class MiniConfig:
    """Options of ``corpus=mini``.

    Attributes:
        seed: random seed of the whole corpus; the same seed gives the same bytes.
        varieties: ids of the taxonomy, from those that ``data_prep.corpora.mini.readings`` can read.
        held_out: groups that get test sites only.
        shared_sentences: training sentences that every trained variety says.
        own_sentences: further training sentences that each trained variety draws for itself. More of either
            means more training audio: about 2 seconds a sentence and variety.
        word_repetitions: how often every word of the lexicon is said by itself in each trained variety, as
            YuBao has words beside its sentences. A word leaves little doubt about which sound is which
            character, so that training finds the characters many times sooner than from sentences alone.
        valid_sentences: validation sentences, the same for every trained variety, spoken by voices of their
            own.
        test_sentences: test sentences, the same at every site.
        test_sites: least number of test sites a group.
        unit_sentences: sentences that one process speaks in one go; a training unit is also a site with its
            own room.
        workers: processes side by side; 0 means one per processor.
    """

    seed: int = 1
    varieties: list[str] = field(
        default_factory=lambda: [
            "cmn-mainland",
            "mandarin-southwestern",
            "mandarin-zhongyuan",
            "yue-guangzhou",
            "nan-taiwan",
            "wuu-shanghai",
            "wuu-suzhou",
            "hak-sixian",
            "hak-hailu",
        ]
    )
    held_out: list[str] = field(default_factory=lambda: ["hak"])
    shared_sentences: int = 300
    own_sentences: int = 1100
    word_repetitions: int = 6
    valid_sentences: int = 20
    test_sentences: int = 50
    test_sites: int = 3
    unit_sentences: int = 100
    workers: int = 0


@dataclass(frozen=True)
class Utterance:
    """One utterance to be: its sentence, by whom and where it is said."""

    id: str
    split: str
    variety: str
    site: str
    sentence_id: str
    concepts: Sentence
    speaker: Speaker


@register_corpus(
    "mini",
    MiniConfig,
    origin="synthesised by this package with eSpeak NG",
)
def prepare_mini(config: MiniConfig, directory: Path) -> CorpusManifests:
    """Synthesise the corpus into ``directory/audio``; units that an earlier run finished are kept.

    Returns:
        Manifests of the splits train, valid and test.

    Raises:
        UserError: a setting is out of range, a group or variety is unknown, a word has no reading, or a
            process of the synthesis failed.
    """
    check(config)
    plan = {site: list(utterances) for site, utterances in _sites(config)}
    units = {}
    for site, utterances in plan.items():
        folder = directory / "audio" / utterances[0].split / utterances[0].variety / site
        units[folder] = _unit(config, site, utterances)
    counts = run_units(units, config.workers or os.cpu_count() or 1)
    recordings: dict[str, list[Recording]] = {"train": [], "valid": [], "test": []}
    supervisions: dict[str, list[SupervisionSegment]] = {"train": [], "valid": [], "test": []}
    for folder, utterances in zip(units, plan.values(), strict=True):
        for utterance in utterances:
            path, samples = folder / f"{utterance.id}.wav", counts[folder][utterance.id]
            recording = _recording(utterance.id, path, samples)
            recordings[utterance.split].append(recording)
            supervisions[utterance.split].append(_supervision(utterance, recording.duration))
    return {
        split: (RecordingSet.from_recordings(parts), SupervisionSet.from_segments(supervisions[split]))
        for split, parts in recordings.items()
    }


def check(config: MiniConfig) -> None:
    """Check the settings against each other.

    Raises:
        UserError: a setting is invalid or contradicts another; the message names it.
    """
    groups = {variety_of(variety).group for variety in config.varieties}
    if not set(config.held_out) <= groups:
        raise UserError(f"held_out={config.held_out}: the groups of corpus.varieties are {sorted(groups)}")
    if groups == set(config.held_out):
        raise UserError(f"held_out={config.held_out} leaves no group to train on")
    if len(set(config.varieties)) != len(config.varieties):
        raise UserError(f"varieties={config.varieties}: a variety stands there twice")
    for name in ("shared_sentences", "own_sentences", "word_repetitions", "valid_sentences", "workers"):
        if getattr(config, name) < 0:
            raise UserError(f"{name}={getattr(config, name)} must not be negative")
    for name in ("test_sentences", "test_sites", "unit_sentences"):
        if getattr(config, name) < 1:
            raise UserError(f"{name}={getattr(config, name)} must be at least 1")
    for variety in config.varieties:
        reader_of(variety)


def _sites(config: MiniConfig) -> Iterator[tuple[str, Sequence[Utterance]]]:
    """Every site with its utterances: training and validation sites, then test sites."""
    trained = [variety for variety in config.varieties if variety_of(variety).group not in config.held_out]
    sentences = write_sentences(
        config.varieties,
        trained,
        test=config.test_sentences,
        valid=config.valid_sentences,
        shared=config.shared_sentences,
        own=config.own_sentences,
        seed=config.seed,
    )
    for variety in trained:
        yield from _training_sites(config, variety, sentences)
    number = 0
    for variety in config.varieties:
        group = variety_of(variety).group
        siblings = sum(variety_of(other).group == group for other in config.varieties)
        for index in range(-(-config.test_sites // siblings)):
            yield _test_site(config, variety, index, number, sentences.test)
            number += 1


def _training_sites(
    config: MiniConfig, variety: str, sentences: Sentences
) -> Iterator[tuple[str, Sequence[Utterance]]]:
    lone_words = [(concept,) for concept in entries()]
    different = dict.fromkeys(chain(*sentences.train.values(), lone_words))
    numbers = {concepts: number for number, concepts in enumerate(different, start=1)}
    for split, texts, voices in (
        ("train", (*sentences.train[variety], *lone_words * config.word_repetitions), TRAIN_VOICES),
        ("valid", sentences.valid, VALID_VOICES),
    ):
        draw = random.Random(f"{config.seed}/{split}/{variety}")
        order = draw.sample(range(len(texts)), len(texts))
        for index, start in enumerate(range(0, len(texts), config.unit_sentences)):
            site = f"{variety}-{split}{index + 1:02d}"
            yield (
                site,
                [
                    Utterance(
                        id=f"{site}-{position + 1:04d}",
                        split=split,
                        variety=variety,
                        site=site,
                        sentence_id=f"train{numbers[texts[i]]}" if split == "train" else f"valid{i + 1}",
                        concepts=texts[i],
                        speaker=draw_speaker(voices, draw),
                    )
                    for position, i in enumerate(order[start : start + config.unit_sentences])
                ],
            )


def _test_site(
    config: MiniConfig, variety: str, index: int, number: int, sentences: Sequence[Sentence]
) -> tuple[str, Sequence[Utterance]]:
    site = f"{variety}-site{index + 1}"
    draw = random.Random(f"{config.seed}/test/{site}")
    speakers = site_speakers(number, draw)
    return site, [
        Utterance(f"{site}-{i + 1:03d}", "test", variety, site, str(i + 1), concepts, draw.choice(speakers))
        for i, concepts in enumerate(sentences)
    ]


def _unit(config: MiniConfig, site: str, utterances: Sequence[Utterance]) -> Unit:
    draw = random.Random(f"{config.seed}/room/{site}")
    reader = reader_of(utterances[0].variety)
    lines = tuple(
        Line(
            utterance.id,
            " ".join(p for word in words(utterance.concepts, utterance.variety) for p in reader.read(word)),
            utterance.speaker,
        )
        for utterance in utterances
    )
    return Unit(reader.table, draw_room(draw), draw.getrandbits(32), lines)


def pronunciation(concepts: Sentence, variety: str) -> str:
    """A sentence in IPA as the variety says it: one string a syllable, tones in Chao digits."""
    return " ".join(_transcribed(word, variety) for word in words(concepts, variety))


@cache
def _transcribed(word: str, variety: str) -> str:
    return " ".join(reader_of(variety).transcribe(word))


def _recording(id: str, path: Path, samples: int) -> Recording:
    return Recording(
        id=id,
        sources=[AudioSource(type="file", channels=[0], source=str(path))],
        sampling_rate=SAMPLING_RATE,
        num_samples=samples,
        duration=samples / SAMPLING_RATE,
    )


def _supervision(utterance: Utterance, duration: float) -> SupervisionSegment:
    return SupervisionSegment(
        id=utterance.id,
        recording_id=utterance.id,
        start=0.0,
        duration=duration,
        channel=0,
        text=text(utterance.concepts, utterance.variety),
        language=variety_of(utterance.variety).group,
        speaker=f"{utterance.speaker.voice}-{utterance.site}",
        custom={
            "subdialect": utterance.variety,
            "site": utterance.site,
            "sentence_id": utterance.sentence_id,
            "translation": text(utterance.concepts, STANDARD),
            "ipa": pronunciation(utterance.concepts, utterance.variety),
        },
    )
