"""Searches against icefall's hypotheses, dictionaries of hypotheses, and every alignment there is."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import beam as reference
from torch import Tensor, nn

from zipformer.decoding import beam as beam_module
from zipformer.decoding import ctc_greedy_search, greedy_search, modified_beam_search
from zipformer.export.icefall import model_from_icefall
from zipformer.heads.joiner import Joiner
from zipformer.heads.predictor import Predictor
from zipformer.heads.transducer import TransducerHead
from zipformer.layers.schedule import Clock

DIM = 8


def make_model(vocab: int, context_size: int, seed: int) -> Any:
    """Heads with random parameters, in float64 so that no two implementations round to different winners."""
    torch.manual_seed(seed)
    predictor = Predictor(vocab, DIM, context_size, clock=Clock())
    joiner = Joiner(DIM, DIM, DIM, vocab)
    nn.init.normal_(predictor.embedding.weight, std=2.0)
    for module in (joiner.encoder_proj, joiner.decoder_proj, joiner.output_linear):
        nn.init.normal_(module.weight)
    with torch.no_grad():
        joiner.output_linear.bias[0] += 1.0
    return SimpleNamespace(predictor=predictor.double().eval(), joiner=joiner.double().eval())


def make_frames(lengths: list[int], seed: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    frames = torch.randn(len(lengths), max(lengths, default=0), DIM, generator=random, dtype=torch.float64)
    return frames, torch.tensor(lengths, dtype=torch.int64)


def next_token_of(model: Any, blank_penalty: float = 0.0) -> reference.NextToken:
    @torch.no_grad()
    def next_token(frame: Tensor, tokens: tuple[int, ...]) -> Tensor:
        size = model.predictor.context_size
        context = [*[-1] * (size - 1), 0, *tokens][-size:]
        state = model.predictor(torch.tensor([context]), pad=False)[0, 0]
        logits: Tensor = model.joiner(frame, state)
        logits[0] -= blank_penalty
        return logits.log_softmax(0)

    return next_token


lengths_of_batches = st.lists(st.integers(0, 12), min_size=1, max_size=4)


def test_icefall_hypotheses(golden_dir: Path) -> None:
    golden = np.load(golden_dir / "decode.npz")
    state = {name[3:]: torch.from_numpy(golden[name]) for name in golden.files if name.startswith("p::")}
    model = model_from_icefall(json.loads(str(golden["config"])), state).eval()
    frames, lengths = torch.from_numpy(golden["frames"]), torch.from_numpy(golden["frame_lengths"])
    head = model.head(TransducerHead)
    assert greedy_search(head, frames, lengths) == json.loads(str(golden["greedy"]))
    for beam in (4, 8):
        expected = json.loads(str(golden[f"beam{beam}"]))
        assert modified_beam_search(head, frames, lengths, beam=beam) == expected


@settings(max_examples=25, deadline=None)
@given(
    lengths_of_batches,
    st.integers(1, 3),
    st.sampled_from([0.0, 1.5]),
    st.sampled_from([None, 2]),
    st.integers(0, 99),
)
def test_greedy_search_goes_frame_by_frame(
    lengths: list[int], context_size: int, blank_penalty: float, unk: int | None, seed: int
) -> None:
    model = make_model(6, context_size, seed)
    frames, frame_lengths = make_frames(lengths, seed)
    skipped = () if unk is None else (unk,)
    expected = [
        reference.greedy(next_token_of(model, blank_penalty), frames[n, :length], skipped=skipped)
        for n, length in enumerate(lengths)
    ]
    assert greedy_search(model, frames, frame_lengths, blank_penalty=blank_penalty, unk=unk) == expected


@settings(max_examples=25, deadline=None)
@given(
    lengths_of_batches,
    st.sampled_from([3, 6]),
    st.integers(1, 3),
    st.integers(1, 9),
    st.sampled_from([0.0, 1.5]),
    st.sampled_from([None, 2]),
    st.integers(0, 99),
)
def test_beam_search_keeps_the_same_hypotheses_as_dictionaries(
    lengths: list[int],
    vocab: int,
    context_size: int,
    beam: int,
    blank_penalty: float,
    unk: int | None,
    seed: int,
) -> None:
    model = make_model(vocab, context_size, seed)
    frames, frame_lengths = make_frames(lengths, seed)
    expected = [
        reference.modified_beam(
            next_token_of(model, blank_penalty),
            frames[n, :length],
            beam=beam,
            context_size=context_size,
            skipped=() if unk is None else (unk,),
        )
        for n, length in enumerate(lengths)
    ]
    actual = modified_beam_search(
        model, frames, frame_lengths, beam=beam, blank_penalty=blank_penalty, unk=unk
    )
    assert actual == expected


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(1, 3),
    st.sampled_from([-1, 2]),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 99),
)
def test_the_compiled_step_is_the_plain_step(
    n: int, beam: int, context_size: int, unk: int, dtype: torch.dtype, seed: int
) -> None:
    """Few tokens, so that many hypotheses meet and are merged; often fewer of them than places."""
    random = torch.Generator().manual_seed(seed)
    vocab = 3
    scores = torch.full((n, beam), -torch.inf, dtype=dtype)
    scores[:, 0] = 0.0
    lengths = torch.zeros(n, beam, dtype=torch.int64)
    contexts = torch.full((n, beam, context_size), -1)
    plain = beam_module._Hypotheses(scores, lengths, lengths.clone(), contexts)
    fast = beam_module._Hypotheses(*(getattr(plain, name).clone() for name in vars(plain)))
    for _ in range(6):
        log_probs = torch.randn(2 * n * beam, vocab, generator=random, dtype=dtype).log_softmax(1)
        rows = torch.randint(2 * n * beam, (n, beam), generator=random)
        outcomes = []
        for hypotheses, extend in ((plain, beam_module._extend), (fast, beam_module._extend_compiled)):
            parents, tokens = torch.full((n, beam), -9), torch.full((n, beam), -9)
            extend(hypotheses, log_probs, rows, unk, parents, tokens)
            used = hypotheses.scores.isfinite()
            written = (*vars(hypotheses).values(), parents, tokens)
            outcomes.append([used, *(tensor[used] for tensor in written)])
        for left, right in zip(*outcomes, strict=True):
            torch.testing.assert_close(left, right)


@pytest.mark.parametrize("seed", range(4))
def test_a_beam_that_drops_nothing_finds_the_best_of_all_token_sequences(seed: int) -> None:
    """Without merging, the single best alignment would win; these seeds tell the two apart."""
    model = make_model(3, 2, seed)
    frames, lengths = make_frames([5], seed)
    expected = reference.exhaustive(next_token_of(model), frames[0], vocab=3, context_size=2)
    assert modified_beam_search(model, frames, lengths, beam=3**5) == [expected]


def test_a_beam_of_one_is_greedy_search() -> None:
    model = make_model(20, 2, 0)
    frames, lengths = make_frames([30, 20, 1], 0)
    assert modified_beam_search(model, frames, lengths, beam=1) == greedy_search(model, frames, lengths)


def test_utterances_do_not_influence_each_other() -> None:
    model = make_model(10, 2, 3)
    lengths = [7, 25, 0, 13, 25]
    frames, frame_lengths = make_frames(lengths, 3)
    for search in (greedy_search, modified_beam_search):
        together = search(model, frames, frame_lengths)
        alone = [
            search(model, frames[n : n + 1, :length], frame_lengths[n : n + 1])[0]
            for n, length in enumerate(lengths)
        ]
        assert together == alone


def test_no_utterance_and_no_frame() -> None:
    model = make_model(5, 2, 0)
    for search in (greedy_search, modified_beam_search):
        assert search(model, torch.zeros(0, 4, DIM).double(), torch.zeros(0, dtype=torch.int64)) == []
        assert search(model, torch.zeros(2, 4, DIM).double(), torch.zeros(2, dtype=torch.int64)) == [[], []]


def test_ctc_removes_repetitions_before_blanks() -> None:
    ids = torch.tensor([[0, 3, 3, 0, 3, 1, 1, 2], [5, 5, 0, 0, 5, 4, 4, 4], [1, 1, 1, 1, 1, 1, 1, 1]])
    scores = nn.functional.one_hot(ids, 6).float()
    head: Any = nn.Identity()
    assert ctc_greedy_search(head, scores, torch.tensor([8, 5, 0])) == [[3, 3, 1, 2], [5, 5], []]


def test_arguments_that_do_not_fit_are_named() -> None:
    model = make_model(5, 2, 0)
    frames, lengths = make_frames([4], 0)
    with pytest.raises(ValueError, match="beam is 0"):
        modified_beam_search(model, frames, lengths, beam=0)
    with pytest.raises(ValueError, match=r"frame_lengths \(2,\)"):
        greedy_search(model, frames, torch.tensor([4, 4]))
    with pytest.raises(ValueError, match="go up to 5, but there are 4 frames"):
        modified_beam_search(model, frames, torch.tensor([5]))
