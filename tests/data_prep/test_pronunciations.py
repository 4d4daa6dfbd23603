"""Pronunciations in a table of one's own, from there to the challenge set and the tone probe."""

from collections.abc import Callable
from pathlib import Path

import pytest
from lhotse import CutSet
from rich.console import Console
from sound_folder import COLUMNS, WriteTable, write_noise

from data_prep.corpora.folder import FolderConfig, prepare_folder
from data_prep.pipeline import PrepareConfig, prepare
from data_prep.transcripts import TranscriptsConfig, rewrite_transcripts
from retrieval.challenge.build import build
from retrieval.challenge.settings import ChallengeConfig, Removal, SoundConfig, SoundMeasure, TaggedText
from retrieval.challenge.utterances import read_spoken
from retrieval.depth.probe_design import ProbeConfig, ProbeTask
from retrieval.depth.probe_tasks import Span, character_tasks, facts_of
from zipformer.data.cuts import find_manifest, read_cuts
from zipformer.errors import UserError

TEXTS = ["天很冷", "人来了", "书在这"]
# Letters are phones: of the sentences, 0 of 6, 6 of 6 and 1 of 5 differ.
SAID = {
    "Cantonese": ["tin1 han2 la3", "ma1 mi2 mu3", "sa1 si2 o3"],
    "wuu-shanghai": ["tin1 han2 la3", "po1 ke2 fe3", "sa1 si2 u3"],
}
DISTANCES = {"0": 0.0, "1": 1.0, "2": 1 / 5}


def rows_of(folder: Path, column: str) -> list[dict[str, str]]:
    """Two speakers a dialect read three sentences, for training as for the test."""
    rows = []
    for number, (dialect, said) in enumerate(SAID.items()):
        for speaker in "ab":
            for n, (text, pronunciation) in enumerate(zip(TEXTS, said, strict=True)):
                for split in ("train", "test"):
                    name = f"{split}-{number}{speaker}{n}"
                    write_noise(folder / f"{name}.wav", seed=len(rows))
                    rows.append(
                        {
                            "path": f"{name}.wav",
                            "text": f"{text}{'' if split == 'test' else '甲'}。",
                            "dialect": dialect,
                            "speaker": f"{split}-{number}{speaker}",
                            "site": f"{dialect} {speaker}",
                            "sentence_id": f"{n}" if split == "test" else f"train {n}",
                            "split": split,
                            column: pronunciation,
                        }
                    )
    return rows


def distances_of(data_dir: Path, sound: SoundConfig) -> list[dict[str, float | None]]:
    """Distances by sound of each sentence at every pair of sites of different dialects."""
    cuts = read_cuts(find_manifest(data_dir, "test"))
    spoken = read_spoken(cuts, text=TaggedText.transcript, phones_fields=sound.fields)
    (built,) = build(spoken, ChallengeConfig("", removals=[Removal.sound], sound=sound, random=False))
    assert built.challenge.about["removals"]["sound"]["measure"] == SoundMeasure.phones.value
    sites = built.challenge.sites
    return [
        {sentence: found.distance for sentence, found in judged.items()}
        for (a, b), judged in built.judgements.items()
        if sites[a].group != sites[b].group
    ]


@pytest.mark.parametrize(
    ("column", "config"),
    [("ipa", {}), ("romanisation", {}), ("jyutping", {"romanisation": "jyutping"}), ("IPA", {"ipa": "IPA"})],
)
def test_from_the_table_to_the_challenge_set_and_the_tone_probe(
    tmp_path: Path,
    write_table: WriteTable,
    prepare_config: Callable[[FolderConfig], PrepareConfig],
    column: str,
    config: dict[str, str],
) -> None:
    corpus = write_table(rows_of(tmp_path, column), columns=(*COLUMNS, "site", column))
    for name, value in config.items():
        setattr(corpus.columns, name, value)
    settings = prepare_config(corpus)
    prepare(settings, Console(quiet=True))
    rewritten = tmp_path / "rewritten"
    rewrite_transcripts(TranscriptsConfig(settings.data_dir, str(rewritten), scripts={"yue": "s2hk"}))
    field = (config and next(iter(config))) or column
    for directory in (Path(settings.data_dir), rewritten):
        supervisions = [cut.supervisions[0] for cut in CutSet.from_file(directory / "cuts_test.jsonl.gz")]
        assert {s.custom[field] for s in supervisions} == {said for texts in SAID.values() for said in texts}
        found = distances_of(directory, SoundConfig(threshold=0.1))
        assert len(found) == 4
        assert all(pair == pytest.approx(DISTANCES) for pair in found)

        facts = facts_of(CutSet.from_file(directory / "cuts_test.jsonl.gz"))
        assert {fact.tones for fact in facts} == {("1", "2", "3")}
        spans = [Span(f.utterance_id, n, text, n, n + 1) for f in facts for n, text in enumerate(f.text)]
        probes = {task.name: task for task in character_tasks(facts, spans, ProbeConfig(min_occurrences=2))}
        tone = probes["tone"]
        assert isinstance(tone, ProbeTask)
        assert tone.labels.tolist() == ["1", "2", "3"] * len(facts)


def test_without_such_a_column_nothing_is_made_up(tmp_path: Path, write_table: WriteTable) -> None:
    config = write_table(rows_of(tmp_path, "ipa"), columns=(*COLUMNS, "site"))
    for _, supervisions in prepare_folder(config, tmp_path / "prepared").values():
        assert all({"ipa", "romanisation"}.isdisjoint(one.custom) for one in supervisions)
    config.columns.ipa = "IPA"
    with pytest.raises(UserError, match=r"no column 'IPA' \(corpus\.columns\.ipa\)"):
        prepare_folder(config, tmp_path / "prepared")
