"""Filter-bank features: speed on one core compared with other extractors, and the largest difference.

    python -m benchmarks.fbank

The peers are Lhotse's extractors and kaldi-native-fbank (``pip install kaldi-native-fbank``).
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from lhotse import Fbank, FbankConfig
from lhotse.features.fbank import TorchaudioFbank, TorchaudioFbankConfig
from numpy.typing import NDArray

from benchmarks.harness import Timing, arguments, report, take_turns
from zipformer.data.features import NUM_FILTERS, fbank_extractor

RATE = 16000
KALDI = "kaldi-native-fbank"

Samples = NDArray[np.float32]  # (1, number of samples), between -1 and 1
Extract = Callable[[Samples], NDArray[np.float32]]  # returns (T, NUM_FILTERS)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], "fbank.json")
    parser.add_argument("--utterances", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    utterances = speech(options.utterances)
    seconds = sum(samples.shape[1] for samples in utterances) / RATE
    ours = fbank_extractor(RATE)
    lhotse = Fbank(FbankConfig(sampling_rate=RATE, num_filters=NUM_FILTERS))
    torchaudio = TorchaudioFbank(TorchaudioFbankConfig(num_mel_bins=NUM_FILTERS))
    extractors: dict[str, Extract] = {
        "ours": lambda samples: ours.extract(samples, RATE),
        "Lhotse": lambda samples: lhotse.extract(samples, RATE),
        "Lhotse with torchaudio": lambda samples: torchaudio.extract(samples, RATE),
    }
    if (kaldi := kaldi_extractor()) is not None:
        extractors[KALDI] = kaldi

    def extract_all(extract: Extract) -> list[object]:
        return [extract(samples) for samples in utterances]

    cases: dict[str, Callable[[], object]] = {
        name: partial(extract_all, extract) for name, extract in extractors.items()
    }
    cases["Lhotse, in a batch"] = lambda: lhotse.extract_batch([s[0] for s in utterances], RATE)
    expected = [extractors["Lhotse"](samples) for samples in utterances]
    timings = []
    for name, timing in take_turns(cases, rounds=options.rounds).items():
        note = f"{seconds / timing.minimum:,.0f} s of audio per second"
        if name in extractors:
            note += f", at most {farthest(extractors[name], utterances, expected):.1e} from Lhotse"
        timings.append(Timing(name, timing.seconds, note=note))
    if kaldi is None:
        timings.append(Timing(KALDI, note="not measured: not installed"))
    report(
        "FBANK on one core",
        timings,
        baseline=KALDI if kaldi is not None else "Lhotse",
        shapes={"utterances": len(utterances), "seconds": round(seconds)},
        output=options.output,
    )


def speech(utterances: int) -> list[Samples]:
    """Noise bursts with pauses, as loud and as long (2 to 10 s) as utterances."""
    random = np.random.default_rng(0)
    result = []
    for _ in range(utterances):
        count = int(random.uniform(2, 10) * RATE)
        envelope = np.abs(
            np.interp(
                np.arange(count),
                np.arange(0, count + RATE, 1600),
                random.normal(0, 0.1, len(np.arange(0, count + RATE, 1600))),
            )
        )
        result.append((envelope * random.standard_normal(count))[None].astype(np.float32))
    return result


def farthest(extract: Extract, utterances: list[Samples], expected: list[NDArray[np.float32]]) -> float:
    return max(
        float(np.abs(extract(samples) - features).max())
        for samples, features in zip(utterances, expected, strict=True)
    )


def kaldi_extractor() -> Extract | None:
    """kaldi-native-fbank with the same settings; None if it is not installed."""
    try:
        import kaldi_native_fbank
    except ModuleNotFoundError:
        return None
    settings = kaldi_native_fbank.FbankOptions()
    settings.frame_opts.samp_freq = RATE
    settings.frame_opts.dither = 0
    settings.frame_opts.snip_edges = False
    settings.mel_opts.num_bins = NUM_FILTERS
    settings.mel_opts.low_freq = 20
    settings.mel_opts.high_freq = -400

    def extract(samples: Samples) -> NDArray[np.float32]:
        fbank = kaldi_native_fbank.OnlineFbank(settings)
        fbank.accept_waveform(RATE, samples[0])
        fbank.input_finished()
        return np.stack([fbank.get_frame(t) for t in range(fbank.num_frames_ready)])

    return extract


if __name__ == "__main__":
    main()
