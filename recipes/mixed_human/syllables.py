"""Write a table of recorded syllables with a character for each.

    python recipes/mixed_human/syllables.py MANIFEST READING TABLE TEXT_DIR...

MANIFEST has the column romanization with one toned syllable a row: pinyin (READING=pinyin) or jyutping
(READING=jyutping). TABLE gets the rows whose syllable is the reading of some character that occurs in the
training transcripts of the prepared corpora TEXT_DIR; the column text has the most frequent such character.
"""

import csv
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import ToJyutping
from lhotse import CutSet
from pypinyin import Style, lazy_pinyin

from zipformer.errors import UserError
from zipformer.files import replacing


def pinyin(character: str) -> str:
    """Most common reading in Mandarin, e.g. ``lv4``; tone 5 is the neutral one."""
    return lazy_pinyin(character, style=Style.TONE3, neutral_tone_with_five=True)[0]


def jyutping(character: str) -> str:
    """Most common reading in Cantonese, e.g. ``nei5``; empty where none is known."""
    return ToJyutping.get_jyutping_list(character)[0][1] or ""


READINGS: dict[str, Callable[[str], str]] = {"pinyin": pinyin, "jyutping": jyutping}


def spelling(characters: Counter[str], reading: Callable[[str], str]) -> dict[str, str]:
    """The most frequent character of each syllable; of equally frequent ones, the first by code point."""
    found: dict[str, str] = {}
    for character, _ in sorted(characters.items(), key=lambda item: (-item[1], item[0])):
        found.setdefault(reading(character), character)
    return found


def count_characters(directories: list[Path]) -> Counter[str]:
    """How often each Chinese character occurs in the training transcripts of prepared corpora."""
    characters: Counter[str] = Counter()
    for directory in directories:
        for cut in CutSet.from_jsonl_lazy(directory / "cuts_train.jsonl.gz"):
            characters.update(c for c in cut.supervisions[0].text or "" if "\u4e00" <= c <= "\u9fff")
    return characters


def main(manifest: Path, reading: str, table: Path, directories: list[Path]) -> None:
    if reading not in READINGS:
        raise UserError(f"the reading {reading} is none of {', '.join(READINGS)}")
    character_of = spelling(count_characters(directories), READINGS[reading])
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    kept = [
        {**row, "path": str((manifest.parent / row["path"]).resolve()), "text": character_of[syllable]}
        for row in rows
        if (syllable := row["romanization"]) in character_of
    ]
    table.parent.mkdir(parents=True, exist_ok=True)
    with replacing(table) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="	", quoting=csv.QUOTE_NONE, quotechar=None)
        writer.writeheader()
        writer.writerows(kept)
    print(
        f"{table}: {len(kept)} of {len(rows)} syllables are the reading of a character in the training texts"
    )


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), [Path(name) for name in sys.argv[4:]])
    except UserError as error:
        sys.exit(f"error: {error}")
