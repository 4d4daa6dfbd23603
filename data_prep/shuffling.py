"""Lines of many files in one random order, with bounded memory.

Training reads cuts with a shuffling buffer that holds a small part of a large corpus. Corpora come sorted by
dialect and site, and a buffer mixes only neighbours, so that dialects would come and go during an epoch.
"""

import gzip
import random
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

SEED: Final = 20240229
BUCKET_LINES: Final = 100_000  # about 200 MB of cuts
_LEVEL: Final = 1  # of compression; buckets live for seconds


def shuffle_lines(sources: Iterable[Path], lines: int, target: Path) -> None:
    """Write the lines of gzip files into one gzip file, in an order drawn with a fixed seed.

    Every line is first dealt to one of a few buckets beside ``target``, then each bucket is read, shuffled in
    memory and appended: a uniformly random order, for which one bucket at a time is held.

    Args:
        sources: gzip files of text lines, read in this order.
        lines: how many lines there are, about; sets the number of buckets.
        target: gzip file to write.
    """
    draw = random.Random(SEED)
    folder = target.with_name(f"{target.name}-buckets")
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir()
    buckets = [folder / f"{index}.gz" for index in range(max(1, -(-lines // BUCKET_LINES)))]
    with gzip.open(target, "wb") as final:
        with ExitStack() as stack:
            streams = [stack.enter_context(gzip.open(path, "wb", _LEVEL)) for path in buckets]
            for source in sources:
                with gzip.open(source, "rb") as stream:
                    for line in stream:
                        draw.choice(streams).write(line)
        for path in buckets:
            with gzip.open(path, "rb") as stream:
                shuffled = stream.readlines()
            draw.shuffle(shuffled)
            final.writelines(shuffled)
    shutil.rmtree(folder)
