"""80-dimensional Kaldi FBANK features, for preparation and for models.

The features are those that Kaldi computes without dither and with the frames centred (``snip_edges=False``):
25 ms Povey windows every 10 ms, pre-emphasis 0.97, 80 mel filters from 20 Hz to 400 Hz below the Nyquist
frequency, natural logarithm of the power. Samples are between -1 and 1.
"""

from functools import lru_cache

from lhotse import Fbank, FbankConfig

NUM_FILTERS = 80


@lru_cache(maxsize=2)
def fbank_extractor(sampling_rate: int) -> Fbank:
    return Fbank(FbankConfig(sampling_rate=sampling_rate, num_filters=NUM_FILTERS))
