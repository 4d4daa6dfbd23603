"""Start-up with and without an index, memory and resumption of training data on a long manifest of cuts.

    python -m benchmarks.manifest                  # 5 million cuts, about 5 GB of text, 10 minutes
    python -m benchmarks.manifest --cuts 1000000
    python -m benchmarks.manifest --cuts 50000000  # 5 GB of disk, an hour

The manifest is written under exp/benchmarks and removed afterwards. Its cuts share a few feature matrices, so
that it takes no more disk than its text. The second start maps an index from about 200,000 cuts on: below,
the manifest is smaller than what gets one.
"""

import argparse
import gzip
import json
import multiprocessing
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from lhotse import AudioSource, CutSet, LilcomChunkyWriter, MonoCut, Recording, SupervisionSegment
from lhotse.features import Features
from rich.console import Console
from rich.progress import track

from benchmarks.harness import Timing, report
from data_prep.tokens import train_token_model, write_tokens
from zipformer.data.batches import STATE_INTERVAL, SamplerState, TrainingData
from zipformer.data.selection import DataConfig, select_utterances
from zipformer.data.tokenizer import Tokenizer

DIRECTORY = Path("exp/benchmarks/manifest")
CHARACTERS = [chr(0x4E00 + n) for n in range(3000)]
MATRICES = 300  # feature matrices that the cuts share
PLAIN_CUTS = 20_000  # cuts on which the plain way is timed
WRITTEN_CUTS = 5_000_000  # a longer manifest repeats these
MOVED_BATCHES = 1000  # after which the state is taken that stands for later ones
CPU_NOTE = "{:.2f} s of CPU in the main process"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuts", type=int, default=5_000_000)
    parser.add_argument("--workers", type=int, default=1, help="processes that load features")
    parser.add_argument("--batches", type=int, default=1000, help="batches over which memory is measured")
    parser.add_argument("--output", type=Path, default=Path("exp/benchmarks/manifest.json"))
    options = parser.parse_args()
    try:
        begin = time.perf_counter()
        write_corpus(DIRECTORY, options.cuts)
        Console().print(f"{options.cuts:,} cuts written in {time.perf_counter() - begin:.0f} s")
        # A process of its own, so that its memory can be measured; no daemon, because it may start workers.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            arguments = (DIRECTORY, options.cuts, options.workers, options.batches)
            cases = pool.submit(measure, *arguments).result()
    finally:
        shutil.rmtree(DIRECTORY, ignore_errors=True)
    report(
        "Training data",
        cases,
        baseline="",
        shapes={"cuts": options.cuts, "workers": options.workers},
        output=options.output,
    )


def write_corpus(directory: Path, count: int) -> None:
    """Write ``cuts_train.jsonl.gz`` with ``count`` cuts, the features that they share, and tokens."""
    directory.mkdir(parents=True, exist_ok=True)
    write_tokens(train_token_model(["".join(CHARACTERS)]), directory / "tokens")
    random = np.random.default_rng(0)
    templates = [json.dumps(cut.to_dict(), ensure_ascii=False) for cut in shared_cuts(directory, random)]
    parts = [template.split("TEXT") for template in templates]
    text = "".join(random.choice(CHARACTERS, 100_000))
    with gzip.open(directory / "cuts_train.jsonl.gz", "wt", compresslevel=1, encoding="utf-8") as file:
        once = min(count, WRITTEN_CUTS)
        for start in track(range(0, once, 10_000), description="writing", transient=True):
            lines = []
            for n in range(start, min(start + 10_000, once)):
                before, after = parts[n % MATRICES]
                place = n * 37 % 99_000
                words = text[place : place + 8 + n % 7]
                lines.append(f"{before.replace('ID', str(n))}{words}{after}\n")
            file.write("".join(lines))
    if count > once:
        written = (directory / "cuts_train.jsonl.gz").read_bytes()
        with (directory / "cuts_train.jsonl.gz").open("ab") as copies:
            for _ in range(count // once - 1):
                copies.write(written)


def shared_cuts(directory: Path, random: np.random.Generator) -> Iterator[MonoCut]:
    """Cuts of 2 to 10 seconds with stored features; copies replace the placeholders ID and TEXT."""
    with LilcomChunkyWriter(str(directory / "feats")) as storage:
        for _ in range(MATRICES):
            frames = int(random.integers(200, 1000))
            matrix = random.normal(-8, 3, (frames, 80)).astype(np.float32)
            features = Features(
                type="kaldi-fbank",
                num_frames=frames,
                num_features=80,
                frame_shift=0.01,
                sampling_rate=16000,
                start=0.0,
                duration=frames / 100,
                storage_type=storage.name,
                storage_path="feats.lca",
                storage_key=storage.write("", matrix),
                recording_id="shared",
                channels=0,
            )
            supervision = SupervisionSegment(
                "ID",
                "shared",
                0.0,
                frames / 100,
                text="TEXT",
                language="yue",
                custom={"subdialect": "yue-guangzhou", "site": "guangzhou", "sentence_id": "0001"},
            )
            source = AudioSource("file", [0], "/corpora/yue/guangzhou/ID.flac")
            recording = Recording("ID", [source], 16000, 160 * frames, frames / 100)
            yield MonoCut("ID", 0.0, frames / 100, 0, [supervision], features, recording)


def measure(directory: Path, count: int, workers: int, batches: int) -> list[Timing]:
    """Time to the first batch, memory over many batches, and resuming in the middle of an epoch."""
    manifest, tokenizer = directory / "cuts_train.jsonl.gz", Tokenizer.load(directory / "tokens")
    config = DataConfig(max_duration=200.0, num_workers=workers)
    cases = []

    begin = time.perf_counter()
    plain = CutSet(cut for cut, _ in zip(CutSet.from_jsonl_lazy(manifest), range(PLAIN_CUTS), strict=False))
    select_utterances(plain, config, tokenizer, repeats_need_blank=True)
    seconds = (time.perf_counter() - begin) / PLAIN_CUTS * count
    cases.append(Timing("selection by whole cuts", [seconds], note=f"{PLAIN_CUTS:,} cuts, times all cuts"))

    with measured("first start, which selects and writes the index", cases):
        data = TrainingData(manifest, tokenizer, config)
    with measured("from there to the first batch", cases):
        epoch = data.epoch(1)
        next(epoch)

    memory = []
    begin = time.perf_counter()
    audio = 0.0
    for _ in range(batches):
        audio += next(epoch).seconds
        memory.append(resident_mebibytes())
    seconds = time.perf_counter() - begin
    note = f"{audio / seconds:,.0f} s of audio per second; MiB after a tenth {memory[batches // 10]:.0f}"
    cases.append(Timing(f"{batches} batches", [seconds], max(memory), f"{note}, at the end {memory[-1]:.0f}"))
    del epoch

    with measured("second start", cases):
        data = TrainingData(manifest, tokenizer, config)
    for share, state, sampling in states_within_epoch(data, config.max_duration):
        name = f"at {share:.0%} of the epoch"
        if sampling is not None:
            cases.append(replace(sampling, name=f"sampling from the start, {name}"))
        data = TrainingData(manifest, tokenizer, config)
        with measured(f"resuming {name}", cases):
            data.restore(state)
            next(data.epoch(1, first_batch=state["batch"] + STATE_INTERVAL - 1))
    return cases


def states_within_epoch(
    data: TrainingData, max_duration: float
) -> Iterator[tuple[float, SamplerState, Timing | None]]:
    """States at 10, 50 and 90 % of the epoch, and the time that it takes to get there without them.

    A long epoch is not sampled that far: an early state is moved there instead, which is as large and takes
    as long to restore.
    """
    walked = data.selection.utterances <= WRITTEN_CUTS
    batches = data.sampler.batches(1)
    wall = cpu = 0.0
    sampled = 0
    for share in (0.1, 0.5, 0.9):
        place = int(share * data.selection.seconds / max_duration)
        begin, processor = time.perf_counter(), time.process_time()
        while sampled < (place if walked else MOVED_BATCHES):
            next(batches)
            sampled += 1
        wall += time.perf_counter() - begin
        cpu += time.process_time() - processor
        state = batches.state()
        if not walked:
            line = state["reader"]["next"][0][1]
            moved = int(share * data.selection.utterances) - line
            state["cuts"][:, 1] += moved
            state["reader"]["next"] = [(0, line + moved)]
        timing = Timing("", [wall], note=CPU_NOTE.format(cpu)) if walked else None
        yield share, {"epoch": 1, "batch": place, "sampler": state}, timing


@contextmanager
def measured(name: str, cases: list[Timing]) -> Iterator[None]:
    """Append the wall seconds and memory of what runs within; the note has its CPU seconds."""
    begin, processor = time.perf_counter(), time.process_time()
    yield
    seconds = time.perf_counter() - begin
    note = CPU_NOTE.format(time.process_time() - processor)
    cases.append(Timing(name, [seconds], resident_mebibytes(), note))


def resident_mebibytes() -> float:
    """Memory of this process and of its workers, in MiB."""
    processes = [multiprocessing.current_process(), *multiprocessing.active_children()]
    total = 0
    for process in processes:
        status = Path(f"/proc/{process.pid}/status").read_text()
        total += next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return total / 1024


if __name__ == "__main__":
    main()
