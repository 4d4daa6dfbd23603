"""Two gloo processes, started as torchrun starts them, and a batch for them to share."""

import os
import socket
import sys
from pathlib import Path

import torch
from torch import multiprocessing

from zipformer.data.batches import Batch, evaluation_batches
from zipformer.data.cuts import read_cuts
from zipformer.data.tokenizer import Tokenizer


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def in_processes(function: object, *arguments: object) -> None:
    """Run ``function(rank, *arguments)`` in two processes that World.join joins."""
    multiprocessing.start_processes(
        _started, (function, free_port(), *arguments), nprocs=2, start_method="spawn"
    )


def _started(rank: int, function: object, port: int, *arguments: object) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    function(rank, *arguments)  # type: ignore[operator]
    sys.stdout.flush()
    # Without the end of the interpreter: a thread of gloo that releases the last tensor just then aborts the
    # process ("terminate called without an active exception"), about once in some hundred runs.
    os._exit(0)


def whole_batch(corpus: Path) -> Batch:
    cuts = read_cuts(corpus / "cuts_train.jsonl.gz")
    return next(
        evaluation_batches(cuts, margin=20, max_duration=15, tokenizer=Tokenizer.load(corpus / "tokens"))
    )
