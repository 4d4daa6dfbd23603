"""``corpus=mini`` end to end, in a size that takes seconds."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

pytest.importorskip("espeakng_loader")

from data_prep.corpora import corpora
from data_prep.corpora.mini.corpus import MiniConfig, check, prepare_mini
from data_prep.manifests import CorpusManifests
from data_prep.taxonomy import variety_of

SMALL = MiniConfig(
    varieties=["cmn-mainland", "yue-guangzhou", "wuu-shanghai", "wuu-suzhou", "hak-sixian"],
    shared_sentences=2,
    own_sentences=3,
    word_repetitions=0,
    valid_sentences=2,
    test_sentences=4,
    unit_sentences=3,
    workers=2,
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mini")


@pytest.fixture(scope="module")
def manifests(directory: Path) -> CorpusManifests:
    return prepare_mini(SMALL, directory)


def digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*.wav"))
    }


def test_registered() -> None:
    assert corpora()["mini"].config_class is MiniConfig


def test_sizes(manifests: CorpusManifests) -> None:
    sizes = {split: len(supervisions) for split, (_, supervisions) in manifests.items()}
    # 4 trained varieties; sites: cmn 3, yue 3, two of each of the two Wu varieties, hak 3
    assert sizes == {"train": 4 * 5, "valid": 4 * 2, "test": 4 * (3 + 3 + 4 + 3)}


def test_supervisions(manifests: CorpusManifests) -> None:
    for split, (recordings, supervisions) in manifests.items():
        assert {r.id for r in recordings} == {s.recording_id for s in supervisions}
        for supervision in supervisions:
            recording = recordings[supervision.recording_id]
            information = soundfile.info(recording.sources[0].source)
            assert information.samplerate == recording.sampling_rate == 16000
            assert information.frames == recording.num_samples
            assert supervision.duration == recording.duration == pytest.approx(information.duration)
            custom = supervision.custom
            assert set(custom) == {"subdialect", "site", "sentence_id", "translation", "ipa"}
            variety = variety_of(custom["subdialect"])
            assert (variety.group, variety.subdialect) == (supervision.language, custom["subdialect"])
            assert custom["site"].startswith(custom["subdialect"])
            assert supervision.speaker.endswith(custom["site"])
            assert f"/{split}/{custom['subdialect']}/" in recording.sources[0].source
            if supervision.language == "cmn":
                assert supervision.text == custom["translation"]


def test_same_numbered_sentences_at_every_test_site(manifests: CorpusManifests) -> None:
    sites: dict[str, dict[str, str]] = {}
    texts: dict[tuple[str, str], set[str]] = {}
    for supervision in manifests["test"][1]:
        custom = supervision.custom
        sites.setdefault(custom["site"], {})[custom["sentence_id"]] = custom["translation"]
        texts.setdefault((custom["subdialect"], custom["sentence_id"]), set()).add(supervision.text)
    first, *others = sites.values()
    assert list(first) == ["1", "2", "3", "4"]
    assert all(other == first for other in others)
    assert all(len(said) == 1 for said in texts.values())


def test_training_and_test_share_nothing(manifests: CorpusManifests) -> None:
    def values(split: str, field: str) -> set[str]:
        supervisions = manifests[split][1]
        return {s.speaker.split("-")[0] if field == "voice" else s.custom[field] for s in supervisions}

    for one, other in (("train", "test"), ("train", "valid"), ("valid", "test")):
        for field in ("voice", "sentence_id", "translation", "site"):
            assert not values(one, field) & values(other, field)


def test_held_out_group_is_only_tested(manifests: CorpusManifests) -> None:
    groups = {split: {s.language for s in supervisions} for split, (_, supervisions) in manifests.items()}
    assert groups["train"] == groups["valid"] == {"cmn", "yue", "wuu"}
    assert groups["test"] == {"cmn", "yue", "wuu", "hak"}


def test_same_seed_same_bytes(directory: Path, manifests: CorpusManifests, tmp_path: Path) -> None:
    """Whatever the number of processes; and a different seed gives different audio."""
    again = prepare_mini(replace(SMALL, workers=1), tmp_path / "again")
    assert digests(tmp_path / "again") == digests(directory)
    for split in manifests:
        assert [s.to_dict() for s in again[split][1]] == [s.to_dict() for s in manifests[split][1]]
    few = replace(SMALL, varieties=["cmn-mainland"], held_out=[], shared_sentences=0, valid_sentences=0)
    other = prepare_mini(replace(few, seed=2), tmp_path / "other")
    assert not {s.text for s in other["test"][1]} & {s.text for s in manifests["test"][1]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"held_out": ["gan"]}, "held_out"),
        ({"held_out": ["cmn", "yue", "wuu", "hak"]}, "no group to train on"),
        ({"varieties": ["cmn-mainland", "cmn-mainland", "hak-sixian"]}, "twice"),
        ({"own_sentences": -1}, "own_sentences=-1"),
        ({"test_sites": 0}, "test_sites=0"),
        ({"varieties": ["klingon", "hak-sixian"]}, "klingon"),
        ({"varieties": ["gan-nanchang", "hak-sixian"]}, "no reader for variety 'gan-nanchang'"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(replace(SMALL, **change))
