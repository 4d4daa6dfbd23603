"""What is reported of the labels: known histograms, sums over steps, and when a warning is due."""

import math

import pytest
import torch

from zipformer.distributed import World
from zipformer.tasks.codebook_use import CodebookCounts, CodebookUse, collapsed

ALONE = World(0, 1, torch.device("cpu"))


def test_codebook_use_of_known_histograms() -> None:
    uniform = CodebookUse.of(torch.full((8,), 5.0), correct=10.0)
    assert (uniform.distinct, uniform.top_share, uniform.accuracy) == (8, 0.125, 0.25)
    assert uniform.perplexity == pytest.approx(8.0)
    one = CodebookUse.of(torch.tensor([0.0, 4.0, 0.0]), correct=4.0)
    assert (one.distinct, one.perplexity, one.top_share, one.accuracy) == (1, 1.0, 1.0, 1.0)
    two = CodebookUse.of(torch.tensor([3.0, 1.0]), correct=0.0)
    assert two.perplexity == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


def test_counts_are_those_of_the_steps_since_the_last_report() -> None:
    counts = CodebookCounts(2, 5, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):  # the second report knows nothing of the first
        labels = [torch.randint(5, (frames, 2), generator=generator) for frames in (7, 11)]
        logits = [torch.randn(len(step), 2, 5, generator=generator) for step in labels]
        for step, of_step in zip(labels, logits, strict=True):
            counts.add(step, of_step, frames=2 * len(step))
        uses, masked, frames = counts.take(ALONE)
        assert (masked, frames) == (18, 36)
        for book, use in enumerate(uses):
            seen = [int(label) for step in labels for label in step[:, book]]
            predicted = [
                max(range(5), key=row.__getitem__) for step in logits for row in step[:, book].tolist()
            ]
            shares = [seen.count(code) / 18 for code in set(seen)]
            assert use.distinct == len(set(seen))
            assert use.perplexity == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)))
            assert use.top_share == pytest.approx(max(shares))
            assert use.accuracy == pytest.approx(sum(map(int.__eq__, seen, predicted)) / 18)


def test_few_codes_are_a_collapse_but_few_frames_are_none() -> None:
    healthy, poor = (CodebookUse(60, perplexity, 0.1, 0.1) for perplexity in (300.0, 20.0))
    assert collapsed([healthy, poor], 8192, frames=5000) == [1]
    assert collapsed([poor, poor], 8192, frames=500) == []
    assert collapsed([poor], 256, frames=5000) == []  # 20 of 256 codes is no collapse
