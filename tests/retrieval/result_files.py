"""A model directory with results, as the evaluation scripts leave it, from made-up numbers."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
from dataset_files import DATA, results_of
from planted import write_store

from retrieval.figures.style import save_png
from retrieval.protocol.figure import recall_heat_map
from retrieval.protocol.recall import retrieve
from retrieval.protocol.sites import sites_of
from retrieval.protocol.tables import RecallTable, tabulate, write_recall_json
from zipformer.decoding.recognise import DATA_KEY
from zipformer.model_dir import WEIGHTS_FILE

GROUPS = ("cmn", "gan", "hak", "mandarin", "nan", "wuu", "yue")
HELD_OUT = "gan"
WEIGHTS = hashlib.sha256(b"weights").hexdigest()
TRAINED = [group for group in GROUPS if group != HELD_OUT]


def write_results(exp_dir: Path, *, sites: int = 3, sentences: int = 50, methods=("greedy", "beam")) -> Path:
    """Everything that the report reads; returns the model directory."""
    model_dir = exp_dir / "averaged"
    model_dir.mkdir(parents=True)
    (model_dir / WEIGHTS_FILE).write_bytes(b"weights")
    write_json(model_dir / "provenance.json", {"git_revision": "0123abcd", "trained_dialects": TRAINED})
    write_json(model_dir / "config.json", {"vocab_size": 500, "encoder": {"encoder_dim": [96, 128]}})
    results = results_of(model_dir)
    for number, method in enumerate(methods):
        write_decoding(results / f"decode-test-{method}", method, better=number)
    for embedder, noise in (("zipformer", 1.0), ("mfcc", 6.0)):
        table = recall_table(exp_dir / f"store-{embedder}", sites=sites, sentences=sentences, noise=noise)
        folder = results / ("retrieval-test" + ("" if embedder == "zipformer" else "-mfcc"))
        folder.mkdir(parents=True)
        header: dict[str, object] = {
            "split": "test",
            "model_dir": str(model_dir),
            "embedder": embedder,
            "settings": {},
        }
        header["embeddings"] = {"embedder": embedder, "weights": None, "dataset": DATA.record()}
        write_recall_json(folder / "recall.json", table, header)
        save_png(recall_heat_map(table), folder / "recall.png")
    write_metrics(exp_dir / "metrics.jsonl")
    return model_dir


def recall_table(directory: Path, *, sites: int, sentences: int, noise: float) -> RecallTable:
    """Retrieval among noisy copies of the same sentences; the held-out group is noisier."""
    random = np.random.default_rng(0)
    content = random.standard_normal((sentences, 12, 24))
    stored = {}
    for index, group in enumerate(GROUPS):
        strength = noise * (1.6 if group == HELD_OUT else 1 + 0.1 * index)
        for site in range(sites):
            noisy = content + strength * random.standard_normal(content.shape)
            stored[group, f"{group}{site + 1}"] = {f"{n:03}": frames for n, frames in enumerate(noisy)}
    store = write_store(directory, stored)
    outcome = retrieve(store, sites_of(store), within_groups=True)
    return tabulate(outcome, trained_groups=TRAINED, resamples=200)


def write_decoding(directory: Path, method: str, *, split: str = "test", better: int = 0) -> None:
    """``cer.json``, ``hypotheses.jsonl`` and ``confusions.csv`` of one method."""
    directory.mkdir(parents=True)
    rows = []
    for level, names in (("overall", ["overall"]), ("dialect", GROUPS), ("site", [f"{g}1" for g in GROUPS])):
        for index, name in enumerate(names):
            errors = 12 + 3 * index + (150 if HELD_OUT in name else 0) - 2 * better
            rows.append(
                {
                    "level": level,
                    "name": name,
                    "group": "" if level == "overall" else GROUPS[index],
                    "utterances": 150,
                    "reference_characters": 1234,
                    "substitutions": errors - 3,
                    "deletions": 2,
                    "insertions": 1,
                    "cer": 100 * errors / 1234,
                    "low": 80 * errors / 1234,
                    "high": 125 * errors / 1234,
                    "resampled": "sentences",
                }
            )
    write_json(directory / "cer.json", {"method": method, "split": split, "model_dir": "m", "rows": rows})
    write_json(directory / "decode.json", {"method": method, WEIGHTS_FILE: WEIGHTS, DATA_KEY: DATA.digest})
    with (directory / "hypotheses.jsonl").open("w", encoding="utf-8") as file:
        for index, group in enumerate(GROUPS):
            for n in range(4):
                line = {
                    "id": f"{group}-{n}",
                    "dialect": group,
                    "subdialect": None,
                    "site": f"{group}1",
                    "sentence_id": f"{n:03}",
                    "reference": "今日天氣好",
                    "hypothesis": "今日天汽好<" if (n + index) % 3 == 0 else "今日天氣好",
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    with (directory / "confusions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["dialect", "kind", "reference", "hypothesis", "count"])
        for n in range(20):
            writer.writerow(["", "substitution", chr(0x4E00 + n), chr(0x4E80 + n), 60 - n])
            writer.writerow(["yue", "substitution", chr(0x4E00 + n), chr(0x4E80 + n), 5])
        writer.writerow(["", "deletion", "係", "", 9])
        writer.writerow(["", "insertion", "", "嘅", 8])


def write_metrics(path: Path) -> None:
    """600 steps with six validations."""
    lines = []
    for step in range(10, 601, 10):
        decay = float(np.exp(-step / 150))
        lines.append(
            {
                "kind": "train",
                "step": step,
                "epoch": step // 100,
                "loss": 0.1 + 2 * decay,
                "simple": 0.2 + decay,
                "pruned": 0.05 + decay,
                "ctc": 0.1 + 3 * decay,
                "attention": None,
                "lr": 0.045 * min(1, step / 100) / (1 + step / 300) ** 0.5,
                "audio_seconds_per_second": 95.0,
                "data_wait_share": 0.01,
                "elapsed_seconds": 1.5 * step,
            }
        )
        if step % 100 == 0:
            cer = {group: 100 * float(np.exp(-step / (120 + 20 * n))) for n, group in enumerate(TRAINED)}
            cer["overall"] = sum(cer.values()) / len(cer)
            lines.append({"kind": "valid", "step": step, "epoch": step // 100, "cer": cer})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
