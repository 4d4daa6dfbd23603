"""The same corpus with other transcripts: scripts by dialect, normalisation, tokens; features stay."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lhotse import CutSet, LilcomChunkyWriter
from tiny_corpus import make_cut

from data_prep.text.normaliser import Script, TextConfig
from data_prep.tokens import TokenConfig, train_token_model, write_tokens
from data_prep.transcripts import TranscriptsConfig, rewrite_transcripts
from zipformer.data.dataset import name_of, read_dataset
from zipformer.data.tokenizer import Tokenizer
from zipformer.errors import UserError

TEXTS = {"yue": "我们听讲这个", "nan": "我们听讲这个", "wuu": "我们听讲这个"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    (directory / "fbank").mkdir(parents=True)
    with LilcomChunkyWriter(str(directory / "fbank" / "feats")) as storage:
        cuts = []
        for group, text in TEXTS.items():
            cut = make_cut(group, np.zeros((100, 80), dtype=np.float32), text, group, storage)
            cut.supervisions[0].custom = {"raw_text": f"{text}。"}
            cut.features.storage_path = str(Path(cut.features.storage_path).relative_to(directory))
            cuts.append(cut)
    for split in ("train", "test"):
        CutSet.from_cuts(cuts).to_file(directory / f"cuts_{split}.jsonl.gz")
    write_tokens(train_token_model(TEXTS.values()), directory / "tokens")
    return directory


def texts(directory: Path, split: str) -> dict[str, str]:
    cuts = CutSet.from_file(directory / f"cuts_{split}.jsonl.gz")
    return {cut.supervisions[0].language: cut.supervisions[0].text for cut in cuts}


def test_each_dialect_in_its_script(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "customary"
    config = TranscriptsConfig(str(source), str(target), scripts={"yue": "s2hk", "nan": "s2t"})
    rewrite_transcripts(config)
    for split in ("train", "test"):
        assert texts(target, split) == {
            "yue": "我們聽講這個",
            "nan": "我們聽講這個",
            "wuu": "我们听讲这个",
        }
    pieces = Tokenizer.load(target / "tokens").pieces
    assert {"们", "們", "听", "聽"} <= set(pieces)
    assert "们" in Tokenizer.load(source / "tokens").pieces
    assert "們" not in Tokenizer.load(source / "tokens").pieces
    cut = next(iter(CutSet.from_file(target / "cuts_train.jsonl.gz")))
    assert cut.load_features().shape == (100, 80)  # from where the source has them
    assert cut.supervisions[0].custom["raw_text"] == "我们听讲这个。"


def test_what_may_be_wrong_with_a_transcript_is_in_problems_tsv(source: Path, tmp_path: Path) -> None:
    cuts = list(CutSet.from_file(source / "cuts_train.jsonl.gz"))
    cuts[0].supervisions[0].custom["raw_text"] = "我们听讲50%（music"
    CutSet.from_cuts(cuts).to_file(source / "cuts_train.jsonl.gz")
    rewrite_transcripts(TranscriptsConfig(str(source), str(tmp_path / "target")))
    with (tmp_path / "target" / "problems.tsv").open(encoding="utf-8", newline="") as stream:
        problems = [(row["utterance_id"], row["problem"]) for row in csv.DictReader(stream, delimiter="\t")]
    assert problems == [(cuts[0].id, "unmatched_bracket"), (cuts[0].id, "dropped_symbol")]


def test_normalisation_takes_the_scripts_back(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "normalised"
    rewrite_transcripts(
        TranscriptsConfig(
            str(source),
            str(target),
            scripts={"yue": "s2hk", "nan": "s2tw"},
            text=TextConfig(script=Script.simplified),
        )
    )
    assert texts(target, "train") == TEXTS
    assert Tokenizer.load(target / "tokens").pieces == Tokenizer.load(source / "tokens").pieces


def test_what_is_complete_is_kept_and_what_changed_is_made_anew(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    config = TranscriptsConfig(str(source), str(target))
    rewrite_transcripts(config)
    file = target / "cuts_train.jsonl.gz"
    before = file.stat().st_mtime_ns
    rewrite_transcripts(config)
    assert file.stat().st_mtime_ns == before
    rewrite_transcripts(replace(config, scripts={"yue": "s2t"}))
    assert texts(target, "train")["yue"] == "我們聽講這個"


def test_further_text_is_counted_too(source: Path, tmp_path: Path) -> None:
    further = tmp_path / "further"
    rewrite_transcripts(TranscriptsConfig(str(source), str(further), scripts={"yue": "s2t"}))
    config = TranscriptsConfig(
        str(source), str(tmp_path / "target"), tokens=TokenConfig(further_data_dirs=[str(further)])
    )
    rewrite_transcripts(config)
    assert "聽" in Tokenizer.load(tmp_path / "target" / "tokens").pieces
    (further / "cuts_train.jsonl.gz").unlink()
    with pytest.raises(UserError, match=r"cuts_train.jsonl.gz does not exist; prepare .*further first"):
        rewrite_transcripts(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "/nowhere"}, "has no cuts_train.jsonl.gz; prepare it"),
        ({"data_dir": "{source}"}, "is the source itself"),
        ({"scripts": {"yue": "s2mars"}}, "scripts.yue=s2mars: OpenCC has no such conversion"),
        ({"text": TextConfig(keep_parentheses=False)}, "nothing is left of the transcript of yue"),
    ],
)
def test_problems_are_named(source: Path, tmp_path: Path, settings: dict, message: str) -> None:
    if "text" in settings:  # a transcript that is all remark
        cuts = list(CutSet.from_file(source / "cuts_train.jsonl.gz"))
        cuts[0].supervisions[0].custom["raw_text"] = "（笑）"
        CutSet.from_cuts(cuts).to_file(source / "cuts_train.jsonl.gz")
    filled = {name: str(source) if value == "{source}" else value for name, value in settings.items()}
    config = replace(TranscriptsConfig(str(source), str(tmp_path / "target")), **filled)
    with pytest.raises(UserError, match=message):
        rewrite_transcripts(config)
    assert not (tmp_path / "target" / "transcripts.json").exists()


def test_translations_are_normalised_like_transcripts(source: Path, tmp_path: Path) -> None:
    manifest = source / "cuts_test.jsonl.gz"
    cuts = list(CutSet.from_file(manifest))
    for cut, translation in zip(cuts, ("我們，聽了！", "我们听了", "（笑）"), strict=True):
        cut.supervisions[0].custom["translation"] = translation
    CutSet.from_cuts(cuts).to_file(manifest)
    text = TextConfig(script=Script.simplified)
    rewrite_transcripts(TranscriptsConfig(str(source), str(tmp_path / "once"), text=text))
    found = [cut.supervisions[0].custom for cut in CutSet.from_file(tmp_path / "once" / "cuts_test.jsonl.gz")]
    pairs = [(custom.get("translation"), custom.get("raw_translation")) for custom in found]
    assert pairs == [("我们听了", "我們，聽了！"), ("我们听了", None), (None, "（笑）")]
    # Once more from what the corpus had, by other rules.
    twice = TranscriptsConfig(str(tmp_path / "once"), str(tmp_path / "twice"))
    rewrite_transcripts(twice)
    found = [
        cut.supervisions[0].custom for cut in CutSet.from_file(tmp_path / "twice" / "cuts_test.jsonl.gz")
    ]
    assert found[0]["translation"] == "我們聽了"
    assert name_of(tmp_path / "twice") == "twice"


def test_another_script_is_another_data_set_of_the_same_recordings(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "customary"
    rewrite_transcripts(TranscriptsConfig(str(source), str(target), scripts={"yue": "s2hk"}, dataset="hk"))
    before, after = read_dataset(source, "test"), read_dataset(target, "test")
    assert (before.name, after.name) == ("source", "hk")
    assert before.recordings == after.recordings
    assert before.digest != after.digest
