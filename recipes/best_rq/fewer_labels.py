"""Write a prepared corpus with a part of its training utterances.

    python recipes/best_rq/fewer_labels.py SOURCE TARGET SHARE [SEED]

TARGET gets its own cuts_train.jsonl.gz and links to everything else of SOURCE: features, tokens, the splits
valid and test. An utterance is kept or left out together with its copies at other speeds, by a hash of the
seed and of its name, so that the choice depends on no order and a larger share contains a smaller one.
"""

import hashlib
import re
import sys
from pathlib import Path

from lhotse import CutSet

from zipformer.data.manifest import with_present_paths

_SPEED = re.compile(r"_sp[\d.]+$")  # how Lhotse names the copy of a recording at another speed


def kept(name: str, share: float, seed: int) -> bool:
    """Whether an utterance is among the ``share`` (0 to 1) of all that keep their transcript."""
    digest = hashlib.blake2b(f"{seed} {_SPEED.sub('', name)}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def write_part(source: Path, target: Path, share: float, seed: int) -> None:
    """Write the corpus; what is in the target already is replaced."""
    target.mkdir(parents=True, exist_ok=True)
    for file in source.resolve().iterdir():
        if file.name not in ("cuts_train.jsonl.gz", ".lock"):
            link = target / file.name
            link.unlink(missing_ok=True)
            link.symlink_to(file)
    cuts = CutSet.from_jsonl_lazy(source / "cuts_train.jsonl.gz")
    part = CutSet.from_cuts(with_present_paths(cut, source) for cut in cuts if kept(cut.id, share, seed))
    part.to_file(target / "cuts_train.jsonl.gz")
    hours = sum(cut.duration for cut in part) / 3600
    print(f"{target}: {len(part)} training utterances, {hours:.2f} hours")


if __name__ == "__main__":
    write_part(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int([*sys.argv, "0"][4]))
