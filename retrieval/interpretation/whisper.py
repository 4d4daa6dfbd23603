"""Times of characters and words by the cross-attention of Whisper (Radford et al. 2022).

The decoder of Whisper reads a transcript, and the attention of some heads to the encoder frames is recorded.
The rest is the procedure of :mod:`zipformer.alignment.attention`, which follows Whisper's own word
timestamps. The heads are the ``alignment_heads`` in the generation config of the model, or else all heads in
the upper half of the decoder.

Whisper hears windows of 30 s at 50 frames a second. Only the first ceil(samples / 320) frames belong to the
utterance: attention to the others is dropped and the rest made to sum to 1 again, as if the softmax had seen
these frames only.

All this is tested on small models with random weights, not on the published ones.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lhotse.cut import Cut
from rich.progress import track
from torch import Tensor

from retrieval.embedding.cuts import collate_audio
from retrieval.embedding.huggingface import import_transformers
from retrieval.interpretation.spelling import bytes_of, spell, spells_every_text
from retrieval.interpretation.words import Word
from zipformer.alignment import Segmenter, Span, word_spans
from zipformer.alignment.attention import attention_intervals, upper_half
from zipformer.errors import UserError

logger = logging.getLogger(__name__)


@dataclass
class WhisperConfig:
    """Settings of the Whisper model.

    ``model`` is a name on the Hugging Face Hub (``openai/whisper-small``), downloaded once and cached by
    ``transformers``, or a folder that ``save_pretrained`` of model, feature extractor and tokenizer wrote.
    ``revision`` is a branch, tag or commit on the Hub. ``language`` is a code that the model knows (``zh``,
    ``yue``); null = the language that the model detects in each utterance.
    """

    model: str = ""  # name on the Hub, or a folder that save_pretrained wrote
    revision: str = "main"  # branch, tag or commit on the Hub
    language: str | None = None  # code that the model knows (zh, yue); null = detected by the model

    @property
    def short_name(self) -> str:
        """Name in result folders: ``small`` for ``openai/whisper-small``."""
        return Path(self.model).name.removeprefix("whisper-")


class Whisper:
    """A Whisper model that returns the cross-attention of its decoder.

    Args:
        model: ``WhisperForConditionalGeneration`` with eager attention, the only one that returns weights.
        extractor, tokenizer: feature extractor and tokenizer of the model.
        language: see :class:`WhisperConfig`.
        device: device that computes.
        name: name in error messages.

    Raises:
        UserError: the model does not know the language or lacks an alignment head, or there is no generation
            config of Whisper or no byte-level tokenizer.
    """

    def __init__(
        self,
        model: Any,
        extractor: Any,
        tokenizer: Any,
        *,
        language: str | None = None,
        device: torch.device | str = "cpu",
        name: str = "whisper",
    ) -> None:
        generation = model.generation_config
        self.languages: dict[str, int] = getattr(generation, "lang_to_id", None) or {}  # none: English only
        self.language = None if language is None else f"<|{language}|>"
        if self.language is not None and self.language not in self.languages:
            known = ", ".join(sorted(code.strip("<|>") for code in self.languages)) or "English alone"
            raise UserError(f"whisper.language={language}: {name} knows {known}")
        if not hasattr(generation, "no_timestamps_token_id"):
            raise UserError(
                f"{name} has no no_timestamps_token_id in its generation_config.json: copy that file from the"
                " model that it was made from"
            )
        # If a folder has no tokenizer, transformers makes an empty one.
        if not spells_every_text(tokenizer.get_vocab()):
            raise UserError(
                f"{name} has no byte-level tokenizer: save that of the model that it was made from beside it"
            )
        self.heads: list[list[int]] | None = getattr(generation, "alignment_heads", None)
        layers, width = int(model.config.decoder_layers), int(model.config.decoder_attention_heads)
        for layer, head in self.heads or ():
            if not (0 <= layer < layers and 0 <= head < width):
                raise UserError(
                    f"{name} has alignment_heads=[{layer},{head}] in its generation_config.json, but"
                    f" {layers} layers of {width} heads: remove alignment_heads there"
                )
        self.model, self.device = model.to(device).float().eval(), torch.device(device)
        self.extractor, self.tokenizer = extractor, tokenizer
        self.sampling_rate = int(extractor.sampling_rate)
        self.stride = 2 * int(extractor.hop_length)  # samples in a frame
        self.median_frames = int(model.config.median_filter_width)  # 7

    @torch.inference_mode()
    def attend(self, samples: Tensor, text: str | None) -> tuple[list[bytes], Tensor]:
        """Tokens of a text, or of the recognition result (None), and their attention to the frames.

        Args:
            samples: samples (T,) at ``sampling_rate``, at most a window.
            text: text of the utterance; None to recognise it.

        Returns:
            U pieces of UTF-8, and (heads, U+1, T') the attention when each is predicted, the last row that of
            the end of the text; T' = ceil(T / ``stride``), and every row sums to 1. No pieces: no rows.

        Raises:
            UserError: there are more tokens than the decoder accepts.
        """
        features = self.extractor(
            samples.numpy(), sampling_rate=self.sampling_rate, padding="max_length", return_tensors="pt"
        ).input_features.to(self.device)
        encoded = self.model.get_encoder()(features)
        generation, language = self.model.generation_config, self.language
        if self.languages and language is None:
            found = int(self.model.detect_language(encoder_outputs=encoded)[0])
            language = next(code for code, number in self.languages.items() if number == found)
        prompt = [generation.decoder_start_token_id]
        options = {}
        if language is not None:
            prompt += [self.languages[language], generation.task_to_id["transcribe"]]
            options = {"language": language, "task": "transcribe"}
        prompt.append(generation.no_timestamps_token_id)
        if text is None:
            tokens = self.model.generate(features, return_timestamps=False, **options)[0].tolist()
        else:
            tokens = self.tokenizer(text, add_special_tokens=False).input_ids
        # Tokens that are no text: marks of start, end, languages, times.
        tokens = [token for token in tokens if token not in self.tokenizer.added_tokens_decoder]
        if not tokens:
            return [], torch.empty(0, 0, 0)
        inputs = [*prompt, *tokens]
        longest = int(self.model.config.max_target_positions)
        if len(inputs) > longest:
            raise UserError(f"{len(tokens)} tokens; the decoder takes {longest - len(prompt)}")
        attentions = self.model(
            encoder_outputs=encoded,
            decoder_input_ids=torch.tensor([inputs], device=self.device),
            output_attentions=True,
            use_cache=False,
        ).cross_attentions  # for every layer (1, heads, len(inputs), frames of the window)
        weights = torch.cat(attentions)
        chosen = upper_half(weights)
        if self.heads:
            chosen = torch.stack([weights[layer, head] for layer, head in self.heads])
        # The row of an input predicts the next token: the last row of the prompt predicts the first token.
        chosen = chosen[:, len(prompt) - 1 :, : -(-len(samples) // self.stride)].double()
        chosen = chosen / chosen.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.double).tiny)
        return [bytes_of(piece) for piece in self.tokenizer.convert_ids_to_tokens(tokens)], chosen

    def characters(self, samples: Tensor, text: str | None) -> list[Span]:
        """Spans of the characters in frames of ``stride`` samples; see :meth:`attend`."""
        pieces, weights = self.attend(samples, text)
        if not pieces:
            return []
        return spell(pieces, attention_intervals(weights, median_frames=self.median_frames))


def align_with_whisper(
    whisper: Whisper, cuts: Mapping[str, Cut], *, segment: Segmenter = list, transcript: str = "reference"
) -> Iterator[tuple[str, list[Word]]]:
    """Words of every utterance with their times, one utterance after the other.

    Utterances that are longer than the window, have no text, or a text that is too long for the decoder are
    left out and named in the log.

    Args:
        whisper: aligner.
        cuts: cuts by id, with recordings and one supervision each.
        segment: function that divides a text into words; by default every character is a word.
        transcript: ``reference``, or ``hypothesis`` for the recognition result of Whisper.

    Raises:
        UserError: a cut has no recording, or a recording cannot be read.
    """
    window, seconds = int(whisper.extractor.n_samples), whisper.stride / whisper.sampling_rate  # 30 s, 0.02 s
    left_out: dict[str, list[str]] = {}
    for name, cut in track(cuts.items(), total=len(cuts), description="aligning"):
        if not cut.has_recording:
            raise UserError(
                f"cut {name} has no recording, which aligner=whisper needs: prepare the corpus again, or"
                " choose a head of the model"
            )
        samples = collate_audio([cut], whisper.sampling_rate)[0][0]
        if len(samples) > window:
            reason = f"are longer than the {window / whisper.sampling_rate:g} s that Whisper hears"
            left_out.setdefault(reason, []).append(name)
            continue
        text = (cut.supervisions[0].text or "").strip() if transcript == "reference" else None
        try:
            words = word_spans(whisper.characters(samples, text), segment)
        except ValueError as error:
            left_out.setdefault("cannot be aligned", []).append(f"{name}: {error}")
            continue
        if words:
            yield name, [Word(word.text, word.start * seconds, word.stop * seconds) for word in words]
        else:
            left_out.setdefault("have no text to align", []).append(name)
    for reason, names in left_out.items():
        logger.warning("%d of %d utterances %s: %s", len(names), len(cuts), reason, "; ".join(names[:5]))


def load(config: WhisperConfig, *, device: torch.device | str = "cpu") -> Whisper:
    """The aligner of a model.

    Raises:
        UserError: ``transformers`` is not installed, there is no such model, or no connection and no cached
            copy, the model is of another family, or see :class:`Whisper`.
    """
    transformers = import_transformers("aligner=whisper")
    which = {"pretrained_model_name_or_path": config.model, "revision": config.revision}
    try:
        family = transformers.AutoConfig.from_pretrained(**which).model_type
        if family != "whisper":
            raise UserError(f"it is of the family {family}")
        extractor = transformers.AutoFeatureExtractor.from_pretrained(**which)
        tokenizer = transformers.AutoTokenizer.from_pretrained(**which)
        model = transformers.WhisperForConditionalGeneration.from_pretrained(
            **which, attn_implementation="eager"
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"whisper.model={config.model} cannot be loaded: {error}. Give a name on the Hub and a"
            " connection, or a folder that save_pretrained of a Whisper model, of its feature extractor and"
            " of its tokenizer wrote"
        ) from error
    return Whisper(model, extractor, tokenizer, language=config.language, device=device, name=config.model)
