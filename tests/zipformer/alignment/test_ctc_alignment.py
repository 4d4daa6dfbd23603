"""CTC forced alignment against all label sequences, and against torchaudio."""

from itertools import groupby, product

import pytest
import torch

from zipformer.alignment.ctc import ctc_emissions


def best_of_all(log_probs: torch.Tensor, tokens: list[int]) -> list[list[int]]:
    """First frame of each token and the frame after its last, on the best of all V^T label sequences."""
    T, V = log_probs.shape
    fitting = [
        labels
        for labels in product(range(V), repeat=T)
        if [label for label, _ in groupby(labels) if label] == tokens
    ]
    best = max(fitting, key=lambda labels: sum(float(log_probs[t, label]) for t, label in enumerate(labels)))
    runs, start = [], 0
    for label, group in groupby(best):
        length = len(list(group))
        if label:
            runs.append([start, start + length])
        start += length
    return runs


@pytest.mark.parametrize("tokens", [[1], [1, 2], [2, 2], [1, 2, 1], [1, 1, 2]])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_best_of_all_label_sequences(tokens: list[int], seed: int) -> None:
    log_probs = torch.randn(6, 3, generator=torch.Generator().manual_seed(seed)).mul(2).log_softmax(dim=1)
    assert ctc_emissions(log_probs, tokens).tolist() == best_of_all(log_probs, tokens)


@pytest.mark.parametrize("seed", range(20))
def test_equals_torchaudio(seed: int) -> None:
    functional = pytest.importorskip("torchaudio.functional")
    generator = torch.Generator().manual_seed(seed)
    vocab, count = (int(torch.randint(2, 30, (), generator=generator)) for _ in range(2))
    tokens = torch.randint(1, vocab, (count,), generator=generator).tolist()
    frames = 2 * count + int(torch.randint(0, 100, (), generator=generator))
    log_probs = torch.randn(frames, vocab, generator=generator).mul(3).log_softmax(dim=1)
    path, _ = functional.forced_align(log_probs.unsqueeze(0), torch.tensor([tokens]), blank=0)
    labels = path[0].tolist()
    expected, start = [], 0
    for label, group in groupby(labels):
        stop = start + len(list(group))
        expected += [[start, stop]] * (label > 0)
        start = stop
    assert ctc_emissions(log_probs, tokens).tolist() == expected


def test_a_tie_between_two_steps_takes_a_path_of_the_best_score() -> None:
    """Where moving on and skipping a blank are equally good and staying is worse, either is right."""
    log_probs = torch.tensor([[0.2, 0.2, 0.0], [0.2, 0.2, 0.0], [0.0, 0.0, 0.6], [0.0, 0.0, 0.6]]).log()
    assert ctc_emissions(log_probs, [1, 2]).tolist() in ([[0, 1], [2, 4]], [[0, 2], [2, 4]], [[1, 2], [2, 4]])


def test_scores_that_are_not_a_number_are_refused() -> None:
    with pytest.raises(ValueError, match="not a number"):
        ctc_emissions(torch.full((3, 4), float("nan")), [1])


def test_planted_alignment() -> None:
    labels = [0, 4, 4, 0, 0, 2, 0, 2, 3, 3, 3, 0]
    log_probs = torch.full((len(labels), 5), 0.01)
    log_probs[range(len(labels)), labels] = 1.0
    found = ctc_emissions(log_probs.log(), [4, 2, 2, 3])
    assert found.tolist() == [[1, 3], [5, 6], [7, 8], [8, 11]]


def test_as_many_frames_as_tokens() -> None:
    assert ctc_emissions(torch.zeros(3, 4).log_softmax(1), [1, 2, 3]).tolist() == [[0, 1], [1, 2], [2, 3]]


def test_too_few_frames_say_how_many_are_needed() -> None:
    with pytest.raises(ValueError, match="3 tokens need 4 encoder frames and there are 3"):
        ctc_emissions(torch.zeros(3, 4).log_softmax(1), [1, 1, 3])


def test_nothing_said() -> None:
    assert ctc_emissions(torch.zeros(3, 4).log_softmax(1), []).shape == (0, 2)
