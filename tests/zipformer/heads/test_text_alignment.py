"""Text alignment: the loss against its definition in float64; the head in the model, in training, on disk."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lhotse import CutSet
from processes import in_processes, whole_batch
from tiny_corpus import tiny_model_config, write_tiny_corpus
from torch import Tensor
from training_runs import ALONE, assert_same_run, config_for, records, trained

from zipformer.data.batches import Batch
from zipformer.distributed import World
from zipformer.errors import UserError
from zipformer.heads.attention_decoder import AttentionDecoder
from zipformer.heads.sentence_encoders import TeacherConfig
from zipformer.heads.text_alignment import TextAlignment, TextAlignmentConfig
from zipformer.model import AsrModel
from zipformer.tasks.recognition import Recognition, RecognitionConfig
from zipformer.training.trainer import Trainer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny corpus, where two dialects say every sentence."""
    directory = write_tiny_corpus(tmp_path_factory.mktemp("corpus"))
    for split in ("train", "valid"):
        cuts = list(CutSet.from_file(directory / f"cuts_{split}.jsonl.gz"))
        for index, cut in enumerate(cuts):
            cut.supervisions[0].custom = {"translation": cuts[index // 2 * 2].supervisions[0].text}
        CutSet.from_cuts(cuts).to_file(directory / f"cuts_{split}.jsonl.gz")
    return directory


def head_and_batch() -> tuple[TextAlignment, Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    head = TextAlignment(TextAlignmentConfig(True, text_dim=6, temperature=4.0, bias=-2.0), 5).eval()
    frames = torch.randn(4, 7, 5, requires_grad=True)
    return head, frames, torch.tensor([7, 3, 1, 5]), torch.randn(3, 6), torch.tensor([0, 2, 1, 2])


def siglip_by_definition(
    head: TextAlignment, frames: Tensor, lengths: Tensor, sentences: Tensor, spoken: Tensor
) -> Tensor:
    """Pair by pair, from the text of Zhai et al. (2023)."""
    loss = torch.zeros((), dtype=torch.float64)
    for i, length in enumerate(lengths.tolist()):
        x = head.projection.weight @ frames[i, :length].mean(0) + head.projection.bias
        for m, sentence in enumerate(sentences):
            cosine = x @ sentence / (x.norm() * sentence.norm())
            z = head.log_temperature.exp() * cosine + head.bias
            label = 1 if spoken[i] == m else -1
            loss = loss - torch.log(1 / (1 + torch.exp(-label * z)))
    return loss


def test_loss_and_gradients_are_those_of_the_definition() -> None:
    head, frames, lengths, sentences, spoken = head_and_batch()
    found = head.loss(frames, lengths, sentences, spoken)
    gradients = torch.autograd.grad(found, [frames, *head.parameters()])
    exact, exact_frames = copy.deepcopy(head).double(), frames.detach().double().requires_grad_()
    expected = siglip_by_definition(exact, exact_frames, lengths, sentences.double(), spoken)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    exact_gradients = torch.autograd.grad(expected, [exact_frames, *exact.parameters()])
    for one, two in zip(gradients, exact_gradients, strict=True):
        torch.testing.assert_close(one.double(), two, rtol=1e-5, atol=1e-6)


def test_what_follows_an_utterance_does_not_count() -> None:
    head, frames, lengths, sentences, spoken = head_and_batch()
    expected = head.loss(frames, lengths, sentences, spoken)
    spoilt = frames.detach().clone()
    for row, length in zip(spoilt, lengths.tolist(), strict=True):
        row[length:] = torch.nan
    torch.testing.assert_close(head.loss(spoilt, lengths, sentences, spoken), expected)


def test_the_first_steps_are_not_about_the_many_wrong_pairs() -> None:
    head = TextAlignment(TextAlignmentConfig(True, text_dim=6), 5)
    assert head.log_temperature.exp().item() == pytest.approx(10)
    orthogonal = math.log1p(math.exp(-10.0))  # of a pair that does not belong together, with cosine 0
    assert 100 * orthogonal < 0.01 * -math.log(1 / (1 + math.exp(10.0)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0 must be positive"),
        ({"dropout": 1.0}, "dropout=1.0 is not in"),
        ({"bias": -11.0}, "bias=-11.0 is not in"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextAlignmentConfig(**settings)  # type: ignore[arg-type]


def test_a_head_without_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match="text_dim=0; set it"):
        TextAlignment(TextAlignmentConfig(enabled=True), 5)


def model_with_both() -> AsrModel:
    config = tiny_model_config(11)
    config.text_alignment = TextAlignmentConfig(enabled=True, text_dim=6)
    config.attention_decoder.translation = True
    return AsrModel(config)


FEATURES, LENGTHS = torch.randn(2, 90, 80, generator=torch.Generator().manual_seed(0)), torch.tensor([90, 70])
TOKENS, TRANSLATIONS = [[3, 5, 4], [8, 2]], [[3, 6], [9, 2, 2]]
SENTENCES, SPOKEN = torch.eye(6)[:2], torch.tensor([0, 1])


@pytest.mark.parametrize(
    "only",
    [
        None,
        ["ctc"],
        ["attention"],
        ["translation"],
        ["text_alignment"],
        ["attention", "text_alignment"],
    ],
)
def test_every_parameter_has_a_gradient_whatever_is_trained(only: list[str] | None) -> None:
    torch.manual_seed(1)
    model = model_with_both().train()
    losses = model.losses(
        FEATURES,
        LENGTHS,
        TOKENS,
        translations=TRANSLATIONS,
        sentences=SENTENCES,
        spoken=SPOKEN,
        only=only,
    )
    everything = {"simple", "pruned", "ctc", "attention", "translation", "text_alignment"}
    assert set(losses) == (everything if only is None else set(only))
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        assert parameter.grad.isfinite().all(), name
    used = model.head(TextAlignment).projection.weight.grad.any()
    assert bool(used) == (only is None or "text_alignment" in only)
    used = model.head(AttentionDecoder).translation_start.grad.any()
    assert bool(used) == (only is None or "translation" in only)


def test_without_sentences_and_translations_these_losses_are_left_out() -> None:
    losses = model_with_both().losses(FEATURES, LENGTHS, TOKENS)
    assert set(losses) == {"simple", "pruned", "ctc", "attention"}


def test_heads_that_are_off_change_nothing() -> None:
    torch.manual_seed(2)
    plain = AsrModel(tiny_model_config(11)).eval()
    names = plain.state_dict().keys()
    assert not any("text_alignment" in name or "translation" in name for name in names)
    both = model_with_both().eval()
    both.load_state_dict(plain.state_dict(), strict=False)
    expected, found = (model.losses(FEATURES, LENGTHS, TOKENS) for model in (plain, both))
    assert all(torch.equal(found[name], loss) for name, loss in expected.items())


def test_the_head_is_saved_and_read_back(tmp_path: Path) -> None:
    model = model_with_both().eval()
    model.save_pretrained(tmp_path)
    again = AsrModel.from_pretrained(tmp_path)
    assert again.config == model.config
    assert all(torch.equal(again.state_dict()[name], t) for name, t in model.state_dict().items())


def aligned(corpus: Path, exp_dir: Path, **settings: object) -> RecognitionConfig:
    config = config_for(corpus, exp_dir, **settings)
    config.model.text_alignment = TextAlignmentConfig(enabled=True)
    config.model.attention_decoder.translation = True
    config.teacher = TeacherConfig(ngram_dim=16)
    return config


def test_training_brings_utterances_to_their_sentences(corpus: Path, tmp_path: Path) -> None:
    config = aligned(corpus, tmp_path, max_steps=60)
    config.loss = replace(config.loss, text_alignment=5.0)
    config.optim = replace(config.optim, warmup_batches=5.0)
    trainer = trained(config)
    lines = records(tmp_path, "train")
    for name in ("text_alignment", "translation"):
        values = [line[name] for line in lines]
        assert sum(values[-8:]) < 0.8 * sum(values[:8]), name
    assert trainer.task.model.config.text_alignment.text_dim == 16
    first = lines[0]
    weights = {"simple": 1.0, "pruned": 0.1, "ctc": 0.2, "attention": 0.8}
    weights |= {"translation": 0.8, "text_alignment": 5.0}
    expected = sum(weight * first[name] for name, weight in weights.items())
    assert first["loss"] == pytest.approx(expected, rel=1e-5)


def test_stopping_and_going_on_changes_nothing_with_a_teacher(corpus: Path, tmp_path: Path) -> None:
    trained(aligned(corpus, tmp_path / "straight", max_steps=6))
    trained(aligned(corpus, tmp_path / "broken", max_steps=3))
    trained(aligned(corpus, tmp_path / "broken", max_steps=6))
    assert_same_run(tmp_path / "straight", tmp_path / "broken")


def test_wrong_dimensions_and_missing_sentences_are_named(corpus: Path, tmp_path: Path) -> None:
    config = aligned(corpus, tmp_path, max_steps=1)
    config.model.text_alignment.text_dim = 7
    with pytest.raises(UserError, match="text_dim=7, but the text encoder has 16 dimensions"):
        Trainer(config, ALONE, Recognition)
    config = aligned(corpus, tmp_path, max_steps=1)
    config.teacher.field = "english"
    with pytest.raises(ValueError, match="has no 'english': train on a corpus"):
        Trainer(config, ALONE, Recognition).run()


def alignment_gradients(corpus: Path, exp_dir: Path, world: World, share: slice) -> dict[str, Tensor]:
    """Gradients of the alignment loss alone for a share of one batch; nothing is drawn."""
    config = aligned(corpus, exp_dir, max_steps=1)
    names = ("simple_start", "pruned_start", "ctc", "attention", "translation")
    config.loss = replace(config.loss, **dict.fromkeys(names, 0.0))
    trainer = Trainer(config, world, Recognition)
    trainer.task.model.eval()
    batch = whole_batch(corpus)
    trainer._backward(
        Batch(
            batch.features[share],
            batch.lengths[share],
            batch.tokens[share],
            batch.ids[share],
            batch.supervisions[share],
        )
    )
    return {name: p.grad for name, p in trainer.task.model.named_parameters() if p.grad is not None}


def _save_gradients(rank: int, corpus: Path, exp_dir: Path) -> None:
    world = World.join("cpu")
    found = alignment_gradients(corpus, exp_dir, world, slice(rank, None, 2))
    torch.save(found, exp_dir / f"gradients-{rank}.pt")
    world.leave()


def test_processes_add_up_what_they_ask_in_their_own_batches(corpus: Path, tmp_path: Path) -> None:
    in_processes(_save_gradients, corpus, tmp_path)
    shares = [
        alignment_gradients(corpus, tmp_path / str(rank), ALONE, slice(rank, None, 2)) for rank in range(2)
    ]
    largest = max(float(gradient.abs().max()) for gradient in shares[0].values())
    for rank in range(2):
        found = torch.load(tmp_path / f"gradients-{rank}.pt")
        for name, gradient in found.items():
            expected = shares[0][name] + shares[1][name]
            torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5 * largest, msg=name)
