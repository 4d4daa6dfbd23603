"""SeqSim of whole sites: against the bare matrix product, loops over pairs, and a search in two stages.

    python -m benchmarks.seqsim
    python -m benchmarks.seqsim --device cuda --utterances 3499

Lengths are drawn like those of YuBao (3,499 utterances of 75 frames in the mean, 768 dimensions).
"""

import time
from argparse import Namespace
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from benchmarks.harness import Timing, arguments, report, take_turns
from retrieval.protocol.outcome import places_of_answers
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
    compare_with_two_stages(options)


def draw(utterances: int, dimension: int, random: torch.Generator, device: str) -> Packed:
    """Random embeddings of 20 to 130 frames."""
    lengths = torch.randint(20, 131, (utterances,), generator=random)
    return pack([torch.randn(length, dimension, generator=random).to(device) for length in lengths.tolist()])


def compare_with_gemm(x: Packed, y: Packed, options: Namespace) -> None:
    """The limit: all cosines by one matrix product, written to memory and not looked at."""
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
    """Both loops get normalised frames; the inner one differs."""
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
    """SeqSim of two utterances, the best match of each frame searched by itself."""
    precision = torch.stack([(y @ frame).amax() for frame in x]).mean()
    recall = torch.stack([(x @ frame).amax() for frame in y]).mean()
    return 2 * precision * recall / (precision + recall)


def compare_with_two_stages(options: Namespace) -> None:
    """Two sites that speak the same sentences with noise; recall@1 and time by number of candidates."""
    queries, pool = speak_twice(utterances=400, dimension=128, device=options.device)
    begin = time.perf_counter()
    scores = seqsim_packed(queries, pool)
    seconds = time.perf_counter() - begin
    everyone = np.broadcast_to(np.arange(len(pool)), (len(queries), len(pool)))
    exact = recall_at_1(scores, everyone)
    cases = [Timing("all pairs", [seconds], note=f"recall@1 {100 * exact:.1f} %")]
    try:
        from retrieval.similarity.candidates import nearest, rerank

        for count in (5, 10, 20, 50):
            begin = time.perf_counter()
            candidates = nearest(queries, pool, count)
            scores = rerank(queries, pool, candidates)
            seconds = time.perf_counter() - begin
            numbers = candidates.numpy()
            missed = 1 - (numbers == np.arange(len(queries))[:, None]).any(axis=1).mean()
            gain = recall_at_1(scores, numbers) - exact
            note = f"recall@1 {100 * gain:+.2f} %, right answer missed {100 * missed:.2f} %"
            cases.append(Timing(f"{count} candidates", [seconds], note=note))
    except ValueError as error:
        cases.append(Timing("candidates", note=str(error)))
    report(
        "SeqSim in two stages",
        cases,
        baseline="all pairs",
        shapes={"queries": len(queries), "pool": len(pool), "dimension": 128},
        output=options.output,
    )


def recall_at_1(scores: Tensor, candidates: NDArray[np.int64]) -> float:
    """Share of the queries whose right answer, that of their own number, has the highest score."""
    above, equal = places_of_answers(scores.cpu().numpy(), candidates)
    return float(((above == 0) / equal).mean())


def speak_twice(*, utterances: int, dimension: int, device: str, words: int = 60) -> tuple[Packed, Packed]:
    """Sentences of random words spoken at two sites.

    Every utterance has other durations, noise, and a voice that shifts all of its frames; a large part is
    common to all.
    """
    random = np.random.default_rng(0)
    sounds = random.standard_normal((words, dimension))
    common = 3 * random.standard_normal(dimension)
    sites: list[list[Tensor]] = [[], []]
    for _ in range(utterances):
        sentence = random.integers(0, words, random.integers(4, 16))
        for site in sites:
            spoken = np.repeat(sounds[sentence], random.integers(3, 9, len(sentence)), axis=0)
            voice = common + 0.3 * random.standard_normal(dimension)
            spoken = voice + spoken + 1.6 * random.standard_normal(spoken.shape)
            site.append(torch.from_numpy(spoken.astype(np.float32)).to(device))
    return pack(sites[0]), pack(sites[1])


if __name__ == "__main__":
    main()
