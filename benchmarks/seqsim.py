"""SeqSim of whole sites, compared with a bare matrix product and with loops over pairs.

    python -m benchmarks.seqsim
    python -m benchmarks.seqsim --device cuda --utterances 3499

Lengths are distributed as in YuBao (3,499 utterances of 75 frames on average, 768 dimensions).
"""

from argparse import Namespace
from collections.abc import Callable

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.harness import Timing, arguments, report, take_turns
from retrieval.similarity.seqsim import Packed, pack, seqsim_packed

YUBAO_FRAMES, YUBAO_UTTERANCES = 262_000, 3_499
PAIRS_SIDE = 24  # utterances on each side of the loops over pairs


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], "seqsim.json")
    parser.add_argument("--utterances", type=int, default=160, help="on each side")
    parser.add_argument("--dimension", type=int, default=768)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    random = torch.Generator().manual_seed(0)
    x, y = (draw(options.utterances, options.dimension, random, options.device) for _ in range(2))
    compare_with_gemm(x, y, options)
    compare_with_loops(x.part(0, PAIRS_SIDE), y.part(0, PAIRS_SIDE), options)


def draw(utterances: int, dimension: int, random: torch.Generator, device: str) -> Packed:
    """Random embeddings of 20 to 130 frames."""
    lengths = torch.randint(20, 131, (utterances,), generator=random)
    return pack([torch.randn(length, dimension, generator=random).to(device) for length in lengths.tolist()])


def compare_with_gemm(x: Packed, y: Packed, options: Namespace) -> None:
    """Compare with the lower limit of the time: one matrix product that writes all cosines to memory."""
    columns = y.frames.T
    cosines = x.frames.new_empty(len(x.frames), len(y.frames))
    timings = take_turns(
        {
            "matrix product": lambda: torch.mm(x.frames, columns, out=cosines),
            "seqsim_packed(x, y)": lambda: seqsim_packed(x, y),
            "seqsim_packed(x)": lambda: seqsim_packed(x),
        },
        rounds=options.rounds,
        device=options.device,
    )
    shapes = {"x": tuple(x.frames.shape), "y": tuple(y.frames.shape), "pairs": len(x) * len(y)}
    report(
        "SeqSim and the bare matrix product",
        list(timings.values()),
        baseline="matrix product",
        shapes=shapes,
        output=options.output,
    )
    whole = YUBAO_FRAMES**2 / len(x.frames) ** 2 * timings["seqsim_packed(x)"].median
    Console().print(f"{YUBAO_UTTERANCES} utterances of {YUBAO_FRAMES} frames with one another: {whole:.0f} s")


def compare_with_loops(x: Packed, y: Packed, options: Namespace) -> None:
    """Compare with two loops over pairs of utterances, on normalised frames."""
    xs, ys = unpack(x), unpack(y)
    timings = take_turns(
        {
            "loop over pairs": lambda: loop(xs, ys, of_a_pair),
            "loop over pairs and frames": lambda: loop(xs[:2], ys[:2], frame_by_frame),
            "seqsim_packed(x, y)": lambda: seqsim_packed(x, y),
        },
        rounds=options.rounds,
        device=options.device,
    )
    slow = timings["loop over pairs and frames"]
    pairs = len(x) * len(y)
    timings[slow.name] = Timing(
        slow.name, [seconds * pairs / 4 for seconds in slow.seconds], note="4 pairs, times all pairs / 4"
    )
    shapes = {"x": tuple(x.frames.shape), "y": tuple(y.frames.shape), "pairs": pairs}
    report(
        "SeqSim and loops over pairs",
        list(timings.values()),
        baseline="loop over pairs",
        shapes=shapes,
        output=options.output,
    )


def unpack(packed: Packed) -> list[Tensor]:
    return list(packed.frames.split(packed.lengths.tolist()))


def loop(xs: list[Tensor], ys: list[Tensor], score: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    return torch.stack([torch.stack([score(x, y) for y in ys]) for x in xs])


def of_a_pair(x: Tensor, y: Tensor) -> Tensor:
    """SeqSim of two utterances by one small matrix product."""
    cosines = x @ y.T
    precision, recall = cosines.amax(dim=1).mean(), cosines.amax(dim=0).mean()
    return 2 * precision * recall / (precision + recall)


def frame_by_frame(x: Tensor, y: Tensor) -> Tensor:
    """SeqSim of two utterances by a loop that finds the best match of each frame."""
    precision = torch.stack([(y @ frame).amax() for frame in x]).mean()
    recall = torch.stack([(x @ frame).amax() for frame in y]).mean()
    return 2 * precision * recall / (precision + recall)


if __name__ == "__main__":
    main()
