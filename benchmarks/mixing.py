"""Shares of a mixture by seconds after 10,000 batches against those asked for, also over a kill and a resume.

    python -m benchmarks.mixing

Nothing is timed. Batches come from the sampler of the training; no features are loaded. One process takes all
of them; another is killed on the way, and a third resumes from the epoch and number of the last batch that
was written. The table compares both with the shares asked for. Corpora of synthetic cuts are written under
exp/benchmarks/mixing and removed afterwards.
"""

import argparse
import gzip
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lhotse import LilcomChunkyWriter
from rich.console import Console
from rich.table import Table

from data_prep.tokens import train_token_model, write_tokens
from zipformer.data.batches import TrainingData
from zipformer.data.mixing import CorpusShare, MixingConfig, uses_per_epoch
from zipformer.data.selection import DataConfig
from zipformer.data.tokenizer import Tokenizer
from zipformer.files import write_json

DIRECTORY = Path("exp/benchmarks/mixing")
FEATURES = 8  # channels; few, because only lengths matter
LENGTHS = range(1, 20)  # seconds


@dataclass(frozen=True)
class Part:
    """The utterances of one dialect group in a corpus."""

    corpus: str
    weight: float
    group: str
    utterances: int
    longest: int  # seconds; durations are drawn from 1 to this


PARTS = (
    Part("lectures", 1.0, "cmn", 60_000, 10),
    Part("meetings", 2.0, "cmn", 8_000, 19),
    Part("cities", 1.0, "cmn", 4_000, 6),
    Part("cities", 1.0, "mandarin", 16_000, 6),
    Part("radio", 1.0, "yue", 10_000, 19),
    Part("readings", 1.0, "yue", 6_000, 5),
    Part("stories", 1.0, "hak", 300, 8),  # few enough to reach the cap
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=10_000)
    parser.add_argument("--kill-after", type=int, default=4_000, help="batches before the kill")
    parser.add_argument("--output", type=Path, default=Path("exp/benchmarks/mixing.json"))
    parser.add_argument("--record", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.record:
        record_batches(options.record, options.batches)
        return
    try:
        write_corpora()
        straight, broken = DIRECTORY / "straight.txt", DIRECTORY / "broken.txt"
        run(straight, options.batches)
        kill_after(broken, options.batches, options.kill_after)
        before = len(complete_lines(broken))
        run(broken, options.batches)
        results = {
            "without a break": shares_of(straight),
            f"killed after {before} batches and resumed": shares_of(broken),
        }
        equal = complete_lines(straight) == complete_lines(broken)
        asked = shares_asked()
    finally:
        shutil.rmtree(DIRECTORY, ignore_errors=True)
    report(asked, results, equal, options.batches, options.output)


def mixing() -> MixingConfig:
    weights = {part.corpus: part.weight for part in PARTS}
    corpora = [CorpusShare(str(DIRECTORY / name), weight) for name, weight in weights.items()]
    return MixingConfig(corpora, file="listed", alpha=0.5, max_repeats=10.0)


def training_data() -> TrainingData:
    config = DataConfig(max_duration=100.0, num_workers=0, buffer_size=5000, mixing=mixing())
    config.spec_augment.num_feature_masks = 0
    tokenizer = Tokenizer.load(DIRECTORY / "tokens")
    return TrainingData(DIRECTORY / "cuts_train.jsonl.gz", tokenizer, config, seed=3)


def write_corpora() -> None:
    """Manifests whose cuts share one feature matrix for each length."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    write_tokens(train_token_model(["一"]), DIRECTORY / "tokens")
    keys = {}
    with LilcomChunkyWriter(str((DIRECTORY / "features").absolute())) as storage:
        for seconds in LENGTHS:
            keys[seconds] = storage.write("", np.full((100 * seconds, FEATURES), -8.0, np.float32))
        path, kind = str(storage.storage_path), storage.name
    random = np.random.default_rng(0)
    lines: dict[str, list[str]] = {part.corpus: [] for part in PARTS}
    for part in PARTS:
        for number, seconds in enumerate(random.integers(1, part.longest + 1, part.utterances).tolist()):
            name = f"{part.corpus}-{part.group}-{number}"
            features = {
                "type": "kaldi-fbank", "num_frames": 100 * seconds, "num_features": FEATURES,
                "frame_shift": 0.01, "sampling_rate": 16000, "start": 0, "duration": seconds,
                "storage_type": kind, "storage_path": path, "storage_key": keys[seconds], "channels": 0,
                "recording_id": name,
            }  # fmt: skip
            supervision = {
                "id": name, "recording_id": name, "start": 0, "duration": seconds, "channel": 0, "text": "一",
                "language": part.group,
            }  # fmt: skip
            cut = {
                "id": name, "start": 0, "duration": seconds, "channel": 0, "supervisions": [supervision],
                "features": features, "type": "MonoCut",
            }  # fmt: skip
            lines[part.corpus].append(json.dumps(cut, ensure_ascii=False) + "\n")
    for corpus, cuts in lines.items():
        random.shuffle(cuts)
        (DIRECTORY / corpus).mkdir(exist_ok=True)
        with gzip.open(DIRECTORY / corpus / "cuts_train.jsonl.gz", "wt", 1, encoding="utf-8") as stream:
            stream.writelines(cuts)


def complete_lines(file: Path) -> list[str]:
    """Lines of a record that were written to their end."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return text.split("\n")[:-1]


def record_batches(file: Path, batches: int) -> None:
    """Append a line for each batch: epoch, number, seconds by corpus and group, ids of the cuts."""
    done = complete_lines(file)
    file.write_text("".join(line + "\n" for line in done), encoding="utf-8")
    epoch, first = 1, 0
    if done:
        epoch, last = map(int, done[-1].split()[:2])
        first = last + 1
    data = training_data()
    count = len(done)
    with file.open("a", encoding="utf-8") as stream:
        while count < batches:
            sampler = data._epochs  # what the loader of TrainingData.epoch reads from
            sampler.epoch, sampler.first_batch = epoch, first
            for (_, number), lines in sampler:
                cuts = [json.loads(line.line) for line in lines]
                seconds: Counter[str] = Counter()
                for cut in cuts:
                    seconds[cut["id"].rpartition("-")[0]] += cut["duration"]
                cells = " ".join(f"{cell} {amount}" for cell, amount in sorted(seconds.items()))
                names = " ".join(cut["id"] for cut in cuts)
                stream.write(f"{epoch} {number} {cells} | {names}\n")
                stream.flush()
                count += 1
                if count == batches:
                    return
            epoch, first = epoch + 1, 0


def command(file: Path, batches: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.mixing", "--record", str(file), "--batches", str(batches)]


def run(file: Path, batches: int) -> None:
    subprocess.run(command(file, batches), check=True)


def kill_after(file: Path, batches: int, count: int) -> None:
    """Start recording, and kill the process once so many batches are written."""
    with subprocess.Popen(command(file, batches)) as process:
        while len(complete_lines(file)) < count:
            if process.poll() is not None:
                raise RuntimeError(f"the process ended with {process.returncode} before it was killed")
            time.sleep(0.2)
        process.send_signal(signal.SIGKILL)


def shares_of(file: Path) -> dict[str, float]:
    """Share of the seconds by ``corpus-group``."""
    seconds: Counter[str] = Counter()
    for line in complete_lines(file):
        cells = line.partition(" | ")[0].split()[2:]
        for cell, amount in zip(cells[::2], cells[1::2], strict=True):
            seconds[cell] += int(amount)
    return {cell: amount / seconds.total() for cell, amount in seconds.items()}


def shares_asked() -> dict[str, float]:
    """What the settings ask for, from the seconds of each part."""
    seconds: dict[str, dict[str, float]] = {part.corpus: {} for part in PARTS}
    for corpus, groups in seconds.items():
        with gzip.open(DIRECTORY / corpus / "cuts_train.jsonl.gz", "rt", encoding="utf-8") as stream:
            for cut in map(json.loads, stream):
                group = cut["supervisions"][0]["language"]
                groups[group] = groups.get(group, 0.0) + cut["duration"]
    uses = uses_per_epoch(list(seconds.values()), mixing())
    amounts = {
        f"{corpus}-{group}": amount * often[group]
        for (corpus, groups), often in zip(seconds.items(), uses, strict=True)
        for group, amount in groups.items()
    }
    return {cell: amount / sum(amounts.values()) for cell, amount in amounts.items()}


def report(
    asked: dict[str, float], results: dict[str, dict[str, float]], equal: bool, batches: int, output: Path
) -> None:
    """Print the table of shares, with those of the groups below, and write all to a JSON file."""
    table = Table("corpus", "group", "asked %", *(f"{name} %" for name in results))
    groups = dict.fromkeys(part.group for part in PARTS)
    for part in PARTS:
        cell = f"{part.corpus}-{part.group}"
        measured = (f"{100 * shares[cell]:.2f}" for shares in results.values())
        table.add_row(part.corpus, part.group, f"{100 * asked[cell]:.2f}", *measured)
    for group in groups:
        values = [
            sum(share for cell, share in shares.items() if cell.endswith(f"-{group}"))
            for shares in (asked, *results.values())
        ]
        table.add_row("all", group, *(f"{100 * value:.2f}" for value in values))
    Console().print(table)
    Console().print(f"{batches:,} batches; the resumed run has the same batches: {'yes' if equal else 'NO'}")
    content = {"batches": batches, "asked": asked, "measured": results, "same batches": equal}
    write_json(output, content)


if __name__ == "__main__":
    main()
