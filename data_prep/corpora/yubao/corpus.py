"""``corpus=yubao``: the YuBao retrieval benchmark (arXiv 2601.07274), from files that the user has obtained.

The benchmark has fifty sentences at each of 78 sites in eight dialect groups, all in the split test. The
metadata tables list the recordings; the recordings are WAV files, or the videos of the platform as MP4, in
any folders below ``audio_dir``. Some sites lack sentences: ``completeness.tsv`` in the data directory lists
them. A site without any sentence is an error. Beside ``cuts_test.jsonl.gz``, each site has its own CutSet,
``sites/{group}/{site id}.jsonl.gz``.

``recipes/yubao/README.md`` describes how to obtain the data.
"""

import logging
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from lhotse import CutSet, MonoCut, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from omegaconf import MISSING

from data_prep.corpora import register_corpus
from data_prep.corpora.yubao import SENTENCES
from data_prep.corpora.yubao.audio import AudioFileError, FoundAudio, find_audio, recording_of
from data_prep.corpora.yubao.completeness import SiteCompleteness, completeness, summary, write_completeness
from data_prep.corpora.yubao.metadata import Metadata, Sentence, metadata_files, read_metadata
from data_prep.corpora.yubao.naming import NumberedNames
from data_prep.corpora.yubao.sites import (
    SITE_ID_LENGTH,
    SITES_FILE,
    BenchmarkSite,
    groups_named,
    read_sites,
    same_name,
)
from data_prep.manifests import CorpusManifests, final_cuts_file, read_supervisions, write_jsonl
from data_prep.progress import progress
from data_prep.text.normaliser import TextConfig, TextNormaliser, TextStyle
from zipformer.errors import UserError, listed

logger = logging.getLogger(__name__)

COMPLETENESS_FILE = "completeness.tsv"
SITES_FOLDER = "sites"

_DECODING_THREADS = 4
_NAMES_SHOWN = 5


class Incomplete(Enum):
    """Treatment of sites with fewer recordings than ``min_sentences``.

    ``keep``: use them, as in the paper. ``drop``: leave them out. ``stop``: end with an error.
    """

    keep = "keep"
    drop = "drop"
    stop = "stop"


@dataclass
class YubaoConfig:
    """Settings of YuBao: the data, and the treatment of incomplete sites.

    Attributes:
        metadata: table of the recordings, Parquet or TSV, or a folder with such tables.
        audio_dir: folder of the WAV or MP4 files, named by utterance id, or by city and number
            (CITY_0001.mp4) in a folder with the name or id of the site; subfolders are searched.
        site_list: another list of sites instead of the 78 of the benchmark, in the format of
            data_prep/corpora/yubao/sites.tsv.
        min_sentences: number of recordings, of 50, from which a site counts as complete.
        incomplete: treatment of sites with fewer recordings, but at least one: ``keep``, ``drop`` or
            ``stop``.
    """

    metadata: str = MISSING
    audio_dir: str = MISSING
    site_list: str | None = None
    min_sentences: int = 45
    incomplete: Incomplete = Incomplete.keep


def _inputs(config: YubaoConfig) -> list[Path]:
    own_list = [Path(config.site_list)] if config.site_list else []
    return [*metadata_files(Path(config.metadata)), *own_list, Path(config.audio_dir)]


def _site_list(config: YubaoConfig) -> Path:
    return Path(config.site_list) if config.site_list else SITES_FILE


def write_site_cuts(config: YubaoConfig, directory: Path) -> None:
    """Divide the final cuts of a data directory into one CutSet for each site.

    Raises:
        UserError: a site has no usable recording. The final cuts are then removed, because results without
            this site would not be those of the benchmark.
    """
    folder = directory / SITES_FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    final = final_cuts_file(directory, "test")
    cuts_of: dict[str, list[MonoCut]] = {
        supervision.custom["site_id"]: [] for supervision in read_supervisions(directory, "test")
    }
    for cut in CutSet.from_jsonl_lazy(final):
        cuts_of[cut.supervisions[0].custom["site_id"]].append(cut)
    if empty := [site_id for site_id, cuts in cuts_of.items() if not cuts]:
        final.unlink()
        raise UserError(
            f"the checks have left no usable recording of site {', '.join(empty)}; "
            f"{directory / 'problems.tsv'} says why"
        )
    for site_id, cuts in cuts_of.items():
        group = cuts[0].supervisions[0].language
        write_jsonl(CutSet, cuts, folder / group / f"{site_id}.jsonl.gz")
    logger.info("%d sites in %s, a CutSet each", len(cuts_of), folder)


@register_corpus("yubao", YubaoConfig, inputs=_inputs, finish=write_site_cuts)
def prepare_yubao(config: YubaoConfig, directory: Path) -> CorpusManifests:
    """Manifests of the benchmark, after all checks of its tables and files.

    Videos are decoded to ``directory/decoded``; files from an earlier run are kept.

    Raises:
        UserError: rows, sites or files cannot be used; the message names them.
    """
    if not 1 <= config.min_sentences <= SENTENCES:
        raise UserError(f"corpus.min_sentences is {config.min_sentences}; it must be from 1 to {SENTENCES}")
    sites = read_sites(_site_list(config))
    metadata = read_metadata(metadata_files(Path(config.metadata)), sites)
    sentences = [
        sentence for of_site in metadata.sentences.values() for _, sentence in sorted(of_site.items())
    ]
    numbered = NumberedNames(metadata.sentences)
    wanted = {sentence.utterance_id for sentence in sentences}
    audio = find_audio(Path(config.audio_dir), wanted, numbered.utterance_id)
    numbered.report()
    _report_oddities(metadata, audio, sites)
    found = completeness(sites, metadata.sentences, audio.files)
    write_completeness(directory / COMPLETENESS_FILE, found, config.min_sentences)
    logger.info("%s (%s)", summary(found, config.min_sentences), directory / COMPLETENESS_FILE)
    used = {one.site.site_id for one in _usable(found, config, numbered.advice(audio.others))}
    present = [s for s in sentences if s.site.site_id in used and s.utterance_id in audio.files]
    # Not in audio/: that ties a data directory to its settings, and decoded videos depend on none of them.
    recordings = _recordings(present, audio, directory / "decoded")
    normaliser = TextNormaliser(TextConfig(style=TextStyle.yubao, keep_parentheses=True))
    supervisions = [
        _supervision(sentence, recording, normaliser)
        for sentence, recording in zip(present, recordings, strict=True)
    ]
    return {"test": (RecordingSet.from_recordings(recordings), SupervisionSet.from_segments(supervisions))}


def _report_oddities(metadata: Metadata, audio: FoundAudio, sites: Sequence[BenchmarkSite]) -> None:
    """Log oddities that are no errors but should be checked."""
    for site_id, others in metadata.namesakes.items():
        logger.info("the tables have other sites of the name of %s, which are not used: %s", site_id, others)
    for number, texts in metadata.disagreements.items():
        logger.warning(
            "sentence %d has %d English texts, %r and %r among them: is it the same sentence at all sites?",
            number,
            len(texts),
            texts[0],
            texts[1],
        )
    for site in sites:
        words = next((s.subgrouping for s in metadata.sentences[site.site_id].values() if s.subgrouping), "")
        if (named := groups_named(words)) and site.group not in named:
            logger.warning("%s is of another group in the metadata: %r", site, words)
    site_ids = {site.site_id for site in sites}
    without_row = [path.name for path in audio.others if path.stem[:SITE_ID_LENGTH] in site_ids]
    if without_row:
        logger.warning(
            "%d recordings of wanted sites have no row in the metadata and are not used: %s",
            len(without_row),
            ", ".join(without_row[:_NAMES_SHOWN]) + (", ..." if len(without_row) > _NAMES_SHOWN else ""),
        )


def _usable(found: Sequence[SiteCompleteness], config: YubaoConfig, advice: str) -> list[SiteCompleteness]:
    """The sites that are used.

    Raises:
        UserError: a site is not in the table, has no recording, or, with ``incomplete=stop``, has too few.
    """
    faults = []
    for one in found:
        if not one.sentences_in_table:
            faults.append(f"{one.site} is not in the metadata")
        elif not one.recordings:
            faults.append(
                f"{one.site} has no recording: none of its {one.sentences_in_table} utterances has a file"
            )
        elif one.recordings < config.min_sentences and config.incomplete is Incomplete.stop:
            faults.append(f"{one.site} has {one.recordings} recordings, less than {config.min_sentences}")
    if faults:
        raise UserError(
            listed("sites that cannot be used", faults)
            + advice
            + f"\nObtain what is missing ({COMPLETENESS_FILE} in the data directory names it), or leave "
            f"sites out: copy {SITES_FILE} without their lines and set corpus.site_list to the copy"
        )
    complete = [one for one in found if one.recordings >= config.min_sentences]
    if config.incomplete is not Incomplete.drop:
        return list(found)
    if not complete:
        raise UserError(f"corpus.incomplete=drop leaves no site with {config.min_sentences} recordings")
    return complete


def _recordings(sentences: Sequence[Sentence], audio: FoundAudio, folder: Path) -> list[Recording]:
    """Recordings of all sentences, in the order of the sentences.

    Raises:
        UserError: files cannot be read, or are in the folder of another site.
    """
    _require_own_folders(sentences, audio)

    def read(sentence: Sentence) -> Recording | AudioFileError:
        converted = folder / sentence.site.site_id / f"{sentence.utterance_id}.wav"
        try:
            return recording_of(sentence.utterance_id, audio.files[sentence.utterance_id], converted)
        except AudioFileError as error:
            return error

    results = []
    with (
        progress("read recordings", len(sentences), "recordings") as advance,
        ThreadPoolExecutor(_DECODING_THREADS) as threads,
    ):
        for result in threads.map(read, sentences):
            results.append(result)
            advance(1)
    if faults := [str(result) for result in results if isinstance(result, AudioFileError)]:
        raise UserError(
            listed("recordings that cannot be read", faults) + "\nObtain them again, or remove them"
        )
    return [result for result in results if isinstance(result, Recording)]


def _require_own_folders(sentences: Sequence[Sentence], audio: FoundAudio) -> None:
    """Check that a folder with the name of a site has only recordings of this site."""
    names = {same_name(sentence.site.name): sentence.site for sentence in sentences}
    faults = []
    for sentence in sentences:
        path = audio.files[sentence.utterance_id]
        if names.get(same_name(path.parent.name), sentence.site) != sentence.site:
            faults.append(f"{path} has the id of {sentence.site}")
    if faults:
        raise UserError(
            listed("recordings in the folder of another site", faults)
            + "\nFind out which of the two is wrong, the name of the file or its folder"
        )


def _supervision(sentence: Sentence, recording: Recording, normaliser: TextNormaliser) -> SupervisionSegment:
    custom = {
        "site": sentence.site.name,
        "site_id": sentence.site.site_id,
        "sentence_id": str(sentence.number),
        "translation": normaliser(sentence.translation),
        "ipa": sentence.ipa,
        "english": sentence.english,
        "subgrouping": sentence.subgrouping,
        "origin": sentence.origin,
    }
    return SupervisionSegment(
        id=sentence.utterance_id,
        recording_id=recording.id,
        start=0.0,
        duration=recording.duration,
        channel=recording.channel_ids if recording.num_channels > 1 else 0,
        text=sentence.transcript,
        language=sentence.site.group,
        speaker=sentence.speaker,
        custom={name: value for name, value in custom.items() if value},
    )
