"""Search with the attention decoder against the whole decoder on every prefix of one utterance alone."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zipformer.data.tokenizer import SOS_EOS
from zipformer.decoding import attention_greedy_search
from zipformer.heads.attention_decoder import AttentionDecoder, AttentionDecoderConfig

DIM, VOCAB = 8, 6


def make_decoder(seed: int) -> Any:
    """A decoder with random parameters, in float64 so that no two ways round to different winners."""
    torch.manual_seed(seed)
    config = AttentionDecoderConfig(
        num_layers=2, dim=12, attention_dim=8, num_heads=2, feedforward_dim=16, translation=True
    )
    decoder = AttentionDecoder(config, VOCAB, memory_dim=DIM)
    for name, parameter in decoder.named_parameters():
        if not name.endswith("bias") and "norm" not in name:
            nn.init.normal_(parameter, std=0.7)
    return decoder.double().eval()


def make_frames(lengths: list[int], seed: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    frames = 2 * torch.randn(len(lengths), max(lengths, default=0), DIM, generator=random).double()
    return frames, torch.tensor(lengths, dtype=torch.int64)


@torch.no_grad()
def search_alone(decoder: AttentionDecoder, frames: Tensor, *, translate: bool) -> list[int]:
    """The whole prefix again for every token of one utterance, frames (T, D) without padding."""
    tokens: list[int] = []
    while len(tokens) < len(frames):
        logits = decoder.logits(
            frames[None], torch.tensor([len(frames)]), torch.tensor([[SOS_EOS, *tokens]]), translate=translate
        )
        best = int(logits[0, -1].argmax())
        if best == SOS_EOS:
            break
        tokens.append(best)
    return tokens


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=0, max_size=5), st.booleans(), st.integers(0, 99))
def test_a_batch_gives_what_each_utterance_gives_alone_prefix_by_prefix(
    lengths: list[int], translate: bool, seed: int
) -> None:
    decoder = make_decoder(seed)
    frames, frame_lengths = make_frames(lengths, seed)
    for row, length in zip(frames, lengths, strict=True):
        row[length:] = 1e3  # padding that would be noticed
    expected = [
        search_alone(decoder, frames[n, :length], translate=translate) for n, length in enumerate(lengths)
    ]
    assert attention_greedy_search(decoder, frames, frame_lengths, translate=translate) == expected


def test_the_random_decoders_end_by_themselves_and_by_the_limit() -> None:
    ended, limited, differing = 0, 0, 0
    for seed in range(12):
        decoder = make_decoder(seed)
        frames, lengths = make_frames([12] * 4, seed)
        found = attention_greedy_search(decoder, frames, lengths)
        ended += sum(0 < len(tokens) < 12 for tokens in found)
        limited += sum(len(tokens) == 12 for tokens in found)
        differing += found != attention_greedy_search(decoder, frames, lengths, translate=True)
    assert min(ended, limited, differing) >= 3, "the comparison above would prove little"


def test_each_step_is_the_last_row_of_the_whole_prefix() -> None:
    decoder = make_decoder(0)
    frames, lengths = make_frames([9, 5, 7], 0)
    tokens = torch.randint(2, VOCAB, (3, 6), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = SOS_EOS
    kept = torch.tensor([2, 0])
    for translate in (False, True):
        whole = decoder.logits(frames, lengths, tokens, translate=translate)
        prefixes = decoder.begin(frames, lengths, translate=translate)
        for place in range(3):
            torch.testing.assert_close(decoder.step(prefixes, tokens[:, place]), whole[:, place])
        prefixes.keep(kept)
        for place in range(3, 6):
            torch.testing.assert_close(decoder.step(prefixes, tokens[kept, place]), whole[kept, place])


def plant(decoder: AttentionDecoder, following: dict[int, int]) -> None:
    """Make the decoder say ``following[token]`` after a token, whatever else there is."""
    with torch.no_grad():
        for layer in decoder.layers:
            for name, parameter in layer.named_parameters():  # type: ignore[union-attr]
                if name.startswith(("self_attn.out_proj", "src_attn.out_proj", "feed_forward.3")):
                    parameter.zero_()
        decoder.embed.weight.copy_(10 * torch.eye(VOCAB, 12))
        decoder.output_layer.weight.zero_()
        decoder.output_layer.bias.zero_()
        for token, after in following.items():
            decoder.output_layer.weight[after, token] = 10.0


def test_every_utterance_stops_at_the_end_token_or_after_as_many_tokens_as_frames() -> None:
    decoder = make_decoder(0)
    frames, lengths = make_frames([5, 0, 2, 9], 0)
    plant(decoder, {SOS_EOS: 3, 3: 4, 4: 2, 2: SOS_EOS})
    assert attention_greedy_search(decoder, frames, lengths) == [[3, 4, 2], [], [3, 4], [3, 4, 2]]
    plant(decoder, {SOS_EOS: 3, 3: 4, 4: 3})  # never ends by itself
    assert attention_greedy_search(decoder, frames, lengths) == [
        [3, 4, 3, 4, 3],
        [],
        [3, 4],
        [3, 4, 3, 4, 3, 4, 3, 4, 3],
    ]
    plant(decoder, {SOS_EOS: SOS_EOS})
    assert attention_greedy_search(decoder, frames, lengths) == [[], [], [], []]


def test_a_decoder_that_has_learnt_texts_and_translations_writes_them() -> None:
    torch.manual_seed(0)
    config = AttentionDecoderConfig(
        num_layers=1, dim=16, attention_dim=16, num_heads=2, feedforward_dim=32, dropout=0.0, translation=True
    )
    decoder = AttentionDecoder(config, VOCAB, memory_dim=DIM)
    frames, lengths = make_frames([9, 6, 7], 3)
    frames = frames.float()
    texts = [[3, 5, 2, 2], [4], [5, 5, 3]]
    translations = [[2, 4], [3, 3, 5], []]
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.03)
    for _ in range(60):
        loss = decoder.loss(frames, lengths, texts) + decoder.loss(
            frames, lengths, translations, translate=True
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    decoder.eval()
    assert attention_greedy_search(decoder, frames, lengths) == texts
    assert attention_greedy_search(decoder, frames, lengths, translate=True) == translations


def test_what_the_model_or_the_shapes_lack_is_an_error() -> None:
    decoder = make_decoder(0)
    frames, lengths = make_frames([4, 3], 0)
    with pytest.raises(ValueError, match="frame_lengths go up to 5"):
        attention_greedy_search(decoder, frames, lengths + 1)
    decoder.translation_start = None
    with pytest.raises(ValueError, match=r"not learnt to translate.*attention_decoder\.translation=true"):
        attention_greedy_search(decoder, frames, lengths, translate=True)
