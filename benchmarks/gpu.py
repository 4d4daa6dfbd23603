"""CUDA kernels compared with plain PyTorch, torchaudio, and a bare matrix product or copy.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --only lattice seqsim

Without a GPU it lists what it would measure.
"""

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
import torchaudio
from omegaconf import OmegaConf
from rich.console import Console
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import MEBIBYTE, Timing, arguments, report, take_turns
from retrieval.similarity.seqsim import precision_and_recall
from zipformer.device import plain_pytorch
from zipformer.layers.linear import activation_linear
from zipformer.layers.norm import BiasNorm
from zipformer.layers.schedule import Clock
from zipformer.layers.swoosh import SWOOSH_L, SWOOSH_R, Swoosh
from zipformer.losses import lattice
from zipformer.losses.ctc import ctc_loss
from zipformer.losses.rnnt import gather_band, prune_ranges, pruned_rnnt_loss, smoothed_rnnt_loss
from zipformer.model import AsrModel
from zipformer.model_config import AsrModelConfig, config_from_dict
from zipformer.optim.scaled_adam import ScaledAdam

CONF = Path(__file__).resolve().parents[1] / "conf" / "model"
YUBAO_UTTERANCES, YUBAO_FRAMES, DIMENSION = 3_499, 262_000, 768
# Peak of dense bfloat16 matrix products, without sparsity.
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
LOSS_WEIGHTS = {"simple": 0.5, "pruned": 1.0, "ctc": 0.2, "attention": 0.8}


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0], "gpu.json")
    parser.add_argument("--only", nargs="+", choices=list(COMPARISONS), default=list(COMPARISONS))
    parser.set_defaults(device="cuda")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        console = Console()
        console.print("No CUDA device, so nothing is measured. On one, this would be:")
        for name in options.only:
            console.print(f"  {name}: {(COMPARISONS[name].__doc__ or '').splitlines()[0]}", soft_wrap=True)
        return
    for name in options.only:
        COMPARISONS[name](options)


def compare_lattice(options: Namespace) -> None:
    """Sums and occupations of the full lattice and of a band: kernel, plain PyTorch."""
    from zipformer.losses import lattice_cuda

    for N, T, U, R in ((8, 250, 40, 5), (60, 250, 60, 5), (16, 1000, 300, 5)):
        lengths = torch.full((N,), T, device="cuda"), torch.full((N,), U, device="cuda")
        label, blank = torch.randn(N, U, T, device="cuda") - 5, torch.randn(N, U + 1, T, device="cuda") - 1
        starts = ((U + 1 - R) * torch.arange(T, device="cuda") // (T - 1)).expand(N, T)
        band = torch.randn(2, N, T, R, device="cuda") - 3
        for title, call in (
            ("full lattice", lambda module: module.full_occupation(label, blank, *lengths)),  # noqa: B023
            ("band", lambda module: module.band_occupation(*band, starts, *lengths, U)),  # noqa: B023
        ):
            timings = take_turns(
                {"plain": lambda: call(lattice), "kernel": lambda: call(lattice_cuda)},  # noqa: B023
                rounds=options.rounds,
                device="cuda",
            )
            report(
                f"sums over the {title}, N={N} T={T} U={U}",
                list(timings.values()),
                baseline="plain",
                shapes={"N": N, "T": T, "U": U, "R": R},
                output=options.output,
            )


def compare_transducer(options: Namespace) -> None:
    """Transducer loss with backward: smoothed and pruned, by kernels and in plain PyTorch; torchaudio's."""
    N, T, U, R, J = 8, 250, 40, 5, 512
    for V in (500, 5000):
        am, lm = (torch.randn(N, t, V, device="cuda", requires_grad=True) for t in (T, U + 1))
        encoder, predictor = (torch.randn(N, t, J, device="cuda", requires_grad=True) for t in (T, U + 1))
        joiner = nn.Linear(J, V, device="cuda")
        symbols = torch.randint(1, V, (N, U), device="cuda")
        lengths = torch.full((N,), T, device="cuda"), torch.full((N,), U, device="cuda")

        def pruned() -> None:
            simple, occupations = smoothed_rnnt_loss(am, lm, symbols, *lengths, lm_scale=0.25, am_scale=0.0)  # noqa: B023
            ranges = prune_ranges(*occupations, *lengths, R)  # noqa: B023
            hidden = torch.tanh(encoder.unsqueeze(2) + gather_band(predictor, ranges))  # noqa: B023
            loss = pruned_rnnt_loss(joiner(hidden), symbols, ranges, *lengths)  # noqa: B023
            (simple.sum() + loss.sum()).backward()

        def full() -> None:
            logits = joiner(torch.tanh(encoder.unsqueeze(2) + predictor.unsqueeze(1)))  # noqa: B023
            torchaudio.functional.rnnt_loss(
                logits,
                symbols.int(),  # noqa: B023
                *(length.int() for length in lengths),  # noqa: B023
                blank=0,
                reduction="sum",
            ).backward()

        cases = {"plain": in_plain_pytorch(pruned), "kernels": pruned}
        missing = []
        try:
            full()
            cases["torchaudio, all of the lattice"] = full
        except (AttributeError, NotImplementedError, RuntimeError) as error:
            missing = [Timing("torchaudio, all of the lattice", note=str(error).splitlines()[0])]
        timings = [with_memory(timing, cases[name]) for name, timing in turns(cases, options).items()]
        report(
            f"transducer loss, V={V}",
            timings + missing,
            baseline="torchaudio, all of the lattice" if not missing else "plain",
            shapes={"N": N, "T": T, "U": U, "R": R, "V": V},
            output=options.output,
        )


def compare_ctc(options: Namespace) -> None:
    """CTC loss with backward: kernels, PyTorch."""
    for N, T, U, V in ((60, 250, 60, 500), (60, 250, 60, 5000)):
        scores = torch.randn(N, T, V, device="cuda", requires_grad=True)
        symbols = torch.randint(1, V, (N, U), device="cuda")
        lengths = torch.full((N,), T, device="cuda"), torch.full((N,), U, device="cuda")

        def loss() -> None:
            log_probs = scores.log_softmax(2)  # noqa: B023
            ctc_loss(log_probs, symbols, *lengths, blank=0).backward()  # noqa: B023

        cases = {"PyTorch": in_plain_pytorch(loss), "kernels": loss}
        report(
            f"CTC loss, V={V}",
            [with_memory(timing, cases[name]) for name, timing in turns(cases, options).items()],
            baseline="PyTorch",
            shapes={"N": N, "T": T, "U": U, "V": V},
            output=options.output,
        )


def compare_layers(options: Namespace) -> None:
    """Swoosh with dropout and a linear layer, and BiasNorm, with backward: kernel, plain PyTorch, a copy."""
    N, T, C = 60, 500, 1536
    x = torch.randn(N, T, C, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    # With one output, the linear layer costs little, so that the activation dominates the time.
    weight = torch.randn(1, C, device="cuda", dtype=torch.bfloat16)
    mask = (torch.rand(N, 1, C, device="cuda") > 0.1).to(x.dtype)
    norm = BiasNorm(C, clock=Clock()).cuda().eval()

    def activate(swoosh: Swoosh) -> Callable[[], object]:
        return lambda: torch.autograd.grad(activation_linear(x, weight, None, swoosh, mask).sum(), x)

    calls: dict[str, Callable[[], object]] = {
        "SwooshL": activate(SWOOSH_L),
        "SwooshR": activate(SWOOSH_R),
        "BiasNorm": lambda: torch.autograd.grad(norm(x).sum(), (x, norm.bias, norm.log_scale)),
    }
    for name, call in calls.items():
        cases = {"plain": in_plain_pytorch(call), "kernel": call, "copy of x": x.detach().clone}
        timings = [with_memory(timing, cases[case]) for case, timing in turns(cases, options).items()]
        report(
            f"{name}, forward and backward",
            timings,
            baseline="plain",
            shapes={"N": N, "T": T, "C": C, "type": "bfloat16"},
            output=options.output,
        )


def compare_seqsim(options: Namespace) -> None:
    """SeqSim of a synthetic YuBao (3,499 utterances, 262,000 frames of 768): kernel, bare matrix product."""
    from retrieval.similarity.seqsim_cuda import packed_precision_and_recall

    lengths = draw_lengths(YUBAO_UTTERANCES, YUBAO_FRAMES)
    frames = torch.randn(YUBAO_FRAMES, DIMENSION, device="cuda", dtype=torch.float16)
    columns = frames.T
    step = 1 << 14
    product = torch.empty(step, YUBAO_FRAMES, device="cuda", dtype=torch.float16)

    def multiply(*, half: bool) -> None:
        for start in range(0, YUBAO_FRAMES, step):
            rows = frames[start : start + step]
            first = start if half else 0
            torch.mm(rows, columns[:, first:], out=product[: len(rows), first:])

    cases = {
        "matrix product": lambda: multiply(half=False),
        "kernel, x and y": lambda: packed_precision_and_recall(frames, lengths, frames, lengths),
        "matrix product, half of it": lambda: multiply(half=True),
        "kernel, x with itself": lambda: packed_precision_and_recall(frames, lengths),
    }
    shapes = {"utterances": YUBAO_UTTERANCES, "frames": YUBAO_FRAMES, "D": DIMENSION, "type": "float16"}
    timings = [with_memory(timing, cases[name]) for name, timing in turns(cases, options).items()]
    report("SeqSim of all of YuBao", timings, baseline="matrix product", shapes=shapes, output=options.output)

    few = draw_lengths(200, 200 * 75)
    utterances = frames[: int(few.sum())].split(few.tolist())
    padded = nn.utils.rnn.pad_sequence(list(utterances), batch_first=True)
    few_frames = frames[: int(few.sum())]
    units = [nn.functional.normalize(x.float(), dim=1) for x in utterances]

    def loop() -> None:
        for x in units:
            for y in units:
                cosines = x @ y.T
                cosines.amax(dim=1).mean()
                cosines.amax(dim=0).mean()

    cases = {
        "loop over pairs": loop,
        "plain": in_plain_pytorch(lambda: precision_and_recall(padded, few, padded, few)),
        "kernel": lambda: packed_precision_and_recall(few_frames, few, few_frames, few),
    }
    report(
        "SeqSim of 200 utterances with one another",
        list(turns(cases, options).values()),
        baseline="loop over pairs",
        shapes={"utterances": 200, "frames": int(few.sum()), "D": DIMENSION},
        output=options.output,
    )


def compare_training(options: Namespace) -> None:
    """Training step of the large model in bfloat16, 60 and 120 utterances of 10 s: kernels, plain PyTorch."""
    content = OmegaConf.merge(OmegaConf.structured(AsrModelConfig), OmegaConf.load(CONF / "large.yaml"))
    content.vocab_size = 500
    config = config_from_dict(cast(dict[str, Any], OmegaConf.to_container(content)))
    model = AsrModel(config).cuda().train()
    model.clock.batch = 20000.0
    optimizer = ScaledAdam(model.parameters(), lr=0.0045, clipping_scale=2.0)
    for utterances in (60, 120):
        features = torch.randn(utterances, 1000, 80, device="cuda")
        lengths = torch.full((utterances,), 1000)
        tokens = torch.randint(3, 500, (utterances, 40)).tolist()

        def step() -> None:
            with torch.autocast("cuda", torch.bfloat16):
                losses = model.losses(features, lengths, tokens)  # noqa: B023
            torch.stack([LOSS_WEIGHTS[name] * value for name, value in losses.items()]).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            model.clock.settle()

        cases = {"plain": in_plain_pytorch(step), "kernels": step}
        timings = turns(cases, options)
        rows = []
        for name, timing in timings.items():
            note = f"{10 * utterances / timing.minimum:.0f} audio-s/s, {describe_step(cases[name], timing)}"
            rows.append(replace(with_memory(timing, cases[name]), note=note))
        report(
            f"training step of large, {utterances} utterances",
            rows,
            baseline="plain",
            shapes={"utterances": utterances, "seconds": 10, "vocabulary": 500, "type": "bfloat16"},
            output=options.output,
        )


COMPARISONS: dict[str, Callable[..., None]] = {
    "lattice": compare_lattice,
    "transducer": compare_transducer,
    "ctc": compare_ctc,
    "layers": compare_layers,
    "seqsim": compare_seqsim,
    "training": compare_training,
}


def turns(cases: Mapping[str, Callable[[], object]], options: Namespace) -> dict[str, Timing]:
    return take_turns(cases, rounds=options.rounds, device="cuda")


def in_plain_pytorch(call: Callable[[], object]) -> Callable[[], None]:
    def plain() -> None:
        with plain_pytorch():
            call()

    return plain


def with_memory(timing: Timing, call: Callable[[], object]) -> Timing:
    """The timing with the peak memory added, which one more call measures."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return replace(timing, mebibytes=(torch.cuda.max_memory_allocated() - before) / MEBIBYTE)


def describe_step(step: Callable[[], object], timing: Timing) -> str:
    """Share of peak FLOPS, number of kernels, and share of the time in which no kernel ran."""
    with FlopCounterMode(display=False) as counter:
        step()
    parts = []
    name = torch.cuda.get_device_name()
    for kind, peak in PEAK_FLOPS.items():
        if kind in name:
            parts.append(f"{100 * counter.get_total_flops() / timing.minimum / peak:.0f} % of peak FLOPS")
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step()
        torch.cuda.synchronize()
    kernels = [event for event in profile.events() if event.device_type == torch._C._autograd.DeviceType.CUDA]
    busy = sum(event.device_time for event in kernels) * 1e-6
    parts.append(f"{len(kernels)} kernels")
    parts.append(f"idle {100 * max(0.0, 1 - busy / timing.minimum):.0f} %")
    return ", ".join(parts)


def draw_lengths(utterances: int, frames: int) -> Tensor:
    """Lengths of at least 20 frames whose sum is ``frames``, distributed like those of sentences."""
    random = torch.Generator().manual_seed(0)
    share = torch.rand(utterances, generator=random, dtype=torch.float64) + 0.25
    lengths = 20 + (share / share.sum() * (frames - 20 * utterances)).floor().long()
    lengths[: frames - int(lengths.sum())] += 1
    return lengths


if __name__ == "__main__":
    main()
