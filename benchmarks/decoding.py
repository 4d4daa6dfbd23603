"""Transducer searches: speed compared with icefall's, with the same heads and equal hypotheses.

    python -m benchmarks.decoding --icefall DIR

The heads have the sizes of a model in conf/model and random weights; the frames are random. The bias of blank
is chosen so that blank wins four of five frames, as in a trained model, where about five of 25 frames a
second emit a token.
"""

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from omegaconf import OmegaConf
from rich.console import Console
from torch import Tensor, nn

from benchmarks.harness import Timing, arguments, report, take_turns
from benchmarks.icefall_search import IcefallHeads, import_searches
from zipformer.decoding import greedy_search, modified_beam_search
from zipformer.heads.joiner import Joiner
from zipformer.heads.predictor import Predictor
from zipformer.layers.schedule import Clock

FRAMES_PER_SECOND = 25
BLANK_SHARE = 0.8


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], "decoding.json")
    parser.add_argument("--icefall", type=Path, help="folder of a checkout of icefall")
    parser.add_argument("--size", default="small", help="model size, a name in conf/model")
    parser.add_argument("--vocabulary", type=int, default=500)
    parser.add_argument("--utterances", type=int, default=20, help="in the batch")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="longest utterance; the shortest has half"
    )
    parser.add_argument("--beam", type=int, default=4)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    frames, lengths = draw_frames(options)
    heads = draw_heads(options, frames)
    peer = None
    if options.icefall is not None:
        peer = import_searches(options.icefall), IcefallHeads(heads.predictor, heads.joiner).eval()
    cases: dict[str, Any] = {
        "beam search": lambda: modified_beam_search(heads, frames, lengths, beam=options.beam),
        "greedy search": lambda: greedy_search(heads, frames, lengths),
    }
    if peer is not None:
        searches, icefall_heads = peer
        cases["icefall's beam search"] = torch.no_grad()(
            lambda: searches.modified_beam_search(icefall_heads, frames, lengths, beam=options.beam)
        )
        cases["icefall's greedy search"] = torch.no_grad()(
            lambda: searches.greedy_search_batch(icefall_heads, frames, lengths)
        )
    for method in ("beam", "greedy"):
        compare(method, cases, frames, lengths, options)


def compare(
    method: str, cases: dict[str, Any], frames: Tensor, lengths: Tensor, options: argparse.Namespace
) -> None:
    """Time our search of one kind, and icefall's if a checkout is given."""
    ours, theirs = f"{method} search", f"icefall's {method} search"
    chosen = {name: cases[name] for name in (ours, theirs) if name in cases}
    seconds = float(lengths.sum()) / FRAMES_PER_SECOND
    timings = take_turns(chosen, rounds=options.rounds, device=options.device)
    rows = [
        Timing(name, timing.seconds, note=f"{seconds / timing.minimum:,.0f} s of audio per second")
        for name, timing in timings.items()
    ]
    if theirs not in cases:
        rows.append(Timing(theirs, note="not measured: give --icefall DIR"))
    title = f"{method} search" + (f", beam {options.beam}" if method == "beam" else "")
    shapes = {"frames": tuple(frames.shape), "vocabulary": options.vocabulary, "model": options.size}
    report(title, rows, baseline=theirs, shapes=shapes, output=options.output)
    hypotheses = {name: call() for name, call in chosen.items()}
    tokens = sum(map(len, hypotheses[ours]))
    text = f"{tokens / seconds:.1f} tokens per second of audio"
    if theirs in hypotheses:
        equal = sum(a == b for a, b in zip(hypotheses[ours], hypotheses[theirs], strict=True))
        text += f"; {equal} of {len(lengths)} hypotheses are equal"
    Console().print(text)


def draw_frames(options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Random encoder output (N,T,D), and lengths (N,) from T/2 to T."""
    config = OmegaConf.load(Path("conf") / "model" / f"{options.size}.yaml")
    random = torch.Generator().manual_seed(0)
    longest = int(options.seconds * FRAMES_PER_SECOND)
    lengths = torch.randint(longest // 2, longest + 1, (options.utterances,), generator=random)
    lengths[0] = longest
    frames = torch.randn(options.utterances, longest, max(config.encoder.encoder_dim), generator=random)
    return frames.to(options.device), lengths


def draw_heads(options: argparse.Namespace, frames: Tensor) -> Any:
    """A stand-in for a transducer, with the attributes that the searches read: predictor and joiner."""
    config = OmegaConf.load(Path("conf") / "model" / f"{options.size}.yaml")
    torch.manual_seed(0)
    predictor = Predictor(options.vocabulary, config.predictor_dim, config.context_size, clock=Clock())
    joiner = Joiner(frames.shape[2], config.predictor_dim, config.joiner_dim, options.vocabulary)
    nn.init.normal_(joiner.encoder_proj.weight, std=frames.shape[2] ** -0.5)
    nn.init.normal_(joiner.output_linear.weight, std=4 * config.joiner_dim**-0.5)
    predictor, joiner = predictor.to(options.device).eval(), joiner.to(options.device).eval()
    with torch.no_grad():
        no_state = frames.new_zeros(config.joiner_dim)
        logits = joiner(joiner.encoder_proj(frames), no_state, project=False).flatten(0, 1)
        lead = logits[:, 1:].amax(dim=1) - logits[:, 0]
        joiner.output_linear.bias[0] += lead.quantile(BLANK_SHARE)
    return SimpleNamespace(predictor=predictor, joiner=joiner)


if __name__ == "__main__":
    main()
