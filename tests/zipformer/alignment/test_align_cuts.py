"""Alignment of a corpus from its manifest."""

import logging
from pathlib import Path

import pytest
import torch
from small_model import TEXTS, write_cuts, write_model

from zipformer.alignment import align_cuts, check_aligner, token_intervals
from zipformer.alignment.align import TRANSCRIPTS
from zipformer.data.tokenizer import Tokenizer
from zipformer.heads.attention_decoder import AttentionDecoderConfig
from zipformer.model import AsrModel
from zipformer.model_config import AsrModelConfig


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[AsrModel, Tokenizer]:
    directory = tmp_path_factory.mktemp("model")
    base = write_model(directory)
    config = AsrModelConfig(
        **{
            **base.config.__dict__,
            "attention_decoder": AttentionDecoderConfig(2, dim=16, attention_dim=16, num_heads=2),
        }
    )
    torch.manual_seed(1)
    model = AsrModel(config).eval()
    model.load_state_dict(base.state_dict(), strict=False)
    return model, Tokenizer.load(directory)


@pytest.mark.parametrize("aligner", ["attention", "ctc", "transducer"])
def test_every_character_of_every_transcript_has_a_span(
    model: tuple[AsrModel, Tokenizer], tmp_path: Path, aligner: str
) -> None:
    cuts = write_cuts(tmp_path, "test")
    found = {u.id: u for u in align_cuts(*model, cuts, aligner=aligner)}
    assert {name: "".join(word.text for word in u.words) for name, u in found.items()} == {
        f"test-{number}": text for number, text in enumerate(TEXTS)
    }
    for utterance in found.values():
        starts = [word.start for word in utterance.words]
        assert starts == sorted(starts)
        assert utterance.words[-1].stop <= len(utterance.frames)
        assert utterance.frames.shape[1] == 32


def test_batches_of_one_and_many_align_alike(model: tuple[AsrModel, Tokenizer], tmp_path: Path) -> None:
    cuts = write_cuts(tmp_path, "test")
    one, many = (
        {u.id: u.words for u in align_cuts(*model, cuts, aligner="ctc", max_duration=seconds)}
        for seconds in (0.5, 100.0)
    )
    assert one == many


def test_hypotheses_are_aligned_as_well(model: tuple[AsrModel, Tokenizer], tmp_path: Path) -> None:
    cuts = write_cuts(tmp_path, "test")
    found = list(align_cuts(*model, cuts, aligner="transducer", transcript=TRANSCRIPTS[1]))
    assert found
    assert any("".join(word.text for word in u.words) not in TEXTS for u in found)


def test_what_does_not_fit_is_named(
    model: tuple[AsrModel, Tokenizer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cuts = write_cuts(tmp_path, "test", frames=(16, 97))  # two encoder frames for five characters
    with caplog.at_level(logging.WARNING):
        found = list(align_cuts(*model, cuts, aligner="ctc"))
    assert [u.id for u in found] == ["test-1"]
    assert "1 of 2 utterances cannot be aligned: test-0: 5 tokens need" in caplog.text


def test_an_even_filter_is_an_error_and_not_a_misfit(
    model: tuple[AsrModel, Tokenizer], tmp_path: Path
) -> None:
    cuts = write_cuts(tmp_path, "test")
    with pytest.raises(ValueError, match="median_frames=2 must be odd"):
        list(align_cuts(*model, cuts, aligner="attention", median_frames=2))


def test_a_missing_head_names_the_others(tmp_path: Path) -> None:
    model = write_model(tmp_path, ctc=False)
    with pytest.raises(
        ValueError, match=r"aligner=ctc needs .* model\.ctc=true; this one has aligner=transducer"
    ):
        check_aligner(model, "ctc")
    with pytest.raises(ValueError, match="aligner=viterbi is not known"):
        token_intervals(model, torch.zeros(5, 32), [300], "viterbi")
