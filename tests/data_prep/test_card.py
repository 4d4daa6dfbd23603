"""The data card against counts of the cuts, one by one."""

import csv
import re
from collections import Counter, defaultdict
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bare_corpora import cut, write_corpus
from hydra import compose, initialize_config_dir
from lhotse import MonoCut, load_manifest
from miniatures import MINIATURES
from omegaconf import OmegaConf
from rich.console import Console

from data_prep.card.contents import Contents, Distinct
from data_prep.card.page import CardConfig, write_card
from data_prep.corpora import UNKNOWN, corpora
from data_prep.pipeline import prepare
from fangyan.commands import CONF_DIR, register
from zipformer.errors import UserError

register("prepare")
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two corpora with copies at other speeds, by name."""
    folder = tmp_path_factory.mktemp("card")
    places = {}
    for name in ("kespeech", "stcmds"):
        miniature = MINIATURES[name](folder / "corpora" / name)
        places[name] = folder / name
        settings = [f"data_dir={places[name]}", "num_workers=1", *miniature.settings]
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            prepare(OmegaConf.to_object(compose("prepare", settings)), QUIET)  # type: ignore[arg-type]
    return places


def card(directory: Path, *places: Path, mixture: Path | None = None) -> SimpleNamespace:
    config = CardConfig(
        str(directory), [str(place) for place in places], None if mixture is None else str(mixture)
    )
    contents = {one.name: one for one in write_card(config, QUIET)}
    markdown = (directory / "card.md").read_text(encoding="utf-8")
    return SimpleNamespace(
        contents=contents,
        tables=markdown_tables(markdown),
        markdown=markdown,
        html=(directory / "card.html").read_text(encoding="utf-8"),
    )


def markdown_tables(text: str) -> dict[str, list[list[str]]]:
    """Rows of the table below each heading, with the head."""
    found = {}
    for part in text.split("\n## ")[1:]:
        title, *lines = part.splitlines()
        rows = [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if line[:1] == "|"
        ]
        found[title] = rows[:1] + rows[2:]
    return found


def test_numbers_are_those_of_the_cuts(prepared: dict[str, Path], tmp_path: Path) -> None:
    made = card(tmp_path, *prepared.values())
    seconds: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    copies: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    counts: Counter[tuple[str, str, str]] = Counter()
    characters: Counter[tuple[str, str, str]] = Counter()
    names = defaultdict(set)
    for corpus, place in prepared.items():
        for split in ("train", "valid", "test"):
            file = place / f"cuts_{split}.jsonl.gz"
            for one in load_manifest(file) if file.is_file() else ():
                said = one.supervisions[0]
                key = (corpus, said.language, split)
                copies[key] += one.duration
                if "_sp" not in one.id:
                    seconds[key] += one.duration
                    counts[key] += 1
                    characters[key] += len(said.text.replace(" ", ""))
                    names[key].add(said.speaker)
    assert len(counts) >= 4
    assert copies != seconds
    found = {tuple(row[:3]): row[3:] for row in made.tables["By corpus"][1:]}
    assert found == {
        key: [
            str(counts[key]),
            f"{seconds[key] / 3600:.4f}",
            f"{copies[key] / 3600:.4f}",
            str(len(names[key])),
            str(characters[key]),
            f"{characters[key] / seconds[key]:.2f}",
        ]
        for key in counts
    }
    whole = {row[1]: row for row in made.tables["By dialect group"][1:] if row[0] == "all"}
    assert whole["train"][2] == str(sum(count for key, count in counts.items() if key[2] == "train"))
    for corpus, place in prepared.items():
        with (place / "problems.tsv").open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        expected = Counter((row["problem"], row["severity"], row["split"]) for row in rows)
        assert made.contents[corpus].problems == expected
    sources = {row[0]: row[1] for row in made.tables["Licence and origin"][1:]}
    assert sources["stcmds"] == "CC BY-NC-ND 4.0, as stated by OpenSLR"
    assert made.html.count("data:image/svg+xml;base64,") == 2
    assert "<script" not in made.html
    assert "http-equiv" not in made.html


def test_overlap_of_splits_and_corpora(tmp_path: Path) -> None:
    one = write_corpus(
        tmp_path / "one",
        train=[cut("a", "你好", "one-1", "yue"), cut("b", "再见", "one-2", "yue")],
        test=[
            cut("c", "你好", "one-1", "yue"),
            cut("d", "你好", "one-3", "yue"),
            cut("e", "早晨", None, "yue"),
            cut("f", "早", "one-4", "yue"),
            cut("g", "天气", "one-4", "yue"),
        ],
        valid=[cut("h", "早", "one-4", "yue")],
    )
    two = write_corpus(
        tmp_path / "two", train=[cut("a", "早晨", "two-1", "hak"), cut("b", "你好", None, "hak")]
    )
    three = write_corpus(tmp_path / "three", test=[cut("a", "没有", None, "gan")])
    made = card(tmp_path / "card", one, two, three)
    rows = {tuple(row[:2]): row[2:] for row in made.tables["Sentences of held-out splits in training"][1:]}
    assert rows == {
        ("one", "valid"): ["1", "0", "0", "0.0 %", "1", "0", "1"],
        ("one", "test"): ["4", "1", "2", "50.0 %", "5", "3", "1"],
        ("three", "test"): ["1", "0", "0", "0.0 %", "1", "0", "0"],
    }
    speakers = {tuple(row[:2]): row[2:] for row in made.tables["Speakers of held-out splits in training"][1:]}
    assert speakers == {
        ("one", "valid"): ["1", "0", "0", "1", "0"],
        ("one", "test"): ["3", "1", "1", "1", "1"],
        ("three", "test"): ["unknown"] * 4 + ["1"],
    }
    assert made.tables["Sentences and speakers in two corpora"][1:] == [["one", "two", "2", "0"]]
    assert made.tables["Utterances that preparation did not use"][1] == ["one", "all", "unknown", "unknown"]
    assert "Unknown, because there is no problems.tsv: one, two, three" in made.markdown
    assert made.tables["Licence and origin"][1][1:3] == [UNKNOWN, UNKNOWN]
    # A corpus of weight 0 is described, and does not count as training.
    mixture = tmp_path / "mixture.yaml"
    mixture.write_text(f"corpora:\n- {{data_dir: {one}}}\n- {{data_dir: {two}, weight: 0}}\n")
    unused = card(tmp_path / "unused", three, mixture=mixture)
    rows = {tuple(row[:2]): row[2:] for row in unused.tables["Sentences of held-out splits in training"][1:]}
    assert rows["one", "test"][2] == "1"
    assert "Not trained on: two." in unused.markdown


def test_what_is_missing_and_what_has_a_meaning_in_html(tmp_path: Path) -> None:
    bare = MonoCut("bare", 0.0, 1.0, 0)
    names = cut("n", "一", "<b>|speaker</b>", "<i>|x</i>", 3.0)
    place = write_corpus(tmp_path / "odd", train=[bare, names, cut("e", "", "s", None, 0.0)])
    made = card(tmp_path / "card", place, tmp_path / "odd")
    assert list(made.contents) == ["odd"]  # given twice
    rows = {row[1]: row[2:] for row in made.tables["By corpus"][1:]}
    assert rows[UNKNOWN] == ["train", "2", "0.0003", "0.0003", "1", "0", "0.00"]
    assert rows["\\<i\\>\\|x\\</i\\>"][1] == "1"
    assert "<i>" not in made.html
    assert "&lt;i&gt;|x&lt;/i&gt;" in made.html
    parser = HTMLParser()
    parser.feed(made.html)
    twin = write_corpus(tmp_path / "other" / "odd", test=[names])
    assert set(card(tmp_path / "twins", place, twin).contents) == {"odd (1)", "odd (2)"}


def test_distinct_texts_are_counted_over_many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_prep.card.contents._COMPACT_FROM", 7)
    texts = [str(number) for number in np.random.default_rng(0).integers(0, 90, 1000)]
    distinct = Distinct()
    for text in texts:
        distinct.add(text)
    counts = Counter(hash(text) for text in texts)
    assert dict(zip(distinct.values.tolist(), distinct.counts.tolist(), strict=True)) == counts
    assert sorted(counts) == distinct.values.tolist()


def test_what_cannot_be_described_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data_dirs=\[DIR,...\] or mixture=FILE"):
        write_card(CardConfig(str(tmp_path)))
    with pytest.raises(UserError, match=r"has no cuts_train\.jsonl\.gz"):
        card(tmp_path, tmp_path / "nothing")
    place = write_corpus(tmp_path / "one", test=[cut("a", "一", None, "yue")])
    (place / "problems.tsv").write_text("id\tproblem\nx\ty\n")
    with pytest.raises(UserError, match=r"problems\.tsv has no column"):
        card(tmp_path / "card", place)
    assert not (tmp_path / "card").exists()


def test_every_public_corpus_says_where_it_is_from() -> None:
    unknown = {name for name, corpus in corpora().items() if corpus.origin == UNKNOWN}
    assert unknown <= {"folder", "yubao"}
    stated = [c.licence for c in corpora().values() if c.licence != UNKNOWN]
    assert stated
    assert all("as stated " in licence for licence in stated)
    assert Contents("x", "x").licence == UNKNOWN
