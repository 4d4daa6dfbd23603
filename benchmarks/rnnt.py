"""Pruned RNN-T compared with other packages: the lattice sums alone, and the whole loss with gradients.

    python -m benchmarks.rnnt                     # on the CPU, with 1 thread and with all
    python -m benchmarks.rnnt --device cuda

The whole loss starts after the projections of the model, from the scores of the trivial joiner, am (N, T, V)
and lm (N, U+1, V), and the two terms of the joiner, (N, T, J) and (N, U+1, J). It computes the smoothed loss,
the pruning ranges, the joiner (tanh and output layer), the pruned loss, and the gradients of all inputs and
of the output layer. The other packages are ``fast_rnnt`` (`pip install fast_rnnt`, built from source),
``k2``, and torchaudio with its unpruned loss.
"""

import importlib
import importlib.util
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor

from benchmarks.harness import Timing, arguments, peak_mebibytes, report, take_turns
from zipformer.losses.backend import lattice_sums
from zipformer.losses.pruned_joiner import pruned_joiner_loss
from zipformer.losses.rnnt import gather_band, prune_ranges, pruned_rnnt_loss, smoothed_rnnt_loss

N, T, U, J, R = 8, 250, 40, 512, 5
SHAPES = {"N": N, "T": T, "U": U}
LM_SCALE = 0.25
PEERS = ("fast_rnnt", "k2")
MAX_FULL_LOGITS = 2**28  # most logits for torchaudio's loss, 1 GiB


class Problem(NamedTuple):
    """A batch of utterances of equal length, so that no package gains by skipping padding."""

    am: Tensor  # (N, T, V)
    lm: Tensor  # (N, U+1, V)
    frames: Tensor  # (N, T, J)
    states: Tensor  # (N, U+1, J)
    weight: Tensor  # (V, J)
    bias: Tensor  # (V,)
    symbols: Tensor  # (N, U)
    frame_lengths: Tensor  # (N,)
    symbol_lengths: Tensor  # (N,)

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        return self[:6]


def make_problem(vocab: int, device: str) -> Problem:
    generator = torch.Generator().manual_seed(0)
    leaves = [
        scale * torch.randn(*shape, generator=generator)
        for scale, shape in (
            (1.0, (N, T, vocab)),
            (1.0, (N, U + 1, vocab)),
            (0.5, (N, T, J)),
            (0.5, (N, U + 1, J)),
            (J**-0.5, (vocab, J)),
            (0.1, (vocab,)),
        )
    ]
    am, lm, frames, states, weight, bias = (leaf.to(device).requires_grad_() for leaf in leaves)
    return Problem(
        am,
        lm,
        frames,
        states,
        weight,
        bias,
        torch.randint(1, vocab, (N, U), generator=generator).to(device),
        torch.full((N,), T, device=device),
        torch.full((N,), U, device=device),
    )


def native_loss(problem: Problem) -> Tensor:
    am, lm, frames, states, weight, bias, symbols, *lengths = problem
    simple, occupations = smoothed_rnnt_loss(am, lm, symbols, *lengths, lm_scale=LM_SCALE, am_scale=0.0)
    ranges = prune_ranges(*occupations, problem.frame_lengths, problem.symbol_lengths, R)
    pruned = pruned_joiner_loss(frames, states, weight, bias, symbols, ranges, *lengths)
    return simple.sum() + pruned


def plain_loss(problem: Problem) -> Tensor:
    am, lm, frames, states, weight, bias, symbols, *lengths = problem
    simple, occupations = smoothed_rnnt_loss(
        am, lm, symbols, *lengths, lm_scale=LM_SCALE, am_scale=0.0, backend="plain"
    )
    ranges = prune_ranges(*occupations, problem.frame_lengths, problem.symbol_lengths, R)
    logits = F.linear(torch.tanh(frames.unsqueeze(2) + gather_band(states, ranges)), weight, bias)
    return simple.sum() + pruned_rnnt_loss(logits, symbols, ranges, *lengths).sum()


def peer_loss(peer: ModuleType, problem: Problem) -> Tensor:
    """The loss by fast_rnnt or k2, which have the same functions."""
    am, lm, frames, states, weight, bias, symbols, *_ = problem
    boundary = _boundary(problem)
    simple, (symbol_grad, blank_grad) = peer.rnnt_loss_smoothed(
        lm=lm,
        am=am,
        symbols=symbols,
        termination_symbol=0,
        lm_only_scale=LM_SCALE,
        am_only_scale=0.0,
        boundary=boundary,
        reduction="sum",
        return_grad=True,
    )
    ranges = peer.get_rnnt_prune_ranges(px_grad=symbol_grad, py_grad=blank_grad, boundary=boundary, s_range=R)
    frame_rows, state_rows = peer.do_rnnt_pruning(am=frames, lm=states, ranges=ranges)
    logits = F.linear(torch.tanh(frame_rows + state_rows), weight, bias)
    pruned = peer.rnnt_loss_pruned(
        logits=logits,
        symbols=symbols,
        ranges=ranges,
        termination_symbol=0,
        boundary=boundary,
        reduction="sum",
    )
    return simple + pruned


def torchaudio_loss(problem: Problem) -> Tensor:
    """The joiner's loss over the full lattice, without smoothed loss and pruning."""
    logits = F.linear(
        torch.tanh(problem.frames.unsqueeze(2) + problem.states.unsqueeze(1)), problem.weight, problem.bias
    )
    targets = (x.int() for x in problem[6:])
    return torchaudio.functional.rnnt_loss(logits, *targets, blank=0, reduction="sum")


def prepare_loss(case: str, vocab: int, device: str, threads: int) -> Callable[[], object]:
    """Function that computes the loss and its gradients."""
    torch.set_num_threads(threads)
    problem = make_problem(vocab, device)
    losses: dict[str, Callable[[Problem], Tensor]] = {
        "native": native_loss,
        "plain": plain_loss,
        "torchaudio": torchaudio_loss,
    }
    loss = partial(peer_loss, importlib.import_module(case)) if case in PEERS else losses[case]
    leaves = problem.leaves[2:] if case == "torchaudio" else problem.leaves
    return lambda: torch.autograd.grad(loss(problem), leaves)


def lattice_cases(device: str) -> dict[str, Callable[[], object]]:
    """Functions that compute log-probability and occupations from float32 scores, by name of the package."""
    generator = torch.Generator().manual_seed(0)
    label = (torch.randn(N, U, T, generator=generator) - 4.0).to(device)
    blank = (torch.randn(N, U + 1, T, generator=generator) - 1.0).to(device)
    lengths = torch.full((N,), T, device=device), torch.full((N,), U, device=device)
    target = torch.device(device)
    cases: dict[str, Callable[[], object]] = {
        name: partial(lattice_sums(name, target).full_occupation, label, blank, *lengths)
        for name in ("native", "plain")
    }
    impossible = F.pad(label, (0, 1), value=-torch.inf)
    boundary = torch.zeros(N, 4, dtype=torch.int64, device=device)
    boundary[:, 2], boundary[:, 3] = U, T
    for peer in PEERS:
        if _installed(peer):
            recursion = importlib.import_module(peer).mutual_information_recursion
            cases[peer] = partial(recursion, impossible, blank, boundary, return_grad=True)
    return cases


def _boundary(problem: Problem) -> Tensor:
    origin = torch.zeros_like(problem.frame_lengths)
    return torch.stack([origin, origin, problem.symbol_lengths, problem.frame_lengths], dim=1)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _missing() -> list[Timing]:
    return [Timing(peer, note="not installed") for peer in PEERS if not _installed(peer)]


def compare_sums(threads: int, baseline: str, options: Namespace) -> None:
    torch.set_num_threads(threads)
    timings = take_turns(lattice_cases(options.device), rounds=options.rounds, device=options.device)
    report(
        f"sums over the lattice, {threads} thread{'s' * (threads > 1)}",
        [*timings.values(), *_missing()],
        baseline=baseline,
        shapes=SHAPES,
        output=options.output,
    )


def compare_losses(vocab: int, threads: int, baseline: str, options: Namespace) -> None:
    names = ["native", "plain", *(peer for peer in PEERS if _installed(peer))]
    missing = _missing()
    full_logits = N * T * (U + 1) * vocab
    if full_logits <= MAX_FULL_LOGITS:
        names.append("torchaudio")
    else:
        missing.append(Timing("torchaudio", note=f"not run: {full_logits * 4 / 2**30:.1f} GiB of logits"))
    inputs = (vocab, options.device, threads)
    timings = take_turns(
        {name: prepare_loss(name, *inputs) for name in names}, rounds=options.rounds, device=options.device
    )
    measured = [
        replace(timings[name], mebibytes=peak_mebibytes(prepare_loss, name, *inputs)) for name in names
    ]
    report(
        f"whole loss, vocabulary {vocab}",
        [*measured, *missing],
        baseline=baseline,
        shapes={**SHAPES, "J": J, "R": R, "V": vocab},
        output=options.output,
    )


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], "rnnt.json")
    parser.add_argument("--vocab", type=int, nargs="+", default=[500, 5000], help="sizes of the vocabulary")
    options = parser.parse_args()
    threads = options.threads or torch.get_num_threads()
    baseline = next((peer for peer in PEERS if _installed(peer)), "plain")
    for count in sorted({1, threads}) if options.device == "cpu" else [threads]:
        compare_sums(count, baseline, options)
    for vocab in options.vocab:
        compare_losses(vocab, threads, baseline, options)


if __name__ == "__main__":
    main()
