"""Time and memory of a training step (forward, backward, optimiser), optionally compared with icefall's.

    python -m benchmarks.training --model large --icefall ~/icefall
    python -m benchmarks.training --model tiny --utterances 13 --seconds 3 --tokens 10 --icefall ~/icefall

Every case runs in a process of its own, because memory, the treatment of denormal numbers and the reuse of
freed memory by the C library are properties of a process. The processes take turns; a waiting process
computes nothing. "icefall tuned" is icefall with the process settings of this package's training: denormal
numbers are flushed to zero, and freed memory is kept.
Losses are CTC and attention decoder (where the model has one): icefall's transducer loss needs k2.
"""

import importlib.util
import math
import multiprocessing
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from benchmarks.harness import MEBIBYTE, Timing, arguments, report, status_kib, take_turns
from benchmarks.icefall_model import IcefallModel
from zipformer.device import keep_freed_memory
from zipformer.model import AsrModel
from zipformer.model_config import AsrModelConfig, config_from_dict
from zipformer.optim.scaled_adam import ScaledAdam
from zipformer.training.environment import prepare_cpu

CONF = Path(__file__).resolve().parents[1] / "conf" / "model"
LEARNING_RATE = 0.0045
WEIGHTS = {"ctc": 0.2, "attention": 0.8}
# Batch counts to measure at: the first batch, and one after nearly all schedules have ended.
MOMENTS = {"at the start": 0.0, "late": 20000.0}
NAMES = ("fangyan", "fangyan checkpointing", "icefall", "icefall tuned")
Losses = Callable[[], dict[str, Tensor]]


@dataclass(frozen=True)
class Case:
    """Model and settings of the training in one process.

    Attributes:
        model: name of a file in ``conf/model``.
        icefall: folder of an icefall checkout, to train icefall's model of the same sizes; None trains this
            package's model.
        checkpoint: recompute activations in backward.
        compute_dtype: dtype of autocast, on CUDA.
        tuned: flush denormals to zero and keep freed memory, as this package's training does.
    """

    model: str
    clock: float
    utterances: int
    seconds: float
    tokens: int
    vocab_size: int
    device: str
    threads: int
    icefall: Path | None = None
    checkpoint: bool = False
    compute_dtype: torch.dtype | None = None
    tuned: bool = True


class Trainee:
    """A process that makes one training step on request."""

    def __init__(self, case: Case) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(case, other), daemon=True)
        self._process.start()
        other.close()

    def step(self) -> None:
        """Forward, backward and an optimiser step on the case's batch.

        Raises:
            EOFError: the process has died; its traceback is on the terminal.
        """
        self._pipe.send("step")
        self._pipe.recv()

    def finish(self) -> tuple[float, float]:
        """End the process; returns the peak memory of its steps in MiB, with the weights, and CPU seconds.

        The CPU seconds are those of the cheapest step, summed over all threads. On a shared machine they are
        a better measure of the work of one thread than elapsed time.
        """
        self._pipe.send("finish")
        mebibytes, cpu_seconds = self._pipe.recv()
        self._process.join()
        return mebibytes, cpu_seconds


def _serve(case: Case, pipe: Connection) -> None:
    if case.tuned:
        prepare_cpu(case.threads)
        if case.device == "cpu":
            keep_freed_memory()
    elif case.threads:
        torch.set_num_threads(case.threads)
    before = status_kib("VmRSS")
    step = _training_step(case)
    cpu_seconds = math.inf
    while pipe.recv() == "step":
        begin = time.process_time()
        step()
        if case.device == "cuda":
            torch.cuda.synchronize()
        cpu_seconds = min(cpu_seconds, time.process_time() - begin)
        pipe.send(None)
    if case.device == "cuda":
        mebibytes = torch.cuda.max_memory_allocated() / MEBIBYTE
    else:
        mebibytes = (status_kib("VmHWM") - before) / 1024
    pipe.send((mebibytes, cpu_seconds))


def _training_step(case: Case) -> Callable[[], None]:
    torch.manual_seed(0)
    device = torch.device(case.device)
    frames = round(100 * case.seconds)
    features = torch.randn(case.utterances, frames, 80)
    lengths = torch.full((case.utterances,), frames)
    tokens = torch.randint(3, case.vocab_size, (case.utterances, case.tokens)).tolist()
    config = model_config(case.model, case.vocab_size)
    optimizer: torch.optim.Optimizer
    losses: Losses
    if case.icefall is not None:
        peer = IcefallModel(case.icefall, config).to(device).train()
        peer.set_batch_count(case.clock)
        optimizer = peer.optimizer(LEARNING_RATE)

        def losses() -> dict[str, Tensor]:
            return peer(features.to(device), lengths.to(device), tokens)
    else:
        model = AsrModel(config).to(device).train()
        model.clock.batch = case.clock
        model.encoder.checkpointing = case.checkpoint
        optimizer = ScaledAdam(model.parameters(), lr=LEARNING_RATE, clipping_scale=2.0)

        def losses() -> dict[str, Tensor]:
            return model.losses(features.to(device), lengths.to(device), tokens)

    def step() -> None:
        with torch.autocast(device.type, case.compute_dtype, enabled=case.compute_dtype is not None):
            values = losses()
        torch.stack([WEIGHTS[name] * value for name, value in values.items()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def model_config(name: str, vocab_size: int) -> AsrModelConfig:
    """Model sizes from a file in ``conf/model``, without transducer."""
    content = OmegaConf.merge(OmegaConf.structured(AsrModelConfig), OmegaConf.load(CONF / f"{name}.yaml"))
    plain: Any = OmegaConf.to_container(content)
    return config_from_dict({**plain, "vocab_size": vocab_size, "transducer": False})


def compare(base: Case, icefall: Path | None, names: Collection[str], *, rounds: int) -> list[Timing]:
    """Table rows for one point in training."""
    ours = replace(base, compute_dtype=torch.bfloat16 if base.device == "cuda" else None)
    peer = replace(ours, icefall=icefall)
    every = dict(
        zip(NAMES, (ours, replace(ours, checkpoint=True), replace(peer, tuned=False), peer), strict=True)
    )
    cases = {name: every[name] for name in names if icefall is not None or not name.startswith("icefall")}
    trainees = {name: Trainee(case) for name, case in cases.items()}
    timings = take_turns({name: trainee.step for name, trainee in trainees.items()}, rounds=rounds)
    audio = base.utterances * base.seconds
    rows = []
    for name, timing in timings.items():
        mebibytes, cpu_seconds = trainees[name].finish()
        note = f"{audio / timing.minimum:.1f} audio-s/s, {cpu_seconds:.1f} CPU s"
        if cases[name].icefall is not None and importlib.util.find_spec("k2") is None:
            note += ", stand-in for k2"
        rows.append(replace(timing, mebibytes=mebibytes, note=note))
    if icefall is None:
        rows.append(Timing("icefall", note="needs --icefall DIR, a checkout"))
    return rows


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], "training.json")
    parser.add_argument("--model", default="large", choices=sorted(path.stem for path in CONF.glob("*.yaml")))
    parser.add_argument("--icefall", type=Path, help="checkout of github.com/k2-fsa/icefall to compare with")
    parser.add_argument("--utterances", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0, help="of every utterance")
    parser.add_argument("--tokens", type=int, default=40, help="of every transcript")
    parser.add_argument("--vocab-size", type=int, default=500)
    parser.add_argument(
        "--cases", nargs="*", choices=NAMES, default=NAMES, help="with model large, each takes 5 GB of memory"
    )
    parser.add_argument("--moments", nargs="*", choices=list(MOMENTS), default=list(MOMENTS))
    options = parser.parse_args()
    for moment in options.moments:
        base = Case(
            model=options.model,
            clock=MOMENTS[moment],
            utterances=options.utterances,
            seconds=options.seconds,
            tokens=options.tokens,
            vocab_size=options.vocab_size,
            device=options.device,
            threads=options.threads,
        )
        report(
            f"training step of {options.model} {moment} of training, {options.device}",
            compare(base, options.icefall, options.cases, rounds=options.rounds),
            baseline="fangyan" if options.icefall is None else "icefall tuned",
            shapes={
                "utterances": options.utterances,
                "seconds": options.seconds,
                "vocabulary": options.vocab_size,
            },
            output=options.output,
        )


if __name__ == "__main__":
    main()
