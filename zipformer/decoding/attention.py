"""Greedy search with the attention decoder: the best token after each prefix, until the end of the text."""

from functools import partial

import torch
from torch import Tensor

from zipformer.data.tokenizer import SOS_EOS
from zipformer.decoding.frames import check_frames
from zipformer.decoding.methods import DecodeConfig, Search, decoding_method
from zipformer.errors import UserError
from zipformer.heads.attention_decoder import AttentionDecoder


@torch.no_grad()
def attention_greedy_search(
    decoder: AttentionDecoder, frames: Tensor, frame_lengths: Tensor, *, translate: bool = False
) -> list[list[int]]:
    """Greedy search token by token, for all utterances at once.

    An utterance ends with ``SOS_EOS``, or when it has as many tokens as frames. The transducer searches have
    the same limit, and a decoder that repeats itself would never end.

    Args:
        decoder: the attention decoder, in evaluation mode.
        frames: encoder output (N, T, D).
        frame_lengths: number of frames of each utterance, (N,) int64.
        translate: write the translation instead of the transcript.
    Returns:
        Token ids of each utterance, without ``SOS_EOS``.
    Raises:
        UserError: ``translate`` is set and the decoder has not learnt to translate.
        ValueError: the shapes do not fit together.
    """
    if translate and decoder.translation_start is None:
        raise UserError(
            "the attention decoder has not learnt to translate; search with translate=False, or train with"
            " model.attention_decoder.translation=true"
        )
    check_frames(frames, frame_lengths)
    limits: list[int] = frame_lengths.tolist()
    hypotheses: list[list[int]] = [[] for _ in limits]
    going = [utterance for utterance, limit in enumerate(limits) if limit > 0]
    rows = torch.tensor(going, dtype=torch.int64, device=frames.device)
    prefixes = decoder.begin(frames[rows], frame_lengths.to(frames.device)[rows], translate=translate)
    tokens = torch.full_like(rows, SOS_EOS)
    while going:
        tokens = decoder.step(prefixes, tokens).argmax(dim=-1)
        places = []  # utterances that continue
        for place, (utterance, token) in enumerate(zip(going, tokens.tolist(), strict=True)):
            if token != SOS_EOS:
                hypotheses[utterance].append(token)
                if len(hypotheses[utterance]) < limits[utterance]:
                    places.append(place)
        if len(places) < len(going):
            rows = torch.tensor(places, dtype=torch.int64, device=frames.device)
            prefixes.keep(rows)
            tokens = tokens[rows]
            going = [going[place] for place in places]
    return hypotheses


@decoding_method("attention", AttentionDecoder)
def _attention(decoder: AttentionDecoder, config: DecodeConfig) -> Search:
    if config.blank_penalty or config.skip_unknown:
        raise UserError("method=attention knows no blank_penalty and no skip_unknown: leave them out")
    translate = config.reference == "translation"
    if translate and decoder.translation_start is None:
        raise UserError(
            "method=attention with reference=translation needs a model with "
            "model.attention_decoder.translation=true; use reference=text"
        )
    return partial(attention_greedy_search, decoder, translate=translate)
